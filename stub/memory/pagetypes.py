"""Xen's page-type rules for a PV guest (xen/arch/x86/mm.c); what differs for a 32-bit one is in ``paetypes.py``.

The law: a frame that serves as a page table is validated when it takes that type and is never mapped writable
while it holds it; every entry it holds owns a reference to (and where writable, or a table, a type of) its target.
``stale`` is raised when an entry that a TLB may hold was taken away or narrowed: only then does a flush matter.
``retyped`` is raised when a frame becomes a table while the TLB may still hold a writable entry for it: then the
flush cannot wait for the guest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from stub.abi.errno import EBUSY, EINVAL, EPERM
from stub.memory import entries as e
from stub.memory.descriptors import checked
from stub.memory.frames import GUEST, L1, L4, NONE, PINNED, SEG_DESC, TYPE_NAMES, WRITABLE, FrameTable
from stub.memory.linear import LinearTables
from stub.memory.ram import Ram

_P, _RW, _US = np.uint64(e.P), np.uint64(e.RW), np.uint64(e.US)
_L1_DISALLOW = np.uint64(e.L1_DISALLOW)
_KERNEL = np.uint64(e.US | e.GUEST_KERNEL)
_MARK, _G = np.uint64(e.GUEST_KERNEL), np.uint64(e.G)
_SHIFT, _FRAME = np.uint64(12), np.uint64(e.FRAME_MASK)

# Losing any of these, or another frame, or gaining NX, makes a cached translation wrong.
_NARROWING = e.P | e.RW | e.US | e.A | e.D | e.G


def _what(frames: FrameTable, mfn: int) -> str:
    """What a frame is in use as, in words."""
    kind = frames.type[mfn]
    return {SEG_DESC: "a descriptor table", WRITABLE: "writable memory"}.get(kind, f"a page table ({TYPE_NAMES[kind]})")


class PageTypes:
    """Types, pins and page-table updates of one domain. Errors are negative error numbers, 0 is success.

    ``xen_slots`` are the sixteen entries that every L4 carries from slot 256 on. ``m2p_strict`` is the vm_assist: the
    first of them, the M2P, is entered when a table becomes an L4, not when the kernel first runs on it.
    """

    bits = 64
    root_level = highest_linear = L4
    adjust_l1e: Callable[[int], int] = staticmethod(e.adjust_l1e)
    adjust_upper: Callable[[int, int], int] = staticmethod(e.adjust_upper)

    def __init__(self, ram: Ram, frames: FrameTable, xen_slots: list[int]) -> None:
        self.words = ram.words
        self.table = ram.table
        self.frames = frames
        self.linear = LinearTables(frames)
        self.xen_slots = xen_slots
        self.held: Counter[int] = Counter()
        self.stale = self.retyped = self.m2p_strict = False
        self.refusal = ""

    # -- types

    def get_type(self, mfn: int, kind: int) -> int:
        """Take ``mfn`` as ``kind``, validating a table on its first use (get_page_type).

        Descriptors are validated, and so mended, once only for as long as the page is nothing else: PGT_validated.
        """
        frames = self.frames
        count = frames.type_count[mfn]
        if count and frames.type[mfn] != kind:
            self.refusal = f"frame {mfn:#x} is in use as {_what(frames, mfn)}, not {TYPE_NAMES[kind]}"
            return -EINVAL
        frames.type_count[mfn] = count + 1
        if not count:
            before, frames.type[mfn] = frames.type[mfn], kind
            if kind == WRITABLE or before == kind == SEG_DESC:  # descriptors that nobody could write to since
                return 0
            self.retyped |= self.stale
            rc = self._validate(mfn, kind)
            if rc:
                frames.type_count[mfn] = 0
                frames.type[mfn] = NONE
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

    def hold(self, mfn: int) -> int:
        """Keep a writable page of the domain's that the hypervisor itself writes to."""
        rc = self.get_page_and_type(mfn, WRITABLE)
        if not rc:
            self.held[mfn] += 1
        return rc

    def let_go(self, mfn: int) -> None:
        """The reverse of :meth:`hold`."""
        self.held[mfn] -= 1
        if not self.held[mfn]:
            del self.held[mfn]
        self.put_page_and_type(mfn)

    def _put_table(self, table: int, target: int) -> None:
        """Drop what an upper table's entry holds (put_pt_page)."""
        if target == table:
            return
        types = self.frames.type
        linear = types[target] == types[table]
        self.put_page_and_type(target)
        if linear:
            self.linear.leave(table, target)

    def pin(self, mfn: int, level: int) -> int:
        """MMUEXT_PIN_L*_TABLE."""
        frames = self.frames
        if mfn < frames.frames and frames.flags[mfn] & PINNED and frames.owner[mfn] == GUEST:
            self.refusal = f"frame {mfn:#x} is pinned already, as {TYPE_NAMES[frames.type[mfn]]}"
            return -EINVAL
        rc = self.get_page_and_type(mfn, level)
        if not rc:
            frames.flags[mfn] |= PINNED
        return rc

    def unpin(self, mfn: int) -> int:
        """MMUEXT_UNPIN_TABLE."""
        frames = self.frames
        if mfn >= frames.frames or frames.owner[mfn] != GUEST or not frames.flags[mfn] & PINNED:
            self.refusal = f"frame {mfn:#x} is not pinned"
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
            mended = checked(self.words[base + slot], self.bits)
            if mended is None:
                found = self.words[base + slot]
                self.refusal = f"descriptor {found:#018x} in frame {mfn:#x} is no code, data or call gate"
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
        table[present] = self._adjusted(values)
        return 0

    @staticmethod
    def _adjusted(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """``adjust_l1e`` for many entries, all of them present."""
        kernel = (values & _US) == 0
        user = ~kernel & ((values & _MARK) == 0)
        values[kernel] |= _KERNEL
        values[user] |= _G
        return values

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
            self.words[i] = self.adjust_l1e(entry)
        return 0

    def _validate_upper(self, mfn: int, level: int) -> int:
        words, base = self.words, mfn * e.ENTRIES
        taken: list[int] = []
        for slot in self._guest_slots(mfn, level):
            entry = words[base + slot]
            rc = self._get_from_upper(mfn, entry, level, slot)
            if rc:
                for target in taken:
                    self._put_table(mfn, target)
                return rc
            taken.append((entry >> 12) & e.FRAME_MASK)
            words[base + slot] = self.adjust_upper(entry, level)
        if level == 4:
            for i, value in enumerate(self.xen_slots):
                words[base + e.XEN_FIRST_SLOT + i] = value
            if not self.m2p_strict:
                self.hide_m2p(mfn)
        return 0

    def _guest_slots(self, mfn: int, level: int) -> list[int]:
        """The slots of an upper table with a present entry that is not Xen's."""
        present: list[int] = np.flatnonzero(self.table[mfn] & _P).tolist()
        if level == L4:
            return [slot for slot in present if not e.XEN_FIRST_SLOT <= slot <= e.XEN_LAST_SLOT]
        return present

    def show_m2p(self, root: int) -> None:
        """Enter the read-only M2P in a root table that the kernel runs on (fill_ro_mpt)."""
        self.words[root * e.ENTRIES + e.XEN_FIRST_SLOT] = self.xen_slots[0]

    def hide_m2p(self, root: int) -> None:
        """Take it out of one that user code may run on (zap_ro_mpt)."""
        self.words[root * e.ENTRIES + e.XEN_FIRST_SLOT] = 0

    def _devalidate(self, mfn: int, level: int) -> None:
        self.stale = True
        if level == L1:
            self._devalidate_l1(mfn)
            return
        words, base = self.words, mfn * e.ENTRIES
        for slot in self._guest_slots(mfn, level):
            self._put_table(mfn, (words[base + slot] >> 12) & e.FRAME_MASK)

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

    def _get_from_l1e(self, entry: int, io: bool = False) -> int:
        """Take what a present L1 entry maps (get_page_from_l1e). ``io``: it was said to be I/O space (DOMID_IO)."""
        frames = self.frames
        if entry & e.L1_DISALLOW:
            self.refusal = f"l1e {entry:#x} sets {e.names(entry & e.L1_DISALLOW, 1)}: not without I/O rights"
            return -EINVAL
        mfn = (entry >> 12) & e.FRAME_MASK
        if mfn >= frames.frames or (mfn < 0x100 and frames.owner[mfn] != GUEST):
            self.refusal = f"l1e {entry:#x} maps frame {mfn:#x}, which is I/O space"
            return -EINVAL if mfn == e.FRAME_MASK else -EPERM
        if frames.owner[mfn] != GUEST or io:
            whose = "the domain's own memory, not I/O space" if io else "not the domain's"
            self.refusal = f"l1e {entry:#x} maps frame {mfn:#x}, which is {whose}"
            return -EBUSY
        if entry & e.RW and self.get_type(mfn, WRITABLE):
            self.refusal = f"l1e {entry:#x} maps frame {mfn:#x} writable, which is in use as {_what(frames, mfn)}"
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

    def _get_from_upper(self, table: int, entry: int, level: int, slot: int) -> int:
        """Take the table that an L2, L3 or L4 entry leads to (get_page_from_l2e and on)."""
        if entry & e.UPPER_DISALLOW:
            self.refusal = f"l{level}e {entry:#x} sets {e.names(entry & e.UPPER_DISALLOW, level)}: no guest may"
            return -EINVAL
        target = (entry >> 12) & e.FRAME_MASK
        rc = self.get_page_and_type(target, level - 1)
        if rc == -EINVAL and level <= self.highest_linear and self.linear.enter(table, entry, level):
            self.refusal = ""
            return 0
        if rc:
            self.refusal = f"l{level}e {entry:#x}: {self.refusal}"
        return rc

    def mod_l1(self, at: int, new: int, preserve_ad: bool = False, io: bool = False) -> int:
        """Write an entry of a live L1 table: ``at`` is the word's index in machine memory (mod_l1_entry)."""
        words = self.words
        old = words[at]
        if new & e.P:
            if (old & e.P) and not (old ^ self.adjust_l1e(new)) & ~e.FASTPATH_FLAGS:
                if new & e.L1_DISALLOW:
                    return self._get_from_l1e(new)
                stored = self.adjust_l1e(new)
                if preserve_ad:
                    stored |= old & (e.A | e.D)
                words[at] = stored
                if old & ~stored & _NARROWING or stored & ~old & e.NX:
                    self.stale = True
                return 0
            rc = self._get_from_l1e(new, io)
            if rc:
                return rc
            stored = self.adjust_l1e(new)
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
                return self._get_from_upper(0, new, level, slot)
            stored = self.adjust_upper(new, level)
            if preserve_ad:
                stored |= old & (e.A | e.D)
            if old & e.P and not (old ^ stored) & ~e.FASTPATH_FLAGS:
                words[at] = stored
                self.stale = True
                return 0
            rc = self._get_from_upper(at // e.ENTRIES, new, level, slot)
            if rc:
                return rc
            words[at] = stored
        else:
            words[at] = new
        if old & e.P:
            self.stale = True
            self._put_table(at // e.ENTRIES, (old >> 12) & e.FRAME_MASK)
        return 0
