"""One client's conversation with a guest that has no engine: every packet, and whatever bytes may come."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_target import BASE, FakeTarget, checksummed, joined, packets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stub.engine.base import RAX, RBX, RIP
from stub.gdb.handlers import REGISTRY
from stub.gdb.handlers.registry import Registry
from stub.gdb.model import SIGABRT, SIGINT, Ended, Kind, Space, Stop, TargetError
from stub.gdb.packet import PACKET_SIZE, decode, encode
from stub.gdb.session import OnDetach, Session


class Client:
    """A client without a network, past the acknowledgements; ``ask`` gives one answer, undone of escapes and runs."""

    def __init__(self, target: FakeTarget, **options: object) -> None:
        self.target = target
        self.session = Session(target, **options)  # type: ignore[arg-type]
        assert packets(self.session.receive(checksummed(b"QStartNoAckMode"))) == [b"OK"]

    def say(self, data: bytes) -> list[bytes]:
        """Send a packet; let the guest run until it stops, if it does so at once; return what came."""
        out = self.session.receive(encode(data, rle=False))
        if self.target.running:
            stop = self.target.advance()
            if stop is not None:
                out += self.session.stopped(stop)
        return [decode(packet) or b"" for packet in packets(out)]

    def ask(self, data: bytes) -> bytes:
        """The same, for what has one answer."""
        answers = self.say(data)
        assert len(answers) == 1, answers
        return answers[0]


@pytest.fixture
def target() -> FakeTarget:
    return FakeTarget()


@pytest.fixture
def client(target: FakeTarget) -> Client:
    return Client(target)


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    path = tmp_path / "vmlinux"
    path.write_bytes(bytes(range(256)) * 20)
    return path


# -- the line


def test_packets_are_acknowledged_until_the_client_wants_no_more(target: FakeTarget) -> None:
    session = Session(target)
    assert session.receive(b"+$?#3f").startswith(b"+$T05")
    assert session.receive(b"+" + checksummed(b"QStartNoAckMode")) == b"+" + encode(b"OK")
    assert session.receive(b"+" + checksummed(b"qC")) == encode(b"QC1")
    assert session.receive(b"-") == b""


def test_what_was_not_understood_is_sent_again(target: FakeTarget) -> None:
    session = Session(target)
    answer = session.receive(checksummed(b"qC"))[1:]
    assert session.receive(b"-") == answer
    assert session.receive(b"---") == answer  # who asks many times at once gets it once
    assert session.receive(b"+") == b""
    assert session.receive(b"-") == b""


def test_a_damaged_packet_is_asked_for_again(target: FakeTarget) -> None:
    session = Session(target)
    assert session.receive(b"$qC#00") == b"-"
    assert packets(session.receive(checksummed(b"qC"))) == [b"QC1"]


def test_a_damaged_packet_without_acknowledgements_is_an_error(client: Client) -> None:
    assert packets(client.session.receive(b"$qC#00"))[0].startswith(b"E.")


@pytest.mark.parametrize("acknowledged", [True, False])
def test_a_packet_longer_than_promised_is_answered_with_an_error(target: FakeTarget, acknowledged: bool) -> None:
    session = Session(target, packet_size=100)
    if not acknowledged:
        session.receive(checksummed(b"QStartNoAckMode"))
    assert packets(session.receive(checksummed(b"m" * 101)))[0].startswith(b"E.")
    assert packets(session.receive(checksummed(b"qC"))) == [b"QC1"]


def test_of_several_packets_each_waits_for_the_acknowledgement_of_the_one_before(target: FakeTarget) -> None:
    session = Session(target, packet_size=20)
    target.answer = lambda _: "abcdefghijkl"
    out = session.receive(checksummed(b"qRcmd,41"))
    assert packets(out) == [b"O" + b"abcdefghi".hex().encode()]
    assert session.receive(b"-") == out[1:]
    assert packets(session.receive(b"+")) == [b"O" + b"jkl".hex().encode()]
    assert packets(session.receive(b"+")) == [b"OK"]
    assert session.receive(b"+") == b""


def test_a_request_sent_again_for_want_of_an_acknowledgement_is_answered_once(target: FakeTarget) -> None:
    session = Session(target)
    first = session.receive(checksummed(b"qC") * 2)
    assert first == b"+$QC1#c5" + b"+"
    assert session.receive(b"+" + checksummed(b"qC")) == b"+$QC1#c5", "the client has the answer and asks anew"


def test_who_does_not_acknowledge_still_gets_everything(target: FakeTarget) -> None:
    target.answer = lambda _: "abcdefghijkl"
    session = Session(target, packet_size=20)
    out = session.receive(checksummed(b"qRcmd,41")) + session.receive(checksummed(b"qC"))
    assert packets(out)[-3:] == [b"O" + b"jkl".hex().encode(), b"OK", b"QC1"]


def test_answers_wait_when_there_are_many(client: Client) -> None:
    """64 requests of 64 KiB each: a megabyte or so at a time, the rest when that has been sent."""
    client.target.memory[Space.VIRTUAL][:] = bytes(range(1, 129)) * 128
    out = client.session.receive(checksummed(b"m%x,4000" % BASE) * 200)
    assert client.session.pending
    assert len(out) < 1_200_000
    count = len(packets(out))
    while client.session.pending:
        count += len(packets(client.session.receive()))
    assert count == 200


# -- what we say of ourselves


def test_what_is_claimed_is_there(client: Client) -> None:
    claimed = client.ask(b"qSupported:xmlRegisters=i386").decode().split(";")
    assert claimed[0] == "PacketSize=200000"
    for claim in claimed[1:]:
        name = claim.removesuffix("+").encode()
        others = {
            b"vContSupported": b"vCont", b"swbreak": b"Z", b"hwbreak": b"Z", b"ConditionalBreakpoints": b"Z",
            b"binary-upload": b"x", b"error-message": b"qSupported",
        }  # fmt: skip
        assert others.get(name, name) in REGISTRY.rows
    assert len(claimed) == len(set(claimed))
    assert not {"qXfer:memory-map:read+", "qXfer:exec-file:read+", "multiprocess+", "QNonStop+"} & set(claimed)


def test_the_executable_is_claimed_where_there_is_one(kernel: Path) -> None:
    assert b"qXfer:exec-file:read+" in Client(FakeTarget(executable=kernel)).ask(b"qSupported")


UNKNOWN = [
    b"",
    b"vMustReplyEmpty",
    b"qOffsets",
    b"qXfer:memory-map:read::0,10",
    b"vAttach;1",
    b"QNonStop:1",
    b"y",
    b"\xff",
]


@pytest.mark.parametrize("packet", UNKNOWN)
def test_unknown_packets_are_answered_with_nothing(client: Client, packet: bytes) -> None:
    assert client.ask(packet) == b""


def test_a_packet_has_one_handler() -> None:
    registry = Registry()
    registry.packet("vFile:open")(lambda *_: b"")
    with pytest.raises(ValueError, match="two handlers"):
        registry.packet("vFile:open")(lambda *_: b"")
    with pytest.raises(ValueError, match="number of words"):
        registry.packet("vFile")(lambda *_: b"")


def test_the_names_of_packets() -> None:
    registry = Registry()
    for name in ("q", "m", "qC", "qXfer:a:read", "Qqemu.sstep", "vCont"):
        registry.packet(name)(lambda *_: b"")
    found = {
        packet: (row.name if row else None, rest)
        for packet in (
            b"m0,1",
            b"qC",
            b"qCRC",
            b"qXfer:a:read:b:0,1",
            b"qXfer:a",
            b"Qqemu.sstep=1",
            b"vCont?",
            b"vCont;c",
        )
        for row, rest in [registry.find(packet)]
    }
    assert list(found.values()) == [
        (b"m", b"0,1"), (b"qC", b""), (None, b""), (b"qXfer:a:read", b"b:0,1"), (None, b""),
        (b"Qqemu.sstep", b"=1"), (b"vCont", b"?"), (b"vCont", b";c"),
    ]  # fmt: skip


def test_the_target_description_comes_in_pieces(client: Client) -> None:
    whole, at = b"", 0
    while True:
        piece = client.ask(b"qXfer:features:read:target.xml:%x,200" % at)
        whole += piece[1:]
        at += len(piece) - 1
        if piece[:1] == b"l":
            break
    assert whole == client.session.description.xml
    assert client.ask(b"qXfer:features:read:target.xml:100000,200") == b"l"
    assert client.ask(b"qXfer:features:read:other.xml:0,200").startswith(b"E")


# -- threads


def test_vcpu_n_is_thread_n() -> None:
    client = Client(FakeTarget(vcpus=3))
    assert client.ask(b"qfThreadInfo") == b"m1,2,3"
    assert client.ask(b"qsThreadInfo") == b"l"
    xml = client.ask(b"qXfer:threads:read::0,1000")
    assert b'<thread id="3" core="2" name="vCPU 2">kernel &lt;code&gt; of 2</thread>' in xml
    assert bytes.fromhex(client.ask(b"qThreadExtraInfo,2").decode()) == b"kernel <code> of 1"
    assert client.ask(b"T3") == b"OK"
    assert client.ask(b"T4").startswith(b"E")
    assert client.ask(b"Hg3") == b"OK"
    assert client.ask(b"qC") == b"QC3"
    for packet in (b"Hg4", b"Hgx", b"Hx1", b"Hg", b"H", b"T", b"T-2"):
        assert client.ask(packet).startswith(b"E")
    assert client.ask(b"Hc-1") == client.ask(b"Hc0") == b"OK"
    assert client.ask(b"qAttached") == b"1"


# -- registers


def test_registers_one_by_one(client: Client) -> None:
    assert client.ask(b"p10") == BASE.to_bytes(8, "little").hex().encode()
    assert client.ask(b"P0=0100000000000080") == b"OK"
    assert client.target.words[RAX] == 0x8000000000000001
    number = client.session.description.number_of
    assert client.ask(b"P%x=%b" % (number["st0"], b"0102030405060708090a")) == b"OK"
    assert client.ask(b"p%x" % number["st0"]) == b"0102030405060708090a"
    assert client.ask(b"P0=01").startswith(b"E.rax")
    assert client.ask(b"Pfff=01") == b"OK"
    assert client.ask(b"pfff").startswith(b"E")
    assert client.ask(b"P%x=%b" % (number["retired"], b"00" * 8)).startswith(b"E.retired")


def test_all_registers_one_of_which_cannot_be_read(client: Client) -> None:
    answer = client.ask(b"g")
    description = client.session.description
    at = 2 * sum(register.size for register in description.registers[: description.number_of["cr8"]])
    assert answer[at : at + 16] == b"x" * 16
    assert answer.count(b"x") == 16
    assert len(answer) == sum(description.hex_digits)
    assert client.ask(b"p%x" % description.number_of["cr8"]).startswith(b"E.")


def test_writing_all_registers_changes_only_what_is_another(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    target = client.target
    monkeypatch.setattr(target, "read_register", lambda name: target.others.get(name, 0))
    answer = client.ask(b"g")
    assert client.ask(b"G" + b"11" * 8 + answer[16:32] + b"22" * 8 + answer[48:]) == b"OK"
    assert target.calls == ["rax=0x1111111111111111", "rcx=0x2222222222222222"]
    assert client.ask(b"G" + b"33" * 8) == b"OK"
    assert target.words[RAX] == 0x3333333333333333


# -- memory


def test_memory_in_hexadecimal_and_binary(client: Client) -> None:
    assert client.ask(b"M%x,4:01237d24" % BASE) == b"OK"
    assert client.ask(b"m%x,4" % BASE) == b"01237d24"
    assert client.ask(b"X%x,4:#$*}" % (BASE + 2)) == b"OK"
    assert client.ask(b"x%x,6" % BASE) == b"b\x01##$*}"
    assert client.ask(b"X%x,0:" % BASE) == b"OK"
    assert client.ask(b"x%x,0" % BASE) == b"b"


def test_reads_end_where_memory_ends(client: Client) -> None:
    assert client.ask(b"m%x,100" % (BASE + 0x3FFE)) == b"0000"
    assert client.ask(b"m0,1") == b"E01"
    assert client.ask(b"x0,1") == b"E01"
    client.say(b"qSupported:error-message+")
    assert client.ask(b"m0,1").startswith(b"E.there is no memory")
    assert client.ask(b"M0,1:00").startswith(b"E.no memory")


def test_a_read_is_never_longer_than_a_packet() -> None:
    client = Client(FakeTarget(memory=PACKET_SIZE))
    assert len(client.ask(b"m%x,ffffffff" % BASE)) == PACKET_SIZE
    client.target.memory[Space.VIRTUAL][:] = b"#" * PACKET_SIZE
    answer = client.session.receive(checksummed(b"x%x,ffffffff" % BASE))
    assert len(answer) <= PACKET_SIZE + 4


@pytest.mark.parametrize(
    "packet", [b"M%x,4:00", b"M%x,1:0", b"M%x,1:zz", b"X%x,2:a", b"M%x", b"m%x", b"m%x,", b"m%x,-1"]
)
def test_packets_that_make_no_sense_are_errors(client: Client, packet: bytes) -> None:
    assert client.ask(packet % BASE).startswith(b"E")


def test_the_last_address(client: Client) -> None:
    assert client.ask(b"mffffffffffffffff,2").startswith(b"E")
    assert client.ask(b"Mffffffffffffffff,2:0000").startswith(b"E")


def test_machine_memory(client: Client) -> None:
    assert client.ask(b"qqemu.PhyMemMode") == b"0"
    assert client.ask(b"Qqemu.PhyMemMode:1") == b"OK"
    assert client.ask(b"qqemu.PhyMemMode") == b"1"
    assert client.ask(b"m0,3") == b"6d6d6d"
    assert client.ask(b"M1,1:00") == b"OK"
    assert client.target.memory[Space.MACHINE][:3] == b"m\0m"
    assert client.ask(b"Qqemu.PhyMemMode:0") == b"OK"
    assert client.ask(b"m0,3").startswith(b"E")


def test_steps_of_qemu(client: Client) -> None:
    assert client.ask(b"qqemu.Supported") == b"sstepbits;sstep;PhyMemMode"
    assert client.ask(b"qqemu.sstepbits") == b"ENABLE=1,NOIRQ=2,NOTIMER=4"
    assert client.ask(b"qqemu.sstep") == b"0x7"
    assert client.ask(b"Qqemu.sstep=5") == b"OK"
    assert client.ask(b"Qqemu.sstep=0x1") == b"OK"
    assert client.ask(b"qqemu.sstep") == b"0x1"
    assert client.ask(b"Qqemu.sstep=8").startswith(b"E")


def bit_by_bit(data: bytes) -> int:
    """The CRC as gdb's manual says it (22.19, "compare-sections")."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc >> 31 else 0)) & 0xFFFFFFFF
    return crc


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_checksums_of_memory(client: Client, size: int) -> None:
    data = zlib.compress(b"something of no pattern" * 1000)[:size].ljust(size, b"x")
    client.target.memory[Space.VIRTUAL][:size] = data
    assert client.ask(b"qCRC:%x,%x" % (BASE, size)) == b"C%x" % bit_by_bit(data)


