"""Our own client of the remote protocol: against answers written down here, and against the stub's session."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import cast

import pytest
from fake_target import BASE, FakeTarget
from hypothesis import given
from hypothesis import strategies as st

from harness import debugger as client
from harness import debugger_wire as wire
from harness.debugger import Debugger, DebuggerError, DebuggerTimeout, parse_stop
from stub.gdb.model import Ended, Kind, Space, Stop, TargetError
from stub.gdb.session import Session

HELLO = b"PacketSize=400;QStartNoAckMode+;vContSupported+;binary-upload+"
XML = b"""<target><xi:include href="core.xml" xmlns:xi="http://www.w3.org/2001/XInclude"/>
<feature name="b"><reg name="cs" bitsize="32" regnum="3"/><reg name="ss" bitsize="16"/></feature></target>"""
CORE = b'<feature name="a"><reg name="rax" bitsize="64" regnum="0"/><reg name="rip" bitsize="64" regnum="1"/></feature>'


class Peer:
    """The other end of a connection, without a network: what is sent is answered at once, or never."""

    family = socket.AF_UNIX

    def __init__(self) -> None:
        self.sent = b""
        self.ready = b""
        self.gone = False
        self.closed = False
        self.chunk = 1 << 20

    def settimeout(self, seconds: float) -> None:
        assert seconds > 0

    def sendall(self, data: bytes) -> None:
        self.sent += data
        self.answer(data)

    def answer(self, data: bytes) -> None:
        """A request came."""

    def recv(self, size: int) -> bytes:
        if not self.ready and not self.gone:
            raise TimeoutError
        size = min(size, self.chunk)
        data, self.ready = self.ready[:size], self.ready[size:]
        return data

    def close(self) -> None:
        self.closed = True


class Scripted(Peer):
    """Answers the packets of a table, as they stand there; each ``+`` is its own doing."""

    def __init__(self, answers: dict[bytes, bytes | list[bytes]] | None = None, hello: bytes = HELLO) -> None:
        super().__init__()
        self.answers: dict[bytes, bytes | list[bytes]] = {
            client.FEATURES: hello,
            b"QStartNoAckMode": b"OK",
            b"vCont?": b"vCont;c;C;s;S;r",
            b"?": b"T05thread:1;",
            **(answers or {}),
        }
        self.quiet = False

    def answer(self, data: bytes) -> None:
        if not data.startswith(b"$"):
            return
        name = data[1:-3]
        found = self.answers.get(name, b"")
        if not self.quiet:
            self.ready += b"+"
        self.quiet = self.quiet or name == b"QStartNoAckMode"
        for one in found if isinstance(found, list) else [found]:
            self.ready += one if one.startswith(b"$") else b"$%b#%02x" % (one, sum(one) % 256)


class Stub(Peer):
    """The stub's own session with a guest that has a script."""

    def __init__(self, target: FakeTarget) -> None:
        super().__init__()
        self.target = target
        self.session = Session(target)

    def answer(self, data: bytes) -> None:
        self.ready += self.session.receive(data)
        while self.session.pending:
            self.ready += self.session.receive()

    def recv(self, size: int) -> bytes:
        for _ in range(10 if not self.ready and self.target.running else 0):
            stop = self.target.advance()
            if stop is not None:
                self.ready += self.session.stopped(stop)
                break
        return super().recv(size)


def attached(peer: Peer, **options: bool) -> Debugger:
    return Debugger(cast(socket.socket, peer), timeout=5, **options)


def packet(data: bytes) -> bytes:
    return b"$%b#%02x" % (data, sum(data) % 256)


def test_the_greeting() -> None:
    peer = Scripted()
    debugger = attached(peer)
    assert debugger.features["PacketSize"] == "400"
    assert debugger.packet_size == 0x400
    assert debugger.last_stop.signal == 5
    assert peer.sent.endswith(packet(b"QStartNoAckMode") + b"+" + packet(b"vCont?") + packet(b"?"))


