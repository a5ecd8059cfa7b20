"""Guests of our own that are no tests (``images/unix``), built with the host's gcc and kept in pvstub's cache."""

from __future__ import annotations

from pathlib import Path

from .programs import compiled
from .small_guests import FREESTANDING, OF_WIDTH, freestanding

UNIX = Path(__file__).resolve().parent.parent / "images" / "unix"


def unix(bits: int = 64) -> Path:
    """The Solaris-like kernel, of 64 bits or 32; ``images/unix/README.md`` has its story. UsageError without gcc."""
    parts = [
        compiled(f"unix-{part}.o", ("gcc", *OF_WIDTH[bits], *FREESTANDING, "-c", str(UNIX / f"{part}.c")), [UNIX])
        for part in ("kernel", "dboot")
    ]
    return freestanding(f"unix{bits}", [UNIX / f"start{bits}.S", *parts], (), UNIX / f"unix{bits}.ld", bits)