def test_checksums_and_searches_end_where_memory_ends(client: Client) -> None:
    assert client.ask(b"qCRC:%x,5000" % BASE).startswith(b"E.")
    assert client.ask(b"qSearch:memory:%x;5000;abc" % BASE).startswith(b"E.")
    assert client.ask(b"qSearch:memory:%x;ffffffffff;a" % BASE).startswith(b"E.")
    client.target.memory[Space.VIRTUAL][0x3FFD:] = b"abc"
    assert client.ask(b"qSearch:memory:%x;5000;abc" % BASE) == b"1,%x" % (BASE + 0x3FFD)


def test_search_finds_across_pieces(monkeypatch: pytest.MonkeyPatch, client: Client) -> None:
    monkeypatch.setattr("stub.gdb.handlers.memory._PIECE", 16)
    client.target.memory[Space.VIRTUAL][14:18] = b"#$}*"
    assert client.ask(b"qSearch:memory:%x;4000;#$}*" % BASE) == b"1,%x" % (BASE + 14)
    assert client.ask(b"qSearch:memory:%x;4000;#$}*!" % BASE) == b"0"
    client.target.memory[Space.VIRTUAL][100:164] = bytes(range(1, 65))
    assert client.ask(b"qSearch:memory:%x;4000;%b" % (BASE, bytes(range(1, 65)))) == b"1,%x" % (BASE + 100)
    assert client.ask(b"qSearch:memory:%x;4000;" % BASE).startswith(b"E")


