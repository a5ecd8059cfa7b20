"""The frame table: for each machine frame its owner, type and counts (Xen's struct page_info).

Types and counts follow Xen (asm-x86/mm.h, PGT_*): a frame has one type at a time while its type count is above
zero; references keep it owned. Arrays are indexed by MFN; the numpy views share their memory.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

# Owners
FREE, GUEST, XEN = 0, 1, 2

# Types. L1 to L4 are their own levels.
NONE, L1, L2, L3, L4, SEG_DESC, WRITABLE = 0, 1, 2, 3, 4, 5, 7
TYPE_NAMES = {NONE: "none", L1: "l1", L2: "l2", L3: "l3", L4: "l4", SEG_DESC: "seg_desc", WRITABLE: "writable"}

INVALID_M2P_ENTRY = (1 << 64) - 1

# Flags. XEN_L2: an l2 with Xen's part of a 32-bit guest's address space (PGT_pae_xen_l2)
PINNED, ALLOCATED, XEN_HEAP, XEN_L2 = 1, 2, 4, 8


class FrameTable:
    """Owner, type, type count, reference count and flags of ``frames`` machine frames, all free at first."""

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.owner = bytearray(frames)
        self.type = bytearray(frames)
        self.flags = bytearray(frames)
        self.type_count = array("i", bytes(4 * frames))
        self.refs = array("i", bytes(4 * frames))
        self.free: dict[int, None] = {}  # in the order in which they became free
        self.m2p: npt.NDArray[np.uint64] | None = None
        """The machine-to-physical table, once there is one: a frame that becomes free has no PFN any more."""
        self.compat_m2p: npt.NDArray[np.uint32] | None = None
        """The same in the 32-bit guest's form, where there is one."""
        self.np_owner: npt.NDArray[np.uint8] = np.frombuffer(self.owner, dtype=np.uint8)
        self.np_type: npt.NDArray[np.uint8] = np.frombuffer(self.type, dtype=np.uint8)
        self.np_flags: npt.NDArray[np.uint8] = np.frombuffer(self.flags, dtype=np.uint8)
        self.np_type_count: npt.NDArray[np.int32] = np.frombuffer(self.type_count, dtype=np.int32)
        self.np_refs: npt.NDArray[np.int32] = np.frombuffer(self.refs, dtype=np.int32)

    def give(self, mfns: npt.NDArray[np.int64]) -> None:
        """Make frames the guest's: allocated, one reference, no type."""
        self.np_owner[mfns] = GUEST
        self.np_flags[mfns] = ALLOCATED
        self.np_refs[mfns] = 1

    def give_one(self, mfn: int) -> None:
        """Make one frame the guest's."""
        self.owner[mfn] = GUEST
        self.flags[mfn] = ALLOCATED
        self.refs[mfn] = 1
        self.type[mfn] = NONE

    def share(self, mfn: int) -> None:
        """A page of Xen's own that the guest may map and write (share_xen_page_with_guest)."""
        self.owner[mfn] = GUEST
        self.flags[mfn] = XEN_HEAP
        self.refs[mfn] = 1
        self.type[mfn] = WRITABLE
        self.type_count[mfn] = 1

    def get(self, mfn: int) -> bool:
        """Take a reference to a frame of the guest's (get_page)."""
        if mfn >= self.frames or self.owner[mfn] != GUEST:
            return False
        self.refs[mfn] += 1
        return True

    def put(self, mfn: int) -> None:
        """Drop a reference; the last one frees the frame (put_page)."""
        self.refs[mfn] -= 1
        if self.refs[mfn] == 0:
            self._release(mfn)

    def disown(self, mfn: int) -> bool:
        """Give up the guest's own hold (decrease_reservation); the frame goes when nothing maps it any more."""
        if not self.flags[mfn] & ALLOCATED:
            return False
        self.flags[mfn] &= ~ALLOCATED
        self.put(mfn)
        return True

    def _release(self, mfn: int) -> None:
        self.owner[mfn] = FREE
        self.type[mfn] = NONE
        self.flags[mfn] = 0
        self.free[mfn] = None
        if self.m2p is not None:
            self.m2p[mfn] = INVALID_M2P_ENTRY
        if self.compat_m2p is not None:
            self.compat_m2p[mfn] = INVALID_M2P_ENTRY & 0xFFFFFFFF

    def take(self, order: int, count: int, limit: int | None = None) -> list[range]:
        """Up to ``count`` blocks of 1 << ``order`` free frames, aligned to their size; they are no longer free.

        All are below frame ``limit``, where one is given.
        """
        limit = self.frames if limit is None else min(limit, self.frames)
        if order == 0 and limit == self.frames:
            taken = [self.free.popitem()[0] for _ in range(min(count, len(self.free)))]
            return [range(mfn, mfn + 1) for mfn in taken]
        size = 1 << order
        free = np.zeros(limit // size * size, dtype=np.bool_)
        here = np.fromiter(self.free, dtype=np.int64, count=len(self.free))
        free[here[here < free.size]] = True
        blocks = np.flatnonzero(free.reshape(-1, size).all(axis=1))[:count] * size
        found = [range(first, first + size) for first in blocks.tolist()]
        for block in found:
            for mfn in block:
                del self.free[mfn]
        return found

    def untake(self, blocks: Iterable[range]) -> None:
        """The reverse of :meth:`take`."""
        self.free.update(dict.fromkeys(mfn for block in blocks for mfn in block))
