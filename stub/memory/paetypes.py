"""Xen's page-type rules for a 32-bit PAE guest, where they differ (xen/arch/x86/mm.c).

Its root is an L3 of four entries. The L2 of the last one holds, from a slot on, what Xen shows of itself; so that table
is of a type of its own (PGT_pae_xen_l2), always there and in no other place. Entries are stored as they were written,
but for the third level's, as the CPU walks four levels: the fourth is Xen's alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from stub.abi.errno import EINVAL, EPERM
from stub.memory import entries as e
from stub.memory.frames import L2, L3, XEN_L2, FrameTable
from stub.memory.pagetypes import PageTypes
from stub.memory.ram import Ram

_LAST = e.PAE_ROOT_ENTRIES - 1
_L2_OF_XEN = L2 | 0x10  # as a type that is asked for


class PaePageTypes(PageTypes):
    """``xen_slots``: the entries that the last L2 carries from ``PAE_FIRST_XEN_SLOT`` on, here."""

    bits = 32
    root_level, highest_linear = L3, L2
    adjust_l1e: Callable[[int], int] = staticmethod(e.keep_l1e)
    adjust_upper: Callable[[int, int], int] = staticmethod(e.adjust_pae)

    def __init__(self, ram: Ram, frames: FrameTable, xen_slots: Sequence[int]) -> None:
        super().__init__(ram, frames, list(xen_slots))
        self._xen_entries = np.array(self.xen_slots, dtype=np.uint64)

    @staticmethod
    def _adjusted(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        return values

    def get_type(self, mfn: int, kind: int) -> int:
        """An L2 has Xen's part or has none: one sort is not the other."""
        if kind & ~0x10 != L2:
            return super().get_type(mfn, kind)
        frames, of_xen = self.frames, kind == _L2_OF_XEN
        if not frames.type_count[mfn]:
            frames.flags[mfn] = frames.flags[mfn] & ~XEN_L2 | (XEN_L2 if of_xen else 0)
        elif frames.type[mfn] == L2 and bool(frames.flags[mfn] & XEN_L2) != of_xen:
            self.refusal = f"frame {mfn:#x} is in use as an l2 table {'without' if of_xen else 'with'} Xen's part"
            return -EINVAL
        return super().get_type(mfn, L2)

    def _guest_slots(self, mfn: int, level: int) -> list[int]:
        slots = super()._guest_slots(mfn, level)
        if level == L2 and self.frames.flags[mfn] & XEN_L2:
            return [slot for slot in slots if slot < e.PAE_FIRST_XEN_SLOT]
        return slots

    def _validate_upper(self, mfn: int, level: int) -> int:
        words, base = self.words, mfn * e.ENTRIES
        if level == L3:
            self.table[mfn, e.PAE_ROOT_ENTRIES :] = 0  # the CPU could see them; a guest need not have cleared them
            if not words[base + _LAST] & e.P:
                self.refusal = f"l3 table {mfn:#x}: slot {_LAST} is empty, where Xen's part has to be"
                return -EINVAL
        rc = super()._validate_upper(mfn, level)
        if rc:
            return rc
        if level == L2 and self.frames.flags[mfn] & XEN_L2:
            self.table[mfn, e.PAE_FIRST_XEN_SLOT :] = self._xen_entries
        elif level == L3 and self.frames.type_count[words[base + _LAST] >> 12 & e.FRAME_MASK] != 1:
            for slot in self._guest_slots(mfn, level):
                self._put_table(mfn, words[base + slot] >> 12 & e.FRAME_MASK)
            self.refusal = f"l3 table {mfn:#x}: the l2 table in slot {_LAST} is another one's, too"
            return -EINVAL
        return 0

    def _get_from_upper(self, table: int, entry: int, level: int, slot: int) -> int:
        if level != L3:
            return super()._get_from_upper(table, entry, level, slot)
        if entry & e.PAE_L3_DISALLOW:
            self.refusal = f"l3e {entry:#x} sets {e.names(entry & e.PAE_L3_DISALLOW, level)}: no PAE guest may"
            return -EINVAL
        if slot != _LAST:
            return super()._get_from_upper(table, entry, level, slot)
        rc = self.get_page_and_type(entry >> 12 & e.FRAME_MASK, _L2_OF_XEN)
        if rc:
            self.refusal = f"l3e {entry:#x}: {self.refusal}"
        return rc

    def mod_upper(self, at: int, new: int, level: int, preserve_ad: bool = False) -> int:
        """The last L3 entry stays as long as its table, and so does Xen's part of the L2 that it leads to."""
        mfn, slot = divmod(at, e.ENTRIES)
        if level == L3 and slot >= _LAST:
            self.refusal = f"slot {slot} of a live l3 table cannot be changed: Xen's part is there"
            return -EINVAL
        if level == L2 and self.frames.flags[mfn] & XEN_L2 and slot >= e.PAE_FIRST_XEN_SLOT:
            self.refusal = f"slot {slot} of the last l2 table belongs to Xen"
            return -EPERM
        if level == L3 and new & e.P and new & e.PAE_L3_DISALLOW:
            return self._get_from_upper(mfn, new, level, slot)
        return super().mod_upper(at, new, level, preserve_ad)

    def show_m2p(self, root: int) -> None:
        """It is always there, for the kernel alone."""

    def hide_m2p(self, root: int) -> None:
        """User code cannot see it."""
