"""``pvstub boot NAME --gdb …`` as a person types it: where it listens, what it prints, how it ends."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pexpect
import pytest
from own_guest import build

from harness.debugger import Debugger
from harness.gdb import Gdb
from stub.cli import main

pytestmark = pytest.mark.usefixtures("pv_engine")

PVSTUB = (sys.executable, "-c", "import sys; from stub.cli import main; sys.exit(main())")
PATIENCE_S = 30.0
KILLED = 130  # as of a run that was interrupted


class Boot:
    """A running ``pvstub boot``; ``said`` is what it wrote to standard error so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said = ""

    def line(self, pattern: str) -> re.Match[str]:
        """The next line that fits."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"{pattern} is not in what it said:\n{self.said}")

    def address(self) -> str:
        """What follows ``target remote`` in the line to paste, which is a command that a shell takes."""
        words = shlex.split(self.line(r"debug it with\s+(gdb .*)$")[1])
        assert words[:2] == ["gdb", "-ex"]
        assert words[2].startswith("target remote ")
        return words[2].removeprefix("target remote ")

    def end(self) -> int:
        """Wait; its exit status."""
        assert self.process.stderr is not None
        self.said += self.process.stderr.read()
        return self.process.wait(PATIENCE_S)


@contextlib.contextmanager
def boot(folder: Path, cmdline: str, *options: str, kernel: Path | None = None) -> Iterator[Boot]:
    words = ["boot", str(kernel or build()), "--memory=32", f"--cmdline={cmdline}", f"--run={folder / 'run'}", *options]
    process = subprocess.Popen(
        [*PVSTUB, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield Boot(process)
        finally:
            if process.poll() is None:
                process.kill()


def refused(*options: str) -> str:
    """What it says, with exit status 2."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            status = main(["boot", str(build()), "--memory=32", "--quiet", *options])
        except SystemExit as end:  # argparse's
            status = end.code if isinstance(end.code, int) else 1
    assert status == 2, said.getvalue()
    return said.getvalue()


