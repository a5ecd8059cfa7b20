"""Machine memory: one buffer that engine and hypervisor share, and three ways to look at it."""

from __future__ import annotations

import mmap
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy would start threads that nothing here uses

import numpy as np
import numpy.typing as npt

from stub.errors import ConfigError
from stub.units import MIB, PAGE_SIZE


class Ram:
    """``frames`` 4 KiB frames, untouched until used.

    With ``hidden`` there are so many frames more, an engine's own, which only ``map`` reaches, and the memory is a file
    without a name, ``file``, that another process can map, too.

    ``bytes`` is the whole as a byte view, ``words`` as little-endian 64-bit words (8-byte index), ``pages`` as a
    numpy array of shape (frames, 4096), ``table`` as one of shape (frames, 512) of 64-bit entries. All are views.
    """

    def __init__(self, frames: int, hidden: int = 0) -> None:
        self.frames = frames
        self.hidden = hidden + (frames + hidden) % 2 if hidden else 0  # QEMU counts memory in pieces of 8 KiB
        self.file = -1
        try:
            self.map = self._share((frames + self.hidden) * PAGE_SIZE) if hidden else _private(frames * PAGE_SIZE)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"cannot reserve {frames * PAGE_SIZE // MIB} MiB for guest memory: {error}; use less memory"
            ) from error
        self.bytes = memoryview(self.map)[: frames * PAGE_SIZE]
        self.words = self.bytes.cast("Q")
        self.pages: npt.NDArray[np.uint8] = np.frombuffer(self.bytes, dtype=np.uint8).reshape(frames, PAGE_SIZE)
        self.table: npt.NDArray[np.uint64] = np.frombuffer(self.bytes, dtype=np.uint64).reshape(frames, PAGE_SIZE // 8)

    def _share(self, size: int) -> mmap.mmap:
        self.file = os.memfd_create("pvstub")
        os.truncate(self.file, size)
        return mmap.mmap(self.file, size)

    def discard(self) -> None:
        """Give the guest's memory back to the host; the views stay and read as zeros."""
        if self.file < 0:
            self.map.madvise(mmap.MADV_DONTNEED)
            return
        self.map.madvise(mmap.MADV_REMOVE, 0, self.frames * PAGE_SIZE)
        os.close(self.file)
        self.file = -1


def _private(size: int) -> mmap.mmap:
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0))
