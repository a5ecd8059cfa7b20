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

    ``bytes`` is the whole as a byte view, ``words`` as little-endian 64-bit words (8-byte index), ``pages`` as a
    numpy array of shape (frames, 4096), ``table`` as one of shape (frames, 512) of 64-bit entries. All are views.
    """

    def __init__(self, frames: int) -> None:
        self.frames = frames
        try:
            self.map = mmap.mmap(
                -1, frames * PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
            )
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"cannot reserve {frames * PAGE_SIZE // MIB} MiB for guest memory: {error}; use less memory"
            ) from error
        self.bytes = memoryview(self.map)
        self.words = self.bytes.cast("Q")
        self.pages: npt.NDArray[np.uint8] = np.frombuffer(self.map, dtype=np.uint8).reshape(frames, PAGE_SIZE)
        self.table: npt.NDArray[np.uint64] = np.frombuffer(self.map, dtype=np.uint64).reshape(frames, PAGE_SIZE // 8)

    def discard(self) -> None:
        """Give the memory back to the host; the views stay and read as zeros."""
        self.map.madvise(mmap.MADV_DONTNEED)
