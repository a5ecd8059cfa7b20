"""A disk's content on the host: raw files, sparse or not, and block devices. Bytes go between them and RAM directly."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from stub.errors import ConfigError

SECTOR = 512  # bytes; the unit of all block requests
MAX_SIZE = 64 << 40  # bytes
Pieces = Sequence[memoryview]
"""Parts of RAM, in the order of the disk's bytes that they hold or get."""


class Image(Protocol):
    """What a back end asks of a disk. Positions and lengths are bytes, whole sectors, inside ``size``.

    OSError from any of them is an I/O error of the disk's, which the guest is told.
    """

    @property
    def size(self) -> int:
        """Bytes, a whole number of sectors."""

    @property
    def can_discard(self) -> bool:
        """Whether :meth:`discard` does anything."""

    def read(self, position: int, into: Pieces) -> None:
        """Fill the pieces with what is there."""

    def write(self, position: int, data: Pieces) -> None:
        """Put the pieces there."""

    def flush(self) -> None:
        """Have everything that was written survive the host."""

    def discard(self, position: int, length: int) -> None:
        """The guest does not need these bytes any more; they read as zeros."""

    def close(self) -> None:
        """Let go of the host's files; whatever else, nothing may be asked afterwards."""


class RawImage:
    """A file or block device as it is; what its last sector lacks is left out. ConfigError when it cannot be had."""

    can_discard = False  # holes cannot be made in every file

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        self.path, self.writable = path, writable
        try:
            self._fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            how = "written" if writable else "read"
            raise ConfigError(f"{path}: the disk cannot be {how}: {error.strerror}; name another file") from error
        try:
            self._lock()
            self.size = self._measure()
        except BaseException:
            self.close()
            raise

    def _lock(self) -> None:
        """Many may read a disk, or one may write it: what a guest reads must not change behind its back."""
        try:
            fcntl.flock(self._fd, (fcntl.LOCK_EX if self.writable else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            how = "used" if self.writable else "written"
            raise ConfigError(f"{self.path}: the disk is being {how} by another run; wait for its end") from None

    def _measure(self) -> int:
        kind = os.fstat(self._fd).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISBLK(kind)):
            raise ConfigError(f"{self.path}: a disk is a file or a block device; name one")
        size = os.lseek(self._fd, 0, os.SEEK_END)
        if size > MAX_SIZE:
            raise ConfigError(
                f"{self.path}: disks of more than {MAX_SIZE >> 40} TiB are not supported; use a smaller one"
            )
        return size - size % SECTOR

    def read(self, position: int, into: Pieces) -> None:
        """As :class:`Image`."""
        move_all(os.preadv, self._fd, into, position)

    def write(self, position: int, data: Pieces) -> None:
        """As :class:`Image`."""
        move_all(os.pwritev, self._fd, data, position)

    def flush(self) -> None:
        """As :class:`Image`."""
        if self.writable:
            os.fdatasync(self._fd)

    def discard(self, position: int, length: int) -> None:
        """Not done: see ``can_discard``."""
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def close(self) -> None:
        """As :class:`Image`."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class NoDisc:
    """An empty CD drive: no sectors at all."""

    size = 0
    can_discard = False

    def read(self, position: int, into: Pieces) -> None:
        """There is nothing to read."""
        raise OSError(errno.ENOMEDIUM, os.strerror(errno.ENOMEDIUM))

    def write(self, position: int, data: Pieces) -> None:
        """There is nothing to write to."""
        raise OSError(errno.ENOMEDIUM, os.strerror(errno.ENOMEDIUM))

    def flush(self) -> None:
        """Nothing was written."""

    def discard(self, position: int, length: int) -> None:
        """There is nothing to discard."""
        raise OSError(errno.ENOMEDIUM, os.strerror(errno.ENOMEDIUM))

    def close(self) -> None:
        """There is nothing to let go of."""


Transfer = Callable[[int, Pieces, int], int]
"""os.preadv or os.pwritev."""
_MOST_PIECES = 512  # below IOV_MAX


def move_all(transfer: Transfer, fd: int, pieces: Pieces, position: int) -> None:
    """Move all of the pieces. OSError for what the host refuses, and for a file that has become shorter."""
    left = list(pieces)
    while left:
        moved = transfer(fd, left[:_MOST_PIECES], position)
        if moved <= 0:
            raise OSError(errno.EIO, "the file ends before the disk does")
        position += moved
        while left and moved >= len(left[0]):
            moved -= len(left.pop(0))
        if moved:
            left[0] = left[0][moved:]
