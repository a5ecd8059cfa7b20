"""Bad command lines and bad files: one clear line and exit status 2, or a run; never a traceback."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile import POWER_OFF, image
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stub import cli
from stub.cli import main
from stub.errors import UsageError
from stub.trace.reader import LogReader
from stub.trace.records import EndRecord
from stub.trace.writer import HypercallLog

pytestmark = pytest.mark.usefixtures("pv_engine")

SPIN = b"\xeb\xfe"
PVSTUB = (sys.executable, "-c", "import sys; from stub.cli import main; sys.exit(main())")
GOOD = {0, 2, 3, 4, 5}


@pytest.fixture(scope="module")
def places() -> dict[str, Path]:
    """Engine → the folder of its tests, once there is one."""
    return {}


@pytest.fixture
def place(
    places: dict[str, Path],
    pv_engine: str,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The folder that all of these run in: kernels, things that are none, and folders for the cache and the runs."""
    if pv_engine not in places:
        places[pv_engine] = _furnished(tmp_path_factory.mktemp("place"))
    folder = places[pv_engine]
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PVSTUB_CACHE", str(folder / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
    return folder


def _furnished(folder: Path) -> Path:
    for name, code in (("good", POWER_OFF), ("spin", SPIN)):
        image(folder, [], prologue=code).rename(folder / name)
    whole = (folder / "good").read_bytes()
    (folder / "short").write_bytes(whole[:3000])
    (folder / "empty").touch()
    (folder / "text").write_text("#!/bin/sh\n")
    (folder / "a folder").mkdir()
    (folder / "ramdisk").write_bytes(bytes(5000))
    (folder / "loop").symlink_to("loop")
    (folder / "nowhere").symlink_to("gone")
    os.mkfifo(folder / "fifo")
    (folder / os.fsdecode(b"bad \xff\xfe name")).write_bytes(whole)
    return folder


def command(*words: str) -> tuple[int, str, str]:
    """The exit status of ``pvstub WORDS``, and what it wrote to standard output and standard error."""
    out, error = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            status = main(words)
        except SystemExit as end:  # argparse's
            status = end.code if isinstance(end.code, int) else 1
        out.flush()
    assert isinstance(out.buffer, io.BytesIO)
    return status, out.buffer.getvalue().decode(errors="replace"), error.getvalue()


def explained(status: int, error: str) -> None:
    """Status 2 comes with one line that says what is wrong (argparse shows the usage before it)."""
    assert "Traceback" not in error
    if status == 2 and error:
        lines = [line for line in error.splitlines() if not line.startswith(("usage:", " "))]
        assert len(lines) == 1, error
        assert lines[0].startswith("pvstub")
        assert len(lines[0]) > 20


FILES = ["good", "spin", "short", "empty", "text", "a folder", "loop", "nowhere", "fifo", "gone",
         "/dev/null", "/dev/zero", "", ".", "/proc/self/mem", "x" * 300, "no-such-image", "good/x",
         os.fsdecode(b"bad \xff\xfe name")]  # fmt: skip
NUMBERS = ["0", "-1", "1", "31", "32", "33", "8192", "8193", "1e3", "nan", "inf", "-inf", "0x40",
           "0x" + "1" * 5000, "99999999999999999999",
           "1" * 5000, "", "٣٢", "1_000", "0.5", "--", "64"]  # fmt: skip
