"""Xen's page-type rules for a 64-bit PV guest (xen/arch/x86/mm.c).

The law: a frame that serves as a page table is validated when it takes that type and is never mapped writable
while it holds it; every entry it holds owns a reference to (and where writable, or a table, a type of) its target.
``stale`` is raised when an entry that a TLB may hold was taken away or narrowed: only then does a flush matter.
``retyped`` is raised when a frame becomes a table while the TLB may still hold a writable entry for it: then the
flush cannot wait for the guest.
"""

from __future__ import annotations

import numpy as np

from stub.abi.errno import EBUSY, EINVAL, EPERM
from stub.memory import entries as e
from stub.memory.descriptors import checked
from stub.memory.frames import GUEST, L1, L4, PINNED, SEG_DESC, WRITABLE, FrameTable
from stub.memory.ram import Ram

_P, _RW, _US = np.uint64(e.P), np.uint64(e.RW), np.uint64(e.US)
_L1_DISALLOW = np.uint64(e.L1_DISALLOW)
_KERNEL = np.uint64(e.US | e.GUEST_KERNEL)
_MARK, _G = np.uint64(e.GUEST_KERNEL), np.uint64(e.G)
_SHIFT, _FRAME = np.uint64(12), np.uint64(e.FRAME_MASK)

# Losing any of these, or another frame, or gaining NX, makes a cached translation wrong.
_NARROWING = e.P | e.RW | e.US | e.A | e.D | e.G


