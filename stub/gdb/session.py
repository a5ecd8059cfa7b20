"""One client's conversation, without I/O: bytes in, bytes out; the guest is driven through the ``Target`` protocol.

The rule: the guest runs only while ``target.running``, and whoever runs it hands each stop to :meth:`Session.stopped`.
While it runs, the client may interrupt and end; any other request is refused. An interrupt while the guest stands
still is kept for its next run (GDB manual, E.10 "Interrupts").
"""

from __future__ import annotations

import os
from collections import deque
from typing import Literal, get_args

from stub.gdb.features import Description, description
from stub.gdb.handlers import REGISTRY, BadRequest
from stub.gdb.handlers.memory import following
from stub.gdb.handlers.qemu import STEP_DEFAULT
from stub.gdb.handlers.registry import threads
from stub.gdb.model import SIGKILL, Ended, Kind, Space, Stop, Target, TargetError
from stub.gdb.packet import PACKET_SIZE, Ack, Bad, Event, Framer, Interrupt, Nack, Packet, TooLong, encode

OnDetach = Literal["continue", "stop", "kill"]
ON_DETACH: tuple[OnDetach, ...] = get_args(OnDetach)

_ENOUGH = 1 << 20  # bytes of answers after which we wait for the client to take them
_READS = (b"m", b"x")  # gdb before 16 takes a text for data here

# A text in an E packet is not escaped.
_PLAIN = str.maketrans({"#": "No.", "$": "%", "*": "x", "}": ")", "{": "(", "\n": " "})

_WATCH = {Kind.WRITE: b"watch", Kind.READ: b"rwatch", Kind.ACCESS: b"awatch"}