TEXTS = ["", "root=/dev/xvda", "x" * 1023, "x" * 1024, "é" * 600, os.fsdecode(b"\xff\xfe"), "a\nb", "\x1b[2J", "-x"]
OPTIONS = {
    "--ramdisk": FILES, "--cmdline": TEXTS, "--extra": TEXTS, "--memory": NUMBERS, "--seed": NUMBERS,
    "--p2m": ["shuffle", "identity", "none"], "--epoch": NUMBERS, "--on-reboot": ["destroy", "restart", "x"],
    "--virtual-limit": [*NUMBERS, "1e300", "1e15"], "--wall-limit": [*NUMBERS, "1e300"], "--instructions": NUMBERS,
    "--run": ["run", "good", "good/x", "a folder", "/proc/x", "/dev/full", "y" * 300, "", "gone/deep/run"],
}  # fmt: skip
flags = st.sampled_from(["--quiet", "--wat", "-h", "--version", "--memory", "extra"])
options = st.sampled_from(sorted(OPTIONS)).flatmap(
    lambda name: st.tuples(st.just(name), st.sampled_from(OPTIONS[name]))
)
ALWAYS = settings(
    deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@settings(ALWAYS, max_examples=250)
@given(
    file=st.one_of(st.sampled_from(["good", "spin", "good"]), st.sampled_from(FILES)),
    chosen=st.lists(options, max_size=3),
    odd=st.lists(flags, max_size=1) | st.just([]),
)
def test_boot(place: Path, file: str, chosen: list[tuple[str, str]], odd: list[str]) -> None:
    words = ["boot", *(word for pair in chosen for word in pair), *odd, "--instructions", "20000", "--wall-limit", "5"]
    status, _, error = command(*words, "--", file)
    assert status in GOOD
    explained(status, error)


@settings(ALWAYS, max_examples=80)
@given(
    file=st.sampled_from(FILES),
    memory=st.none() | st.sampled_from(NUMBERS),
    json=st.booleans(),
)
def test_inspect(place: Path, file: str, memory: str | None, json: bool) -> None:
    words = [*(["--memory", memory] if memory is not None else []), *(["--json"] if json else [])]
    status, out, error = command("inspect", *words, "--", file)
    assert status in {0, 2}
    assert out or error
    explained(status, error)


FILTERS = ["", "error", "rc<0", "time=1s..", "mmu_update", "(", "rc<", "!", "time=x", "é", "a:b:c", "rc<" + "9" * 5000]


@settings(ALWAYS, max_examples=60)
@given(
    run=st.sampled_from([*FILES, "kept"]),
    expression=st.none() | st.sampled_from(FILTERS),
    flag=st.lists(st.sampled_from(["--json", "--stats", "--wat"]), max_size=2),
    perfetto=st.none() | st.sampled_from(["/dev/full", "a folder", "good/x", "perfetto"]),
)
def test_trace(place: Path, run: str, expression: str | None, flag: list[str], perfetto: str | None) -> None:
    if not (place / "kept").exists():
        assert command("boot", "good", "--quiet", "--run", "kept")[0] == 0
    words = [*(["--filter", expression] if expression is not None else []), *flag]
    words += ["--perfetto", perfetto] if perfetto is not None else []
    status, _, error = command("trace", *words, "--", run)
    assert status in {0, 2}
    if status:
        explained(status, error)


@settings(ALWAYS, max_examples=30)
@given(
    words=st.lists(st.sampled_from(["list", "path", "verify", "wat", "", "no-such", "--help", os.fsdecode(b"\xff")]))
)
def test_images(place: Path, words: list[str]) -> None:
    status, _, error = command("images", *words)
    assert status in {0, 2}
    explained(status, error)


# -- the process: its files, its signals, its neighbours


def process(*words: str, program: tuple[str, ...] = PVSTUB, **given: object) -> subprocess.Popen[bytes]:
    """``pvstub WORDS`` as a process of its own; ``program`` is pvstub."""
    pipes: dict[str, object] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*program, *words], **{**pipes, **given})  # type: ignore[call-overload,no-any-return]


def ended(made: subprocess.Popen[bytes], within: float = 30) -> tuple[int, str]:
    """Its exit status and standard error; ``within`` some seconds."""
    _, error = made.communicate(timeout=within)
    return made.returncode, (error or b"").decode(errors="replace")


def closed(*numbers: int) -> Callable[[], None]:
    def close() -> None:
        for number in numbers:
            os.close(number)

    return close


@pytest.mark.parametrize("numbers", [(0,), (1,), (2,), (0, 1, 2)])
@pytest.mark.parametrize(
    "words",
    [("boot",), ("boot", "--interactive"), ("inspect",), ("bisect", "list", "--fail=x", "--most=0", "good")],
    ids=" ".join,
)
def test_standard_files_that_are_closed(place: Path, numbers: tuple[int, ...], words: tuple[str, ...]) -> None:
    """Whatever is missing, the run is made or refused, and says no more than a line."""
    made = process(*words, "good", preexec_fn=closed(*numbers))
    status, error = ended(made)
    assert status in {0, 1, 2, 4}
    assert "Traceback" not in error
    assert "Exception ignored" not in error