def test_acknowledgements_on_request() -> None:
    peer = Scripted({b"g": b"00"})
    debugger = attached(peer, acknowledge=True)
    before = len(peer.sent)
    assert debugger.command("g") == b"00"
    assert peer.sent[before:] == packet(b"g") + b"+"


def test_a_damaged_answer_is_asked_for_again() -> None:
    peer = Scripted({b"g": b"$11#00"})
    debugger = attached(peer, acknowledge=True)

    def again(data: bytes) -> None:
        if data == b"-":
            peer.ready += packet(b"22")

    peer.answer, old = again, peer.answer  # type: ignore[method-assign]
    peer.ready += b"+$11#00"
    assert debugger.command("g") == b"22"
    peer.answer = old  # type: ignore[method-assign]
    assert peer.sent.endswith(b"$g#67-+")


def test_a_damaged_request_is_sent_again() -> None:
    peer = Scripted()
    debugger = attached(peer, acknowledge=True)
    peer.answer = lambda data: None  # type: ignore[method-assign]
    peer.ready += b"-noise+" + packet(b"77")
    assert debugger.command("g") == b"77"
    assert peer.sent.endswith(b"$g#67$g#67+")
    peer.ready += b"-" * 10
    with pytest.raises(DebuggerError, match="4 times as damaged"):
        debugger.command("g")


def test_without_acknowledgements_damage_is_the_end() -> None:
    debugger = attached(Scripted({b"g": b"$11#00"}))
    with pytest.raises(DebuggerError, match=r"wrong sum instead of the answer to b'g': b'11'"):
        debugger.command("g")
    with pytest.raises(DebuggerError, match="out of step"):
        debugger.command("g")


def test_bytes_may_come_one_by_one() -> None:
    peer = Scripted({b"g": b"0011"})
    peer.chunk = 1
    assert attached(peer).command("g") == b"0011"


@given(st.binary(max_size=300), st.integers(1, 9))
def test_escapes(data: bytes, times: int) -> None:
    data *= times
    sent = wire.escaped(data)
    assert not set(sent) & set(b"#$*")
    assert wire.unpacked(sent) == data
    assert wire.unpacked(b"}A" + sent) == b"a" + data


@pytest.mark.parametrize(
    ("packed", "data"),
    [(b"0* ", b"0000"), (b"a0*~b", b"a" + b"0" * 98 + b"b"), (b"}\x03", b"#")],
)
def test_runs(packed: bytes, data: bytes) -> None:
    """The first is the manual's own example."""
    assert wire.unpacked(packed) == data


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        (b"S05", {"signal": 5}),
        (b"T05", {"signal": 5}),
        (b"T05swbreak:;thread:2;10:0010000000000000;", {"kind": "swbreak", "thread": 2, "registers": {16: 0x1000}}),
        (b"T05watch:ffffffff81000010;thread:p1.3;", {"kind": "watch", "address": 0xFFFFFFFF81000010, "thread": 3}),
        (b"T02awatch:10;core:0;", {"kind": "awatch", "address": 16, "signal": 2}),
        (b"W03", {"exited": 3, "ended": True}),
        (b"W00;process:1", {"exited": 0, "ended": True}),
        (b"X09", {"killed": 9, "ended": True}),
    ],
)
def test_stop_replies(raw: bytes, wanted: dict[str, object]) -> None:
    stop = parse_stop(raw)
    assert {name: getattr(stop, name) for name in wanted} == wanted
    assert stop.ended == (raw[:1] in b"WX")


@pytest.mark.parametrize("raw", [b"", b"OK", b"E01", b"T", b"Tzz", b"T05thread", b"S05thread:1;", b"T0510:zz;"])
def test_what_is_no_stop_reply(raw: bytes) -> None:
    with pytest.raises(DebuggerError, match="not a stop reply"):
        parse_stop(raw)


