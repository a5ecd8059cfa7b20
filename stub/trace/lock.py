"""Whether a run still writes its log: a lock on the open file, which the kernel drops when the writer is gone.

Open-file-description locks (fcntl(2)): unlike flock's they can be asked about without being taken, and unlike the
process's own they outlast a reader in the writer's process that closes the same file.
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Final

_FLOCK: Final = struct.Struct("@hhqqi0q")
"""struct flock: type, whence, start, length (0: to the end), pid (0 for this kind of lock)."""

_WHOLE_FILE: Final = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


def take(fd: int) -> bool:
    """Lock the file for as long as ``fd`` is open; false where another holds it."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _WHOLE_FILE)
    except (BlockingIOError, PermissionError):
        return False
    return True


def taken(fd: int) -> bool:
    """Whether someone else holds the file that ``fd`` has open."""
    answer: bytes = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _WHOLE_FILE)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