# -- stop points


@pytest.mark.parametrize("kind", list(Kind))
def test_stop_points_come_and_go(client: Client, kind: Kind) -> None:
    assert client.ask(b"Z%d,%x,4" % (kind.value, BASE)) == b"OK"
    assert client.target.points[kind, BASE, 4].conditions == ()
    assert client.ask(b"z%d,%x,4" % (kind.value, BASE)) == b"OK"
    assert not client.target.points
    assert client.ask(b"z%d,%x,4" % (kind.value, BASE)) == b"OK"


@pytest.mark.parametrize("packet", [b"Z5,0,1", b"Z0,0", b"Z0", b"Z2,0,0", b"Z0,0,1,2", b"Zz,0,1", b"z9,0,0"])
def test_stop_points_that_make_no_sense(client: Client, packet: bytes) -> None:
    assert client.ask(packet).startswith(b"E")


def test_conditions_are_evaluated_here(client: Client) -> None:
    """``rax == 5`` as gdb sends it: reg 0, const8 5, equal, end; then one that reads memory."""
    equals = bytes.fromhex("260000220513") + b"'"
    reads = b"\x25" + (BASE + 8).to_bytes(8, "big") + b"\x19" + b"'"
    packet = b"Z0,%x,1;X%x,%bX%x,%b" % (BASE, len(equals), equals.hex().encode(), len(reads), reads.hex().encode())
    assert client.ask(packet) == b"OK"
    (point,) = client.target.points.values()
    first, second = point.conditions
    assert [first(), second()] == [0, 0]
    client.target.words[RAX] = 5
    client.target.memory[Space.VIRTUAL][8:16] = (77).to_bytes(8, "little")
    assert [first(), second()] == [1, 77]
    client.say(b"vRun;")
    assert first() == 0  # of the guest that runs now