class PageTypes:
    """Types, pins and page-table updates of one domain. Errors are negative error numbers, 0 is success.

    ``xen_slots`` are the sixteen entries that every L4 carries from slot 256 on.
    """

    def __init__(self, ram: Ram, frames: FrameTable, xen_slots: list[int]) -> None:
        self.words = ram.words
        self.table = ram.table
        self.frames = frames
        self.xen_slots = xen_slots
        self.stale = self.retyped = False
        self.refusal = ""

    # -- types

    def get_type(self, mfn: int, kind: int) -> int:
        """Take ``mfn`` as ``kind``, validating a table on its first use (get_page_type)."""
        frames = self.frames
        count = frames.type_count[mfn]
        if count and frames.type[mfn] != kind:
            return -EINVAL
        frames.type_count[mfn] = count + 1
        if not count:
            frames.type[mfn] = kind
            if kind == WRITABLE:
                return 0
            self.retyped |= self.stale
            rc = self._validate(mfn, kind)
            if rc:
                frames.type_count[mfn] = 0
                return rc
        return 0

    def put_type(self, mfn: int) -> None:
        """Drop one use of a frame's type; a table that loses its last releases what it maps (put_page_type)."""
        frames = self.frames
        count = frames.type_count[mfn] - 1
        if not count and frames.type[mfn] <= L4:
            self._devalidate(mfn, frames.type[mfn])
        frames.type_count[mfn] = count

    def get_page_and_type(self, mfn: int, kind: int) -> int:
        """A reference and a type (get_page_and_type_from_mfn)."""
        if not self.frames.get(mfn):
            self.refusal = f"frame {mfn:#x} is not the domain's"
            return -EINVAL
        rc = self.get_type(mfn, kind)
        if rc:
            self.frames.put(mfn)
        return rc

    def put_page_and_type(self, mfn: int) -> None:
        """The reverse of :meth:`get_page_and_type`."""
        self.put_type(mfn)
        self.frames.put(mfn)

    def pin(self, mfn: int, level: int) -> int:
        """MMUEXT_PIN_L*_TABLE."""
        frames = self.frames
        if mfn < frames.frames and frames.flags[mfn] & PINNED and frames.owner[mfn] == GUEST:
            return -EINVAL
        rc = self.get_page_and_type(mfn, level)
        if not rc:
            frames.flags[mfn] |= PINNED
        return rc

    def unpin(self, mfn: int) -> int:
        """MMUEXT_UNPIN_TABLE."""
        frames = self.frames
        if mfn >= frames.frames or frames.owner[mfn] != GUEST or not frames.flags[mfn] & PINNED:
            return -EINVAL
        frames.flags[mfn] &= ~PINNED
        self.put_page_and_type(mfn)
        return 0

    # -- whole tables

    def _validate(self, mfn: int, kind: int) -> int:
        if kind == L1:
            return self._validate_l1(mfn)
        return self._validate_descriptors(mfn) if kind == SEG_DESC else self._validate_upper(mfn, kind)

    def _validate_descriptors(self, mfn: int) -> int:
        """Every descriptor of a page, its privilege level mended in place."""
        base = mfn * e.ENTRIES
        for slot in np.flatnonzero(self.table[mfn]).tolist():
            mended = checked(self.words[base + slot])
            if mended is None:
                self.refusal = f"descriptor {self.words[base + slot]:#018x} in frame {mfn:#x} leads out of ring 3"
                return -EINVAL
            self.words[base + slot] = mended
        return 0

    def _validate_l1(self, mfn: int) -> int:
        frames = self.frames
        table = self.table[mfn]
        present = np.flatnonzero(table & _P)
        if not present.size:
            return 0
        values = table[present]
        targets = ((values >> _SHIFT) & _FRAME).astype(np.int64)
        if (values & _L1_DISALLOW).any() or targets.max() >= frames.frames or (frames.np_owner[targets] != GUEST).any():
            return self._validate_one_by_one(mfn)
        writable = targets[(values & _RW) != 0]
        if ((frames.np_type[writable] != WRITABLE) & (frames.np_type_count[writable] != 0)).any():
            return self._validate_one_by_one(mfn)
        frames.np_type[writable] = WRITABLE
        np.add.at(frames.np_type_count, writable, 1)
        np.add.at(frames.np_refs, targets, 1)
        kernel = (values & _US) == 0
        user = ~kernel & ((values & _MARK) == 0)
        values[kernel] |= _KERNEL
        values[user] |= _G
        table[present] = values
        return 0

    def _validate_one_by_one(self, mfn: int) -> int:
        """The same in order, for a table with an entry that is refused: its error is the table's."""
        base = mfn * e.ENTRIES
        for i in range(base, base + e.ENTRIES):
            entry = self.words[i]
            if not entry & e.P:
                continue
            rc = self._get_from_l1e(entry)
            if rc:
                for j in range(base, i):
                    if self.words[j] & e.P:
                        self._put_from_l1e(self.words[j])
                return rc
            self.words[i] = e.adjust_l1e(entry)
        return 0

    def _validate_upper(self, mfn: int, level: int) -> int:
        words, base = self.words, mfn * e.ENTRIES
        taken: list[int] = []
        for slot in np.flatnonzero(self.table[mfn] & _P).tolist():
            if level == 4 and e.XEN_FIRST_SLOT <= slot <= e.XEN_LAST_SLOT:
                continue
            entry = words[base + slot]
            rc = self._get_from_upper(entry, level)
            if rc:
                for target in taken:
                    self.put_page_and_type(target)
                return rc
            taken.append((entry >> 12) & e.FRAME_MASK)
            words[base + slot] = entry | e.US
        if level == 4:
            for i, value in enumerate(self.xen_slots):
                words[base + e.XEN_FIRST_SLOT + i] = value
        return 0

    def _devalidate(self, mfn: int, level: int) -> None:
        self.stale = True
        if level == L1:
            self._devalidate_l1(mfn)
            return
        words, base = self.words, mfn * e.ENTRIES
        for slot in np.flatnonzero(self.table[mfn] & _P).tolist():
            if level == 4 and e.XEN_FIRST_SLOT <= slot <= e.XEN_LAST_SLOT:
                continue
            self.put_page_and_type((words[base + slot] >> 12) & e.FRAME_MASK)

    def _devalidate_l1(self, mfn: int) -> None:
        frames = self.frames
        table = self.table[mfn]
        values = table[(table & _P) != 0]
        if not values.size:
            return
        targets = ((values >> _SHIFT) & _FRAME).astype(np.int64)
        np.subtract.at(frames.np_type_count, targets[(values & _RW) != 0], 1)
        np.subtract.at(frames.np_refs, targets, 1)
        for target in np.unique(targets[frames.np_refs[targets] == 0]).tolist():
            frames.refs[target] = 1
            frames.put(target)

    # -- single entries

    def _get_from_l1e(self, entry: int) -> int:
        """Take what a present L1 entry maps (get_page_from_l1e)."""
        frames = self.frames
        if entry & e.L1_DISALLOW:
            self.refusal = (
                f"l1e {entry:#x} sets flags {entry & e.L1_DISALLOW:#x} that a guest without I/O rights may not"
            )
            return -EINVAL
        mfn = (entry >> 12) & e.FRAME_MASK
        if mfn >= frames.frames or (mfn < 0x100 and frames.owner[mfn] != GUEST):
            self.refusal = f"l1e {entry:#x} maps frame {mfn:#x}, which is I/O space"
            return -EINVAL if mfn == e.FRAME_MASK else -EPERM
        if frames.owner[mfn] != GUEST:
            self.refusal = f"l1e {entry:#x} maps frame {mfn:#x}, which is not the domain's"
            return -EBUSY
        if entry & e.RW and self.get_type(mfn, WRITABLE):
            self.refusal = f"l1e {entry:#x} maps frame {mfn:#x} writable, which is in use as {frames.type[mfn]}"
            return -EBUSY
        frames.refs[mfn] += 1
        return 0

    def _put_from_l1e(self, entry: int) -> None:
        mfn = (entry >> 12) & e.FRAME_MASK
        frames = self.frames
        if entry & e.RW:
            frames.type_count[mfn] -= 1
        frames.refs[mfn] -= 1
        if not frames.refs[mfn]:
            frames.refs[mfn] = 1
            frames.put(mfn)

    def _get_from_upper(self, entry: int, level: int) -> int:
        if entry & e.UPPER_DISALLOW:
            self.refusal = f"l{level}e {entry:#x} sets flags {entry & e.UPPER_DISALLOW:#x} that no guest may"
            return -EINVAL
        return self.get_page_and_type((entry >> 12) & e.FRAME_MASK, level - 1)

    def mod_l1(self, at: int, new: int, preserve_ad: bool = False) -> int:
        """Write an entry of a live L1 table: ``at`` is the word's index in machine memory (mod_l1_entry)."""
        words = self.words
        old = words[at]
        if new & e.P:
            if (old & e.P) and not (old ^ e.adjust_l1e(new)) & ~e.FASTPATH_FLAGS:
                if new & e.L1_DISALLOW:
                    return self._get_from_l1e(new)
                stored = e.adjust_l1e(new)
                if preserve_ad:
                    stored |= old & (e.A | e.D)
                words[at] = stored
                if old & ~stored & _NARROWING or stored & ~old & e.NX:
                    self.stale = True
                return 0
            rc = self._get_from_l1e(new)
            if rc:
                return rc
            stored = e.adjust_l1e(new)
            words[at] = stored | (old & (e.A | e.D)) if preserve_ad else stored
        else:
            words[at] = new
        if old & e.P:
            self.stale = True
            self._put_from_l1e(old)
        return 0

    def mod_upper(self, at: int, new: int, level: int, preserve_ad: bool = False) -> int:
        """Write an entry of a live L2, L3 or L4 table (mod_l2_entry and on)."""
        words = self.words
        slot = at % e.ENTRIES
        if level == 4 and e.XEN_FIRST_SLOT <= slot <= e.XEN_LAST_SLOT:
            self.refusal = f"L4 slot {slot} belongs to Xen"
            return -EINVAL
        old = words[at]
        if new & e.P:
            if new & e.UPPER_DISALLOW:
                return self._get_from_upper(new, level)
            stored = e.adjust_upper(new)
            if preserve_ad:
                stored |= old & (e.A | e.D)
            if old & e.P and not (old ^ stored) & ~e.FASTPATH_FLAGS:
                words[at] = stored
                self.stale = True
                return 0
            rc = self._get_from_upper(new, level)
            if rc:
                return rc
            words[at] = stored
        else:
            words[at] = new
        if old & e.P:
            self.stale = True
            self.put_page_and_type((old >> 12) & e.FRAME_MASK)
        return 0