class Session:
    """Feed it with :meth:`receive` and send what it returns; again while :attr:`pending`. Over when :attr:`over`."""

    def __init__(
        self, target: Target, *, on_detach: OnDetach = "continue", packet_size: int = PACKET_SIZE, rle: bool = True
    ) -> None:
        self.target: Target = target
        self.description: Description = description(target.bits, target.has_avx)
        self.packet_size = packet_size
        self.on_detach: OnDetach = on_detach
        self.over = False
        self.left = False
        """The client said goodbye; it may still stay, if the connection is extended."""
        # What the client told us of itself.
        self.error_text = self.swbreak = self.hwbreak = self.extended = False
        self.no_ack = self.no_ack_next = False
        # What it chose.
        self.thread = 1
        self.space = Space.VIRTUAL
        self.step_bits = STEP_DEFAULT
        self.files: dict[int, int] = {}  # of vFile: number → file descriptor
        # The conversation.
        self.waiting = False
        """The client waits for a stop reply."""
        self._interrupt_kept = False
        self._stopping = False  # the guest was interrupted, and what came behind that waits for the stop
        self._killed = False
        self._rle = rle
        self._framer = Framer(packet_size)
        self._events: deque[Event] = deque()
        self._out = bytearray()
        self._unacknowledged = b""
        self._asked = b""  # the last request
        self._next_read = b""  # what a client that dumps memory will ask next
        self._ahead = b""  # and the packet that answers it, made while the client digests the one before
        self._unsent: deque[bytes] = deque()  # packets that wait for an acknowledgement of the one before

    # -- what the connection calls

    @property
    def pending(self) -> bool:
        """Requests wait, until what was returned has been sent: then call ``receive(b"")``."""
        return bool(self._events) and not (self._stopping or self.over)

    @property
    def behind(self) -> bool:
        """Requests wait for whatever reason: take no more from the client."""
        return bool(self._events)

    def receive(self, data: bytes = b"") -> bytes:
        """Take bytes from the client; return those to send."""
        events = self._events
        if data:
            events.extend(self._framer.feed(data))
        resent = False
        while events and not self._stopping and not self.over and len(self._out) < _ENOUGH:
            event = events.popleft()
            if type(event) is Packet:
                if self._is_answered(event.data):
                    self._out += b"+"
                    continue
                self._acknowledge()
                self._request(event.data)
            elif type(event) is Interrupt:
                self._interrupt()
            elif not self.no_ack:
                resent = self._line_trouble(event, resent)
            elif type(event) in (Bad, TooLong):
                self._send(self._error("a packet was damaged or too long", b""))
        return self._taken()

    def look_ahead(self) -> None:
        """Make the next answer to a client that reads memory piece by piece. Nothing changes that before it asks."""
        if self._next_read and not self._ahead and self.no_ack and not self._events:
            reply = self._reply(self._next_read)
            self._ahead = b"" if reply is None else encode(reply, rle=self._rle)

    def stopped(self, stop: Stop | Ended) -> bytes:
        """The guest stopped: return what is to be sent, which is nothing unless the client waits for it."""
        self._stopping = False
        if self.waiting:
            self.waiting = False
            if stop.note:
                self.show(stop.note + "\n")
            if type(stop) is Stop:
                self.thread = stop.vcpu + 1
            self._send(self.stop_reply(stop))
        return self.receive() if self._events else self._taken()

    def leave(self) -> None:
        """The client goes: its stop points go with it, and the guest does what it was to do then."""
        target = self.target
        self.left = True
        self.waiting = self._stopping = self._interrupt_kept = False
        target.remove_all()
        if isinstance(target.last_stop(), Ended) and not target.running:
            return
        if self.on_detach == "kill":
            target.kill()
        elif self.on_detach == "continue":
            target.go()
        elif target.running:
            target.interrupt()

    def close(self) -> None:
        """Let go of open files."""
        while self.files:
            os.close(self.files.popitem()[1])

    # -- what handlers call

    def threads(self, text: bytes) -> tuple[int, ...]:
        """The threads that a packet names: one, or with 0 or -1 all."""
        return threads(text, self.target.vcpus())

    def show(self, text: str) -> None:
        """Text for the person, as console output. Only while the client waits for an answer that allows it."""
        data = text.encode("utf-8", "replace").hex().encode()
        size = self.packet_size - 2
        for at in range(0, len(data), size):
            self._send(b"O" + data[at : at + size])

    def resumed(self) -> None:
        """The client had the guest run, and waits."""
        self.left = False
        self.waiting = True
        if self._interrupt_kept:
            self._interrupt_kept = False
            self._interrupt()

    def kill(self) -> None:
        """End the guest's run."""
        self.target.kill()
        self._killed = True
        self.waiting = False

    def restart(self) -> None:
        """Boot the guest again."""
        self.target.restart()
        self.left = self._killed = self.waiting = self._interrupt_kept = False
        self.thread = 1

    def stop_reply(self, stop: Stop | Ended) -> bytes:
        """T, W or X (GDB manual, E.3 "Stop Reply Packets")."""
        if isinstance(stop, Ended):
            return b"X%02x" % SIGKILL if self._killed else b"W%02x" % (stop.status & 0xFF)
        kind = stop.kind
        reason = b""
        if kind in _WATCH:
            reason = b"%b:%x;" % (_WATCH[kind], stop.address)
        elif kind is Kind.SOFTWARE and self.swbreak:
            reason = b"swbreak:;"
        elif kind is Kind.HARDWARE and self.hwbreak:
            reason = b"hwbreak:;"
        registers = self.description.expedited(self.target.words)
        return b"T%02x%bthread:%x;%b" % (stop.signal, reason, stop.vcpu + 1, registers)

    # -- requests

    def _request(self, data: bytes) -> None:
        ahead = self._ahead if data == self._next_read else b""
        self._ahead = b""
        self._next_read = following(data)
        if ahead:
            self._out += ahead
            return
        reply = self._reply(data)
        if reply is not None:
            self._send(reply)
        if self.no_ack_next:
            self.no_ack, self.no_ack_next = True, False
            self._unacknowledged = b""

    def _reply(self, data: bytes) -> bytes | None:
        row, arguments = REGISTRY.find(data)
        if row is None:
            return b""
        try:
            if self.target.running and not row.running:
                raise BadRequest("the guest is running: interrupt it first")
            return row.handler(self, arguments)
        except (TargetError, BadRequest, OSError) as error:
            return self._error(str(error), row.name)

    def _error(self, text: str, name: bytes) -> bytes:
        if name in _READS and not self.error_text:
            return b"E01"
        plain = text.translate(_PLAIN).encode("ascii", "replace")
        return b"E." + (plain[: self.packet_size - 2] or b"failed")

    def _interrupt(self) -> None:
        if self.target.running:
            self.target.interrupt()
            self._stopping = self.waiting
        else:
            self._interrupt_kept = True

    # -- the line

    def _is_answered(self, data: bytes) -> bool:
        """Whether a client that waited long for our acknowledgement sends a request again: the answer is on its way."""
        again = bool(self._unacknowledged) and data == self._asked
        self._asked = data
        return again

    def _acknowledge(self) -> None:
        """A good packet came. Who asks anew has what we sent before."""
        if not self.no_ack:
            self._out += b"+"
            if self._unacknowledged or self._unsent:
                self._unacknowledged = b""
                self._out += b"".join(self._unsent)
                self._unsent.clear()

    def _line_trouble(self, event: Event, resent: bool) -> bool:
        """Acknowledgements, and packets that came damaged; whether the last packet has been sent again."""
        if type(event) is Ack:
            self._unacknowledged = self._unsent.popleft() if self._unsent else b""
            self._out += self._unacknowledged
        elif type(event) is Nack:
            if not resent:
                self._out += self._unacknowledged
            return True
        elif type(event) is Bad:
            self._out += b"-"
        else:  # sent again it would be too long again
            self._acknowledge()
            self._send(self._error("the packet is too long", b""))
        return resent

    def _send(self, reply: bytes) -> None:
        packet = encode(reply, rle=self._rle)
        if self.no_ack:
            self._out += packet
        elif self._unacknowledged:
            self._unsent.append(packet)
        else:
            self._unacknowledged = packet
            self._out += packet

    def _taken(self) -> bytes:
        out = bytes(self._out)
        self._out.clear()
        return out


__all__ = ["ON_DETACH", "OnDetach", "Session"]
