"""A picture as SVG: one path a colour, so that a map of a whole machine stays small; text is text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from xml.sax.saxutils import escape

import numpy as np

from stub.trace.pagetables.picture import BACKGROUND, CELL, INK, LINE, Cells, Picture

_EMPTY = 255


def render(picture: Picture) -> str:
    """The file's text."""
    return "\n".join(_lines(picture)) + "\n"


def _lines(picture: Picture) -> Iterator[str]:
    size = f'width="{picture.width}" height="{picture.height}" viewBox="0 0 {picture.width} {picture.height}"'
    yield f'<svg xmlns="http://www.w3.org/2000/svg" {size} shape-rendering="crispEdges">'
    yield f'<rect width="100%" height="100%" fill="{_colour(BACKGROUND)}"/>'
    for cells in picture.cells:
        paths = _paths(cells)
        for kind in sorted(paths):
            name, colour = cells.palette[kind]
            yield f'<path fill="{_colour(colour)}" d="{"".join(paths[kind])}"><title>{escape(name)}</title></path>'
    yield f'<g font-family="monospace" font-size="{LINE - 5}" fill="{_colour(INK)}">'
    for text in picture.texts:
        yield f'<text x="{text.x}" y="{text.y + LINE - 6}" xml:space="preserve">{escape(text.text)}</text>'
    yield "</g>"
    yield "</svg>"


def _paths(cells: Cells) -> dict[int, list[str]]:
    """For each colour the rectangles of it: runs of like cells in a row."""
    found: defaultdict[int, list[str]] = defaultdict(list)
    for number, row in enumerate(cells.kinds):
        edges = [0, *(np.flatnonzero(row[1:] != row[:-1]) + 1).tolist(), len(row)]
        for first, last in pairwise(edges):
            kind = int(row[first])
            if kind != _EMPTY:
                x, y, width = cells.x + first * CELL, cells.y + number * CELL, (last - first) * CELL
                found[kind].append(f"M{x} {y}h{width}v{CELL}h-{width}z")
    return found


def _colour(colour: tuple[int, int, int]) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour)
