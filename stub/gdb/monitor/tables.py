"""Page tables read with numpy: all that a root maps, and all that maps a frame, in milliseconds.

A guest may build tables that map each other over and over, so that four pages map the whole address space: every
walk here is bounded and says when it was cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from stub.memory import entries as e
from stub.memory.frames import GUEST, FrameTable
from stub.memory.ram import Ram

U64s = npt.NDArray[np.uint64]
I64s = npt.NDArray[np.int64]

MAX_TABLES = 1 << 14  # of one level, visits
MAX_MAPPINGS = 1 << 22
MAX_RUNS = 1 << 16
CUT = "# cut here: these tables map each other over and over, or in too many pieces\n"
_CHUNK = 1024  # tables at a time
_P, _PSE, _NX = np.uint64(e.P), np.uint64(e.PSE), np.uint64(e.NX)
_AND = np.uint64(e.P | e.RW | e.US)
_SHIFT, _FRAME = np.uint64(12), np.uint64(e.FRAME_MASK)
_SIGN = np.uint64(0xFFFF << 48)


@dataclass(frozen=True)
class Mappings:
    """What a root maps, by address: parallel arrays. ``cut``: there is more.

    ``rights`` has P, RW, US of all levels together, and NX of any; ``size`` is in bytes.
    """

    vaddr: U64s
    entry: U64s
    rights: U64s
    size: U64s
    cut: bool = False

    def __len__(self) -> int:
        return len(self.vaddr)

    def only(self, chosen: npt.NDArray[np.bool_]) -> Mappings:
        """Those that are chosen."""
        return Mappings(self.vaddr[chosen], self.entry[chosen], self.rights[chosen], self.size[chosen], self.cut)

    def runs(self, *same: npt.NDArray[np.generic]) -> Iterator[slice]:
        """Stretches without a gap in which each of ``same`` stays what it is; MAX_RUNS at most."""
        if not len(self):
            return
        breaks = self.vaddr[1:] != self.vaddr[:-1] + self.size[:-1]
        for values in same:
            breaks |= values[1:] != values[:-1]
        ends = [0, *(np.flatnonzero(breaks) + 1).tolist(), len(self)]
        yield from (slice(first, last) for first, last in pairwise(ends[: MAX_RUNS + 1]))


def frames_of(entries: U64s) -> I64s:
    """The frame that each entry names."""
    return ((entries >> _SHIFT) & _FRAME).astype(np.int64)


def mappings(ram: Ram, root: int, slots: slice = slice(0, e.ENTRIES)) -> Mappings:
    """All that is mapped under the ``slots`` of an L4 table in frame ``root``."""
    found: list[Mappings] = []
    left, cut = MAX_MAPPINGS, False
    tables = np.array([root], dtype=np.int64)
    bases, rights = np.zeros(1, dtype=np.uint64), np.array([_AND], dtype=np.uint64)
    for level in (4, 3, 2, 1):
        below: list[tuple[I64s, U64s, U64s]] = []
        room = MAX_TABLES
        for at in range(0, len(tables), _CHUNK):
            if not left or room < 0:
                cut = True
                break
            part = slice(at, at + _CHUNK)
            block = ram.table[tables[part]]
            if level == 4:
                block = block.copy()
                block[:, : slots.start] = block[:, slots.stop :] = 0
            row, slot = np.nonzero(block & _P)
            values = block[row, slot]
            base = bases[part][row] | slot.astype(np.uint64) << np.uint64(3 + 9 * level)
            right = (rights[part][row] & values & _AND) | ((rights[part][row] | values) & _NX)
            is_leaf = np.ones(len(values), dtype=np.bool_) if level == 1 else (values & _PSE) != 0
            if level == 4:
                is_leaf[:] = False
            if is_leaf.any():
                base_, size = base[is_leaf], np.uint64(1 << 3 + 9 * level)
                take = min(left, len(base_))
                cut |= take < len(base_)
                left -= take
                found.append(
                    Mappings(base_, values[is_leaf], right[is_leaf], np.full(len(base_), size)).only(
                        np.arange(len(base_)) < take
                    )
                )
            children = frames_of(values)
            inner = ~is_leaf & (children < ram.frames)
            below.append((children[inner][:room], base[inner][:room], right[inner][:room]))
            cut |= room < inner.sum()
            room -= int(inner.sum())
        if level == 1 or not left:
            break
        tables, bases, rights = (np.concatenate([part[i] for part in below]) for i in range(3))
        if not len(tables):
            break
    return _sorted(found, cut)


def _sorted(found: list[Mappings], cut: bool) -> Mappings:
    none = np.zeros(0, dtype=np.uint64)
    columns = [
        np.concatenate([none, *(getattr(part, name) for part in found)])
        for name in ("vaddr", "entry", "rights", "size")
    ]
    vaddr = columns[0]
    vaddr |= np.where(vaddr >> np.uint64(47) & np.uint64(1), _SIGN, np.uint64(0))
    order = np.argsort(vaddr, kind="stable")
    vaddr, entry, rights, size = (column[order] for column in columns)
    return Mappings(vaddr, entry, rights, size, cut)


def tables_of(frames: FrameTable, level: int) -> I64s:
    """The domain's frames that are tables of ``level`` now."""
    held = (frames.np_type == level) & (frames.np_type_count > 0) & (frames.np_owner == GUEST)
    return np.flatnonzero(held).astype(np.int64)


def entries_to(ram: Ram, frames: FrameTable, level: int, targets: I64s) -> list[tuple[int, int, int]]:
    """(table, slot, entry) of each present entry in a ``level`` table of the domain that names one of ``targets``."""
    tables, found = tables_of(frames, level), []
    for at in range(0, len(tables), _CHUNK):
        chunk = tables[at : at + _CHUNK]
        block = ram.table[chunk]
        named = (block >> _SHIFT) & _FRAME
        wanted = targets.astype(np.uint64)
        hit = (named == wanted[0]) if len(wanted) == 1 else np.isin(named, wanted)
        hit &= (block & _P) != 0
        if level == 4:
            hit[:, e.XEN_FIRST_SLOT : e.XEN_LAST_SLOT + 1] = False
        row, slot = np.nonzero(hit)
        found += list(zip(chunk[row].tolist(), slot.tolist(), block[row, slot].tolist(), strict=True))
    return found


MAX_PLACES = 256


def places(ram: Ram, frames: FrameTable, level: int, tables: set[int]) -> dict[int, list[tuple[int, int]]]:
    """Where each ``level`` table begins, at MAX_PLACES places at most: table → (virtual address, L4 frame) each."""
    if level == 4:
        return {table: [(0, table)] for table in tables}
    if not tables:
        return {}
    rows = entries_to(ram, frames, level + 1, np.array(sorted(tables), dtype=np.int64))
    above = places(ram, frames, level + 1, {row[0] for row in rows})
    found: dict[int, list[tuple[int, int]]] = {table: [] for table in tables}
    for parent, slot, value in rows:
        here = found.get(value >> 12 & e.FRAME_MASK)
        if here is not None and not (level < 3 and value & e.PSE):
            offset = slot << 3 + 9 * (level + 1)
            here += [(base + offset, root) for base, root in above.get(parent, [])[: MAX_PLACES - len(here)]]
    return found


def canonical(vaddr: int) -> int:
    """An address with bit 47 carried on into the bits above."""
    return vaddr | 0xFFFF << 48 if vaddr >> 47 & 1 else vaddr
