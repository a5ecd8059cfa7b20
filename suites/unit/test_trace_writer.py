"""The hypercall log: what is written comes back, the same calls give the same bytes, a kill loses nothing."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stub.abi.xen import Hypercall
from stub.errors import PvstubError, UsageError
from stub.trace.format import PART_CAP, WINDOW
from stub.trace.reader import LogReader, read
from stub.trace.records import (
    ConsoleRecord,
    CpuidRecord,
    EndRecord,
    ExceptionRecord,
    HypercallRecord,
    NoteRecord,
    PageTableWriteRecord,
    PortIoRecord,
    PrivilegedRecord,
    StartRecord,
    UpcallRecord,
)
from stub.trace.writer import HypercallLog

RIP = 0xFFFF_FFFF_8100_1000
U64 = (1 << 64) - 1
IDENTITY = {"domain": 3, "bits": 64, "seed": 7}

registers = st.integers(0, U64)
wild = st.integers(-(1 << 70), 1 << 70)
blobs = st.binary(max_size=200)
calls = st.tuples(st.booleans(), registers, registers, st.integers(0, 255), st.lists(registers, min_size=5, max_size=5),
                  st.integers(-(1 << 63), (1 << 63) - 1), blobs, blobs)  # fmt: skip


def write_all(log: HypercallLog) -> None:
    """One record of each kind."""
    log.start(0, RIP, 0x1000, 65536)
    log.hypercall(10, RIP, 17, 6, 0x5000, 0, 0, 0, 0, b"\0" * 8, b"\1" * 8)
    log.nested(20, RIP, 14, 1, 2, 3, 0, 0, -22, b"", b"")
    log.hypercall(20, RIP, 13, 0x6000, 1, 0, 0, 0, 0, b"", b"")
    log.exception(30, RIP, 14, 2, 0xDEAD, 0x2000, RIP + 1, True)
    log.exception(31, RIP, 6, -1, 0, 0x2000, RIP + 2, False)
    log.upcall(40, RIP, 0x2000, RIP + 3, False)
    log.cpuid(50, RIP, True, 0x8000_0001, 2, 3, 4, 5, 0xFFFF_FFFF)
    log.privileged(60, RIP, b"\x0f\x30", (1, 2, 3, 4), (1, 2, 3, 5))
    log.port_io(70, RIP, 0x3F8, 1, 65, True)
    log.pt_write(80, RIP, 0x1000, 0x2000, 7, 8, -22)
    log.console(90, RIP, 100, 20)
    log.note(95, RIP, "standing alone")
    log.end(100, RIP, "poweroff", "the guest powered off", 0)


def test_every_kind_of_record_comes_back(tmp_path: Path) -> None:
    with HypercallLog(tmp_path / "hypercalls", identity=IDENTITY) as log:
        log.vcpu = 2
        write_all(log)
    found = read(tmp_path)
    assert [record.seq for record in found] == list(range(len(found)))
    assert {record.vcpu for record in found} == {2}
    assert {record.domain for record in found} == {3}
    assert [type(record) for record in found] == [
        StartRecord, HypercallRecord, HypercallRecord, HypercallRecord, ExceptionRecord, ExceptionRecord, UpcallRecord,
        CpuidRecord, PrivilegedRecord, PortIoRecord, PageTableWriteRecord, ConsoleRecord, NoteRecord, EndRecord,
    ]  # fmt: skip
    common = {record.seq: (record.seq, record.time_ns, 2, RIP, 3, 64, record.console_offset) for record in found}
    assert found[1] == HypercallRecord(*common[1], 17, (6, 0x5000, 0, 0, 0), 0, b"\0" * 8, b"\1" * 8, False)
    assert found[4] == ExceptionRecord(*common[4], 14, 2, 0xDEAD, 0x2000, RIP + 1, True)
    assert found[5] == ExceptionRecord(*common[5], 6, None, 0, 0x2000, RIP + 2, False)
    assert found[7] == CpuidRecord(*common[7], True, 0x8000_0001, 2, 3, 4, 5, 0xFFFF_FFFF)
    assert found[8] == PrivilegedRecord(*common[8], b"\x0f\x30", (1, 2, 3, 4), (1, 2, 3, 5))
    assert found[9] == PortIoRecord(*common[9], True, 0x3F8, 1, 65)
    assert found[10] == PageTableWriteRecord(*common[10], 0x1000, 0x2000, 7, 8, -22)
    assert found[13] == EndRecord(*common[13], "poweroff", "the guest powered off", 0)
    assert [record.console_offset for record in found[10:13]] == [0, 120, 120]


def test_a_multicall_is_read_before_its_entries_and_a_note_with_its_call(tmp_path: Path) -> None:
    with HypercallLog(tmp_path / "hypercalls", identity=IDENTITY) as log:
        log.nested(1, RIP, 26, 0, 0, 0, 0, 0, 0, b"", b"")
        log.note(1, RIP, "no L1 table there")
        log.nested(1, RIP, 14, 0, 0, 0, 0, 0, -22, b"", b"")
        log.hypercall(1, RIP, 13, 0, 2, 0, 0, 0, 0, b"", b"")
        log.end(2, RIP, "poweroff", "", 0)
    found = [record for record in read(tmp_path) if isinstance(record, HypercallRecord)]
    assert [(record.name, record.nested, record.note) for record in found] == [
        ("multicall", False, None),
        ("mmuext_op", True, None),
        ("update_va_mapping", True, "no L1 table there"),
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(calls, max_size=20))
def test_arbitrary_calls_round_trip(tmp_path_factory: pytest.TempPathFactory, made: list[tuple]) -> None:
    path = tmp_path_factory.mktemp("log") / "hypercalls"
    with HypercallLog(path, identity=IDENTITY) as log:
        for nested, time_ns, rip, nr, args, rc, payload, out in made:
            (log.nested if nested else log.hypercall)(time_ns, rip, nr, *args, rc, payload, out)
    found = sorted(
        (
            record.time_ns,
            record.rip,
            record.number,
            record.args,
            record.result,
            record.payload,
            record.out,
            record.nested,
        )
        for record in read(path)
        if isinstance(record, HypercallRecord)
    )
    assert found == sorted(
        (t, rip, nr, tuple(args), rc, p, out, nested) for nested, t, rip, nr, args, rc, p, out in made
    )


@settings(max_examples=60, deadline=None)
@given(nr=wild, args=st.lists(wild, min_size=5, max_size=5), rc=wild, time_ns=wild)
def test_values_beyond_a_register_are_cut_to_it(
    tmp_path_factory: pytest.TempPathFactory, nr: int, args: list[int], rc: int, time_ns: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "hypercalls"
    with HypercallLog(path, identity=IDENTITY) as log:
        log.hypercall(time_ns, RIP, nr, *args, rc, b"", b"")
    (record,) = read(path)
    assert isinstance(record, HypercallRecord)
    assert record.number == nr & U64
    assert record.args == tuple(arg & U64 for arg in args)
    assert record.result & U64 == rc & U64
    assert record.time_ns == time_ns & U64


def test_a_payload_too_long_is_cut_and_the_log_goes_on(tmp_path: Path) -> None:
    with HypercallLog(tmp_path / "hypercalls", identity=IDENTITY) as log:
        log.hypercall(1, RIP, 18, 0, 0, 0, 0, 0, 0, b"x" * (PART_CAP + 9), b"y" * (PART_CAP + 9))
        log.hypercall(2, RIP, 29, 1, 0, 0, 0, 0, 0, b"", b"")
    first, second = read(tmp_path)
    assert isinstance(first, HypercallRecord)
    assert (first.payload, first.out) == (b"x" * PART_CAP, b"y" * PART_CAP)
    assert second.name == "sched_op"


def test_a_log_of_many_windows_is_whole_and_its_digest_is_the_files(tmp_path: Path) -> None:
    payload = bytes(range(256)) * 16
    with HypercallLog(tmp_path / "hypercalls", identity=IDENTITY) as log:
        for number in range(1000):
            log.hypercall(number, RIP, 1, number, 0, 0, 0, 0, 0, payload, b"")
        halfway = log.digest()
        log.end(1000, RIP, "poweroff", "", 0)
    content = (tmp_path / "hypercalls").read_bytes()
    assert len(content) == log.size > 3 * WINDOW
    assert hashlib.sha256(content).hexdigest() == log.digest() != halfway
    numbers = [record.args[0] for record in read(tmp_path) if isinstance(record, HypercallRecord)]
    assert numbers == list(range(1000))


def test_equal_calls_give_equal_bytes_wherever_they_are_written(tmp_path: Path) -> None:
    digests = set()
    for path in (tmp_path / "a", tmp_path / "deeper" / "b", None):
        if path is not None:
            path.parent.mkdir(exist_ok=True)
        with HypercallLog(path, identity=dict(reversed(IDENTITY.items()))) as log:
            write_all(log)
        digests.add(log.digest())
    assert len(digests) == 1
    with HypercallLog(None, identity={**IDENTITY, "seed": 8}) as log:
        write_all(log)
    assert log.digest() not in digests


def test_counts_are_by_name(tmp_path: Path) -> None:
    with HypercallLog(None, identity=IDENTITY) as log:
        write_all(log)
        log.hypercall(1, RIP, 1 << 40, 0, 0, 0, 0, 0, -38, b"", b"")
    assert log.counts() == {
        "hypercalls": {"multicall": 1, "update_va_mapping": 1, "xen_version": 1, "hypercall_1099511627776": 1},
        "exceptions": {"6": 1, "14": 1},
        "events": 1,
        "privileged": 1,
        "cpuid": 1,
        "port_io": 1,
        "page_table_writes": 1,
    }


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from stub.trace.writer import HypercallLog
    log = HypercallLog(Path(sys.argv[1]), identity={"domain": 1, "bits": 64})
    for number in range(20_000):
        log.hypercall(number, 0, 1, number, 0, 0, 0, 0, 0, b"p" * (number % 64), b"")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_cpuid_again_and_again_is_written_once(tmp_path: Path) -> None:
    """One that repeats the record before it; anything between, another place or another leaf makes a record again."""
    with HypercallLog(tmp_path / "hypercalls", identity=IDENTITY) as log:
        for now in range(5):
            log.cpuid(now, RIP, False, 0, 1, 2, 3, 4, 5)
        log.cpuid(5, RIP, False, 0, 0, 2, 3, 4, 5)
        log.cpuid(6, RIP + 1, False, 0, 0, 2, 3, 4, 5)
        log.note(7, RIP, "between")
        log.cpuid(8, RIP + 1, False, 0, 0, 2, 3, 4, 5)
        log.cpuid(9, RIP + 1, True, 0, 0, 2, 3, 4, 5)
        log.cpuid(10, RIP + 1, True, 0, 0, 2, 3, 4, 5)
        assert log.counts()["cpuid"] == 10
    written = [record.time_ns for record in read(tmp_path / "hypercalls") if isinstance(record, CpuidRecord)]
    assert written == [0, 5, 6, 8, 9, 10]


def test_a_killed_writer_leaves_every_record(tmp_path: Path) -> None:
    path = tmp_path / "hypercalls"
    finished = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), path], check=False)
    assert finished.returncode == -signal.SIGKILL
    with LogReader(path) as reader:
        found = [*reader.records(), *reader.finish()]
        assert not reader.live()
        assert not reader.complete
    assert [record.time_ns for record in found] == list(range(20_000))
    assert all(
        isinstance(record, HypercallRecord) and record.payload == b"p" * (record.time_ns % 64) for record in found
    )


def test_a_second_run_does_not_write_into_a_live_log(tmp_path: Path) -> None:
    with HypercallLog(tmp_path / "hypercalls", identity=IDENTITY) as log:
        write_all(log)
        with pytest.raises(UsageError, match="another run is writing"):
            HypercallLog(tmp_path / "hypercalls", identity=IDENTITY)
        with LogReader(tmp_path) as reader:
            assert reader.live()
    with HypercallLog(tmp_path / "hypercalls", identity=IDENTITY):
        pass
    assert read(tmp_path) == []


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere/hypercalls: cannot create the hypercall log: No such file"):
        HypercallLog(tmp_path / "nowhere" / "hypercalls", identity=IDENTITY)


def fill(log: HypercallLog) -> None:
    for number in range(2 * WINDOW // 64):
        log.hypercall(number, RIP, Hypercall.iret, 0, 0, 0, 0, 0, 0, b"", b"")


def test_a_full_disk_is_an_error_and_no_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    with HypercallLog(tmp_path / "hypercalls", identity=IDENTITY) as log:
        monkeypatch.setattr(os, "posix_fallocate", full)
        with pytest.raises(PvstubError, match="No space left on device"):
            fill(log)
    assert len(read(tmp_path)) > 1000


def test_a_closed_log_takes_nothing(tmp_path: Path) -> None:
    log = HypercallLog(tmp_path / "hypercalls", identity=IDENTITY)
    log.close()
    log.close()
    with pytest.raises(ValueError, match="closed"):
        log.hypercall(0, 0, 0, 0, 0, 0, 0, 0, 0, b"", b"")
