"""Results as text: rows with their targets, sections of rows, Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from benchmarks.samples import Series, ratio

SCALES = {"s": (1.0, 2), "ms": (1e3, 0), "µs": (1e6, 2)}
"""Unit → what seconds are multiplied by, and decimals shown."""
HEADINGS = ("measure", "pvstub", "peer", "ratio", "CPU: pvstub", "peer", "ratio", "target", "")


@dataclass(frozen=True)
class Row:
    """A timed thing, what it is compared with, and what was promised.

    ``target``: at most this ratio where there is a peer, else at most this time in seconds; None promises nothing.
    It is the wall time that has to keep it.
    """

    what: str
    ours: Series
    peer: Series | None = None
    unit: str = "s"
    target: float | None = None

    def value(self) -> float:
        """What is held against the target."""
        return ratio(self.ours.wall, self.peer.wall) if self.peer else statistics.median(self.ours.wall)

    def cells(self) -> list[str]:
        """The row's text, column by column as in HEADINGS."""
        cells = [self.what]
        for column in ("wall", "cpu"):
            ours = getattr(self.ours, column)
            theirs = getattr(self.peer, column) if self.peer else ()
            cells += [
                spread(ours, self.unit),
                spread(theirs, self.unit) if theirs else "",
                f"{ratio(ours, theirs):.2f}" if theirs else "",
            ]
        limit = ""
        if self.target is not None:
            limit = f"≤ {self.target:.2f}" if self.peer else f"≤ {number(self.target, self.unit)} {self.unit}"
        return [*cells, limit, verdict(self.value(), self.target)]


@dataclass(frozen=True)
class Section:
    """A heading, what is measured, rows, and Markdown to follow them."""

    heading: str
    text: str
    rows: Sequence[Row] = ()
    after: Sequence[str] = field(default=())

    def markdown(self) -> str:
        parts = [f"## {self.heading}", self.text]
        if self.rows:
            parts.append(table(HEADINGS, (row.cells() for row in self.rows)))
        return "\n\n".join([*parts, *self.after])


def number(seconds: float, unit: str) -> str:
    """A time in its unit, without the unit's name."""
    scale, decimals = SCALES[unit]
    return f"{seconds * scale:.{decimals}f}"


def spread(seconds: Sequence[float], unit: str) -> str:
    """The median with its unit, and the extremes when they are not one sample."""
    middle = f"{number(statistics.median(seconds), unit)} {unit}"
    if len(seconds) == 1:
        return middle
    return f"{middle} ({number(min(seconds), unit)} to {number(max(seconds), unit)})"


def verdict(value: float, target: float | None) -> str:
    """Whether a target is met; nothing where there is none."""
    if target is None:
        return ""
    return "met" if value <= target else "**missed**"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