def listening(port: int) -> set[str]:
    """The addresses at which something listens on a TCP port, as /proc/net has them (hexadecimal)."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for row in Path(table).read_text().splitlines()[1:]:
                local, state = row.split()[1], row.split()[3]
                if state == "0A" and int(local.rpartition(":")[2], 16) == port:
                    found.add(local.rpartition(":")[0])
    return found


@pytest.mark.parametrize("address", ["", ":0", "localhost:0"])
def test_a_port_of_its_own_on_loopback(tmp_path: Path, at: Mapping[str, int], address: str) -> None:
    """With --wait it stands at the first instruction until somebody comes and says go."""
    option = f"--gdb={address}" if address else "--gdb"
    with boot(tmp_path, "chain", option, "--wait") as run:
        where = run.address()
        assert re.fullmatch(r"127\.0\.0\.1:\d+", where)
        assert listening(int(where.rpartition(":")[2])) == {"0100007F"}
        with Debugger(where) as debugger:
            assert debugger.register("rip") == at["_start"]
            assert debugger.cont().exited == 0
        assert run.end() == 0
    assert "poweroff" in run.said


def test_ipv6_loopback(tmp_path: Path) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no ::1")
    with boot(tmp_path, "chain", "--gdb=[::1]:0", "--wait") as run:
        where = run.address()
        assert where.startswith("[::1]:")
        with Gdb() as gdb:
            gdb.connect(where)
            assert gdb.cont()["reason"] == "exited-normally"
        assert run.end() == 0


@pytest.mark.parametrize("form", ["unix:{}", "{}"])
def test_a_unix_socket(tmp_path: Path, form: str) -> None:
    """Nobody else may connect; it is gone at the end."""
    path = tmp_path / "gdb socket"
    with boot(tmp_path, "chain", "--gdb=" + form.format(path), "--wait") as run:
        assert run.address() == str(path)
        assert path.stat().st_mode & 0o777 == 0o600
        with Debugger(str(path)) as debugger:
            assert debugger.cont().exited == 0
        assert run.end() == 0
    assert not path.exists()


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:1234", "example.org:1", "*:1234"])
def test_nothing_beyond_loopback(address: str) -> None:
    assert "public:" in refused(f"--gdb={address}")


def test_beyond_loopback_in_so_many_words(tmp_path: Path) -> None:
    with boot(tmp_path, "chain", "--gdb=public:0.0.0.0:0", "--wait") as run:
        where = run.address()
        assert listening(int(where.rpartition(":")[2])) == {"00000000"}
        with Debugger(where) as debugger:
            assert debugger.cont().exited == 0
        assert run.end() == 0


@pytest.mark.parametrize(
    "options",
    [["--gdb=70000"], ["--gdb=127.0.0.1"], ["--gdb=unix:"], ["--gdb=unix:/no/such/folder/s"],
     ["--gdb=unix:/etc/passwd"], ["--gdb=unix:" + "x" * 200], ["--wait"], ["--on-detach=stop"],
     ["--gdb", "--symbols=/no/such/file"], ["--gdb", "--on-detach=sleep"], ["--gdb-on-crash", "--wait"]],
    ids=lambda options: " ".join(options)[:30],
)  # fmt: skip
def test_what_makes_no_sense_is_said_in_a_line(options: list[str]) -> None:
    said = [line for line in refused(*options).splitlines() if not line.startswith(("usage:", " "))]
    assert len(said) == 1
    assert said[0].startswith("pvstub")


def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "listens there already" in refused(f"--gdb={taken.getsockname()[1]}")


def test_without_wait_it_runs_by_itself(tmp_path: Path) -> None:
    """Nobody comes: it ends as any other run."""
    with boot(tmp_path, "chain", "--gdb") as run:
        assert run.address()
        assert run.end() == 0


def test_gdb_comes_and_goes_while_it_runs(tmp_path: Path, at: Mapping[str, int]) -> None:
    with boot(tmp_path, "spin", "--gdb") as run:
        where = run.address()
        spun = 0
        for _ in range(2):
            with Gdb(symbols=build()) as gdb:
                gdb.connect(where)
                assert "spin" in gdb.execute("backtrace")
                before, spun = spun, int(gdb.evaluate("spun"))
                assert spun > before
                gdb.execute("detach")
            time.sleep(0.05)
        run.process.send_signal(signal.SIGTERM)
        assert run.end() == 128 + signal.SIGTERM
    assert "Traceback" not in run.said


def test_the_pasted_line_and_nothing_more(tmp_path: Path) -> None:
    """gdb finds the symbols by itself: they come over the connection."""
    with boot(tmp_path, "chain", "--gdb", "--wait") as run:
        line = run.line(r"debug it with\s+(gdb .*)$")[1]
        more = " -ex 'break factorial' -ex continue -ex backtrace -ex kill"
        done = subprocess.run(
            line.replace("gdb ", "gdb -nx -batch ", 1) + more, shell=True, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert "Breakpoint 1, factorial (n=n@entry=6)" in done.stdout, done.stderr
        assert re.search(r"#1 .*chain \(\)", done.stdout)
        assert run.end() == KILLED
    assert "killed from the debugger" in run.said


@pytest.mark.parametrize("said_goodbye", [True, False], ids=["detach", "vanish"])
@pytest.mark.parametrize("how", ["continue", "stop", "kill"])
def test_on_detach(tmp_path: Path, how: str, said_goodbye: bool) -> None:
    with boot(tmp_path, "loop", "--gdb", "--wait", f"--on-detach={how}") as run:
        where = run.address()
        debugger = Debugger(where)
        debugger.step(50)
        if said_goodbye:
            debugger.detach()
        else:
            debugger.close()
        if how == "stop":
            time.sleep(0.1)
            assert run.process.poll() is None
            with Debugger(where) as again:
                assert 40 < again.register("retired") < 60
                assert again.cont().exited == 0
        assert run.end() == (KILLED if how == "kill" else 0)
    assert ("killed" in run.said) == (how == "kill")


def test_gdb_on_crash(tmp_path: Path, at: Mapping[str, int]) -> None:
    """Nothing listens before; then the guest stands as it was, and its end is its own."""
    with boot(tmp_path, "crash", "--gdb-on-crash") as run:
        where = run.address()
        assert "Unhandled: vec 6" in run.said
        with Gdb(symbols=build()) as gdb:
            gdb.connect(where)
            assert int(gdb.execute("print/x $pc").rpartition("= ")[2], 16) == at["crash_here"]
            assert "reason = 42" in gdb.execute("info locals")
            assert gdb.cont()["exit-code"] == "03"
        assert run.end() == 3


def test_gdb_on_crash_without_a_crash(tmp_path: Path) -> None:
    with boot(tmp_path, "chain", "--gdb-on-crash") as run:
        assert run.end() == 0
    assert "debug it with" not in run.said


def test_a_console_beside_the_debugger(tmp_path: Path) -> None:
    """With --interactive the terminal is the guest's, and gdb has a socket."""
    path = tmp_path / "s"
    command = [*PVSTUB[1:], "boot", str(build()), "--memory=32", "--cmdline=chain spin", "--interactive",
               f"--gdb=unix:{path}", "--wait", f"--run={tmp_path / 'run'}"]  # fmt: skip
    child = pexpect.spawn(PVSTUB[0], command, timeout=PATIENCE_S, encoding="utf-8")
    try:
        child.expect("debug it with")
        child.expect_exact(str(path))
        with Debugger(str(path)) as debugger:
            debugger.detach()
        child.expect("outer 212")
        child.expect("spinning")
        child.send("\x1d")  # Ctrl-]
        child.expect(pexpect.EOF)
    finally:
        child.close(force=True)
    assert child.exitstatus == 0
