"""Two runs' records side by side, to the first that differs; from there on aligned, as far as a window reaches.

The logs are read once and side by side, and only a few records of context are held, so that the length of a log costs
time and no memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import chain, islice, zip_longest
from typing import Final, NamedTuple

from harness.diff.alike import SURE, SURE_KINDS, Alike
from harness.diff.events import Event, event, scheduled
from harness.diff.places import Places
from stub.trace.align import Side, TooDifferent, align
from stub.trace.filters import Predicate
from stub.trace.reader import Packed
from stub.trace.records import Record

WINDOWS: Final = (20_000, 2_000, 150)
"""How many events behind the divergence are aligned: the most of these that have no more than `LIMIT` differences."""
LIMIT: Final = 300
MET: Final = 8
"""So many equal events in a row, and the two have met again."""
MOST_EVENTS: Final = 1 << 16
"""Different ones whose words are kept."""


class Run:
    """One side: its records from the start, and its places."""

    def __init__(self, records: Iterable[Packed], unpack: Callable[[Packed], Record], places: Places) -> None:
        self.records = records
        self.unpack = unpack
        self.places = places
        self._events: dict[bytes, Event] = {}

    def entry(self, packed: Packed) -> Entry:
        """A record and what is compared of it. What happens again and again, at other times, is worded once."""
        timeless = packed.data[:8] + packed.data[16:]
        known = self._events.get(timeless)
        if known is None:
            if len(self._events) >= MOST_EVENTS:
                self._events.clear()
            known = self._events[timeless] = event(self.unpack(packed), self.places)
        return Entry(packed, known, self.unpack)


class Rules(NamedTuple):
    """What is compared: ``exact`` places; ``schedule`` too; only what all ``filters`` let through."""

    exact: bool
    schedule: bool
    filters: Sequence[Predicate] = ()


class Entry(NamedTuple):
    """A record, not taken apart yet, and what was compared of it."""

    packed: Packed
    event: Event
    unpack: Callable[[Packed], Record]

    @property
    def record(self) -> Record:
        """The record itself."""
        return self.unpack(self.packed)


class Line(NamedTuple):
    """A line of the comparison: both sides' entries, or one's where the other has nothing like it."""

    good: Entry | None
    bad: Entry | None


class Comparison(NamedTuple):
    """``equal``: events that are the same from the start. ``before``: the last of these.

    ``after``: from the first divergence on, aligned, to a few equal events behind it; empty where there is none.
    ``met``: whether the two go on alike behind that; ``more``: differences further on, in the ``window`` of lines that
    was looked at (None if they do not meet).
    """

    equal: int
    before: list[Line]
    after: list[Line]
    met: bool
    more: int | None
    window: int

    @property
    def first(self) -> tuple[Entry | None, Entry | None]:
        """The first event of each side that is not in its place on the other: GOOD's next and BAD's next."""
        goods = (line.good for line in self.after if line.good is not None)
        bads = (line.bad for line in self.after if line.bad is not None)
        return next(goods, None), next(bads, None)


def compare(good: Run, bad: Run, rules: Rules, context: int) -> Comparison:
    """Compare two runs and keep ``context`` equal events around the first difference."""
    before: deque[tuple[Packed, Packed]] = deque(maxlen=context)
    left, right = _compared(good, rules), _compared(bad, rules)
    alike = Alike(good.places, bad.places)
    equal = 0
    for a, b in zip_longest(left, right):
        if a is None or b is None or not (alike(a.data, b.data) or _same_words(a, b, good, bad, rules)):
            lines = [Line(good.entry(one), bad.entry(other)) for one, other in before]
            rest = _rest(a, left, good, WINDOWS[0]), _rest(b, right, bad, WINDOWS[0] + LIMIT)
            return _diverged(equal, lines, rest, rules, context)
        before.append((a, b))
        equal += 1
    return Comparison(equal, [], [], True, 0, 0)


def _compared(run: Run, rules: Rules) -> Iterator[Packed]:
    for packed in run.records:
        kind = packed.data[0]
        if kind in SURE_KINDS or (kind, packed.data[2]) in SURE or rules.schedule:
            record = None
        else:
            record = run.unpack(packed)
            if scheduled(record):
                continue
        if rules.filters:
            record = record or run.unpack(packed)
            if not all(matches(record) for matches in rules.filters):
                continue
        yield packed


def _same_words(one: Packed, other: Packed, good: Run, bad: Run, rules: Rules) -> bool:
    return good.entry(one).event.key(rules.exact) == bad.entry(other).event.key(rules.exact)


def _rest(first: Packed | None, others: Iterator[Packed], run: Run, size: int) -> list[Entry]:
    return [run.entry(packed) for packed in chain([] if first is None else [first], islice(others, size))]


def _diverged(
    equal: int, before: list[Line], rest: tuple[list[Entry], list[Entry]], rules: Rules, context: int
) -> Comparison:
    """The rest of the two, from the first difference on."""
    good, bad = rest
    sides = _aligned(*([entry.event.key(rules.exact) for entry in side] for side in rest))
    reached = sum(side.first is not None for side in sides), sum(side.second is not None for side in sides)
    if reached[0] == len(good) < WINDOWS[0]:  # to GOOD's end: what BAD has behind it is different too
        sides += [Side(None, number) for number in range(reached[1], len(bad))]
    lines = [Line(None if a is None else good[a], None if b is None else bad[b]) for a, b in sides]
    end, met = _meeting(lines)
    behind = lines[end + context :]
    more = sum(line.good is None or line.bad is None for line in behind)
    return Comparison(equal, before, lines[: end + context], met, more if met else None, len(lines))


def _aligned(good: Sequence[Hashable], bad: Sequence[Hashable]) -> list[Side]:
    for window in WINDOWS:
        try:
            return align(good[:window], bad[: window + LIMIT], LIMIT)
        except TooDifferent:
            continue
    return []


def _meeting(lines: Sequence[Line]) -> tuple[int, bool]:
    """Where the first `MET` equal lines in a row begin, and whether there are any; equal to the very end will do."""
    row = 0
    for number, line in enumerate(lines):
        row = 0 if line.good is None or line.bad is None else row + 1
        if row == MET:
            return number + 1 - MET, True
    return len(lines) - row, row > 0