def test_registers_follow_the_stubs_own_description() -> None:
    def part(annex: bytes, at: int) -> bytes:
        return b"qXfer:features:read:%b:%x,3f0" % (annex, at)

    peer = Scripted(
        {
            part(b"target.xml", 0): b"m" + XML[:100],
            part(b"target.xml", 100): b"l" + XML[100:],
            part(b"core.xml", 0): b"l" + CORE,
            b"g": b"0100000000000000" + b"x" * 16 + b"33e00000" + b"2b00",
            b"p4": b"2be0",
            b"P3=feffffff": b"OK",
        }
    )
    debugger = attached(peer)
    assert debugger.read_registers() == {"rax": 1, "cs": 0xE033, "ss": 0x2B}
    assert [register.number for register in debugger.layout.values()] == [0, 1, 3, 4]
    assert debugger.register("ss") == 0xE02B
    debugger.write_register("cs", -2)
    with pytest.raises(DebuggerError, match="no register ax; it has rax, rip, cs, ss"):
        debugger.register("ax")
    with pytest.raises(DebuggerError, match="does not know b'p0'"):
        debugger.register("rax")


def test_memory_in_binary_and_in_parts() -> None:
    peer = Scripted({b"x1000,3f8": b"babc", b"x1003,3f5": b"bd", b"x1000,4": b"b}\x03}]xy", b"x5,1": b"E01"})
    debugger = attached(peer)
    assert debugger.read_memory(0x1000, 4) == b"#}xy"
    peer.answers[b"x1003,1"] = b"bd"
    peer.answers[b"x1000,4"] = b"babc"
    assert debugger.read_memory(0x1000, 4) == b"abcd"
    with pytest.raises(DebuggerError, match="no memory at 0x5: the stub answered b'x5,1' with: b'E01'"):
        debugger.read_memory(5, 1)


def test_memory_in_digits_where_the_stub_knows_no_better() -> None:
    peer = Scripted({b"m10,4": b"0102", b"m12,2": b"0304"}, hello=b"PacketSize=400")
    assert attached(peer).read_memory(0x10, 4) == b"\1\2\3\4"


def test_a_refusal_in_words() -> None:
    debugger = attached(Scripted({b"Z0,5,1": b"E.there is nothing to break"}))
    with pytest.raises(DebuggerError, match=r"answered b'Z0,5,1' with: there is nothing to break"):
        debugger.break_at(5)


def test_monitor_gathers_what_is_printed() -> None:
    asked = b"qRcmd," + b"info version".hex().encode()
    debugger = attached(
        Scripted({asked: [b"O" + b"one\n".hex().encode(), b"O" + "zwö".encode().hex().encode(), b"OK"]})
    )
    assert debugger.monitor("info version") == "one\nzwö"
    debugger = attached(Scripted({asked: b"whole".hex().encode()}))
    assert debugger.monitor("info version") == "whole"


def test_timeouts_say_what_was_waited_for() -> None:
    peer = Scripted({b"vCont;c": []})
    debugger = attached(peer)
    debugger.resume()
    peer.ready += packet(b"O" + b"hello\n".hex().encode()) + b"$T05"
    with pytest.raises(DebuggerTimeout) as caught:
        debugger.wait_stop(timeout=3)
    assert str(caught.value) == (
        "waited in vain for the guest to stop after b'vCont;c'; so far there is b'$T05' (it said: hello), for 3 s"
    )
    with pytest.raises(DebuggerError, match="the guest is running: b'g' has to wait"):
        debugger.command("g")
    peer.ready += b"#b9"
    assert debugger.wait_stop().signal == 5


def test_a_stub_that_hangs_up_is_noticed() -> None:
    peer = Scripted()
    debugger = attached(peer)
    peer.gone = True
    peer.answer = lambda data: None  # type: ignore[method-assign]
    with pytest.raises(DebuggerError, match="closed the connection while the answer to b'g' was waited for"):
        debugger.command("g")


def test_a_failed_greeting_leaves_no_socket_open() -> None:
    peer = Scripted({b"?": b"nonsense"})
    with pytest.raises(DebuggerError):
        attached(peer)
    assert peer.closed


def test_nobody_is_there(tmp_path: object) -> None:
    with pytest.raises(DebuggerError, match=f"cannot connect to {tmp_path}/gdb"):
        Debugger(f"{tmp_path}/gdb")


# Both sides of the protocol, written by two people, meet.


