"""Guests of our own that are no tests (``images/unix``), built with the host's gcc and kept in pvstub's cache."""

from __future__ import annotations

from pathlib import Path

from .images_folder import images_folder
from .programs import compiled, digest
from .small_guests import FREESTANDING, OF_WIDTH, freestanding

UNIX = images_folder() / "unix"


def sources() -> str:
    """Changes with what they are made from."""
    return digest([UNIX])


def unix(bits: int = 64) -> Path:
    """The Solaris-like kernel, of 64 bits or 32; ``images/unix/README.md`` has its story. UsageError without gcc."""
    parts = [
        compiled(f"unix-{part}.o", ("gcc", *OF_WIDTH[bits], *FREESTANDING, "-c", str(UNIX / f"{part}.c")), [UNIX])
        for part in ("kernel", "dboot")
    ]
    return freestanding(f"unix{bits}", [UNIX / f"start{bits}.S", *parts], (), UNIX / f"unix{bits}.ld", bits)
