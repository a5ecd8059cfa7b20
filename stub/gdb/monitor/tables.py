"""A guest's live page tables: all that a root maps, and all that maps a frame, as the one walker finds them."""

from __future__ import annotations

import numpy as np

from stub.memory.forest import MAX_PLACES, Forest, Mapper
from stub.memory.formats import LONG, Format, I64s, U64s
from stub.memory.frames import GUEST, FrameTable
from stub.memory.mappings import MAX_MAPPINGS, MAX_RUNS, Mappings
from stub.memory.mappings import mappings as all_mappings
from stub.memory.ram import Ram
from stub.memory.walker import FrameArray
from stub.units import PAGE_SHIFT

CUT = "# cut here: these tables map each other over and over, or in too many pieces\n"


def mappings(ram: Ram, root: int, slots: range | None = None, fmt: Format = LONG) -> Mappings:
    """All that is mapped under the root table in frame ``root``, or under these slots of it."""
    return all_mappings(FrameArray(ram.table), fmt, root << PAGE_SHIFT, slots)


def tables_of(frames: FrameTable, level: int) -> I64s:
    """The domain's frames that are tables of ``level`` now."""
    held = (frames.np_type == level) & (frames.np_type_count > 0) & (frames.np_owner == GUEST)
    return np.flatnonzero(held).astype(np.int64)


def forest(ram: Ram, frames: FrameTable, fmt: Format = LONG) -> Forest:
    """All the domain's page tables."""
    return Forest(FrameArray(ram.table), fmt, {level.number: tables_of(frames, level.number) for level in fmt.levels})


def places(
    ram: Ram, frames: FrameTable, level: int, tables: set[int], fmt: Format = LONG
) -> dict[int, list[tuple[int, int]]]:
    """Where each ``level`` table begins, at MAX_PLACES places at most: table → (virtual address, root's frame) each."""
    return forest(ram, frames, fmt).places(level, tables)


__all__ = [
    "CUT", "MAX_MAPPINGS", "MAX_PLACES", "MAX_RUNS", "Forest", "Mapper", "Mappings", "U64s", "forest", "mappings",
    "places", "tables_of",
]  # fmt: skip
