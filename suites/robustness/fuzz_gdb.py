"""Any bytes from a debugger's client: no exception, an end to each answer, no growing memory.

Run by ``test_fuzz_gdb.py`` for some seconds, or by hand for as long as one likes::

    python suites/robustness/fuzz_gdb.py -max_total_time=600 /tmp/found suites/robustness/corpus/gdb

The first byte of an input chooses among the flags below, and what a detached guest does; the rest goes to a session
in pieces. If ``FRAMED``, each line of it is first put into a packet with the right sum.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

if __name__ == "__main__":
    import atheris

    sys.path.insert(0, str(ROOT))

with atheris.instrument_imports(include=["stub.gdb"]) if __name__ == "__main__" else nullcontext():
    from stub.gdb.model import Ended, Kind, Stop
    from stub.gdb.session import ON_DETACH, Session
    from suites.unit.fake_target import BASE, FakeTarget

FRAMED, NARROW, ACKNOWLEDGED, BYTEWISE, SMALL, TWO_CPUS = (1 << bit for bit in range(6))
PIECE = 61
SMALL_PACKETS, LARGE_PACKETS = 0x190, 0x4000
MOST_ROUNDS = 10_000  # of answers to one piece of input
SLACK = 1 << 16  # bytes that a session may hold besides its packets

STOPS: tuple[Stop | Ended | None, ...] = (
    None,
    Stop(kind=Kind.SOFTWARE, address=BASE + 1),
    Stop(kind=Kind.ACCESS, address=BASE + 2, note="somebody\nlooked"),
    None,
    None,
    Stop(signal=11, vcpu=1),
    Ended(3, "the guest crashed"),
)


def packets(data: bytes) -> bytes:
    """Each line in a frame with the right sum."""
    return b"".join(b"$%b#%02x" % (line, sum(line) % 256) for line in data.split(b"\n"))


class Conversation:
    """A session with a guest that is made up, and what must hold after each piece of input."""

    def __init__(self, flags: int) -> None:
        self.target = FakeTarget(32 if flags & NARROW else 64, vcpus=2 if flags & TWO_CPUS else 1, memory=0x400)
        self.target.executable = Path("/dev/zero")
        self.target.script(*STOPS if flags & TWO_CPUS else STOPS[:5])
        packet_size = SMALL_PACKETS if flags & SMALL else LARGE_PACKETS
        on_detach = ON_DETACH[flags >> 6 if flags >> 6 < len(ON_DETACH) else 0]
        self.session = Session(self.target, on_detach=on_detach, packet_size=packet_size)
        self.received = self.sent = 0
        if not flags & ACKNOWLEDGED:
            self.feed(packets(b"QStartNoAckMode") + b"+")

    def feed(self, data: bytes) -> bytes:
        """Give the session bytes; all that it says, up to where it waits for the guest or for more."""
        session = self.session
        answer = session.receive(data)
        for _ in range(MOST_ROUNDS):
            if session.over or not session.pending:
                break
            answer += session.receive()
        else:
            raise AssertionError("the session does not come to an end")
        self.received += len(data)
        self.sent += len(answer)
        self.check()
        return answer

    def run(self, rounds: int = 2) -> bytes:
        """Let the guest run for a while, as the server does between looks at the socket."""
        answer = b""
        for _ in range(rounds):
            if self.target.running:
                stop = self.target.advance()
                if stop is not None:
                    answer += self.session.stopped(stop)
        self.sent += len(answer)
        return answer + self.feed(b"")

    def check(self) -> None:
        """Nothing is kept that grows with what came in, and nothing is said without being asked."""
        session = self.session
        held = len(session._framer._buffer) + len(session._unacknowledged) + sum(map(len, session._unsent))
        assert held <= 4 * session.packet_size + SLACK, f"{held} bytes are held"
        assert not session._out
        assert len(session.files) <= 64
        assert self.sent <= 4096 + self.received * session.packet_size

    def alive(self) -> bool:
        """Whether it answers a question, if it has to: whatever came before is ended first."""
        self.run(4)
        session = self.session
        if session.over:
            return True
        self.feed(b"#00")
        if self.target.running:
            self.feed(b"\x03")
            self.run(2)
        # Two interrupts in a row keep one for the next run: nothing runs here, so the answer comes.
        answer = b""
        for _ in range(3):
            answer += self.feed(packets(b"qSupported:swbreak+") + b"++++")
            answer += self.run()
        return b"PacketSize=" in answer


def converse(data: bytes) -> None:
    """One input from its first byte to the client's silent end."""
    flags, data = (data[0], data[1:]) if data else (0, b"")
    conversation = Conversation(flags)
    if flags & FRAMED:
        data = packets(data)
    size = 1 if flags & BYTEWISE else PIECE
    for at in range(0, len(data), size):
        if conversation.session.over:
            break
        conversation.feed(data[at : at + size])
        conversation.run(1)
    try:
        assert conversation.alive(), "the session does not answer any more"
    finally:
        if not conversation.session.left:
            conversation.session.leave()
        conversation.session.close()


def main() -> None:
    """Fuzz; the arguments are libFuzzer's."""
    atheris.Setup(sys.argv, converse)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
