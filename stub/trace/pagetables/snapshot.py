"""What a snapshot keeps: every page table that a root leads to, the frame table, the M2P, and where the guest was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from stub.errors import UsageError
from stub.memory.forest import Forest, reach
from stub.memory.formats import FORMATS, LONG, Bools, Format, I64s, U64s
from stub.memory.frames import GUEST, L1, L4, FrameTable
from stub.memory.walker import FrameArray, Tables
from stub.trace.pagetables.moments import Root
from stub.units import PAGE_SHIFT, U64

U8s = npt.NDArray[np.uint8]
I32s = npt.NDArray[np.int32]

INVALID = np.uint64(U64)  # an M2P entry of a frame that has no PFN
MOST_TABLES = 1 << 16


@dataclass(frozen=True)
class Frames:
    """The frame table as it was (see :class:`stub.memory.frames.FrameTable`), and the PFN of each frame."""

    np_owner: U8s
    np_type: U8s
    np_flags: U8s
    np_type_count: I32s
    np_refs: I32s
    m2p: U64s

    @property
    def frames(self) -> int:
        """How many machine frames there are, Xen's included."""
        return len(self.np_owner)

    @cached_property
    def owner(self) -> Sequence[int]:
        """Whose each frame is."""
        return self.np_owner.data

    @cached_property
    def type(self) -> Sequence[int]:
        """Its type, while its type count is above 0."""
        return self.np_type.data

    @cached_property
    def flags(self) -> Sequence[int]:
        """Its flags."""
        return self.np_flags.data

    @cached_property
    def type_count(self) -> Sequence[int]:
        """How often it is used as its type."""
        return self.np_type_count.data

    @cached_property
    def refs(self) -> Sequence[int]:
        """How many references to it there are."""
        return self.np_refs.data

    def pfn(self, mfn: int) -> int | None:
        """What the M2P has for a frame; None for nothing."""
        value = int(self.m2p[mfn]) if mfn < len(self.m2p) else U64
        return None if value == U64 else value

    def pfns(self, mfns: I64s) -> U64s:
        """The same for many; all ones for nothing."""
        inside = mfns < len(self.m2p)
        return np.where(inside, self.m2p[np.where(inside, mfns, 0)], INVALID)

    @cached_property
    def p2m(self) -> I64s:
        """The frame of each PFN of the domain's; -1 for none."""
        own = np.flatnonzero((self.m2p < np.uint64(len(self.m2p) * 2)) & (self.np_owner[: len(self.m2p)] == GUEST))
        pfns = self.m2p[own].astype(np.int64)
        found = np.full(int(pfns.max()) + 1 if len(pfns) else 0, -1, dtype=np.int64)
        found[pfns] = own
        return found

    def types_now(self) -> U8s:
        """The type of each frame; none where nothing uses it."""
        return np.where(self.np_type_count > 0, self.np_type, np.uint8(0)).astype(np.uint8)


@dataclass(frozen=True)
class SavedTables:
    """The frames that are kept, as :class:`stub.memory.walker.Tables`: ``mfns``, sorted, and their content."""

    mfns: I64s
    content: U64s
    frames: int

    def _row(self, mfns: I64s) -> I64s:
        return np.minimum(np.searchsorted(self.mfns, mfns), max(len(self.mfns) - 1, 0))

    def pages(self, mfns: I64s) -> U64s:
        """See :class:`stub.memory.walker.Tables`."""
        return self.content[self._row(mfns)]

    def there(self, mfns: I64s) -> Bools:
        """See :class:`stub.memory.walker.Tables`."""
        if not len(self.mfns):
            return np.zeros(len(mfns), dtype=np.bool_)
        found: Bools = self.mfns[self._row(mfns)] == mfns
        return found


@dataclass(frozen=True)
class Facts:
    """Where the guest was. ``hypercalls``: made so far; ``number``: the snapshot's in its run, 0 if it is not kept."""

    moment: str = "now"
    number: int = 0
    virtual_ns: int = 0
    hypercalls: int = 0
    retired: int = 0
    rip: int = 0
    boot: int = 1
    cut: bool = False

    def __str__(self) -> str:
        """One line for a person."""
        of = f"snapshot {self.number}" if self.number else "the guest"
        boot = f", boot {self.boot}" if self.boot > 1 else ""
        return f"{of} at {self.virtual_ns / 1e9:.9f} s, after {self.hypercalls} hypercalls{boot}"


