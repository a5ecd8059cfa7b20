"""The driver of a real gdb, and that gdb against the stub's session, with a guest that is made up."""

from __future__ import annotations

import gc
import os
import select
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from fake_target import BASE, FakeTarget

from harness.gdb import Gdb, GdbError, GdbMissing, GdbTimeout
from stub.engine.base import RAX
from stub.gdb.model import Ended, Kind, Space, Stop, StopPoint
from stub.gdb.session import Session

needs_gdb = pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed: apt install gdb")


class Guest(FakeTarget):
    """Remembers the stop points that gdb took away again; its memory is all ``nop``."""

    def __init__(self) -> None:
        super().__init__()
        self.inserted: list[StopPoint] = []
        self.memory[Space.VIRTUAL][:] = b"\x90" * len(self.memory[Space.VIRTUAL])

    def insert(self, point: StopPoint) -> None:
        self.inserted.append(point)
        super().insert(point)


class Served:
    """A stub's session at a unix socket, in a thread, for one client after the other."""

    def __init__(self, target: Guest, path: Path) -> None:
        self.target = target
        self.path = path
        self.sessions: list[Session] = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.over = False
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def close(self) -> None:
        self.over = True
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join(10)
        self.listener.close()

    def _serve(self) -> None:
        while not self.over:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            with peer:
                self._converse(peer)

    def _converse(self, peer: socket.socket) -> None:
        session = Session(self.target)
        self.sessions.append(session)
        if self.target.running:
            self.target.interrupt()
            while self.target.advance() is None:
                pass
        while not session.over and not self.over:
            answer = b""
            if select.select([peer], [], [], 0.005)[0]:
                data = peer.recv(65536)
                if not data:
                    session.leave()
                    return
                answer = session.receive(data)
            if self.target.running:
                stop = self.target.advance()
                answer += session.stopped(stop) if stop is not None else b""
            while session.pending:
                answer += session.receive()
            try:
                peer.sendall(answer)
            except OSError:
                session.leave()
                return


@pytest.fixture
def target() -> Guest:
    return Guest()


@pytest.fixture
def served(target: Guest, tmp_path: Path) -> Iterator[Served]:
    served = Served(target, tmp_path / "gdb")
    yield served
    served.close()


@pytest.fixture
def gdb() -> Iterator[Gdb]:
    with Gdb(timeout=30) as gdb:
        yield gdb


def test_no_gdb_is_said_with_the_package_that_has_it() -> None:
    with pytest.raises(GdbMissing, match="no-such-gdb is not installed: apt install gdb"):
        Gdb(program="no-such-gdb")


@needs_gdb
def test_commands_of_both_kinds(gdb: Gdb) -> None:
    assert gdb.execute("print 6 * 7") == "$1 = 42\n"
    assert gdb.execute(r'printf "a\tb\\\"c\n"') == 'a\tb\\"c\n'
    assert gdb.evaluate('sizeof(char) + sizeof("ab")') == "4"
    assert gdb.command("-list-features")["features"]
    assert gdb.execute("show confirm").endswith("off.\n")
    assert gdb.execute("show debuginfod enabled").endswith('"off".\n')


@needs_gdb
def test_errors_are_gdbs_own_words(gdb: Gdb) -> None:
    with pytest.raises(GdbError, match=r"^print nonesuch: No symbol table is loaded\. "):
        gdb.execute("print nonesuch")
    with pytest.raises(GdbError, match=r"^-no-such: Undefined MI command: no-such$"):
        gdb.command("-no-such")


@needs_gdb
def test_a_timeout_shows_the_conversation(gdb: Gdb) -> None:
    gdb.execute("echo something")
    with pytest.raises(GdbTimeout, match=r"(?s)in vain for the guest to stop; .*> 2-interpreter-exec console .*\^done"):
        gdb.wait_stop(timeout=0.1)


@needs_gdb
def test_gdb_never_stays_behind() -> None:
    gdb = Gdb()
    gdb.close()
    gdb.close()
    assert gdb.process.returncode == 0
    busy = Gdb()
    busy._say('-interpreter-exec console "shell sleep 1000"')
    started = time.monotonic()
    busy.close()
    assert busy.process.returncode == -9
    assert time.monotonic() - started < 10
    forgotten = Gdb()
    pid = forgotten.process.pid
    del forgotten
    gc.collect()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(GdbError, match=r"gdb has ended, and cannot be told 2print 1"):
        gdb.command("print 1")


@needs_gdb
def test_gdb_meets_the_stub(gdb: Gdb, served: Served, target: Guest) -> None:
    gdb.connect(str(served.path))
    assert int(gdb.evaluate("(unsigned long) $rip"), 0) == BASE
    assert gdb.execute("monitor hello") == "you said hello\n"
    gdb.execute(f"break *{BASE + 0x10:#x} if $rax == 5 && *(int *) $rsp == -0x6f6f6f70")
    target.script(Stop(kind=Kind.SOFTWARE, address=BASE + 0x10))
    target.words[RAX] = 5
    stop = gdb.cont()
    assert (stop["reason"], stop["frame"]["addr"]) == ("breakpoint-hit", f"{BASE + 0x10:#018x}")
    gdb.execute("stepi")
    assert gdb.wait_stop()["frame"]["addr"] == f"{BASE + 0x11:#018x}"
    gdb.execute("stepi 5")
    assert gdb.wait_stop()["frame"]["addr"] == f"{BASE + 0x16:#018x}"
    inserted = next(point for point in target.inserted if point.address == BASE + 0x10)
    assert [condition() for condition in inserted.conditions] == [1]


@needs_gdb
def test_a_guest_that_runs_is_interrupted(gdb: Gdb, served: Served) -> None:
    gdb.connect(str(served.path))
    for resume in (gdb.execute, gdb.command) * 3:
        resume("continue" if resume == gdb.execute else "-exec-continue")
        assert gdb.running
        with pytest.raises(GdbTimeout):
            gdb.wait_stop(timeout=0.1)
        assert gdb.interrupt()["signal-name"] == "SIGINT"
        assert not gdb.running


@needs_gdb
def test_a_guest_that_ends(gdb: Gdb, served: Served, target: Guest) -> None:
    gdb.connect(str(served.path))
    target.script(Ended(3, "the guest crashed"))
    stop = gdb.cont()
    assert (stop["reason"], stop["exit-code"]) == ("exited", "03")
    assert "the guest crashed\n" in gdb.text


@needs_gdb
def test_leaving_while_the_guest_runs(served: Served, target: Guest) -> None:
    with Gdb(timeout=30) as gdb:
        gdb.connect(str(served.path))
        gdb.command("-exec-continue")
    assert gdb.process.returncode is not None
    with Gdb(timeout=30) as gdb:
        gdb.connect(str(served.path))
        assert gdb.evaluate("$rip")
    assert len(served.sessions) == 2
