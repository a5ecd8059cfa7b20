"""Decompressed kernels kept between runs: a boot must not spend two seconds on xz each time.

One file an entry, named by the SHA-256 of the kernel file: the payload, then a trailer with its length and CRC. An
entry is written beside its name and renamed, so any number of runs may share a folder. One that is damaged is as good
as missing. (A CRC, because it is there against accidents and takes a fifth of the time of a hash.)
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path

TRAILER = struct.Struct("<8sQII")
MAGIC = b"pvstub01"


def lookup(folder: Path, name: str) -> memoryview | None:
    """The payload kept under ``name``, mapped; None when there is none or it is damaged."""
    try:
        with open(folder / f"{name}.payload", "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= TRAILER.size:
                return None
            view = memoryview(mmap.mmap(file.fileno(), size, mmap.MAP_SHARED | mmap.MAP_POPULATE, mmap.PROT_READ))
    except (OSError, ValueError):
        return None
    payload = view[: -TRAILER.size]
    magic, length, crc, _ = TRAILER.unpack(view[-TRAILER.size :])
    return payload if magic == MAGIC and length == len(payload) and crc == zlib.crc32(payload) else None


def keep(folder: Path, name: str, payload: bytes | memoryview) -> None:
    """Keeps ``payload``. A folder that cannot be written is no fault: the next run decompresses again."""
    import tempfile  # slow to import, and seldom needed

    temporary: str | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
        with open(handle, "wb") as file:
            file.write(payload)
            file.write(TRAILER.pack(MAGIC, len(payload), zlib.crc32(payload), 0))
        os.replace(temporary, folder / f"{name}.payload")
    except OSError:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)
