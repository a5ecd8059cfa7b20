"""One address space of a snapshot: walks, ranges of like pages, tables counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from stub.errors import UsageError
from stub.memory import entries as e
from stub.memory.forest import reach
from stub.memory.formats import FORMATS, Format, U64s
from stub.memory.mappings import Mappings, mappings
from stub.memory.walker import Renumbered, Tables, Walk, access_words, walk
from stub.trace.pagetables.moments import Root
from stub.trace.pagetables.snapshot import INVALID, Snapshot
from stub.units import PAGE_SHIFT, PAGE_SIZE, U64

FLAGS = np.uint64(e.RW | e.US | e.PWT | e.PCD | e.PSE | e.G | e.GUEST_KERNEL | e.NX)  # that tell ranges apart


@dataclass(frozen=True)
class Range:
    """Like pages, one behind the other. ``end`` is the first byte behind it; ``access`` is ``kernel rw-`` or alike.

    ``pfns`` and ``mfns`` are the first and the last of a straight run, one where it is the same for all pages, None
    where they are scattered, empty where the frames have none; ``entry`` is the first page's.
    """

    start: int
    end: int
    page: int
    access: str
    entry: int
    rights: int
    pfns: tuple[int, ...] | None
    mfns: tuple[int, ...] | None

    @property
    def size(self) -> int:
        """In bytes."""
        return self.end - self.start


class AddressSpace:
    """What a root table maps. ``by_pfn``: its entries hold PFNs, as a loader's may before it has looked them up."""

    def __init__(self, snapshot: Snapshot, root: Root, *, by_pfn: bool = False) -> None:
        self.snapshot = snapshot
        self.root = root
        self.format: Format = FORMATS[root.format]
        self.by_pfn = by_pfn
        self.memory: Tables = snapshot.tables
        self._maddr = root.maddr
        if by_pfn:
            self.memory = Renumbered(snapshot.tables, snapshot.frames.p2m)
            pfn = snapshot.frames.pfn(root.maddr >> PAGE_SHIFT)
            if pfn is None or pfn >= 2 * len(snapshot.frames.m2p):  # what the guest wrote there
                raise UsageError(f"root {root.maddr:#x}: its frame has no PFN, so its entries cannot hold PFNs")
            self._maddr = (pfn << PAGE_SHIFT) + (root.maddr & PAGE_SIZE - 1)

    def __str__(self) -> str:
        """``root 0x1234000 (long, mfn 0x1234; in use, kernel)``."""
        names = f"; {', '.join(self.root.names)}" if self.root.names else ""
        return f"root {self.root.maddr:#x} ({self.format.name}, mfn {self.root.maddr >> PAGE_SHIFT:#x}{names})"

    def walk(self, vaddr: int) -> Walk:
        """The translation of an address; UsageError for a number that the format does not translate."""
        if not self.format.is_address(vaddr):
            raise UsageError(
                f"{vaddr:#x} is no address in {self.format.name} tables, which have {self.format.width} bits"
            )
        return walk(self.memory, self.format, self._maddr, vaddr)

    @cached_property
    def everything(self) -> Mappings:
        """All pages, those for Xen alone too."""
        return mappings(self.memory, self.format, self._maddr)

    @cached_property
    def mappings(self) -> Mappings:
        """The pages that the guest can reach."""
        found = self.everything
        return found.only((found.rights & np.uint64(e.US)) != 0) if self.format.marks_kernel else found

    def pfns(self, found: Mappings) -> U64s:
        """The PFN of each mapping; all ones for none."""
        if self.by_pfn:
            return found.frame.astype(np.uint64)
        return self.snapshot.frames.pfns(found.frame)

    def ranges(self, *, xen: bool = False, straight: bool = False, kinds: Sequence[U64s] = ()) -> Iterator[Range]:
        """Stretches of pages of one size with the same rights; ``xen``: also those for Xen alone.

        ``straight``: PFNs one behind the other, too. ``kinds``: values for each page that tell stretches apart, in
        place of the rights.
        """
        found = self.everything if xen else self.mappings
        pfns = self.pfns(found)
        same = [found.size, *(kinds or [self.kinds(found)])]
        if straight:
            same.append(_straightness(found, pfns))
        for run in found.runs(*same):
            yield self._range(found.only(run), pfns[run])

    def kinds(self, found: Mappings) -> U64s:
        """The rights of each page, whose it is with them."""
        marks = found.entry & np.uint64(e.GUEST_KERNEL) if self.format.marks_kernel else np.uint64(0)
        return found.rights & np.uint64(e.US | e.RW | e.NX) | marks

    def _range(self, run: Mappings, pfns: U64s) -> Range:
        page, start = int(run.size[0]), int(run.vaddr[0])
        entry, rights = int(run.entry[0]), int(run.rights[0])
        step = page >> PAGE_SHIFT
        return Range(
            start,
            start + len(run) * page,
            page,
            access_words(self.format, rights, entry),
            entry,
            rights,
            _straight(pfns, step),
            () if self.by_pfn else _straight(run.frame.astype(np.uint64), step),
        )

    def census(self) -> Mapping[int, int]:
        """How many tables of each level there are, Xen's left out: level → count."""
        roots = np.array([self._maddr], dtype=np.int64)
        found = reach(self.memory, self.format, roots, skip=self.format.xen_slots)
        return {level: len(tables) for level, tables in found.items()}

    def page_sizes(self) -> Mapping[int, int]:
        """How many pages of each size the guest can reach: bytes → count."""
        sizes, counts = np.unique(self.mappings.size, return_counts=True)
        return dict(zip(sizes.tolist(), counts.tolist(), strict=True))


def _straightness(found: Mappings, pfns: U64s) -> U64s:
    """A value for each page that stays the same as long as the PFNs go on with the addresses, or are all the same."""
    alike = pfns[1:] == pfns[:-1]
    repeated = np.zeros(len(pfns), dtype=np.bool_)
    repeated[1:] |= alike
    repeated[:-1] |= alike
    return np.where(
        repeated, pfns | np.uint64(1 << 63), (pfns - (found.vaddr >> np.uint64(PAGE_SHIFT))) & np.uint64(U64 >> 1)
    )


def _straight(frames: U64s, step: int) -> tuple[int, ...] | None:
    first, last = int(frames[0]), int(frames[-1])
    if (frames == INVALID).all():
        return ()
    if len(frames) > 1 and (frames == frames[0]).all():
        return (first,)
    if (frames[1:] - frames[:-1] != np.uint64(step)).any():
        return None
    return first, last + step - 1
