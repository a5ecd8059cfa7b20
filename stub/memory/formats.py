"""The page-table formats that a PV guest runs on or builds, a row each (x86 manual, vol. 3, 4.3 to 4.5).

``long`` is what Xen keeps of a 64-bit guest's tables, its own marks in them (asm-x86/page.h). ``raw`` are the same
four levels as the guest wrote them and nobody has looked at yet: a loader builds such tables before it switches to
them. ``pae`` and ``legacy`` are a 32-bit guest's, which Xen stores as they were written but for the third level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from stub.memory import entries as e
from stub.units import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE

U64s = npt.NDArray[np.uint64]
I64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Entry = TypeVar("Entry", int, U64s)

_LEGACY_FRAMES = 0xFFFFF


@dataclass(frozen=True)
class Level:
    """One level of tables: ``number`` 1 is the lowest; an entry translates ``span`` bytes from bit ``shift`` on.

    ``large``: an entry may map memory by itself. ``rights``: its RW and US count (a PAE root's entries have none).
    """

    number: int
    shift: int
    entries: int
    large: bool = False
    rights: bool = True

    @property
    def span(self) -> int:
        """Bytes of address space that an entry stands for."""
        return 1 << self.shift


@dataclass(frozen=True)
class Format:
    """One format. ``levels``: the root's first; ``entry_size`` and ``root_size`` in bytes; ``width``: address bits.

    ``execute_disable``: bit 63 forbids execution. ``xen_slots``: the root's entries that are Xen's and not the guest's.
    ``meant(entry, level)``: what the guest wrote, as far as that can be told from what is stored.
    """

    name: str
    about: str
    entry_size: int
    width: int
    root_size: int
    levels: tuple[Level, ...]
    execute_disable: bool = True
    xen_slots: range = range(0)
    meant: Callable[[int, int], int] = lambda entry, _: entry

    @property
    def root_level(self) -> int:
        """The number of the highest level."""
        return self.levels[0].number

    @property
    def marks_kernel(self) -> bool:
        """Whether Xen marks the kernel's own pages in it; else US says whose a page is."""
        return bool(self.xen_slots)

    def level(self, number: int) -> Level:
        """A level by its number."""
        return self.levels[self.root_level - number]

    def index(self, vaddr: int, level: Level) -> int:
        """The slot that translates ``vaddr``."""
        return vaddr >> level.shift & level.entries - 1

    def root(self, maddr: int) -> int:
        """The machine address of the root in a value of CR3, whose low bits are flags."""
        return maddr & ~(self.root_size - 1)

    def is_leaf(self, entry: int, level: Level) -> bool:
        """Whether a present entry maps memory, and not a table."""
        return level.number == 1 or (level.large and bool(entry & e.PSE))

    def leaves(self, values: U64s, level: Level) -> Bools:
        """The same for many."""
        if level.number == 1:
            return np.ones(len(values), dtype=np.bool_)
        return (values & np.uint64(e.PSE)) != 0 if level.large else np.zeros(len(values), dtype=np.bool_)

    def table_frame(self, entry: Entry) -> Entry:
        """The frame that an entry names, were it a table or a 4 KiB page."""
        value: Any = entry  # what numpy's types say of a shift is not so
        named: Entry = value >> 12 & (_LEGACY_FRAMES if self.entry_size == 4 else e.FRAME_MASK)
        return named

    def leaf_frame(self, entry: Entry, level: Level) -> Entry:
        """The first frame of the page that an entry maps.

        A large page's address has no bits below its size; those of a 4 MiB page go on in the entry's bits 20:13
        (PSE-36).
        """
        value: Any = entry
        low = (level.span >> PAGE_SHIFT) - 1 if level.number > 1 else 0
        named: Entry = self.table_frame(value) & (e.FRAME_MASK ^ low)
        if low and self.entry_size == 4:
            named |= (value >> 13 & 0xFF) << 20
        return named

    def canonical(self, vaddr: int) -> int:
        """An address with its highest bit carried on into those above it."""
        return vaddr | ~0 << self.width & (1 << 64) - 1 if self.width > 32 and vaddr >> self.width - 1 & 1 else vaddr

    def is_address(self, vaddr: int) -> bool:
        """Whether a number is an address that the format translates."""
        return 0 <= vaddr < 1 << 64 and self.canonical(vaddr & (1 << self.width) - 1) == vaddr

    def entries_of(self, pages: U64s, level: Level, offset: int = 0) -> U64s:
        """The entries of tables, one a row of ``pages`` (64-bit words); ``offset``: where they begin, in bytes."""
        words = pages if self.entry_size == 8 else pages.view("<u4")
        first = offset // self.entry_size
        return words[:, first : first + level.entries].astype(np.uint64, copy=False)


def _meant_long(entry: int, level: int) -> int:
    """The reverse of adjust_guest_l1e: without the mark, US was not there; with US and no mark, G is Xen's.

    Xen sets US in the entries above, and nothing tells whether the guest had, so there it is left.
    """
    if not entry & e.P or level > 1:
        return entry
    if entry & e.GUEST_KERNEL:
        return entry & ~(e.GUEST_KERNEL | e.US)
    return entry & ~e.G if entry & e.US else entry


def _meant_pae(entry: int, level: int) -> int:
    """What Xen adds to a third-level entry is taken away (pv/mm.h, unadjust_guest_l3e)."""
    return entry & ~(e.RW | e.US | e.A) if entry & e.P and level == 3 else entry


_FOUR = (Level(4, 39, 512), Level(3, 30, 512, large=True), Level(2, 21, 512, large=True), Level(1, 12, 512))
LONG = Format(
    "long", "four levels, as Xen stores them", 8, 48, PAGE_SIZE, _FOUR,
    xen_slots=range(e.XEN_FIRST_SLOT, e.XEN_LAST_SLOT + 1), meant=_meant_long,
)  # fmt: skip
RAW = Format("raw", "four levels, as the guest wrote them", 8, 48, PAGE_SIZE, _FOUR)
PAE = Format(
    "pae", "three levels, the root has 4 entries", 8, 32, 32,
    (Level(3, 30, 4, rights=False), Level(2, 21, 512, large=True), Level(1, 12, 512)),
    meant=_meant_pae,
)  # fmt: skip
LEGACY = Format(
    "legacy", "two levels of 32-bit entries", 4, 32, PAGE_SIZE,
    (Level(2, 22, 1024, large=True), Level(1, 12, 1024)),
    execute_disable=False,
)  # fmt: skip

FORMATS = {row.name: row for row in (LONG, RAW, PAE, LEGACY)}


def offset_in_page(fmt: Format, root: int) -> int:
    """Where in its page a root table begins, in bytes."""
    return fmt.root(root) & PAGE_MASK
