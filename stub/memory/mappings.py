"""All that a root table maps, read with numpy: a large guest's address space in milliseconds.

A guest may build tables that map each other over and over, so that four pages map the whole address space: a scan is
bounded and says when it was cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from stub.memory import entries as e
from stub.memory.formats import Bools, Format, I64s, Level, U64s, offset_in_page
from stub.memory.walker import Tables
from stub.units import PAGE_SHIFT, PAGE_SIZE

MAX_TABLES = 1 << 14  # of one level, visits
MAX_MAPPINGS = 1 << 22
MAX_RUNS = 1 << 16
_CHUNK = 1024  # tables at a time
_P, _NX, _AND = np.uint64(e.P), np.uint64(e.NX), np.uint64(e.P | e.RW | e.US)


@dataclass(frozen=True)
class Mappings:
    """What a root maps, by address: parallel arrays. ``cut``: there is more.

    ``rights`` has P, RW, US of all levels together, and NX of any; ``size`` is in bytes; ``frame`` the page's first.
    """

    vaddr: U64s
    entry: U64s
    rights: U64s
    size: U64s
    frame: I64s
    cut: bool = False

    def __len__(self) -> int:
        return len(self.vaddr)

    def only(self, chosen: Bools | slice | I64s) -> Mappings:
        """Those that are chosen."""
        return Mappings(
            self.vaddr[chosen], self.entry[chosen], self.rights[chosen], self.size[chosen], self.frame[chosen], self.cut
        )

    def runs(self, *same: npt.NDArray[np.generic]) -> Iterator[slice]:
        """Stretches without a gap in which each of ``same`` stays what it is; MAX_RUNS at most."""
        if not len(self):
            return
        breaks = self.vaddr[1:] != self.vaddr[:-1] + self.size[:-1]
        for values in same:
            breaks |= values[1:] != values[:-1]
        ends = [0, *(np.flatnonzero(breaks) + 1).tolist(), len(self)]
        yield from (slice(first, last) for first, last in pairwise(ends[: MAX_RUNS + 1]))

    def small(self) -> Mappings:
        """The same in pages of 4 KiB; ``cut`` where they would be too many."""
        counts = (self.size >> np.uint64(PAGE_SHIFT)).astype(np.int64)
        if not len(self) or int(counts.max()) == 1:
            return self
        fits = int(np.searchsorted(np.cumsum(counts), MAX_MAPPINGS, side="right"))
        part, counts = self.only(slice(0, fits)), counts[:fits]
        which = np.repeat(np.arange(fits), counts)
        inside = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
        made = part.only(which)
        return Mappings(
            made.vaddr + (inside.astype(np.uint64) << np.uint64(PAGE_SHIFT)),
            made.entry,
            made.rights,
            np.full(len(which), np.uint64(PAGE_SIZE)),
            made.frame + inside,
            self.cut or fits < len(self),
        )


@dataclass
class _Heads:
    """Tables to look through: where each begins in the address space, and what the levels above it allow."""

    tables: I64s
    bases: U64s
    rights: U64s

    def __getitem__(self, part: slice | Bools) -> _Heads:
        return _Heads(self.tables[part], self.bases[part], self.rights[part])


@dataclass
class _Found:
    """Mappings as they come up, and how many more there may be."""

    left: int = MAX_MAPPINGS
    cut: bool = False
    parts: list[Mappings] = field(default_factory=list)

    def add(self, fmt: Format, level: Level, values: U64s, heads: _Heads) -> None:
        take = min(self.left, len(values))
        self.cut |= take < len(values)
        self.left -= take
        frame = fmt.leaf_frame(values[:take], level).astype(np.int64)
        size = np.full(take, np.uint64(level.span))
        self.parts.append(Mappings(heads.bases[:take], values[:take], heads.rights[:take], size, frame))

    def sorted(self, fmt: Format) -> Mappings:
        none = np.zeros(0, dtype=np.uint64)
        parts = [Mappings(none, none, none, none, none.astype(np.int64)), *self.parts]
        vaddr = np.concatenate([part.vaddr for part in parts])
        whole = Mappings(
            vaddr,
            np.concatenate([part.entry for part in parts]),
            np.concatenate([part.rights for part in parts]),
            np.concatenate([part.size for part in parts]),
            np.concatenate([part.frame for part in parts]),
            self.cut,
        )
        if fmt.width > 32:
            high = vaddr >> np.uint64(fmt.width - 1) & np.uint64(1)
            vaddr |= np.where(high, np.uint64((1 << 64) - (1 << fmt.width)), np.uint64(0))
        return whole.only(np.argsort(vaddr, kind="stable"))


def mappings(memory: Tables, fmt: Format, root: int, slots: range | None = None) -> Mappings:
    """All that is mapped from the table at ``root``; ``slots``: only under these of its entries."""
    found = _Found()
    top = np.array([fmt.root(root) >> PAGE_SHIFT], dtype=np.int64)
    heads = _Heads(top, np.zeros(1, dtype=np.uint64), np.array([_AND]))[memory.there(top)]
    offset = offset_in_page(fmt, root)
    for level in fmt.levels:
        heads = _descend(memory, fmt, level, heads, found, (offset, slots))
        if not len(heads.tables) or not found.left:
            break
        offset, slots = 0, None
    return found.sorted(fmt)


def _descend(
    memory: Tables, fmt: Format, level: Level, heads: _Heads, found: _Found, within: tuple[int, range | None]
) -> _Heads:
    """The tables that those of one level lead to; the pages that they map go into ``found``."""
    below: list[_Heads] = []
    room = MAX_TABLES
    for at in range(0, len(heads.tables), _CHUNK):
        if not found.left or room < 0:
            found.cut = True
            break
        here = _present(memory, fmt, level, heads[at : at + _CHUNK], within)
        leaf = fmt.leaves(here.values, level)
        if leaf.any():
            found.add(fmt, level, here.values[leaf], here.heads[leaf])
        inner = here.heads[~leaf]
        inner.tables = fmt.table_frame(here.values[~leaf]).astype(np.int64)
        inner = inner[memory.there(inner.tables)]
        below.append(inner[:room] if room > 0 else inner[:0])
        found.cut |= room < len(inner.tables)
        room -= len(inner.tables)
    none = _Heads(np.zeros(0, np.int64), np.zeros(0, np.uint64), np.zeros(0, np.uint64))
    return _Heads(*(np.concatenate([getattr(p, n) for p in (none, *below)]) for n in ("tables", "bases", "rights")))


@dataclass
class _Present:
    """Present entries: their values, and of each the address, the rights down to it, and its table."""

    values: U64s
    heads: _Heads


def _present(
    memory: Tables, fmt: Format, level: Level, heads: _Heads, within: tuple[int, range | None] = (0, None)
) -> _Present:
    offset, slots = within
    block = fmt.entries_of(memory.pages(heads.tables), level, offset)
    there = (block & _P) != 0
    if slots is not None:
        there[:, : slots.start] = there[:, slots.stop :] = False
    row, slot = np.nonzero(there)
    values, above = block[row, slot], heads.rights[row]
    base = heads.bases[row] | slot.astype(np.uint64) << np.uint64(level.shift)
    rights = above
    if level.rights:
        rights = (above & values & _AND) | (above & _NX)
        if fmt.execute_disable:
            rights |= values & _NX
    return _Present(values, _Heads(heads.tables[row], base, rights))