@pytest.mark.parametrize(
    "condition", [b"X5,00", b"X2,zzzz", b"X", b"X1", b"X1,ff", b"X0,", b"cmds:0,X1,27", b"X2,0027"]
)
def test_conditions_that_make_no_sense(client: Client, condition: bytes) -> None:
    assert client.ask(b"Z0,0,1;" + condition).startswith(b"E")
    assert not client.target.points


# -- running


def test_steps_and_stops_have_the_registers_with_them(client: Client) -> None:
    reply = client.ask(b"vCont;s:1;c")
    assert reply.startswith(b"T05thread:1;10:")
    assert (BASE + 1).to_bytes(8, "little").hex().encode() in reply
    assert client.ask(b"?") == reply


RESUMING: list[tuple[bytes, list[str]]] = [
    (b"c", ["go"]),
    (b"s", ["step"]),
    (b"C05", ["go"]),
    (b"S0b", ["step"]),
    (b"c%x" % (BASE + 5), [f"rip={BASE + 5:#x}", "go"]),
    (b"s%x" % (BASE + 5), [f"rip={BASE + 5:#x}", "step"]),
    (b"C05;%x" % (BASE + 5), [f"rip={BASE + 5:#x}", "go"]),
    (b"vCont;c", ["go"]),
    (b"vCont;C05", ["go"]),
    (b"vCont;c:-1", ["go"]),
    (b"vCont;S05:1;c", ["step"]),
    (b"vCont;c:2;s", ["step"]),
    (b"vCont;c:1;s:2", ["step"]),
    (b"vCont;r10,20:1", ["step 0x10 0x20"]),
    (b"vCont;r10,20:1;c", ["step 0x10 0x20"]),
    (b"vCont;c;s:1", ["go"]),  # the first that names a thread counts
]


