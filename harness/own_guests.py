"""Guests of our own that are no tests (``images/unix``), built with the host's gcc and kept in pvstub's cache."""

from __future__ import annotations

from pathlib import Path

from .programs import compiled
from .small_guests import FREESTANDING, OF_WIDTH, freestanding

UNIX = Path(__file__).resolve().parent.parent / "images" / "unix"


def unix() -> Path:
    """The Solaris-like kernel, 64-bit; ``images/unix/README.md`` has its story. UsageError without gcc."""
    parts = [
        compiled(f"unix-{part}.o", ("gcc", *OF_WIDTH[64], *FREESTANDING, "-c", str(UNIX / f"{part}.c")), [UNIX])
        for part in ("kernel", "dboot")
    ]
    return freestanding("unix64", [UNIX / "start64.S", *parts], (), UNIX / "unix64.ld")
