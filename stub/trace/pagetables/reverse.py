"""Who maps a frame: every entry that names it, at which addresses, under which roots."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from stub.errors import UsageError
from stub.memory import entries as e
from stub.memory import words
from stub.memory.forest import Forest, Mapper
from stub.memory.formats import FORMATS, Format
from stub.trace.pagetables.snapshot import Snapshot
from stub.trace.pagetables.walks import both
from stub.units import PAGE_SHIFT

SHOWN = 8  # addresses, and address spaces in a line


def mapping_lines(forest: Forest, level: int, rows: list[Mapper], under: Callable[[list[int]], str]) -> Iterator[str]:
    """The entries of ``level`` tables in words; ``under`` puts the roots of one address into words."""
    fmt = forest.format
    at = forest.places(level, {row.table for row in rows})
    for row in rows:
        what = "mapped at" if row.leaf else f"the L{level - 1} table of"
        grouped: defaultdict[int, list[int]] = defaultdict(list)
        for base, root in at[row.table]:
            grouped[fmt.canonical(base + (row.slot << fmt.level(level).shift))].append(root)
        names = words.flags(row.entry, level, fmt.marks_kernel)
        where = f"L{level} mfn {row.table:#x} [{row.slot:#05x}] = {row.entry:0{fmt.entry_size * 2}x} {names}"
        if not grouped:
            yield f" {what} no address (no L{fmt.root_level} leads there): {where}"
        for vaddr, roots in sorted(grouped.items())[:SHOWN]:
            yield f" {what} {vaddr:#x}: {where}; {under(roots)}"
        if len(grouped) > SHOWN:
            yield f" … and {len(grouped) - SHOWN} addresses more through the same entry"


def roots_in_words(roots: list[int], names: Mapping[int, str], level: int = 4) -> str:
    """``L4 0x12 (kernel), 0x34 and 3 more``; those with names first."""
    roots = sorted(roots, key=lambda root: (root not in names, root))
    more = f" and {len(roots) - SHOWN} more" if len(roots) > SHOWN else ""
    named = (f"{root:#x}" + (f" ({names[root]})" if root in names else "") for root in roots[:SHOWN])
    return f"L{level} " + ", ".join(named) + more


@dataclass(frozen=True)
class FrameMapping:
    """An entry that leads to a frame, of a table of ``format``; ``vaddrs``: where it does, with each the root's MFN."""

    format: Format
    row: Mapper
    vaddrs: tuple[tuple[int, int], ...]

    @property
    def writable(self) -> bool:
        """Whether the entry itself allows to write to the frame."""
        return self.row.leaf and bool(self.row.entry & e.RW)


def mappings_of(snapshot: Snapshot, mfn: int) -> list[FrameMapping]:
    """Every entry of every table that leads to a frame; UsageError for a frame that is not there."""
    if not 0 <= mfn < snapshot.frames.frames:
        raise UsageError(f"mfn {mfn:#x} is beyond machine memory, which ends at mfn {snapshot.frames.frames:#x}")
    found = []
    for fmt in _formats(snapshot):
        forest = snapshot.forest(fmt)
        for level in reversed(fmt.levels):
            rows = forest.mappers(mfn, level.number)
            at = forest.places(level.number, {row.table for row in rows})
            for row in rows:
                places = ((fmt.canonical(base + (row.slot << level.shift)), root) for base, root in at[row.table])
                found.append(FrameMapping(fmt, row, tuple(sorted(places))))
    return found


def frame_of(snapshot: Snapshot, pfn: int) -> int:
    """The frame of a PFN; UsageError for one that has none."""
    p2m = snapshot.frames.p2m
    if not 0 <= pfn < len(p2m) or p2m[pfn] < 0:
        raise UsageError(f"pfn {pfn:#x}: the domain has no frame there; its PFNs end at {len(p2m):#x}")
    return int(p2m[pfn])


def _formats(snapshot: Snapshot) -> list[Format]:
    used = {root.format for root in snapshot.roots} | {"long"}
    return [fmt for name, fmt in FORMATS.items() if name in used]


def lines(snapshot: Snapshot, mfn: int) -> Iterator[str]:
    """For a person."""
    mappings_of(snapshot, mfn)
    names = {root.maddr >> PAGE_SHIFT: ", ".join(root.names) for root in snapshot.roots if root.names}
    yield f"{snapshot.facts}: {both(snapshot, mfn)}: {words.frame(snapshot.frames, mfn)}"
    count = 0
    for fmt in _formats(snapshot):
        forest, top = snapshot.forest(fmt), fmt.root_level
        for level in reversed(fmt.levels):
            rows = forest.mappers(mfn, level.number)
            count += len(rows)
            under = partial(roots_in_words, names=names, level=top)
            yield from mapping_lines(forest, level.number, rows, under)
    if not count:
        yield " no page table of the domain maps it"


def as_object(snapshot: Snapshot, mfn: int) -> Mapping[str, Any]:
    """For JSON."""
    pfn = snapshot.frames.pfn(mfn)
    return {
        "mfn": f"{mfn:#x}",
        "mappings": [
            {
                "format": each.format.name,
                "level": each.row.level,
                "table": f"{each.row.table:#x}",
                "slot": each.row.slot,
                "stored": f"{each.row.entry:#x}",
                "meant": f"{each.format.meant(each.row.entry, each.row.level):#x}",
                "maps_memory": each.row.leaf,
                "at": [{"vaddr": f"{vaddr:#x}", "root": f"{root:#x}"} for vaddr, root in each.vaddrs],
            }
            for each in mappings_of(snapshot, mfn)
        ],
        "pfn": None if pfn is None else f"{pfn:#x}",
        "type": words.kind(snapshot.frames, mfn),
    }
