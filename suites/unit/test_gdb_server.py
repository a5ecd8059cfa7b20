"""The debugger's sockets: addresses, one client at a time, clients that vanish, and a real gdb at the other end."""

from __future__ import annotations

import select
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fake_target import BASE, FakeTarget, checksummed, packets

from stub.engine.base import CR0, RAX
from stub.errors import UsageError
from stub.gdb.listener import Address, Listener
from stub.gdb.model import SIGINT, Ended, Kind, Space, Stop
from stub.gdb.server import Server
from stub.gdb.session import OnDetach

GDB = shutil.which("gdb")


class Client:
    """A client with a socket. Reads until there are as many packets as it waits for."""

    def __init__(self, server: Server) -> None:
        path = server.listener.address.path
        if path is not None:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.socket.connect(str(path))
        else:
            self.socket = socket.create_connection((server.listener.address.host, server.listener.address.port))
        self.socket.settimeout(10)
        self.stream = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self, count: int = 1) -> list[bytes]:
        """So many packets; fewer if the connection ended before."""
        while self.stream.count(b"$") < count or b"#" not in self.stream[-3:-2]:
            try:
                data = self.socket.recv(1 << 20)
            except ConnectionResetError:
                break
            if not data:
                break
            self.stream += data
        found, self.stream = packets(self.stream), b""
        return found

    def ask(self, data: bytes) -> bytes:
        self.send(checksummed(data))
        (answer,) = self.receive()
        return answer

    def at_end(self) -> bool:
        """Whether the server has hung up."""
        try:
            while self.socket.recv(1 << 16):
                pass
        except ConnectionResetError:
            pass
        return True

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def target() -> FakeTarget:
    return FakeTarget(memory=0x10000)


class Running:
    """A server in a thread of its own, as the test fixtures have it."""

    def __init__(self, target: FakeTarget, address: str = "", on_detach: OnDetach = "stop") -> None:
        self.target = target
        self.server = Server(target, address, on_detach=on_detach)
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._serve)
        self.clients: list[Client] = []
        self.thread.start()

    def _serve(self) -> None:
        try:
            self.server.serve_until()
        except BaseException as error:  # noqa: BLE001 - a test looks at it
            self.failure = error

    def connect(self, *, no_ack: bool = True) -> Client:
        client = Client(self.server)
        self.clients.append(client)
        if no_ack:
            assert client.ask(b"QStartNoAckMode") == b"OK"
        return client

    def wait(self, what: Callable[[], bool]) -> None:
        end = time.monotonic() + 10
        while not what():
            assert time.monotonic() < end
            assert self.failure is None
            time.sleep(0.001)

    def close(self) -> None:
        self.server.stop()
        self.thread.join(10)
        assert not self.thread.is_alive()
        self.server.close()
        for client in self.clients:
            client.close()
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def running(target: FakeTarget) -> Iterator[Running]:
    with closing(Running(target)) as running:
        yield running


# -- addresses


GOOD = [
    ("", Address("127.0.0.1", 0)),
    ("1234", Address("127.0.0.1", 1234)),
    (":1234", Address("127.0.0.1", 1234)),
    ("127.0.0.1:1234", Address("127.0.0.1", 1234)),
    ("127.8.8.8:0", Address("127.8.8.8", 0)),
    ("localhost:5", Address("127.0.0.1", 5)),
    ("[::1]:5", Address("::1", 5)),
    ("unix:sock", Address(path=Path("sock"))),
    ("unix:/a/b", Address(path=Path("/a/b"))),
    ("./sock", Address(path=Path("sock"))),
    ("public:0.0.0.0:5", Address("0.0.0.0", 5)),
    ("public:[::]:5", Address("::", 5)),
    ("public:example.org:5", Address("example.org", 5)),
]


@pytest.mark.parametrize(("text", "address"), GOOD)
def test_addresses(text: str, address: Address) -> None:
    assert Address.parse(text) == address


