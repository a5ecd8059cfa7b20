"""All page tables of a format at once: which frames are tables, and who maps a frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from stub.memory import entries as e
from stub.memory.formats import Format, I64s, Level, U64s, offset_in_page
from stub.memory.walker import Tables
from stub.units import PAGE_SHIFT, PAGE_SIZE

MAX_PLACES = 256
_CHUNK = 1024  # tables at a time
_P = np.uint64(e.P)


def reach(memory: Tables, fmt: Format, roots: I64s, *, skip: range = range(0)) -> dict[int, I64s]:
    """The frames that are tables of each level below the roots (machine addresses), each once.

    ``skip``: slots of the roots that are not followed.
    """
    top = np.unique(roots & ~(fmt.root_size - 1))
    top = top[memory.there(top >> PAGE_SHIFT)]
    found = {level.number: np.zeros(0, dtype=np.int64) for level in fmt.levels}
    found[fmt.root_level] = np.unique(top >> PAGE_SHIFT)
    for level in fmt.levels[:-1]:
        parts = [np.zeros(0, dtype=np.int64)]
        for tables, offset in _table_chunks(fmt, level, top, found[level.number]):
            block = fmt.entries_of(memory.pages(tables), level, offset)
            there = (block & _P) != 0
            if level.number == fmt.root_level:
                there[:, skip.start : skip.stop] = False
            values = block[there]
            parts.append(np.unique(fmt.table_frame(values[~fmt.leaves(values, level)]).astype(np.int64)))
        below = np.unique(np.concatenate(parts))
        found[level.number - 1] = below[memory.there(below)]
    return found


def _table_chunks(fmt: Format, level: Level, roots: I64s, tables: I64s) -> Iterator[tuple[I64s, int]]:
    """Tables of a level, some at a time, and the offset in their pages: several PAE roots may share one."""
    if level.number == fmt.root_level and fmt.root_size < PAGE_SIZE:
        for root in roots.tolist():
            yield np.array([root >> PAGE_SHIFT], dtype=np.int64), offset_in_page(fmt, root)
        return
    for at in range(0, len(tables), _CHUNK):
        yield tables[at : at + _CHUNK], 0


@dataclass(frozen=True)
class Mapper:
    """A present entry that names a frame: the entry ``slot`` of ``table``; ``leaf``: it maps memory there."""

    level: int
    table: int
    slot: int
    entry: int
    leaf: bool


@dataclass(frozen=True)
class Forest:
    """All tables of a format at once: ``by_level`` has the frames that are tables of each level.

    The entries that Xen has in each root are not looked at.
    """

    memory: Tables
    format: Format
    by_level: Mapping[int, I64s]

    def mappers(self, mfn: int, level: int) -> list[Mapper]:
        """Each entry of a ``level`` table that leads to a frame: maps it, alone or in a large page, or as a table."""
        fmt, rank = self.format, self.format.level(level)
        pages = np.uint64(rank.span >> PAGE_SHIFT)
        found: list[Mapper] = []
        for tables, rows, slots, values in self._entries(rank):
            leaf = fmt.leaves(values, rank)
            first = fmt.leaf_frame(values, rank)
            hit = np.where(leaf, (first <= mfn) & (np.uint64(mfn) - first < pages), fmt.table_frame(values) == mfn)
            found += [
                Mapper(level, int(tables[rows[i]]), int(slots[i]), int(values[i]), bool(leaf[i]))
                for i in np.flatnonzero(hit).tolist()
            ]
        return found

    def parents(self, level: int, tables: set[int]) -> list[Mapper]:
        """The entries of ``level`` tables that lead to some of these tables below."""
        rank, found = self.format.level(level), []
        wanted = np.array(sorted(tables), dtype=np.uint64)
        for chunk, rows, slots, values in self._entries(rank):
            hit = ~self.format.leaves(values, rank) & np.isin(self.format.table_frame(values), wanted)
            found += [
                Mapper(level, int(chunk[rows[i]]), int(slots[i]), int(values[i]), False)
                for i in np.flatnonzero(hit).tolist()
            ]
        return found

    def places(self, level: int, tables: set[int]) -> dict[int, list[tuple[int, int]]]:
        """Where each ``level`` table begins, at MAX_PLACES places at most: table → (virtual address, root) each."""
        if level == self.format.root_level:
            return {table: [(0, table)] for table in tables}
        if not tables:
            return {}
        rows = self.parents(level + 1, tables)
        above = self.places(level + 1, {row.table for row in rows})
        found: dict[int, list[tuple[int, int]]] = {table: [] for table in tables}
        shift = self.format.level(level + 1).shift
        for row in rows:
            here = found[self.format.table_frame(row.entry)]
            starts = above.get(row.table, [])[: MAX_PLACES - len(here)]
            here += [(base + (row.slot << shift), root) for base, root in starts]
        return found

    def _entries(self, level: Level) -> Iterator[tuple[I64s, I64s, I64s, U64s]]:
        """Present entries, some tables at a time: tables, and of each entry its row, slot and value."""
        tables = self.by_level.get(level.number, np.zeros(0, dtype=np.int64))
        for at in range(0, len(tables), _CHUNK):
            chunk = tables[at : at + _CHUNK]
            block = self.format.entries_of(self.memory.pages(chunk), level)
            there = (block & _P) != 0
            if level.number == self.format.root_level:
                own = self.format.xen_slots
                there[:, own.start : own.stop] = False
            row, slot = np.nonzero(there)
            yield chunk, row, slot, block[row, slot]
