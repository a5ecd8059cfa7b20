"""``pvstub trace``: filters, counts, following a live run, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stub.errors import UsageError
from stub.trace.command import main
from stub.trace.filters import compile_filter
from stub.trace.reader import read
from stub.trace.records import Record
from stub.trace.writer import HypercallLog
from suites.unit.test_trace_writer import IDENTITY, RIP, write_all

TRACE = [sys.executable, "-c", "import sys; from stub.trace.command import main; sys.exit(main(sys.argv[1:]))"]

Shown = Callable[..., list[str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    with HypercallLog(folder / "hypercalls", identity=IDENTITY) as log:
        write_all(log)
        log.vcpu = 1
    return folder


@pytest.fixture
def shown(run: Path, capsys: pytest.CaptureFixture[str]) -> Shown:
    def show(*options: str) -> list[str]:
        assert main([str(run), *options]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out.splitlines()

    return show


@pytest.mark.parametrize(
    ("expression", "seqs"),
    [
        ("xen_version", [1]),
        ("xen_version,multicall", [1, 2]),
        ("xen_version multicall", []),
        ("hypercall", [1, 2, 3]),
        ("hypercall !multicall", [1, 3]),
        ("!hypercall,exception", [0, 6, 7, 8, 9, 10, 11, 12, 13]),
        ("xen_version:XENVER_get_features", [1]),
        ("xen_version:get_features", [1]),
        ("xen_version:XENVER_version", []),
        ("xen_*", [1]),
        ("*:get_*", [1]),
        ("exception:#PF", [4]),
        ("exception:ud", [5]),
        ("privileged:wrmsr", [8]),
        ("port_io:in", []),
        ("error", [3]),
        ("rc<0", [3, 10]),
        ("rc=-EINVAL", [3, 10]),
        ("rc=EINVAL hypercall", [3]),
        ("rc!=-22", [1, 2]),
        ("time=30ns..40ns", [4, 5, 6]),
        ("time>=0.00000009s", [11, 12, 13]),
        ("time<10ns", [0]),
        ("seq=2..3", [2, 3]),
        ("seq>12", [13]),
        ("vcpu=1", []),
        (f"rip={RIP:#x} start", [0]),
    ],
)
def test_filters(run: Path, expression: str, seqs: list[int]) -> None:
    matches = compile_filter(expression)
    assert [record.seq for record in read(run) if matches(record)] == seqs


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("mmu_updat", "did you mean mmu_update?"),
        ("vcpu_op:is_op", "did you mean is_up?"),
        ("", "empty"),
        ("   ", "empty"),
        ("a,,b", "'a' means nothing here"),
        ("iret,,", "'' means nothing here"),
        ("!", "'' means nothing here"),
        ("iret:", "'iret:' means nothing here"),
        ("tim=3", "did you mean time?"),
        ("time=soon", "'soon' is no value for it"),
        ("time=1..x", "'x' is no value for it"),
        ("rc=EWHAT", "'EWHAT' is no value for it"),
        ("rc<1..2", "a range goes with ="),
        ("seq=" + "9" * 5000, "is no value for it"),
    ],
)
def test_a_filter_that_means_nothing_is_said_in_one_line(
    run: Path, expression: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(run), "--filter", expression]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("pvstub trace: --filter: ")
    assert says in line
    assert captured.out == ""


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=30) | st.text("abcrtimesq=<>!.,:*?[]0123456789-_ ", max_size=30))
def test_any_filter_is_compiled_or_refused(run: Path, expression: str) -> None:
    def attempt() -> list[Record] | None:
        try:
            return list(filter(compile_filter(expression), read(run)))
        except UsageError:
            return None

    found = attempt()
    assert found is None or all(isinstance(record, Record) for record in found)


def test_filters_of_several_options_all_hold(shown: Shown) -> None:
    assert shown("--filter", "hypercall", "--filter", "error") == [
        "[   0.000000020] d3v0     update_va_mapping(0x1, pte=0x2, 0x3) = -EINVAL (-22)"
    ]


def test_json_lines_are_one_object_a_record(shown: Shown, run: Path) -> None:
    objects = [json.loads(line) for line in shown("--json")]
    assert [made["seq"] for made in objects] == [record.seq for record in read(run)]
    assert all({"time_ns", "vcpu", "rip", "kind", "name"} <= made.keys() for made in objects)


def test_stats(shown: Shown) -> None:
    assert shown("--stats", "--filter", "hypercall,exception") == [
        "    count    errors  name",
        "        3         1  hypercalls in all, multicall entries included",
        "        1              multicall",
        "        1         1    update_va_mapping  (EINVAL 1)",
        "        1              xen_version",
        "        1                XENVER_get_features",
        "",
        "        2            other events",
        "        2              exception",
        "        1                #PF",
        "        1                #UD",
    ]
    counted = json.loads("\n".join(shown("--stats", "--json")))
    assert counted["hypercalls"]["update_va_mapping"] == {"count": 1, "errors": {"EINVAL": 1}, "subops": {}}
    assert counted["events"]["exception"]["subops"] == {"#PF": 1, "#UD": 1}


@pytest.mark.parametrize("argv", [[], ["a", "b"], ["--filter"], ["x", "--frobnicate"]])
def test_bad_options_are_one_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("see pvstub trace --help")


WRITER = """
    import sys
    from pathlib import Path
    from stub.trace.writer import HypercallLog
    log = HypercallLog(Path(sys.argv[1]), identity={"domain": 1, "bits": 64})
    print("ready", flush=True)
    for order in sys.stdin:
        if order == "end\\n":
            log.end(9, 0, "poweroff", "", 0)
            log.close()
        else:
            log.hypercall(int(order), 0, 29, 1, 0, 0, 0, 0, 0, b"", b"")
        print("done", flush=True)