@dataclass(frozen=True)
class Snapshot:
    """One moment's page tables. ``identity``: which run it is of, as in the hypercall log."""

    facts: Facts
    identity: Mapping[str, Any]
    roots: tuple[Root, ...]
    frames: Frames
    tables: SavedTables

    def root(self, which: str = "") -> Root:
        """A root by what it is (``in use``, ``kernel``, ``user``), by its MFN or machine address, or FORMAT:MADDR."""
        named = which or "in use"
        for root in self.roots:
            if named in root.names:
                return root
        if not which:
            if self.roots:
                return self.roots[0]
            raise UsageError("this snapshot has no root table")
        if ":" in which:
            return Root.parse(which)
        return self._numbered(which)

    def _numbered(self, which: str) -> Root:
        try:
            number = int(which, 0)
        except ValueError:
            number = -1
        if not 0 <= number < 1 << 52:
            names = sorted({name for root in self.roots for name in root.names})
            raise UsageError(f"root {which!r}: give one of {', '.join(names)}, an MFN, a machine address, FORMAT:MADDR")
        maddr = number if number >= self.frames.frames else number << PAGE_SHIFT
        known = [root for root in self.roots if FORMATS[root.format].root(maddr) == root.maddr]
        if known:
            return known[0]
        if not self.tables.there(np.array([maddr >> PAGE_SHIFT], dtype=np.int64))[0]:
            raise UsageError(f"root {which}: mfn {maddr >> PAGE_SHIFT:#x} is no table of this snapshot")
        return Root(LONG.root(maddr))

    def forest(self, fmt: Format = LONG) -> Forest:
        """All tables of a format: those that its roots lead to and, of a running guest's, all that Xen knows."""
        roots = np.array([root.maddr for root in self.roots if root.format == fmt.name], dtype=np.int64)
        found = reach(self.tables, fmt, roots, skip=fmt.xen_slots)
        if fmt is LONG:
            types = np.where(self.frames.np_owner == GUEST, self.frames.types_now(), 0)
            found = {
                level: np.union1d(tables, np.flatnonzero(types == level).astype(np.int64))
                for level, tables in found.items()
            }
            found = {level: tables[self.tables.there(tables)] for level, tables in found.items()}
        return Forest(self.tables, fmt, found)


def capture(
    table: U64s, frames: FrameTable, m2p: U64s, roots: Iterable[Root], facts: Facts, identity: Mapping[str, Any]
) -> Snapshot:
    """Keep what there is now. ``table``: all frames, 512 words a row; ``m2p``: the machine-to-physical table."""
    live, roots = FrameArray(table), tuple(roots)
    typed = np.isin(frames.np_type, range(L1, L4 + 1)) & (frames.np_type_count > 0) & (frames.np_owner == GUEST)
    parts = [np.flatnonzero(typed).astype(np.int64), *_reached(live, roots)]
    mfns = np.unique(np.concatenate(parts))
    kept = mfns[:MOST_TABLES]
    kept_m2p = np.full(frames.frames, INVALID)
    kept_m2p[: len(m2p)] = m2p[: frames.frames]
    return Snapshot(
        Facts(**{**vars(facts), "cut": len(kept) < len(mfns)}),
        dict(identity),
        roots,
        Frames(
            frames.np_owner.copy(),
            frames.np_type.copy(),
            frames.np_flags.copy(),
            frames.np_type_count.copy(),
            frames.np_refs.copy(),
            kept_m2p,
        ),
        SavedTables(kept, table[kept], frames.frames),
    )


def _reached(memory: Tables, roots: tuple[Root, ...]) -> Iterable[I64s]:
    for name, fmt in FORMATS.items():
        maddrs = np.array([root.maddr for root in roots if root.format == name], dtype=np.int64)
        yield from reach(memory, fmt, maddrs).values()
