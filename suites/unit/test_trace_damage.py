"""A hypercall log that is foreign, damaged or cut: one clear line, never another exception, and no wrong record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stub.errors import UsageError
from stub.trace import jsonlines, text
from stub.trace.command import main
from stub.trace.format import HEADER, MAGIC, RECORD_CAP, VERSION, WINDOW
from stub.trace.reader import read
from stub.trace.records import HypercallRecord
from stub.trace.stats import Stats
from stub.trace.writer import HypercallLog
from suites.unit.test_trace_writer import IDENTITY, write_all


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("intact") / "hypercalls"
    with HypercallLog(path, identity=IDENTITY) as log:
        write_all(log)
    return path.read_bytes()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged") / "hypercalls"


T = TypeVar("T")


def attempt(action: Callable[[], T]) -> tuple[T | None, str]:
    """What the action gives, or the message of the ``UsageError`` that it ends in; any other exception is a failure."""
    try:
        return action(), ""
    except UsageError as error:
        return None, str(error)


def shown(path: Path) -> list[str]:
    """The log shown in every way that there is."""
    found = read(path)
    stats = Stats()
    for record in found:
        stats.add(record)
    return [*map(text.line, found), *map(jsonlines.line, found), *stats.lines()]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_changed_bytes_are_shown_or_refused(intact: bytes, place: Path, data: st.DataObject) -> None:
    content = bytearray(intact)
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    place.write_bytes(content)
    lines, error = attempt(lambda: shown(place))
    assert error.startswith(f"{place}: ") if lines is None else lines
    assert not any("\n" in line for line in (error, *(lines or ())))


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=400))
def test_arbitrary_records_are_shown_or_refused(place: Path, content: bytes) -> None:
    place.write_bytes(HEADER.pack(MAGIC, VERSION, 0, 2) + b"{}" + content)
    lines, error = attempt(lambda: shown(place))
    assert lines is not None or "damaged hypercall log: no record at byte" in error


def test_a_shortened_file_gives_a_prefix_or_is_refused(intact: bytes, place: Path) -> None:
    """At any byte. What a multicall had done before the cut stands alone: its own record would have come after it."""
    place.write_bytes(intact)
    whole = read(place)
    orphans = 0
    for length in range(len(intact)):
        place.write_bytes(intact[:length])
        found, error = attempt(lambda: read(place))
        if found is None:
            assert error.startswith(f"{place}: ")
            continue
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(found, whole, strict=False)))
        rest = [replace(record, seq=record.seq + 1) for record in found[same:]]
        assert rest == whole[same + 1 : same + 1 + len(rest)]
        assert all(isinstance(record, HypercallRecord) and record.nested for record in rest)
        orphans += len(rest)
    assert orphans > 0


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a hypercall log"),
        (b"\x7fELF" + bytes(100), "not a hypercall log"),
        (MAGIC, "damaged hypercall log"),
        (HEADER.pack(MAGIC, 9, 0, 2) + b"{}", "of format 9, not 1; use the pvstub that wrote it"),
        (HEADER.pack(MAGIC, VERSION, 0, 2) + b"{", "damaged hypercall log"),
        (HEADER.pack(MAGIC, VERSION, 0, 2) + b"[]", "damaged hypercall log"),
        (HEADER.pack(MAGIC, VERSION, 0, 1 << 31) + b"{}", "damaged hypercall log"),
        (HEADER.pack(MAGIC, VERSION, 0, 50_000) + b"[" * 50_000, "damaged hypercall log"),
        (HEADER.pack(MAGIC, VERSION, 0, 2) + b"{}" + b"\xee" * 100, "no record at byte 18"),
    ],
)
def test_what_is_no_log_is_said_in_one_line(
    place: Path, content: bytes, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place.write_bytes(content)
    assert main([str(place)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"pvstub trace: {place}: ")
    assert says in line


@pytest.mark.parametrize("name", ["nothing-here", ""])
def test_a_missing_log_is_named(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / name)]) == 2
    assert "No such file or directory; name a run's folder" in capsys.readouterr().err


def test_zeros_end_a_log_but_not_in_its_middle(intact: bytes, place: Path) -> None:
    place.write_bytes(intact)
    whole = read(place)
    unended = intact[: intact.rindex(b"poweroff") - 24]
    place.write_bytes(unended + bytes(1000))
    assert read(place) == whole[:-1]
    place.write_bytes(unended + bytes(RECORD_CAP) + b"\1")
    with pytest.raises(UsageError, match="no record at byte"):
        read(place)
    place.write_bytes(unended + bytes(WINDOW + 1))
    with pytest.raises(UsageError, match="no record at byte"):
        read(place)
    place.write_bytes(intact + b"more")
    with pytest.raises(UsageError, match="no record at byte"):
        read(place)


def test_a_record_that_was_being_written_is_left_out(intact: bytes, place: Path) -> None:
    unended = intact[: intact.rindex(b"poweroff") - 24]
    place.write_bytes(intact)
    whole = read(place)
    place.write_bytes(unended + b"\0" + b"\x55" * 200 + bytes(WINDOW // 2))
    assert read(place) == whole[:-1]


def test_entries_of_a_multicall_cut_short_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with HypercallLog(tmp_path / "hypercalls", identity=IDENTITY) as log:
        log.nested(5, 0, 14, 1, 2, 3, 0, 0, 0, b"", b"")
        log.note(5, 0, "why the next was refused")
    assert main([str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "[   0.000000005] d3v0     update_va_mapping(0x1, pte=0x2, 0x3) = 0",
        "[   0.000000005] d3v0 # why the next was refused",
    ]
    assert captured.err == (
        f"pvstub trace: {tmp_path}/hypercalls: the log was cut before its end, as by a kill; shown to its last record\n"
    )
