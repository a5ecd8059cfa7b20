"""One guest on both engines: run on each, its console without times, and the first event that differs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import islice, takewhile, zip_longest
from pathlib import Path

import pytest

from harness.diff.compare import Entry, Rules, compare
from harness.diff.sides import Side
from harness.guests import Guest
from stub.abi.x86_defns import X86_EXC_PF, PFEC_insn_fetch
from stub.domain.config import ENGINE_VARIABLE, ENGINES
from stub.trace.format import Kind
from stub.trace.reader import LogReader, Packed
from stub.trace.records import ExceptionRecord, HypercallRecord
from stub.units import PAGE_SHIFT

_TIME = re.compile(
    rb"\[ *\d+\.\d+\] |\b\d+(\.\d+)? (s|ms|us|ns|MHz|BogoMIPS)\b|\(lpj=\d+\)|\b\d+ns\b|Marking stable .*"
)
_CONTEXT = 3


def on_each(run: Callable[[], Guest], monkeypatch: pytest.MonkeyPatch) -> list[Guest]:
    """What ``run`` gives, on each engine in turn, closed."""
    ran = []
    for engine in ENGINES:
        monkeypatch.setenv(ENGINE_VARIABLE, engine)
        ran.append(run())
        ran[-1].close()
    return ran


def text(guest: Guest) -> list[bytes]:
    """The lines of a console without their times."""
    return _TIME.sub(b"", bytes(guest.machine.console.output)).splitlines()


def first_difference(ran: Iterable[Guest], *, to_early_fault: bool = False) -> str:
    """Where the logs of two guests part, in the words of ``pvstub diff``; empty if they do not.

    With ``to_early_fault`` all before the first page fault that libunicorn raises too early is compared, its times,
    too, and nothing behind it: there the page is mapped some instructions earlier (docs/engines.md, the block that runs
    into a page that is not mapped).
    """
    folders = [made.run_directory for made in ran]
    events = _events_before_early_fault(folders[0]) if to_early_fault else None
    return _difference(folders, events)


def _events_before_early_fault(folder: Path) -> int:
    """How many there are in libunicorn's log."""
    with LogReader(folder) as reader:
        return sum(1 for _ in takewhile(lambda packed: not _is_early(reader, packed), _all(reader)))


def _is_early(reader: LogReader, packed: Packed) -> bool:
    """A page fault of a fetch, at an instruction that is in another page."""
    if packed.data[0] != Kind.EXCEPTION:
        return False
    record = reader.unpack(packed)
    assert isinstance(record, ExceptionRecord)
    is_fetch = record.vector == X86_EXC_PF and (record.error_code or 0) & PFEC_insn_fetch
    return bool(is_fetch) and record.cr2 >> PAGE_SHIFT != record.rip >> PAGE_SHIFT


def _all(reader: LogReader) -> Iterator[Packed]:
    yield from reader.packed()
    yield from reader.packed_rest()


def _difference(folders: list[Path], events: int | None) -> str:
    with LogReader(folders[0]) as one, LogReader(folders[1]) as other:
        pairs = zip_longest(islice(_all(one), events), islice(_all(other), events))
        if all(a is not None and b is not None and a.data == b.data for a, b in pairs):
            return ""
    with ExitStack() as opened:
        good, bad = (Side(folder, None, opened) for folder in folders)
        for side in (good, bad):
            side.run.records = islice(side.run.records, events)
        found = compare(good.run, bad.run, Rules(True, True), _CONTEXT)
        if not found.after:
            return "" if events is None else "the same events, at other times"
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
