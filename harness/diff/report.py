"""A comparison as lines to read, in the manner of diff, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any, Final

from harness.diff.backtrace import Backtrace
from harness.diff.compare import Comparison, Entry, Line, Run
from stub.trace import jsonlines, text

MOST_LINES: Final = 60
"""How much of a long divergence is shown."""

Callers = tuple[Backtrace | None, Backtrace | None]
"""Who called at GOOD's first event that differs, and at BAD's; None where one has nothing more."""


def lines(found: Comparison, good: Run, bad: Run, callers: Callers | None = None) -> Iterator[str]:
    """The comparison for a person."""
    if not found.after:
        yield f"the same: {found.equal:,} events"
        return
    yield f"the same for {found.equal:,} events; then:"
    for line in found.before:
        yield from _shown(line)
    for line in found.after[:MOST_LINES]:
        yield from _shown(line)
    if len(found.after) > MOST_LINES:
        yield f"  … {len(found.after) - MOST_LINES:,} more lines"
    yield ""
    yield from _first(found, good, bad, callers)
    yield _afterwards(found)


def _shown(line: Line) -> Iterator[str]:
    if line.good is not None and line.bad is not None:
        yield f"  {text.line(line.good.record)}"
        return
    for mark, entry in (("-", line.good), ("+", line.bad)):
        if entry is not None:
            yield f"{mark} {text.line(entry.record)}"


def _first(found: Comparison, good: Run, bad: Run, callers: Callers | None) -> Iterator[str]:
    """The first event that differs, on both sides, in the words that were compared."""
    one, other = found.first
    traces = callers or (None, None)
    for name, entry, run, trace in (("GOOD", one, good, traces[0]), ("BAD", other, bad, traces[1])):
        if entry is None:
            yield f"{name} has nothing more"
            continue
        yield f"{name} {entry.event}"
        if trace is not None and trace.frames:
            yield from (f"    {line}" for line in trace.lines())
            continue
        place = run.places.symbol(entry.record.rip)
        yield f"    at {entry.record.rip:#x}" + (f" {place}" if place else "")
        if trace is not None:
            yield f"    {trace.why}"
    if one is not None and other is not None:
        yield from (f"    {difference}" for difference in differences(one, other))


def differences(one: Entry, other: Entry) -> list[str]:
    """What tells two events apart, word by word; nothing where they are not of one kind."""
    if one.event.asked[:1] != other.event.asked[:1]:
        return []
    found = []
    parts: tuple[tuple[str, Sequence[str], Sequence[str]], ...] = (
        ("asked", one.event.asked, other.event.asked),
        ("where", [word.exact for word in one.event.where], [word.exact for word in other.event.where]),
        ("answer", one.event.answer, other.event.answer),
    )
    for name, left, right in parts:
        for a, b in zip_longest(left, right, fillvalue="nothing"):
            if a != b:
                found.append(f"{name}: GOOD {a}, BAD {b}")
    return found


def _afterwards(found: Comparison) -> str:
    if not found.met:
        return f"they do not meet again in the {found.window:,} events behind it that were looked at"
    if not found.more:
        return f"behind it they go on alike, in the {found.window:,} events that were looked at"
    return f"they meet again, and differ in {found.more:,} more of the {found.window:,} events that were looked at"


def as_object(found: Comparison, good: Run, bad: Run, callers: Callers | None = None) -> dict[str, Any]:
    """The comparison for a program."""
    divergence: dict[str, Any] | None = None
    if found.after:
        one, other = found.first
        traces = callers or (None, None)
        divergence = {
            "good": _entry(one, good, traces[0]),
            "bad": _entry(other, bad, traces[1]),
            "differences": differences(one, other) if one and other else [],
            "before": [_line(line) for line in found.before],
            "after": [_line(line) for line in found.after[:MOST_LINES]],
            "met": found.met,
            "more": found.more,
            "window": found.window,
        }
    return {"same": not found.after, "equal": found.equal, "divergence": divergence}


def _entry(entry: Entry | None, run: Run, trace: Backtrace | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    return {
        "event": {
            "asked": list(entry.event.asked),
            "where": [word.exact for word in entry.event.where],
            "answer": list(entry.event.answer),
        },
        "symbol": run.places.symbol(entry.record.rip),
        "backtrace": None if trace is None else trace.as_object(),
        "record": jsonlines.as_object(entry.record),
    }


def _line(line: Line) -> dict[str, str | None]:
    return {
        "good": None if line.good is None else text.line(line.good.record),
        "bad": None if line.bad is None else text.line(line.bad.record),
    }
