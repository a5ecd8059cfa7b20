"""Tables entered in tables of their own level: a guest's linear map of its page tables (xen/arch/x86/mm.c).

A table may hold a read-only entry for itself, which takes nothing, or for another table of its level that is
validated already, which takes a use of that. A table with entries of the second sort is never used so itself:
chains of them could not be undone (XSA-240).
"""

from __future__ import annotations

from stub.memory import entries as e
from stub.memory.frames import FrameTable


class LinearTables:
    """``counts``: by frame, how many linear entries it holds; below zero, how many it is used in elsewhere."""

    def __init__(self, frames: FrameTable) -> None:
        self._frames = frames
        self.counts: dict[int, int] = {}

    def enter(self, table: int, entry: int, level: int) -> bool:
        """Take the target of ``entry`` of a level table as such a table (get_l2_linear_pagetable and on)."""
        if entry & e.RW:
            return False
        target = (entry >> 12) & e.FRAME_MASK
        if target == table:
            return True
        frames, counts = self._frames, self.counts
        if counts.get(table, 0) < 0 or counts.get(target, 0) > 0 or not frames.get(target):
            return False
        if frames.type[target] != level or not frames.type_count[target]:
            frames.put(target)
            return False
        frames.type_count[target] += 1
        counts[table] = counts.get(table, 0) + 1
        counts[target] = counts.get(target, 0) - 1
        return True

    def leave(self, table: int, target: int) -> None:
        """An entry of ``table`` for ``target``, of the same level, is gone (put_pt_page)."""
        for frame, change in ((table, -1), (target, 1)):
            self.counts[frame] += change
            if not self.counts[frame]:
                del self.counts[frame]
