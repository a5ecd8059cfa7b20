"""The Python script for gdb itself: not imported, but sourced in gdb, which brings its own Python."""

from __future__ import annotations

from pathlib import Path
from typing import Final

PATH: Final = Path(__file__).with_name("pvstub_gdb.py")
"""What to ``source``."""