"""


@pytest.mark.parametrize("killed", [False, True])
def test_follow_prints_as_the_run_goes_and_ends_with_it(tmp_path: Path, killed: bool) -> None:
    path = tmp_path / "hypercalls"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(WRITER), path], **pipes) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        command = [*TRACE, path, "--follow"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as follower:
            assert follower.stdout is not None
            assert follower.stderr is not None
            for number in range(3):
                writer.stdin.write(f"{number}\n")
                assert follower.stdout.readline() == f"[   0.{number:09}] d1v0 sched_op(SCHEDOP_block, NULL) = 0\n"
            if killed:
                writer.kill()
            else:
                writer.stdin.write("end\n")
            rest, errors = follower.communicate(timeout=30)
        assert follower.returncode == 0
        writer.stdin.close()
    if killed:
        assert (rest, writer.returncode) == ("", -signal.SIGKILL)
        assert "the log was cut before its end" in errors
    else:
        assert rest == "[   0.000000009] d1v0 domain ends: poweroff (exit status 0)\n"
        assert errors == ""


def test_a_reader_that_stops_is_no_error(tmp_path: Path) -> None:
    with HypercallLog(tmp_path / "hypercalls", identity=IDENTITY) as log:
        for number in range(5000):
            log.hypercall(number, RIP, 29, 1, 0, 0, 0, 0, 0, b"", b"")
        log.end(5000, RIP, "poweroff", "", 0)
    with subprocess.Popen([*TRACE, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        os.read(process.stdout.fileno(), 100)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_a_live_log_is_shown_so_far_and_said_to_be_live(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with HypercallLog(tmp_path / "hypercalls", identity=IDENTITY) as log:
        log.hypercall(1, RIP, 29, 1, 0, 0, 0, 0, 0, b"", b"")
        assert main([str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 1
    assert "the log is still being written; shown to its last record" in captured.err


def test_a_perfetto_trace_has_a_track_a_vcpu_and_shows_blocking(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with HypercallLog(tmp_path / "hypercalls", identity=IDENTITY) as log:
        log.hypercall(1000, RIP, 29, 1, 0, 0, 0, 0, 0, b"", b"")
        log.vcpu = 1
        log.console(2000, RIP, 0, 80)
        log.vcpu = 0
        log.upcall(501_000, RIP, 0, RIP, False)
        log.end(502_000, RIP, "poweroff", "", 0)
    assert main([str(tmp_path), "--perfetto", str(tmp_path / "trace.json")]) == 0
    assert capsys.readouterr() == ("", "")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert {(event["pid"], event["tid"]) for event in events} == {(3, 0), (3, 1)}
    assert {"ph": "X", "name": "blocked", "ts": 1.0, "dur": 500.0, "pid": 3, "tid": 0} in events
    assert [event["args"] for event in events if event["ph"] == "C"] == [{"bytes": 80}]
    assert [event["name"] for event in events if event["ph"] == "i"] == ["sched_op", "upcall", "end"]
    assert main([str(tmp_path), "--perfetto", str(tmp_path / "no" / "file")]) == 2
    assert "cannot write the trace: No such file or directory" in capsys.readouterr().err