@pytest.fixture
def target() -> FakeTarget:
    return FakeTarget(vcpus=2)


def test_registers_and_memory_of_the_stub(target: FakeTarget) -> None:
    with attached(Stub(target)) as debugger:
        registers = debugger.read_registers()
        assert registers["rip"] == BASE
        assert debugger.register("rip") == BASE
        debugger.write_register("rbx", -1)
        assert debugger.read_registers()["rbx"] == (1 << 64) - 1
        data = bytes(range(256)) * 32
        debugger.write_memory(BASE + 0x100, data)
        assert debugger.read_memory(BASE + 0x100, len(data)) == data
        assert target.memory[Space.VIRTUAL][0x100 : 0x100 + len(data)] == data
        with debugger.machine_memory():
            assert debugger.read_memory(0, 3) == b"mmm"
        with pytest.raises(DebuggerError, match=f"no memory at {BASE + 0x4000:#x}"):
            debugger.read_memory(BASE + 0x3F00, 0x200)
        assert debugger.threads() == [1, 2]


def test_stops_of_the_stub(target: FakeTarget) -> None:
    condition = bytes.fromhex("2600002205" + "1327")  # $rax == 5
    with attached(Stub(target)) as debugger:
        debugger.break_at(BASE + 8, condition=condition)
        debugger.break_at(BASE + 8, hardware=True)
        debugger.watch(BASE, 4096)
        debugger.rwatch(BASE, 1)
        debugger.awatch(BASE, 2, condition=[condition, condition])
        assert {(point.kind.value, point.length) for point in target.points.values()} == {
            (0, 1), (1, 1), (2, 4096), (3, 1), (4, 2)
        }  # fmt: skip
        target.script(
            None,
            Stop(kind=Kind.SOFTWARE, address=BASE + 8, vcpu=1),
            Stop(kind=Kind.WRITE, address=BASE + 5, note="a\nb"),
        )
        stop = debugger.cont()
        assert (stop.signal, stop.kind, stop.thread) == (5, "swbreak", 2)
        assert stop.registers[debugger.layout["rip"].number] == BASE + 8
        stop = debugger.cont()
        assert (stop.kind, stop.address, stop.notes) == ("watch", BASE + 5, ("a", "b"))
        debugger.clear(BASE + 8)
        assert {kind for kind, _, _ in target.points} == {Kind.WRITE, Kind.READ, Kind.ACCESS}
        debugger.clear()
        assert not target.points


def test_steps_interrupts_and_the_end(target: FakeTarget) -> None:
    with attached(Stub(target)) as debugger:
        assert debugger.step(5).registers[debugger.layout["rip"].number] == BASE + 5
        debugger.step_range(BASE + 5, BASE + 9)
        assert debugger.register("rip") == BASE + 9
        debugger.resume()
        with pytest.raises(DebuggerTimeout):
            debugger.wait_stop(timeout=0.1)
        assert debugger.interrupt().signal == 2
        assert debugger.monitor("hello") == "you said hello\n"
        target.script(Ended(3, "the guest crashed"))
        stop = debugger.cont()
        assert (stop.exited, stop.notes) == (3, ("the guest crashed",))
        assert debugger.restart().signal == 5
        assert debugger.register("rip") == BASE
        debugger.kill()
        assert "kill" in target.calls
        debugger.detach()


def test_errors_of_the_stub_are_the_stubs_words(target: FakeTarget) -> None:
    def fail(command: str) -> str:
        raise TargetError("the guest has no such thing")

    with attached(Stub(target), acknowledge=True) as debugger:
        target.answer = fail
        checks: list[tuple[Callable[[], object], str]] = [
            (lambda: debugger.monitor("x"), "the guest has no such thing"),
            (lambda: debugger.break_at(BASE, condition=b"\x00"), "is not an operation"),
            (lambda: debugger.write_register("retired", 1), "what has been done cannot be changed"),
            (lambda: debugger.select(9), "there is no such thread"),
        ]
        for check, words in checks:
            with pytest.raises(DebuggerError, match=words):
                check()