@pytest.mark.parametrize(("packet", "calls"), RESUMING)
def test_ways_to_resume(packet: bytes, calls: list[str]) -> None:
    client = Client(FakeTarget(vcpus=2))
    client.target.script(Stop())
    assert client.ask(packet).startswith(b"T05")
    assert client.target.calls == calls


def test_threads_that_are_to_stand_still(client: Client) -> None:
    assert client.ask(b"vCont;t").startswith(b"T05")
    assert client.target.calls == []
    assert client.ask(b"vCont?") == b"vCont;c;C;s;S;r;t"


@pytest.mark.parametrize(
    "packet", [b"vCont", b"vCont;", b"vCont;x", b"vCont;c:9", b"vCont;r1", b"vCont;s:z", b"cxyz", b"C", b"S;"]
)
def test_there_is_always_an_answer_to_a_resumption(client: Client, packet: bytes) -> None:
    client.target.script(Stop())
    assert client.ask(packet)[:1] in (b"E", b"T")


def test_nothing_runs_if_the_target_refuses(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise TargetError("it has no #life$ left {at all}")

    monkeypatch.setattr(client.target, "go", refuse)
    assert client.ask(b"c") == b"E.it has no No.life% left (at all)"
    assert not client.session.waiting


STOPS = [
    (Stop(SIGABRT), b"T06thread:1;10:"),
    (Stop(kind=Kind.SOFTWARE, address=BASE), b"T05swbreak:;thread:1;"),
    (Stop(kind=Kind.HARDWARE, address=BASE), b"T05hwbreak:;thread:1;"),
    (Stop(kind=Kind.WRITE, address=0xFFF8), b"T05watch:fff8;thread:1;"),
    (Stop(kind=Kind.READ, address=0xFFF8), b"T05rwatch:fff8;thread:1;"),
    (Stop(kind=Kind.ACCESS, address=0xFFF8, vcpu=1), b"T05awatch:fff8;thread:2;"),
    (Ended(3, ""), b"W03"),
]


@pytest.mark.parametrize(("stop", "reply"), STOPS)
def test_stop_replies(client: Client, stop: Stop | Ended, reply: bytes) -> None:
    client.say(b"qSupported:swbreak+;hwbreak+")
    client.target.script(stop)
    assert client.ask(b"c").startswith(reply)
    assert client.ask(b"?").startswith(reply)


def test_breakpoints_are_named_only_to_who_knows_the_names(client: Client) -> None:
    client.target.script(Stop(kind=Kind.SOFTWARE, address=BASE))
    assert client.ask(b"c").startswith(b"T05thread:1;")


def test_notes_come_before_the_stop(client: Client) -> None:
    client.target.script(Stop(note="crashed: 5"), Ended(3, "crash"))
    note, stop = client.say(b"c")
    assert joined([note]) == b"crashed: 5\n"
    assert stop.startswith(b"T05")
    assert joined(client.say(b"c")[:1]) == b"crash\n"


def test_an_ended_guest_says_so_again(client: Client) -> None:
    client.target.script(Ended(4, ""))
    assert client.ask(b"c") == b"W04"
    assert client.ask(b"c") == client.ask(b"s") == client.ask(b"vCont;s:1") == client.ask(b"?") == b"W04"
    assert client.target.calls == ["go"]


def test_an_interrupt_stops_the_guest(client: Client) -> None:
    assert client.say(b"c") == []
    assert client.target.advance() is None
    assert client.session.receive(b"\x03") == b""
    stop = client.target.advance()
    assert stop == Stop(SIGINT)
    assert packets(client.session.stopped(stop))[0].startswith(b"T02")


def test_what_comes_behind_an_interrupt_waits_for_the_stop(client: Client) -> None:
    client.say(b"c")
    assert client.session.receive(b"\x03" + checksummed(b"qC") + checksummed(b"?")) == b""
    assert not client.session.pending
    assert client.session.behind
    stop = client.target.advance()
    assert stop is not None
    first, second, third = packets(client.session.stopped(stop))
    assert (first[:3], second, third[:3]) == (b"T02", b"QC1", b"T02")


def test_an_interrupt_while_it_stands_still_is_kept_for_the_next_run(client: Client) -> None:
    assert client.session.receive(b"\x03") == b""
    assert client.ask(b"c").startswith(b"T02")
    client.target.script(Stop())
    assert client.ask(b"c").startswith(b"T05")


def test_while_it_runs_requests_are_refused(client: Client) -> None:
    client.say(b"c")
    for packet in (b"g", b"m0,1", b"vCont;t", b"vCont;c", b"?", b"qRcmd,41"):
        assert packets(client.session.receive(checksummed(packet)))[0][:1] == b"E"
    assert client.target.running
    assert client.session.waiting


def test_a_stop_that_nobody_waits_for_is_not_sent(target: FakeTarget) -> None:
    session = Session(target)
    target.go()
    assert session.stopped(Stop(note="hello")) == b""


# -- going, and booting again


LEAVING: list[tuple[OnDetach, list[str]]] = [("continue", ["go"]), ("stop", []), ("kill", ["kill"])]


@pytest.mark.parametrize(("how", "calls"), LEAVING)
def test_detaching_leaves_the_guest_as_asked(target: FakeTarget, how: OnDetach, calls: list[str]) -> None:
    client = Client(target, on_detach=how)
    client.say(b"Z0,0,1")
    out = client.session.receive(checksummed(b"D;1"))
    assert packets(out) == [b"OK"]
    assert client.session.over
    assert target.calls == calls
    assert not target.points


def test_a_guest_that_is_to_stand_still_is_stopped(target: FakeTarget) -> None:
    client = Client(target, on_detach="stop")
    client.say(b"c")
    client.session.leave()
    assert target.advance() == Stop(SIGINT)


def test_an_interrupted_step_does_not_stop_the_guest_later(target: FakeTarget) -> None:
    client = Client(target)
    client.session.receive(checksummed(b"s"))
    client.session.leave()
    assert target.advance() is None


def test_kill(client: Client) -> None:
    assert client.ask(b"vKill;1") == b"OK"
    assert client.ask(b"?") == b"X09"
    assert client.ask(b"c") == b"X09"
    assert not client.session.over
    assert client.say(b"k") == []
    assert client.session.over


def test_an_extended_connection_outlives_the_guest(client: Client) -> None:
    assert client.ask(b"!") == b"OK"
    assert client.say(b"k") == []
    assert not client.session.over
    client.target.words[RBX] = 1
    assert client.ask(b"vRun;6162;63").startswith(b"T05")
    assert client.target.words[RBX] == 0
    assert client.ask(b"p10") == BASE.to_bytes(8, "little").hex().encode()
    client.target.words[RIP] = 0
    assert client.say(b"R00") == []
    assert client.ask(b"?").startswith(b"T05")
    assert client.target.words[RIP] == BASE


# -- monitor


def test_monitor(client: Client) -> None:
    *parts, last = client.say(b"qRcmd," + b"xen p2m 5".hex().encode())
    assert (joined(parts), last) == (b"you said xen p2m 5\n", b"OK")
    client.target.answer = lambda _: ""
    assert client.ask(b"qRcmd,41") == b"OK"
    assert client.ask(b"qRcmd,4").startswith(b"E")


def test_long_output_comes_in_several_packets(target: FakeTarget) -> None:
    client = Client(target, packet_size=0x100)
    target.answer = lambda _: "ä" * 1000
    *parts, last = client.say(b"qRcmd,41")
    assert (joined(parts).decode(), last) == ("ä" * 1000, b"OK")
    assert all(len(part) <= 0x100 for part in parts)


# -- the executable


def test_the_executable_can_be_read(kernel: Path) -> None:
    client = Client(FakeTarget(executable=kernel), packet_size=0x400)
    name = client.ask(b"qXfer:exec-file:read:1:0,1000")
    assert name == b"l" + str(kernel).encode()
    assert client.ask(b"vFile:setfs:0") == b"F0"
    assert client.ask(b"vFile:open:%b,0,1c0" % name[1:].hex().encode()) == b"F0"
    head, _, stat = client.ask(b"vFile:fstat:0").partition(b";")
    assert (head, struct.unpack(">7I3Q3I", stat)[7]) == (b"F40", 5120)
    data, at = b"", 0
    while True:
        head, _, piece = client.ask(b"vFile:pread:0,ffff,%x" % at).partition(b";")
        assert int(head[1:], 16) == len(piece)
        if not piece:
            break
        data += piece
        at += len(piece)
    assert data == kernel.read_bytes()
    assert client.ask(b"vFile:close:0") == b"F0"
    assert client.ask(b"vFile:close:0") == client.ask(b"vFile:pread:0,1,0") == client.ask(b"vFile:fstat:0") == b"F-1,9"
    client.say(b"vFile:open:%b,0,0" % name[1:].hex().encode())
    client.session.close()
    assert not client.session.files


def test_nothing_else_of_the_host_can_be_read(kernel: Path) -> None:
    client = Client(FakeTarget(executable=kernel))
    for path in (b"/etc/passwd", str(kernel.parent).encode(), str(kernel).encode() + b"\0", b"", b"vmlinux"):
        assert client.ask(b"vFile:open:%b,0,0" % path.hex().encode()) == b"F-1,2"
        assert client.ask(b"vFile:readlink:%b" % path.hex().encode()) == b"F-1,2"
    assert client.ask(b"vFile:open:%b,1,0" % str(kernel).encode().hex().encode()) == b"F-1,d"
    assert client.ask(b"vFile:readlink:%b" % str(kernel).encode().hex().encode()) == b"F-1,16"
    assert client.ask(b"vFile:unlink:%b" % str(kernel).encode().hex().encode()) == b""
    assert client.ask(b"vFile:setfs:5") == b"F-1,16"


def test_open_files_are_few(kernel: Path) -> None:
    client = Client(FakeTarget(executable=kernel))
    opened = [client.ask(b"vFile:open:%b,0,0" % str(kernel).encode().hex().encode()) for _ in range(20)]
    assert opened[15:] == [b"Ff"] + [b"F-1,18"] * 4
    assert client.ask(b"vFile:pread:0,1,%x" % (1 << 63)) == b"F-1,16"
    assert client.ask(b"vFile:pread:0,1,%x" % (1 << 40)) == b"F0;"
    client.session.close()


def test_no_executable(client: Client) -> None:
    assert client.ask(b"vFile:open:2f,0,0") == b"F-1,2"
    assert client.ask(b"qXfer:exec-file:read::0,100").startswith(b"E")


# -- whatever comes

NAMES = sorted(REGISTRY.rows)
NUMBERS = st.sampled_from(
    [b"0", b"1", b"%x" % BASE, b"ffffffffffffffff", b"-1", b"10", b"4000", b"zz", b"1ffffffffffffffff"]
)
ARGUMENTS = st.lists(
    NUMBERS
    | st.sampled_from([b",", b";", b":", b"=", b"target.xml", b"X3,220027", b"s", b"c", b"r", b"c:1"])
    | st.binary(max_size=8),
    max_size=8,
).map(b"".join)
REQUESTS = st.tuples(st.sampled_from(NAMES), ARGUMENTS).map(b"".join) | st.binary(max_size=20)
STREAMS = st.lists(
    REQUESTS.map(encode) | st.binary(max_size=10) | st.sampled_from([b"\x03", b"+", b"-", b"$", b"#"]), max_size=25
)


def converse(client: Session, target: FakeTarget, chunk: bytes) -> None:
    out = client.receive(chunk)
    while client.pending:
        out += client.receive()
    if target.running:
        stop = target.advance()
        if stop is not None:
            out += client.stopped(stop)
    assert len(client._events) < 100


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(STREAMS, st.booleans(), st.sampled_from([0x100, 0x20000]))
def test_no_bytes_raise_anything(stream: list[bytes], acknowledged: bool, size: int) -> None:
    target = FakeTarget(executable=Path(__file__))
    target.script(None, Stop(kind=Kind.WRITE, note="#"), Stop(kind=Kind.SOFTWARE), Ended(1, "x"))
    session = Session(target, packet_size=size)
    if not acknowledged:
        session.receive(checksummed(b"QStartNoAckMode"))
    for chunk in stream:
        converse(session, target, chunk)
    session.close()


@settings(deadline=None)
@given(REQUESTS)
def test_every_request_is_answered_once_unless_it_resumes(request: bytes) -> None:
    target = FakeTarget()
    client = Client(target)
    target.answer = lambda _: ""
    target.script(Stop())
    answers = client.say(request)
    silent: Callable[[bytes], bool] = lambda data: data[:1] in (b"k", b"R")  # noqa: E731
    assert len(answers) == (0 if silent(request) else 1)


def test_ten_thousand_breakpoints(client: Client) -> None:
    """In one piece, as fast as they can be read; each is one entry."""
    inserts = b"".join(checksummed(b"Z0,%x,1" % (BASE + n)) for n in range(10_000))
    out = client.session.receive(inserts)
    while client.session.pending:
        out += client.session.receive()
    assert out == encode(b"OK") * 10_000
    assert len(client.target.points) == 10_000
