"""The debugger's protocol core under a fuzzer and under random conversations that a model follows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from coverage_guided import fuzz, needs_atheris
from fuzz_gdb import ACKNOWLEDGED, FRAMED, SMALL, TWO_CPUS, Conversation, converse, packets
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from harness.debugger import parse_stop
from harness.debugger_wire import checksum, escaped, unpacked
from stub.gdb.handlers import REGISTRY
from stub.gdb.model import Kind, Space, Stop
from suites.unit.fake_target import BASE

FUZZER = Path(__file__).with_name("fuzz_gdb.py")
CORPUS = Path(__file__).parent / "corpus" / "gdb"
SIZE = 0x400  # of the guest's memory


@pytest.mark.parametrize("seed", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_the_corpus(seed: Path) -> None:
    """What was interesting once holds, with every choice that the first byte may make."""
    data = seed.read_bytes()
    for flags in range(256):
        if flags & FRAMED == data[0] & FRAMED:
            converse(bytes([flags]) + data[1:])


@pytest.mark.parametrize("failure", [ValueError, KeyError, OverflowError, AssertionError])
def test_the_fuzzer_would_notice(failure: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> bytes:
        raise failure

    monkeypatch.setitem(REGISTRY.rows, b"qC", replace(REGISTRY.rows[b"qC"], handler=broken))
    with pytest.raises(failure):
        converse(bytes([FRAMED]) + b"qC")


@needs_atheris
def test_coverage_guided(tmp_path: Path) -> None:
    fuzz(FUZZER, CORPUS, tmp_path, longest=2048)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    converse(data)


names = st.sampled_from(sorted(REGISTRY.rows))
numbers = st.integers(0, (1 << 65) - 1).map(lambda n: b"%x" % n) | st.sampled_from([b"", b"1", b"-1"])
words = st.sampled_from([b"1", b"0", b"ffffffff81000000", b"c", b"s", b"target.xml", b"zz", b"a:"])
arguments = st.binary(max_size=40) | st.lists(numbers).map(b",".join) | st.lists(words).map(b":".join)
requests = st.tuples(names, st.sampled_from([b"", b":", b",", b";"]), arguments).map(b"".join)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 255), st.lists(requests, max_size=20))
def test_any_arguments_of_known_packets(flags: int, lines: list[bytes]) -> None:
    converse(bytes([flags | FRAMED]) + b"\n".join(line.replace(b"\n", b" ") for line in lines))


class RandomConversation(RuleBasedStateMachine):
    """A client that asks sensibly and badly, in any order; memory, registers and stop points follow a model."""

    @initialize(flags=st.sampled_from([0, ACKNOWLEDGED, SMALL, SMALL | ACKNOWLEDGED, TWO_CPUS]))
    def begin(self, flags: int) -> None:
        self.flags = flags
        self.conversation = Conversation(flags)
        self.target.next_stops.clear()
        self.memory = bytearray(self.target.memory[Space.VIRTUAL])
        self.points: set[tuple[int, int, int]] = set()
        self.waiting = False

    @property
    def target(self) -> object:
        return self.conversation.target

    def answers(self, stream: bytes) -> list[bytes]:
        """The packets of a stream, each with its sum checked; acknowledged if that is our way."""
        found = []
        while (start := stream.find(b"$")) >= 0:
            assert not set(stream[:start]) - set(b"+-"), stream
            end = stream.index(b"#", start)
            raw = stream[start + 1 : end]
            assert int(stream[end + 1 : end + 3], 16) == checksum(raw)
            assert len(raw) <= self.conversation.session.packet_size
            found.append(unpacked(raw))
            stream = stream[end + 3 :]
        assert not set(stream) - set(b"+-"), stream
        return found

    def ask(self, request: bytes) -> list[bytes]:
        answer = self.conversation.feed(b"$%b#%02x" % (request, checksum(request)))
        if self.flags & ACKNOWLEDGED:
            assert answer.startswith(b"+")
            answer += self.conversation.feed(b"+" * answer.count(b"$"))
        return self.answers(answer)

    still = precondition(lambda self: not self.waiting)
    runs = precondition(lambda self: self.waiting)

    @still
    @rule(at=st.integers(0, SIZE + 8), data=st.binary(min_size=1, max_size=100), binary=st.booleans())
    def write(self, at: int, data: bytes, binary: bool) -> None:
        where = b"%x,%x:" % (BASE + at, len(data))
        [answer] = self.ask(b"X" + where + escaped(data) if binary else b"M" + where + data.hex().encode())
        fits = at + len(data) <= SIZE
        assert (answer == b"OK") == fits
        if fits:
            self.memory[at : at + len(data)] = data

    @still
    @rule(at=st.integers(0, SIZE + 8), size=st.integers(1, 2 * SIZE), binary=st.booleans())
    def read(self, at: int, size: int, binary: bool) -> None:
        [answer] = self.ask(b"%b%x,%x" % (b"x" if binary else b"m", BASE + at, size))
        wanted = bytes(self.memory[at : at + size])
        if not wanted:
            assert answer[:1] == b"E"
            return
        got = answer[1:] if binary else bytes.fromhex(answer.decode())
        assert got
        assert wanted.startswith(got)

    @still
    @rule(number=st.integers(0, 15), value=st.integers(0, (1 << 64) - 1))
    def register(self, number: int, value: int) -> None:
        data = value.to_bytes(8, "little").hex().encode()
        assert self.ask(b"P%x=%b" % (number, data)) == [b"OK"]
        assert self.ask(b"p%x" % number) == [data]
        [everything] = self.ask(b"g")
        assert everything[16 * number : 16 * (number + 1)] == data

    @still
    @rule(kind=st.integers(0, 5), at=st.integers(0, 3), length=st.integers(0, 2), insert=st.booleans())
    def stop_point(self, kind: int, at: int, length: int, insert: bool) -> None:
        [answer] = self.ask(b"%b%d,%x,%x" % (b"Z" if insert else b"z", kind, BASE + at, length))
        if answer == b"OK":
            (self.points.add if insert else self.points.discard)((kind, BASE + at, length))
        else:
            assert kind > 4 or (kind > 1 and not length)

    @still
    @rule(how=st.sampled_from([b"c", b"vCont;c", b"C05", b"vCont;c:1", b"vCont;c:-1"]))
    def go(self, how: bytes) -> None:
        assert self.ask(how) == []
        self.waiting = True

    @still
    @rule(how=st.sampled_from([b"s", b"vCont;s:1;c", b"vCont;r%x,%x" % (BASE, BASE + 5), b"S00"]))
    def step(self, how: bytes) -> None:
        assert self.ask(how) == []
        self.expect_stop(self.conversation.run())

    @runs
    @rule(kind=st.sampled_from([None, *Kind]), note=st.sampled_from(["", "a note", "x" * 500]))
    def stop(self, kind: Kind | None, note: str) -> None:
        self.conversation.target.script(Stop(kind=kind, address=BASE + 1, note=note))
        self.expect_stop(self.conversation.run(), watched=kind is not None and kind.value > 1)

    @runs
    @rule(times=st.integers(1, 3))
    def interrupt(self, times: int) -> None:
        self.expect_stop(self.conversation.feed(b"\x03" * times) + self.conversation.run(), signals=(2,))
        if times > 1:  # the second came when the guest stood still, and stops it as soon as it goes on
            assert self.ask(b"c") == []
            self.expect_stop(self.conversation.run(), signals=(2,))

    @runs
    @rule(line=requests)
    def bother(self, line: bytes) -> None:
        """Whoever asks a running guest is told so, or asked for what is allowed then; neither ends the wait."""
        if line[:1] in b"DkRv" or line.startswith(b"QStart"):
            return
        for answer in self.ask(escaped(line)):
            assert answer[:1] not in (b"T", b"W", b"X")

    @still
    @rule(junk=st.binary(max_size=30).filter(lambda data: not set(data) & set(b"$\x03+-")))
    def noise(self, junk: bytes) -> None:
        """Between packets nothing counts."""
        assert self.conversation.feed(junk) == b""

    @still
    @rule(cut=st.integers(1, 5))
    def torn_packet(self, cut: int) -> None:
        """A client that broke off in the middle and begins anew is understood."""
        assert self.conversation.feed(b"$m0,10#ff"[:cut]) == b""
        assert [answer for answer in self.ask(b"qC") if answer.startswith(b"QC")]

    @still
    @precondition(lambda self: self.flags & ACKNOWLEDGED)
    @rule(times=st.integers(1, 4))
    def lost_answers(self, times: int) -> None:
        """Each answer that did not arrive is sent again as it was."""
        first = self.conversation.feed(packets(b"qC"))
        assert first.startswith(b"+$QC")
        for _ in range(times):
            assert self.conversation.feed(b"-") == first[1:]
        assert self.conversation.feed(b"+") == b""
        assert self.conversation.feed(b"$qC#00") == b"-"

    def expect_stop(self, stream: bytes, *, signals: Iterable[int] = (5,), watched: bool = False) -> None:
        """Notes, then exactly one stop reply."""
        self.waiting = False
        if self.flags & ACKNOWLEDGED:
            stream += self.conversation.feed(b"+" * 20)
        *notes, last = self.answers(stream)
        assert all(note[:1] == b"O" for note in notes)
        stop = parse_stop(last)
        assert stop.signal in signals
        assert not watched or (stop.address == BASE + 1 and stop.kind.endswith("watch"))

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "conversation"):
            return
        target = self.conversation.target
        assert target.memory[Space.VIRTUAL] == self.memory
        assert {(kind.value, address, length) for kind, address, length in target.points} == self.points
        assert target.running == self.waiting
        self.conversation.check()

    def teardown(self) -> None:
        if hasattr(self, "conversation"):
            assert self.conversation.alive()


TestRandomConversations = RandomConversation.TestCase
TestRandomConversations.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)