@pytest.mark.parametrize(
    "words", [("boot", "good"), ("inspect", "good"), ("boot", "--interactive", "good")], ids=" ".join
)
def test_a_reader_that_has_gone(place: Path, words: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    made = process(*words, stdout=writing)
    os.close(writing)
    status, error = ended(made)
    assert status in {0, 1}
    assert "Traceback" not in error
    assert "Exception ignored" not in error


_FULL = """
import resource, sys
from stub import cli, machine
begin = machine.HypercallLog
def full(*words, **named):
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    return begin(*words, **named)
machine.HypercallLog = full
sys.exit(cli.main())
"""


def test_a_disk_that_is_full(place: Path) -> None:
    """As far as it goes: no file may be longer, once the guest's memory, which may be one, is there."""
    status, error = ended(process("boot", "good", "--run", "full", program=(sys.executable, "-c", _FULL)))
    assert status == 1
    lines = [line for line in error.splitlines() if line]
    explained(2, "\n".join(lines))
    assert "hypercall log: File too large" in lines[0]


@pytest.mark.parametrize("name", ["console.log", "xenstore.log", "hypercalls", "summary.json"])
def test_a_folder_where_a_file_of_the_run_goes(place: Path, name: str) -> None:
    run = Path(f"run with {name}")
    (run / name).mkdir(parents=True)
    status, _, error = command("boot", "good", "--quiet", "--run", str(run))
    assert status in {1, 2}
    explained(2, error)


def test_a_name_that_no_locale_has(place: Path) -> None:
    """Bytes that are no UTF-8, shown on a strict standard output."""
    name = os.fsdecode(b"bad \xff\xfe name")
    for words in (("inspect", name), ("inspect", "--json", name), ("boot", "--quiet", name)):
        status, error = ended(process(*words, env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"}))
        assert status == 0, error


def test_no_home(place: Path) -> None:
    """Nowhere to keep anything: one line says what to set."""
    program = "import os, sys, pathlib; from stub.cli import main; sys.exit(main())"
    bare = {name: value for name, value in os.environ.items() if name not in {"HOME", "PVSTUB_CACHE", "XDG_STATE_HOME"}}
    nobody = "import os, pwd; pwd.getpwuid = lambda _: (_ for _ in ()).throw(KeyError('uid')); "
    made = subprocess.run(
        [sys.executable, "-c", nobody + program, "boot", "good", "--quiet"], env=bare, capture_output=True, timeout=30,
        check=False,
    )  # fmt: skip
    error = made.stderr.decode()
    assert made.returncode == 2, error
    explained(2, error)
    assert "HOME" in error


def started(name: str) -> subprocess.Popen[bytes]:
    """A guest that spins, its log begun."""
    made = process("boot", "spin", "--run", name)
    deadline = time.monotonic() + 20
    while not begun(Path(name)) and time.monotonic() < deadline:
        time.sleep(0.01)  # a process of its own: there is nothing to wait on but its file
    return made


def begun(run: Path) -> bool:
    """Whether the log in ``run`` has a record."""
    try:
        with LogReader(run) as reader:
            return bool(list(reader.records()))
    except UsageError:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_run_that_is_ended_leaves_a_log(place: Path, number: signal.Signals) -> None:
    name = f"ended by {number.name}"
    made = started(name)
    made.send_signal(number)
    status, error = ended(made)
    assert "Traceback" not in error
    with LogReader(Path(name)) as reader:
        records = list(reader.records())
    assert records
    assert command("trace", name)[0] == 0
    if number == signal.SIGKILL:
        assert status == -number
    else:
        assert status == 128 + number
        verdict = json.loads(Path(name, "summary.json").read_text())["verdict"]
        assert (verdict["kind"], isinstance(records[-1], EndRecord)) == ("interrupted", True)


@settings(ALWAYS, max_examples=12)
@given(after=st.floats(0.02, 0.4))
def test_ctrl_c_at_any_moment(place: Path, after: float) -> None:
    """Within the command: before it, Python itself is still starting."""
    shown = io.StringIO()
    dispatch = cli._dispatch
    timer = threading.Timer(after, os.kill, (os.getpid(), signal.SIGINT))

    def started(words: list[str]) -> int:
        timer.start()
        return dispatch(words)

    with contextlib.redirect_stderr(shown), pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "_dispatch", started)
        try:
            status = main(["boot", "spin", "--wall-limit", "3", "--quiet", "--run", "interrupted"])
        finally:
            with contextlib.suppress(KeyboardInterrupt):  # where the command ended before: its status is looked at
                timer.join()
    assert status in {1, 130}, shown.getvalue()
    assert "Traceback" not in shown.getvalue()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_as_the_log_begins(place: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    """Before there is a guest to run: the run has its end all the same."""

    def begun(*words: object, **named: object) -> HypercallLog:
        log = HypercallLog(*words, **named)  # type: ignore[arg-type]
        os.kill(os.getpid(), number)
        return log

    monkeypatch.setattr("stub.machine.HypercallLog", begun)
    name = f"begun and {number.name}"
    with contextlib.suppress(SystemExit):
        assert main(["boot", "spin", "--quiet", "--run", name]) == 130
    with LogReader(Path(name)) as reader:
        assert isinstance(list(reader.records())[-1], EndRecord)
    assert json.loads(Path(name, "summary.json").read_text())["verdict"]["kind"] == "interrupted"


def test_sixteen_at_once(place: Path) -> None:
    """In one home, with one cache that is empty: runs of their own, and the same digests."""
    env = {**os.environ, "PVSTUB_CACHE": str(place / "fresh"), "XDG_STATE_HOME": str(place / "together")}
    made = [process("boot", "good", env=env) for _ in range(16)]
    outcomes = [ended(one, 120) for one in made]
    assert [status for status, _ in outcomes] == [0] * 16
    digests = {tuple(line for line in error.splitlines() if "sha256" in line) for _, error in outcomes}
    assert len(digests) == 1
    assert len(list((place / "together" / "pvstub" / "runs").iterdir())) == 16