BAD = [
    ("65536", "no port"), ("x", "no port"), ("-1", "no port"), ("127.0.0.1:", "no port"), ("٣", "no port"),
    ("0.0.0.0:5", "public:0.0.0.0:5"), ("192.168.1.1:5", "other machines"), ("example.org:5", "other machines"),
    ("[::]:5", "other machines"), ("::1", "not an address"), ("::1:5", "not an address"), ("[::1]", "not an address"),
    ("public:5", "no host"), ("public:", "no host"), ("public::5", "no host"), ("unix:", "no path"),
    ("/" + "a" * 107, "107 bytes"), ("unix:" + "ä" * 54, "107 bytes"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD)
def test_addresses_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Address.parse(text)


def test_a_port_is_chosen_on_loopback_only(running: Running) -> None:
    host, port = running.server.listener.socket.getsockname()
    assert host == "127.0.0.1"
    assert running.server.remote == f"127.0.0.1:{port}"
    assert running.server.paste_line == f"gdb -ex 'target remote 127.0.0.1:{port}'"


def test_who_listens_everywhere_is_reached_on_loopback() -> None:
    with closing(Listener("public:0.0.0.0:0")) as listener:
        assert listener.remote == f"127.0.0.1:{listener.address.port}"


def test_an_address_in_use(running: Running) -> None:
    with pytest.raises(UsageError, match="listens there already"):
        Listener(running.server.remote)


@pytest.mark.parametrize("text", ["unix:/nonexistent/sock", "public:192.0.2.1:5", "public:no.such.host.invalid:5"])
def test_an_address_that_cannot_be(text: str) -> None:
    with pytest.raises(UsageError, match="cannot listen there"):
        Listener(text)


def test_unix_sockets(target: FakeTarget, tmp_path: Path) -> None:
    path = tmp_path / "a socket"
    with closing(Running(target, f"unix:{path}")) as running:
        assert path.stat().st_mode & 0o777 == 0o600
        assert running.server.paste_line == f"gdb -ex 'target remote {path}'"
        assert running.connect().ask(b"qC") == b"QC1"
        with pytest.raises(UsageError, match="listens there already"):
            Listener(f"unix:{path}")
    assert not path.exists()


def test_a_socket_left_over_is_replaced_but_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with closing(Listener(f"unix:{path}")):
        assert path.exists()
    path.write_text("mine")
    with pytest.raises(UsageError, match="no socket"):
        Listener(f"unix:{path}")
    assert path.read_text() == "mine"


def test_a_socket_that_somebody_else_put_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    listener = Listener(f"unix:{path}")
    path.unlink()
    path.write_text("another's")
    listener.close()
    assert path.read_text() == "another's"


# -- one client


def test_a_session_over_a_socket(running: Running) -> None:
    client = running.connect()
    assert client.ask(b"vCont;s:1;c").startswith(b"T05")
    assert client.ask(b"m%x,2" % BASE) == b"0000"
    assert running.server.attached


def test_ctrl_c_reaches_a_running_guest(running: Running) -> None:
    client = running.connect()
    client.send(checksummed(b"c"))
    running.wait(lambda: running.target.running)
    client.send(b"\x03")
    assert client.receive()[0].startswith(b"T02")


def test_stops_reach_the_client(running: Running) -> None:
    client = running.connect()
    running.target.script(None, None, Stop(kind=Kind.WRITE, address=5, note="look"))
    client.send(checksummed(b"c"))
    note, stop = client.receive(2)
    assert note == b"O" + b"look\n".hex().encode()
    assert stop.startswith(b"T05watch:5;")


def test_a_second_client_is_told_so_and_the_first_goes_on(running: Running) -> None:
    first = running.connect()
    second = running.connect(no_ack=False)
    second.send(checksummed(b"qSupported:swbreak+"))
    assert second.receive()[0].startswith(b"E.another debugger")
    second.socket.shutdown(socket.SHUT_WR)
    assert second.at_end()
    assert first.ask(b"qC") == b"QC1"
    first.close()
    running.wait(lambda: not running.server.attached)
    assert running.connect().ask(b"qC") == b"QC1"


def test_many_that_are_refused_and_stay_take_no_room(running: Running) -> None:
    first = running.connect()
    for _ in range(30):
        running.connect(no_ack=False)
    assert first.ask(b"qC") == b"QC1"
    assert len(running.server._silent) <= 8


def test_attaching_stops_a_running_guest(target: FakeTarget) -> None:
    target.go()
    with closing(Running(target, on_detach="continue")) as running:
        client = running.connect()
        assert not target.running
        assert client.ask(b"?").startswith(b"T02")
        client.close()
        running.wait(lambda: target.running)


PARTING: list[tuple[str, bytes]] = [
    ("closed", b""),
    ("mid-packet", b"$m0,"),
    ("running", checksummed(b"c")),
    ("stepping", checksummed(b"s")),
    ("interrupted", checksummed(b"c") + b"\x03"),
    ("detached", checksummed(b"D")),
]


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("last", [data for _, data in PARTING], ids=[name for name, _ in PARTING])
@pytest.mark.parametrize("how", ["continue", "stop", "kill"])
def test_a_client_that_goes(target: FakeTarget, how: OnDetach, last: bytes, reset: bool) -> None:
    with closing(Running(target, on_detach=how)) as running:
        client = running.connect()
        assert client.ask(b"Z0,%x,1" % BASE) == b"OK"
        client.send(last)
        if reset:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        running.wait(lambda: not running.server.attached)
        assert not target.points
        if how == "kill":
            running.thread.join(10)  # nothing is left to serve
            assert target.last_stop() == Ended(1, "killed")
        else:
            running.wait(lambda: target.running == (how == "continue"))
            assert running.connect().ask(b"?").startswith(b"T")


def test_serving_ends_with_the_guest(running: Running) -> None:
    client = running.connect()
    running.target.script(Ended(3, "crash"))
    client.send(checksummed(b"c"))
    assert client.receive(2)[1] == b"W03"
    assert running.thread.is_alive()
    client.close()
    running.thread.join(10)
    assert not running.thread.is_alive()


def test_serving_ends_with_a_guest_that_nobody_debugs(target: FakeTarget) -> None:
    target.script(None, Ended(0, ""))
    target.go()
    with Server(target) as server:
        server.serve_until()
    assert not target.running


def test_a_guest_that_stops_for_a_reason_of_its_own_waits_for_a_debugger(target: FakeTarget) -> None:
    target.script(Stop(SIGINT), Stop(note="crashed"))
    target.go()
    with closing(Running(target, on_detach="continue")) as running:
        running.wait(lambda: not target.running)
        assert target.calls == ["go", "go"]
        assert running.connect().ask(b"?").startswith(b"T05")


def test_done_is_looked_at(target: FakeTarget) -> None:
    target.go()
    turns = iter(range(5))
    with Server(target) as server:
        server.serve_until(lambda: next(turns, None) is None)


def test_other_descriptors_are_watched(target: FakeTarget) -> None:
    here, there = socket.socketpair()
    seen: list[bytes] = []
    with here, there, Server(target) as server:
        server.watch(here.fileno(), lambda: seen.append(here.recv(10)))
        there.send(b"typed")
        server.serve_until(lambda: bool(seen))
        server.unwatch(here.fileno())
        there.send(b"more")
        server.turn(block=False)
    assert seen == [b"typed"]


def test_who_does_not_read_is_not_read_from(target: FakeTarget) -> None:
    """100 MB of answers are asked for and not taken; then they all come."""
    target.memory[Space.VIRTUAL][:] = bytes(range(1, 129)) * 512
    with Server(target) as server:
        client = Client(server)
        client.socket.setblocking(False)
        request = b"+" + checksummed(b"m%x,8000" % BASE)
        asked = 0
        for _ in range(2000):
            try:
                asked += client.socket.send(request * 50)
            except BlockingIOError:
                break
            server.turn(block=False)
        inner = server._client
        assert inner is not None
        assert len(inner.unsent) < 2_000_000
        assert len(inner.session._events) < 50_000
        received = 0
        for _ in range(200):
            server.turn(block=False)
            while select.select([client.socket], [], [], 0)[0]:
                received += len(client.socket.recv(1 << 20))
        assert received > 5_000_000
        client.close()
        while server.attached:
            server.turn()


def test_a_flood_of_interrupts_and_requests(running: Running) -> None:
    client = running.connect()
    client.send(checksummed(b"c") + b"\x03" * 1000 + checksummed(b"qC") * 1000)
    answers = client.receive(1001)
    assert answers[0].startswith(b"T02")
    assert answers.count(b"QC1") == 1000


def test_a_step_takes_little(running: Running) -> None:
    """Tens of microseconds, if nobody else wants the processor; this only guards against a wait in the loop."""
    client = running.connect()
    began = time.perf_counter()
    for _ in range(1000):
        client.ask(b"vCont;s:1")
    assert time.perf_counter() - began < 30


# -- a real gdb


def gdb(server: Server, *commands: str) -> str:
    """What gdb prints, its complaints too."""
    every = [f"target remote {server.remote}", *commands]
    options = [part for command in every for part in ("-ex", command)]
    done = subprocess.run([str(GDB), "-q", "-nx", "-batch", *options], capture_output=True, text=True, timeout=20)
    return done.stdout + done.stderr


needs_gdb = pytest.mark.skipif(GDB is None, reason="no gdb here")


@needs_gdb
@pytest.mark.parametrize("bits", [64, 32])
def test_gdb_looks_around(bits: int) -> None:
    target = FakeTarget(bits, vcpus=2)
    target.words[CR0] = 0x80050033
    target.others["mode"] = 1
    with closing(Running(target)) as running:
        out = gdb(
            running.server, "p $cr0", "p $mode", "p $xmm0.uint128", "info threads", "stepi", "p/x $pc",
            "p $sp = 0x1234", "set var *(int*)$pc = 0x11223344", "x/1xw $pc", "find $pc, +16, (char)0x44",
            "monitor hello", "info registers",
        )  # fmt: skip
    assert "$1 = [ PE MP ET NE WP AM PG ]" in out
    assert "$2 = user" in out
    assert "$3 = 4" in out
    assert '* 1    Thread 1 "vCPU 0" (kernel <code> of 0)' in out
    assert f"$4 = {target.base + 1:#x}" in out
    assert "0x11223344" in out
    assert "you said hello" in out
    assert "virtual_time" in out
    assert "1 pattern found" in out
    assert ("rsp" if bits == 64 else "esp") + "=0x1234" in target.calls


@needs_gdb
def test_gdb_stops_at_what_it_set(running: Running) -> None:
    """The condition comes with the breakpoint: gdb does not look at registers to decide."""
    target = running.target
    target.words[RAX] = 7
    place = BASE + 0x100
    seen: list[list[int]] = []
    insert = target.insert
    target.insert = lambda point: (seen.append([one() for one in point.conditions]), insert(point))[1]  # type: ignore
    target.script(Stop(kind=Kind.SOFTWARE, address=place), Stop(kind=Kind.READ, address=BASE + 8), Ended(3, ""))
    out = gdb(
        running.server, f"break *{place:#x} if $rax == 7", f"rwatch *(long*){BASE + 8:#x}",
        "continue", "continue", "delete", "continue",
    )  # fmt: skip
    assert f"Breakpoint 1, {place:#018x}" in out
    assert "Hardware read watchpoint 2: *(long*)" in out
    assert "Value = 0" in out
    assert "exited with code 03" in out
    assert [1] in seen
    assert not target.points


@needs_gdb
def test_gdb_dumps_memory(running: Running, tmp_path: Path) -> None:
    memory = running.target.memory[Space.VIRTUAL]
    memory[0x1000:0x3000] = bytes(range(256)) * 32
    memory[0x4000:0x4100] = b"\x77" * 0x100
    file = tmp_path / "dump"
    gdb(running.server, f"dump binary memory {file} {BASE:#x} {BASE + len(memory):#x}")
    assert file.read_bytes() == bytes(memory)
    file.write_bytes(bytes(range(255, -1, -1)) * 256)
    gdb(running.server, f"restore {file} binary {BASE:#x}")
    assert bytes(memory) == file.read_bytes()


@needs_gdb
def test_gdb_reads_the_executable_from_us(tmp_path: Path) -> None:
    target = FakeTarget(executable=Path(str(GDB)).resolve())
    with closing(Running(target)) as running:
        out = gdb(running.server, "info files", "monitor after")
    assert f'"target:{target.executable}"' in out or f'Symbols from "target:{target.executable}' in out
    assert "you said after" in out


@needs_gdb
def test_gdb_runs_the_guest_again_and_kills_it(running: Running) -> None:
    gdb(
        running.server, "disconnect", f"target extended-remote {running.server.remote}", "set remote exec-file x",
        "starti", "kill", "starti", "stepi", "detach",
    )  # fmt: skip
    assert running.target.calls == ["kill", "restart", "kill", "restart", "step"]


@needs_gdb
def test_a_second_gdb_is_told_so(running: Running) -> None:
    first = running.connect()
    out = gdb(running.server, "info registers")
    assert "another debugger has this guest" in out
    assert first.ask(b"qC") == b"QC1"


def test_a_browser_is_no_debugger(running: Running) -> None:
    """A web page may have its browser post to any port: what it says first is not what a debugger says."""
    with socket.create_connection(("127.0.0.1", running.server.listener.address.port)) as browser:
        browser.sendall(b"POST / HTTP/1.1\r\n\r\n$k#6b$M1000,1:00#00")
        browser.settimeout(10)
        assert browser.recv(100) == b""
    assert running.server.clients == 0
    assert running.target.calls == []


def test_who_says_nothing_stops_nothing(running: Running) -> None:
    """And does not keep a debugger out."""
    with socket.create_connection(("127.0.0.1", running.server.listener.address.port)):
        assert running.connect().ask(b"qC") == b"QC1"
