"""Our own client of the gdb remote protocol: quick, and independent of what the stub is made of.

Nothing here comes from ``stub.gdb``: framing, escapes, run lengths and stop replies are read a second time, from the
GDB manual's appendix E, so that a mistake in one of the two shows. ::

    with Debugger("127.0.0.1:1234") as debugger:
        debugger.break_at(0xFFFFFFFF81000000)
        stop = debugger.cont(timeout=10)
        assert stop.kind == "swbreak"
        debugger.read_memory(debugger.register("rsp"), 64)
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType

from harness.debugger_answers import Register, StopReply, described_registers, parse_stop
from harness.debugger_wire import Connection, DebuggerError, DebuggerTimeout, dial, escaped, shown

FEATURES = b"qSupported:swbreak+;hwbreak+;vContSupported+;error-message+"
SOFTWARE, HARDWARE, WRITE, READ, ACCESS = range(5)  # the numbers of Z packets


class Debugger:
    """A connection to a stub, from the handshake to :meth:`close`. Times are in seconds of the clock on the wall."""

    def __init__(self, address: str | socket.socket, *, timeout: float = 60.0, acknowledge: bool = False) -> None:
        """``acknowledge``: keep on acknowledging packets, though the stub would go without."""
        peer = dial(address, timeout) if isinstance(address, str) else address
        self.connection = Connection(peer, timeout)
        self.features: dict[str, str] = {}
        self.points: set[tuple[int, int, int]] = set()
        """What is set: kind, address and length, as in Z packets."""
        self.running = False
        self._lost = ""
        self._actions: frozenset[str] = frozenset()
        self._registers: dict[str, Register] = {}
        try:
            self._greet(acknowledge)
        except BaseException:
            self.close()
            raise

    def _greet(self, acknowledge: bool) -> None:
        features = self.command(FEATURES)
        if features[:1] == b"E":
            raise DebuggerError(self._refusal(FEATURES, features))
        for item in features.decode("ascii").split(";"):
            name, equals, value = item.partition("=")
            self.features[name if equals else item[:-1]] = value if equals else item[-1:]
        if not acknowledge and self.features.get("QStartNoAckMode") == "+":
            self._expect_ok(b"QStartNoAckMode")
            self.connection.acknowledged = False
        if self.features.get("vContSupported") == "+":
            self._actions = frozenset(self.command(b"vCont?").decode("ascii").split(";")[1:])
        self.last_stop = parse_stop(self.command(b"?"))

    def __enter__(self) -> Debugger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up, without a word."""
        self.connection.socket.close()

    # Packets

    @property
    def packet_size(self) -> int:
        """The most bytes that a packet's data may have, by the stub's own word."""
        return int(self.features.get("PacketSize", "190"), 16)

    def command(self, data: bytes | str, timeout: float | None = None) -> bytes:
        """Send a packet (escaped already) and return the answer to it, whatever it is."""
        data = data.encode() if isinstance(data, str) else data
        if self._lost:
            raise DebuggerError(f"the connection is out of step: {self._lost}")
        if self.running:
            raise DebuggerError(f"the guest is running: {shown(data)} has to wait for its stop")
        try:
            self.connection.send(data, timeout)
            return self.connection.receive(f"the answer to {shown(data)}", timeout)
        except DebuggerError as error:
            self._lost = str(error)
            raise

    def _expect_ok(self, data: bytes, timeout: float | None = None) -> None:
        answer = self.command(data, timeout)
        if answer != b"OK":
            raise DebuggerError(self._refusal(data, answer))

    def _refusal(self, data: bytes, answer: bytes) -> str:
        if not answer:
            return f"the stub does not know {shown(data)}"
        said = answer[2:].decode("utf-8", "replace") if answer.startswith(b"E.") else shown(answer)
        return f"the stub answered {shown(data)} with: {said}"

    def transfer(self, what: str, annex: str = "") -> bytes:
        """A whole object of the ``qXfer:WHAT:read`` family."""
        whole = b""
        size = self.packet_size - 16
        while True:
            request = f"qXfer:{what}:read:{annex}:{len(whole):x},{size:x}".encode()
            answer = self.command(request)
            if answer[:1] not in (b"l", b"m") or answer == b"m":
                raise DebuggerError(self._refusal(request, answer))
            whole += answer[1:]
            if answer[:1] == b"l":
                return whole

    def monitor(self, text: str, timeout: float | None = None) -> str:
        """What ``monitor TEXT`` prints."""
        request = b"qRcmd," + text.encode().hex().encode()
        answer = self.command(request, timeout)
        printed = b""
        while answer[:1] == b"O" and answer != b"OK":
            printed += bytes.fromhex(answer[1:].decode("ascii"))
            answer = self.connection.receive(f"the rest of what {text!r} prints", timeout)
        if answer != b"OK":
            if not re.fullmatch(rb"([0-9a-f]{2})+", answer):
                raise DebuggerError(self._refusal(request, answer))
            printed += bytes.fromhex(answer.decode("ascii"))
        return printed.decode("utf-8", "replace")

    # Registers

    @property
    def layout(self) -> Mapping[str, Register]:
        """The registers by name, as the stub's own target description has them."""
        if not self._registers:
            self._registers = {
                register.name: register
                for register in described_registers(lambda name: self.transfer("features", name))
            }
        return self._registers

    def read_registers(self) -> dict[str, int]:
        """All registers, by one ``g`` packet. Those that the stub has not are left out."""
        answer = self.command(b"g").decode("ascii")
        values = {}
        for register in self.layout.values():
            text = answer[2 * register.offset : 2 * (register.offset + register.size)]
            if len(text) == 2 * register.size and "x" not in text:
                values[register.name] = int.from_bytes(bytes.fromhex(text), "little")
        if not values:
            raise DebuggerError(self._refusal(b"g", answer.encode()))
        return values

    def register(self, name: str) -> int:
        """One register."""
        request = b"p%x" % self._known(name).number
        answer = self.command(request)
        if not re.fullmatch(rb"([0-9a-f]{2})+", answer):
            raise DebuggerError(self._refusal(request, answer))
        return int.from_bytes(bytes.fromhex(answer.decode("ascii")), "little")

    def write_register(self, name: str, value: int) -> None:
        """Change one register; a negative value is cut to its size."""
        register = self._known(name)
        data = (value % (1 << 8 * register.size)).to_bytes(register.size, "little")
        self._expect_ok(b"P%x=%b" % (register.number, data.hex().encode()))

    def _known(self, name: str) -> Register:
        if name not in self.layout:
            raise DebuggerError(f"the stub describes no register {name}; it has {', '.join(self.layout)}")
        return self.layout[name]

    # Memory

    def read_memory(self, address: int, size: int) -> bytes:
        """Exactly so many bytes; binary where the stub can. DebuggerError says where memory ends."""
        binary = self.features.get("binary-upload") == "+"
        most = self.packet_size - 8 if binary else (self.packet_size - 8) // 2
        pieces: list[bytes] = []
        done = 0
        while done < size:
            request = b"%b%x,%x" % (b"x" if binary else b"m", address + done, min(most, size - done))
            answer = self.command(request)
            piece = answer[1:] if binary and answer[:1] == b"b" else b""
            if not binary and re.fullmatch(rb"([0-9a-f]{2})+", answer):
                piece = bytes.fromhex(answer.decode("ascii"))
            if not piece:
                raise DebuggerError(f"no memory at {address + done:#x}: {self._refusal(request, answer)}")
            pieces.append(piece)
            done += len(piece)
        return b"".join(pieces)

    def write_memory(self, address: int, data: bytes) -> None:
        """Write it all, in binary."""
        most = (self.packet_size - 32) // 2  # every byte may need an escape
        for done in range(0, len(data), most):
            piece = data[done : done + most]
            self._expect_ok(b"X%x,%x:%b" % (address + done, len(piece), escaped(piece)))

    @contextmanager
    def machine_memory(self) -> Iterator[None]:
        """Inside, addresses of memory count bytes of the machine (QEMU's ``PhyMemMode``)."""
        self._expect_ok(b"Qqemu.PhyMemMode:1")
        try:
            yield
        finally:
            self._expect_ok(b"Qqemu.PhyMemMode:0")

    # Stop points

    def break_at(self, address: int, *, hardware: bool = False, condition: bytes | Sequence[bytes] = ()) -> None:
        """Set a breakpoint. ``condition``: agent bytecode; of several, one has to hold."""
        self._insert(HARDWARE if hardware else SOFTWARE, address, 1, condition)

    def watch(self, address: int, length: int = 8, *, condition: bytes | Sequence[bytes] = ()) -> None:
        """Stop after a write."""
        self._insert(WRITE, address, length, condition)

    def rwatch(self, address: int, length: int = 8, *, condition: bytes | Sequence[bytes] = ()) -> None:
        """Stop after a read."""
        self._insert(READ, address, length, condition)

    def awatch(self, address: int, length: int = 8, *, condition: bytes | Sequence[bytes] = ()) -> None:
        """Stop after any access."""
        self._insert(ACCESS, address, length, condition)

    def clear(self, address: int | None = None) -> None:
        """Take away what is set at an address, or everything."""
        for kind, where, length in sorted(self.points):
            if address in (None, where):
                self._expect_ok(b"z%d,%x,%x" % (kind, where, length))
                self.points.discard((kind, where, length))

    def _insert(self, kind: int, address: int, length: int, condition: bytes | Sequence[bytes]) -> None:
        codes = [condition] if isinstance(condition, bytes) else condition
        conditions = b"".join(b";X%x,%b" % (len(code), code.hex().encode()) for code in codes)
        self._expect_ok(b"Z%d,%x,%x%b" % (kind, address, length, conditions))
        self.points.add((kind, address, length))

    # Running

    def cont(self, timeout: float | None = None) -> StopReply:
        """Continue, and wait for the next stop."""
        self.resume()
        return self.wait_stop(timeout)

    def step(self, count: int = 1, timeout: float | None = None) -> StopReply:
        """So many instructions; fewer if something else stops the guest on the way."""
        stop = self.last_stop
        for _ in range(count):
            self.resume("s")
            stop = self.wait_stop(timeout)
            if stop.ended or stop.kind or stop.signal != 5:
                break
        return stop

    def step_range(self, start: int, end: int, timeout: float | None = None) -> StopReply:
        """Step as long as the next instruction begins in [start, end); at least once."""
        self.resume(f"r{start:x},{end:x}")
        return self.wait_stop(timeout)

    def resume(self, action: str = "c") -> None:
        """Let the guest go on and do not wait: the action is ``c``, ``s`` or ``rSTART,END``."""
        if self._lost or self.running:
            raise DebuggerError(self._lost or "the guest is running already")
        if action[:1] in self._actions:
            thread = max(self.last_stop.thread, 1)
            packet = "vCont;c" if action == "c" else f"vCont;{action}:{thread:x};c"
        elif action in ("c", "s"):
            packet = action
        else:
            raise DebuggerError(f"the stub has no vCont;{action[:1]}")
        self.connection.send(packet.encode())
        self.running = True

    def wait_stop(self, timeout: float | None = None) -> StopReply:
        """Wait until the guest stops. After a timeout it runs still: :meth:`interrupt` it, or wait again."""
        if not self.running:
            return self.last_stop
        waiting_for = f"the guest to stop after {shown(self.connection.sent)}"
        seconds = self.connection.timeout if timeout is None else timeout
        deadline = time.monotonic() + seconds
        notes: list[str] = []
        while True:
            try:
                answer = self.connection.receive(waiting_for, max(deadline - time.monotonic(), 0))
            except DebuggerTimeout as error:
                told = f" (it said: {''.join(notes).strip()})" if notes else ""
                raise DebuggerTimeout(f"{error}{told}, for {seconds:g} s") from None
            if answer[:1] == b"O":
                notes.append(bytes.fromhex(answer[1:].decode("ascii")).decode("utf-8", "replace"))
                continue
            self.running = False
            if answer[:1] not in (b"T", b"S", b"W", b"X"):
                raise DebuggerError(self._refusal(self.connection.sent, answer))
            lines = tuple("".join(notes).splitlines())
            self.last_stop = parse_stop(answer, lines)
            return self.last_stop

    def interrupt(self, timeout: float | None = None) -> StopReply:
        """Ctrl-C: stop a guest that runs, and wait until it does. One that stands still is left as it is."""
        if self.running:
            self.connection.raw(b"\x03")
        return self.wait_stop(timeout)

    def threads(self) -> list[int]:
        """The threads' numbers; thread 1 is vCPU 0."""
        threads: list[int] = []
        answer = self.command(b"qfThreadInfo")
        while answer[:1] == b"m":
            threads += [int(part, 16) for part in answer[1:].split(b",")]
            answer = self.command(b"qsThreadInfo")
        return threads

    def select(self, thread: int) -> None:
        """Have registers be those of a thread."""
        self._expect_ok(b"Hg%x" % thread)

    # The end

    def detach(self) -> None:
        """Say goodbye; the guest goes on, or does what it was told to do then."""
        self._expect_ok(b"D")
        self.close()

    def kill(self) -> None:
        """End the guest's run."""
        self._expect_ok(b"vKill;1")

    def restart(self, timeout: float | None = None) -> StopReply:
        """Boot the guest again; it stands at its first instruction."""
        self._expect_ok(b"!")
        self.last_stop = parse_stop(self.command(b"vRun;", timeout))
        return self.last_stop


__all__ = ["Debugger", "DebuggerError", "DebuggerTimeout", "Register", "StopReply", "parse_stop"]
