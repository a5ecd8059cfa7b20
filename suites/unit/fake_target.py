"""A guest without an engine, for tests of the debugger's protocol side: registers, memory, a script of stops."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from stub.engine.base import N_WORDS, NAMES, RBP, RIP, RSP
from stub.gdb.model import SIGINT, SIGTRAP, Ended, Kind, Space, Stop, StopPoint, TargetError

BASE = 0xFFFFFFFF81000000


class FakeTarget:
    """``next_stops``: what :meth:`advance` gives while running, in order; then ``None`` for ever, or SIGINT if asked.

    A step moves the instruction pointer by one and stops.
    """

    def __init__(self, bits: int = 64, *, vcpus: int = 1, memory: int = 0x4000, executable: Path | None = None) -> None:
        self.bits = bits
        self.has_avx = False
        self.steps_into_events = False
        self.words = memoryview(bytearray(8 * N_WORDS)).cast("Q")
        self.running = False
        self.executable = executable
        self.base = BASE if bits == 64 else BASE & 0xFFFFFFFF
        self.memory = {Space.VIRTUAL: bytearray(memory), Space.MACHINE: bytearray(b"m" * memory)}
        self.starts = {Space.VIRTUAL: self.base, Space.MACHINE: 0}
        self.others: dict[str, int] = {}
        self.points: dict[tuple[Kind, int, int], StopPoint] = {}
        self.next_stops: deque[Stop | Ended | None] = deque()
        self.calls: list[str] = []
        self.answer: Callable[[str], str] = lambda command: f"you said {command}\n"
        self._vcpus = vcpus
        self._interrupted = False
        self._stepping: tuple[int, int] | None = None
        self._last: Stop | Ended = Stop()
        self._reset()

    def _reset(self) -> None:
        self.words[RIP] = self.base
        self.words[RSP] = self.base + 0x1000
        self.words[RBP] = self.base + 0x1100

    def script(self, *stops: Stop | Ended | None) -> None:
        """What comes next."""
        self.next_stops.extend(stops)

    # -- the Target protocol

    def vcpus(self) -> int:
        return self._vcpus

    def describe_vcpu(self, vcpu: int) -> str:
        return f"kernel <code> of {vcpu}"

    def read_register(self, name: str) -> int:
        if name == "cr8":
            raise TargetError("there is no cr8 in a PV guest")
        word = _word(name)
        return self.others.get(name, len(name)) if word is None else self.words[word]

    def write_register(self, name: str, value: int) -> None:
        if name == "retired":
            raise TargetError("retired: what has been done cannot be changed")
        self.calls.append(f"{name}={value:#x}")
        word = _word(name)
        if word is None:
            self.others[name] = value
        else:
            self.words[word] = value

    def read_memory(self, address: int, size: int, space: Space = Space.VIRTUAL) -> bytes:
        at = address - self.starts[space]
        return bytes(self.memory[space][at : at + size]) if at >= 0 else b""

    def write_memory(self, address: int, data: bytes, space: Space = Space.VIRTUAL) -> None:
        at = address - self.starts[space]
        if at < 0 or at + len(data) > len(self.memory[space]):
            raise TargetError(f"no memory at {address:#x}")
        self.memory[space][at : at + len(data)] = data

    def insert(self, point: StopPoint) -> None:
        self.points[point.kind, point.address, point.length] = point

    def remove(self, kind: Kind, address: int, length: int) -> None:
        self.points.pop((kind, address, length), None)

    def remove_all(self) -> None:
        self.points.clear()

    def go(self) -> None:
        self.calls.append("go")
        self.running, self._stepping = True, None

    def step(self, start: int = 0, end: int = 0) -> None:
        self.calls.append(f"step {start:#x} {end:#x}" if end else "step")
        self.running, self._stepping = True, (start, end)

    def interrupt(self) -> None:
        self._interrupted = True

    def advance(self) -> Stop | Ended | None:
        assert self.running
        if self._interrupted:
            self._interrupted = False
            return self._stop(Stop(SIGINT))
        if self._stepping is not None:
            start, end = self._stepping
            self.words[RIP] = max(end, self.words[RIP] + 1) if start <= self.words[RIP] < end else self.words[RIP] + 1
            return self._stop(Stop(SIGTRAP))
        stop = self.next_stops.popleft() if self.next_stops else None
        return None if stop is None else self._stop(stop)

    def _stop(self, stop: Stop | Ended) -> Stop | Ended:
        self.running, self._last = False, stop
        if isinstance(stop, Stop) and stop.kind in (Kind.SOFTWARE, Kind.HARDWARE):
            self.words[RIP] = stop.address
        return stop

    def last_stop(self) -> Stop | Ended:
        return self._last

    def restart(self) -> None:
        self.calls.append("restart")
        self.words = memoryview(bytearray(8 * N_WORDS)).cast("Q")
        self._reset()
        self.running, self._interrupted, self._last = False, False, Stop()

    def kill(self) -> None:
        self.calls.append("kill")
        self.running, self._last = False, Ended(1, "killed")

    def monitor(self, command: str) -> str:
        return self.answer(command)


def _word(name: str) -> int | None:
    for known in (name, "r" + name[1:]):
        if known in NAMES and name[:1] in "recdsfg":
            return NAMES.index(known)
    return None


def checksummed(data: bytes) -> bytes:
    """A packet as a client writes it, data already escaped."""
    return b"$%b#%02x" % (data, sum(data) & 0xFF)


def packets(stream: bytes) -> list[bytes]:
    """What stands in the packets of a stream, as it stands there; acknowledgements are left out."""
    return list(_packets(stream))


def _packets(stream: bytes) -> Iterator[bytes]:
    while (start := stream.find(b"$")) >= 0:
        end = stream.index(b"#", start)
        yield stream[start + 1 : end]
        stream = stream[end + 3 :]


def joined(parts: Iterable[bytes]) -> bytes:
    """Console output that came in O packets."""
    return b"".join(bytes.fromhex(part[1:].decode()) for part in parts)
