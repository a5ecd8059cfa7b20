"""An address space and machine memory as a picture: cells coloured by access, and by frame type.

A cell is some pages or frames; it has the colour of the most telling of them, so that one writable and executable page
in a thousand shows. The picture is a list of cells, boxes and lines of text; ``svg`` and ``png`` write it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stub.memory.frames import FREE, GUEST, L1, L2, L3, L4, NONE, SEG_DESC, WRITABLE
from stub.memory.mappings import Mappings
from stub.memory.words import size as size_text
from stub.trace.pagetables.snapshot import Frames
from stub.trace.pagetables.space import AddressSpace
from stub.units import MIB, PAGE_SHIFT, U64

Kinds = npt.NDArray[np.uint8]

COLUMNS, CELL, LINE, MARGIN = 256, 3, 16, 12  # cells in a row; pixels
_MOST_ROWS, _MOST_MEMORY_ROWS, _MOST_PARTS = 24, 96, 48
_GAP = 64 * MIB  # address space without a page that is left out of the picture
BACKGROUND, INK = (255, 255, 255), (32, 32, 32)

# What a cell may be, the most telling last: name, colour. The first of each is the ground that cells lie on.
ACCESS = (
    ("not mapped", (238, 238, 238)),
    ("Xen", (150, 150, 150)),
    ("kernel r--", (160, 196, 232)),
    ("user r--", (170, 222, 190)),
    ("kernel rw-", (70, 130, 200)),
    ("user rw-", (60, 170, 110)),
    ("kernel r-x", (150, 110, 200)),
    ("user r-x", (215, 180, 60)),
    ("user rwx", (240, 130, 40)),
    ("kernel rwx", (215, 40, 40)),
)
TYPES = (
    ("free", (238, 238, 238)),
    ("Xen's", (150, 150, 150)),
    ("none", (190, 214, 240)),
    ("writable", (70, 130, 200)),
    ("seg_desc", (215, 180, 60)),
    ("l1", (120, 190, 130)),
    ("l2", (60, 150, 80)),
    ("l3", (240, 130, 40)),
    ("l4", (215, 40, 40)),
)
_TYPE_ROWS = {NONE: 2, WRITABLE: 3, SEG_DESC: 4, L1: 5, L2: 6, L3: 7, L4: 8}


@dataclass(frozen=True)
class Cells:
    """Rows of cells from ``x``, ``y`` on (pixels): each a row of ``palette``, or 255 for none."""

    x: int
    y: int
    kinds: Kinds
    palette: tuple[tuple[str, tuple[int, int, int]], ...]


@dataclass(frozen=True)
class Text:
    """One line; ``x``, ``y`` is its upper left corner."""

    x: int
    y: int
    text: str


@dataclass
class Picture:
    """What is to be drawn, ``height`` growing as it is put together; sizes in pixels."""

    width: int = 2 * MARGIN + COLUMNS * CELL
    height: int = MARGIN
    cells: list[Cells] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)

    def say(self, text: str) -> None:
        """A line of text below all that is there."""
        self.texts.append(Text(MARGIN, self.height, text))
        self.height += LINE

    def put(self, kinds: Kinds, palette: tuple[tuple[str, tuple[int, int, int]], ...]) -> None:
        """Cells below all that is there."""
        self.cells.append(Cells(MARGIN, self.height, kinds, palette))
        self.height += len(kinds) * CELL + LINE // 2

    def legend(self, palette: tuple[tuple[str, tuple[int, int, int]], ...]) -> None:
        """What the colours mean, some in a line."""
        x, step = MARGIN, (self.width - 2 * MARGIN) // 5
        for number, (name, _) in enumerate(palette):
            if number and number % 5 == 0:
                x, self.height = MARGIN, self.height + LINE
            square = np.full((4, 4), number, dtype=np.uint8)
            self.cells.append(Cells(x, self.height - 1, square, palette))
            self.texts.append(Text(x + 5 * CELL + 2, self.height, name))
            x += step
        self.height += LINE + LINE // 2


def draw(space: AddressSpace) -> Picture:
    """An address space, its parts from the lowest on, and below it all of machine memory."""
    picture = Picture()
    picture.say(str(space.snapshot.facts))
    picture.say(f"address space of {space}")
    picture.legend(ACCESS)
    kinds = _access_kinds(space, space.everything)
    parts = list(_parts(space.everything))
    for part in parts[:_MOST_PARTS]:
        _draw_part(picture, space.everything.only(part), kinds[part])
    if len(parts) > _MOST_PARTS:
        picture.say(f"and {len(parts) - _MOST_PARTS} parts more")
    picture.height += LINE // 2
    frames = space.snapshot.frames
    cells, each = memory_cells(frames)
    picture.say(f"machine memory: {frames.frames} frames from 0 on, a cell is {size_text(each << PAGE_SHIFT)}")
    picture.legend(TYPES)
    picture.put(cells, TYPES)
    picture.height += MARGIN
    return picture


# -- an address space


def _access_kinds(space: AddressSpace, found: Mappings) -> Kinds:
    """The row of ACCESS of each mapping."""
    rows = {name: number for number, (name, _) in enumerate(ACCESS)}
    kinds = np.zeros(len(found), dtype=np.uint8)
    for each in space.ranges(xen=True):
        name = "Xen" if each.access.startswith("Xen") else each.access
        first = np.searchsorted(found.vaddr, np.uint64(each.start))
        last = np.searchsorted(found.vaddr, np.uint64(each.end - 1 & U64), side="right")
        kinds[first:last] = rows[name]
    return kinds


def _parts(found: Mappings) -> Iterator[slice]:
    """Mappings that lie near each other."""
    if not len(found):
        return
    far = found.vaddr[1:] - (found.vaddr[:-1] + found.size[:-1]) > np.uint64(_GAP)
    edges = [0, *(np.flatnonzero(far) + 1).tolist(), len(found)]
    yield from (slice(edges[i], edges[i + 1]) for i in range(len(edges) - 1))


def _draw_part(picture: Picture, found: Mappings, kinds: Kinds) -> None:
    start = int(found.vaddr[0])
    length = int(found.vaddr[-1]) + int(found.size[-1]) - start
    each = 1 << PAGE_SHIFT
    while -(-length // each) > COLUMNS * _MOST_ROWS:
        each *= 2
    picture.say(f"{start:#x}  {size_text(length)}, a cell is {size_text(each)}")
    picture.put(_part_cells(found, kinds, start, length, each), ACCESS)


def _part_cells(found: Mappings, kinds: Kinds, start: int, length: int, each: int) -> Kinds:
    count = -(-length // each)
    rows = -(-count // COLUMNS)
    cells = np.full(rows * COLUMNS, 255, dtype=np.uint8)
    cells[:count] = 0
    offset = (found.vaddr - np.uint64(start)).astype(np.int64)
    first = offset // each
    spans = (offset + found.size.astype(np.int64) - 1) // each - first + 1
    where = np.repeat(first, spans) + np.arange(int(spans.sum())) - np.repeat(np.cumsum(spans) - spans, spans)
    np.maximum.at(cells, where, np.repeat(kinds, spans))
    return cells.reshape(rows, COLUMNS)


# -- machine memory


def memory_cells(frames: Frames) -> tuple[Kinds, int]:
    """Cells of machine memory by frame type, and how many frames a cell is."""
    rows = np.zeros(256, dtype=np.uint8)
    for kind, row in _TYPE_ROWS.items():
        rows[kind] = row
    others = np.where(frames.np_owner == FREE, 0, 1)
    kinds = np.where(frames.np_owner == GUEST, rows[frames.types_now()], others).astype(np.uint8)
    each = 1
    while frames.frames > each * COLUMNS * _MOST_MEMORY_ROWS:
        each *= 2
    count = -(-frames.frames // each)
    padded = np.zeros(count * each, dtype=np.uint8)
    padded[: frames.frames] = kinds
    cells = np.full(-(-count // COLUMNS) * COLUMNS, 255, dtype=np.uint8)
    cells[:count] = padded.reshape(count, each).max(axis=1)
    return cells.reshape(-1, COLUMNS), each
