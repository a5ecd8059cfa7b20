"""Two runs' records side by side, to the first that differs; from there on aligned, as far as a window reaches.

The logs are read once and side by side, and only a few records of context are held, so that the length of a log costs
time and no memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, zip_longest
from typing import Final, NamedTuple

from harness.diff.events import FRAME_BITS, PRESENT, REQUEST, Event, event, scheduled
from harness.diff.places import Places
from stub.abi.xen import Hypercall
from stub.trace.align import Side, TooDifferent, align
from stub.trace.filters import Predicate
from stub.trace.records import HypercallRecord, PortIoRecord, Record

WINDOWS: Final = (20_000, 2_000, 150)
"""How many events behind the divergence are aligned: the most of these that have no more than `LIMIT` differences."""
LIMIT: Final = 300
MET: Final = 8
"""So many equal events in a row, and the two have met again."""


class Run(NamedTuple):
    """One side: its records from the start, and its places."""

    records: Iterable[Record]
    places: Places


class Rules(NamedTuple):
    """What is compared: ``exact`` places; ``schedule`` too; only what all ``filters`` let through."""

    exact: bool
    schedule: bool
    filters: Sequence[Predicate] = ()


class Entry(NamedTuple):
    """A record and what was compared of it."""

    record: Record
    event: Event


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


def compare(good: Run, bad: Run, rules: Rules, context: int) -> Comparison:
    """Compare two runs and keep ``context`` equal events around the first difference."""
    before: deque[tuple[Record, Record]] = deque(maxlen=context)
    left, right = _compared(good, rules), _compared(bad, rules)
    equal = 0
    for a, b in zip_longest(left, right):
        if (
            a is None
            or b is None
            or not (_same(a, b, good.places, bad.places) or _key(a, good, rules) == _key(b, bad, rules))
        ):
            lines = [Line(_entry(one, good), _entry(other, bad)) for one, other in before]
            rest = _rest(a, left, good, WINDOWS[0]), _rest(b, right, bad, WINDOWS[0] + LIMIT)
            return _diverged(equal, lines, rest, rules, context)
        before.append((a, b))
        equal += 1
    return Comparison(equal, [], [], True, 0, 0)


def _compared(run: Run, rules: Rules) -> Iterator[Record]:
    for record in run.records:
        if (rules.schedule or not scheduled(record)) and all(matches(record) for matches in rules.filters):
            yield record


def _same(one: Record, other: Record, good: Places, bad: Places) -> bool:
    """Whether two records are the same as far as numbers tell; most are, and this is quicker than words."""
    if isinstance(one, PortIoRecord) and isinstance(other, PortIoRecord):
        return (one.port, one.value, one.size, one.write) == (other.port, other.value, other.size, other.write)
    if not (isinstance(one, HypercallRecord) and isinstance(other, HypercallRecord)):
        return False
    if (one.number, one.result) != (other.number, other.result) or not good.same_addresses(bad):
        return False
    if one.number == Hypercall.mmu_update and good.frames != bad.frames:
        return one.args == other.args and _requests(one, good) == _requests(other, bad)
    if good.frames != bad.frames and (one.payload or one.out or one.number in _FRAMES_IN_REGISTERS):
        return False
    return (one.args, one.payload, one.out) == (other.args, other.payload, other.out)


_FRAMES_IN_REGISTERS: Final = frozenset({
    Hypercall.update_va_mapping, Hypercall.update_va_mapping_otherdomain, Hypercall.update_descriptor,
})  # fmt: skip


def _requests(record: HypercallRecord, places: Places) -> list[tuple[int, int, int, int]]:
    """An mmu_update's requests with the guest's own frame numbers (-1: none of its)."""
    return [
        (places.pfn(address >> 12), address & 0xFFF, places.pfn((entry & FRAME_BITS) >> 12), entry & ~FRAME_BITS)
        if entry & PRESENT and not address & 7
        else (places.pfn(address >> 12), address & 0xFFF, -2, entry)
        for address, entry in REQUEST.iter_unpack(record.payload[: len(record.payload) & ~15])
    ]


def _key(record: Record, run: Run, rules: Rules) -> tuple[tuple[str, ...], ...]:
    return event(record, run.places).key(rules.exact)


def _entry(record: Record, run: Run) -> Entry:
    return Entry(record, event(record, run.places))


def _rest(first: Record | None, others: Iterator[Record], run: Run, size: int) -> list[Entry]:
    return [_entry(record, run) for record in chain([] if first is None else [first], islice(others, size))]


def _diverged(
    equal: int, before: list[Line], rest: tuple[list[Entry], list[Entry]], rules: Rules, context: int
) -> Comparison:
    """The rest of the two, from the first difference on."""
    good, bad = rest
    keys = [[entry.event.key(rules.exact) for entry in side] for side in (good, bad)]
    sides: list[Side] = []
    for window in WINDOWS:
        try:
            sides = align(keys[0][:window], keys[1][: window + LIMIT], LIMIT)
        except TooDifferent:
            continue
        break
    reached = sum(side.first is not None for side in sides), sum(side.second is not None for side in sides)
    if reached[0] == len(good) < WINDOWS[0]:  # to GOOD's end: what BAD has behind it is different too
        sides += [Side(None, number) for number in range(reached[1], len(bad))]
    lines = [
        Line(None if a is None else good[a], None if b is None else bad[b])  # as a diff has it
        for a, b in sides
    ]
    end, met = _meeting(lines)
    behind = lines[end + context :]
    more = sum(line.good is None or line.bad is None for line in behind)
    return Comparison(equal, before, lines[: end + context], met, more if met else None, len(lines))


def _meeting(lines: Sequence[Line]) -> tuple[int, bool]:
    """Where the first `MET` equal lines in a row begin, and whether there are any; equal to the very end will do."""
    row = 0
    for number, line in enumerate(lines):
        row = 0 if line.good is None or line.bad is None else row + 1
        if row == MET:
            return number + 1 - MET, True
    return len(lines) - row, row > 0
