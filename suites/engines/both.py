"""One guest on both engines: run on each, and the first event that differs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import islice, zip_longest
from pathlib import Path

import pytest

from harness.diff.compare import Entry, Rules, compare
from harness.diff.sides import Side
from harness.guests import Guest
from stub.abi.cpufeatureset import FEATURES
from stub.domain.config import ENGINE_VARIABLE, ENGINES
from stub.trace.format import Kind
from stub.trace.reader import LogReader, Packed
from stub.trace.records import HypercallRecord

_CONTEXT = 3
COMMON = ",".join(["host", *(f"{name}=0" for name in FEATURES)])
"""``cpuid=`` for the CPU that every engine has: where one has more its guests do other things."""


def on_each(run: Callable[[], Guest], monkeypatch: pytest.MonkeyPatch) -> list[Guest]:
    """What ``run`` gives, on each engine in turn, closed."""
    ran = []
    for engine in ENGINES:
        monkeypatch.setenv(ENGINE_VARIABLE, engine)
        ran.append(run())
        ran[-1].close()
    return ran


def first_difference(ran: Iterable[Guest]) -> str:
    """Where the logs of two guests part, in the words of ``pvstub diff``; empty if each byte is the same."""
    folders = [made.run_directory for made in ran]
    with LogReader(folders[0]) as one, LogReader(folders[1]) as other:
        pairs = zip_longest(_all(one), _all(other))
        if all(a is not None and b is not None and a.data == b.data for a, b in pairs):
            return ""
    return _difference(folders)


def runs_the_same(run: Callable[[], Guest], monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``run`` gives says and logs the same on each engine, each byte and each time in it."""
    ran = on_each(run, monkeypatch)
    one, other = (bytes(made.machine.console.output) for made in ran)
    assert one == other
    different = first_difference(ran)
    assert not different, different


def _all(reader: LogReader) -> Iterator[Packed]:
    yield from reader.packed()
    yield from reader.packed_rest()


def _difference(folders: list[Path]) -> str:
    with ExitStack() as opened:
        good, bad = (Side(folder, None, opened) for folder in folders)
        found = compare(good.run, bad.run, Rules(True, True), _CONTEXT)
        if not found.after:
            return "the same events, at other times"
        told = (_told(*side) for side in zip(ENGINES, found.first, (good, bad), strict=True))
        return "\n".join([f"the engines part behind {found.equal} equal events:", *told])


def _told(engine: str, entry: Entry | None, side: Side) -> str:
    """An event with the number of its hypercall, counted from 1, its arguments, and whose code it was at."""
    if entry is None:
        return f"{engine}: nothing more"
    record, places = entry.record, side.run.places
    number = _hypercalls_before(side.reader.path, record.seq) + 1
    what = f"hypercall {number}" if isinstance(record, HypercallRecord) else f"before hypercall {number}"
    return f"{engine}: {what}: {entry.event} at {record.rip:#x} {places.symbol(record.rip) or '(no symbol)'}"


def _hypercalls_before(log: Path, seq: int) -> int:
    with LogReader(log) as reader:
        return sum(1 for packed in islice(_all(reader), seq) if packed.data[0] == Kind.HYPERCALL)
