"""One domain's conversation: bytes of requests in, bytes of answers and events out (xen/io/xs_wire.h).

It does no input and no output. A message is a header (type, request, transaction, length) and a payload. Who does not
take what it is told may not ask without end: a request is outstanding until its answer, and every event that it caused,
has been taken, and with 20 of them no more is read.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from stub.abi import xs_wire as abi
from stub.devices.xenstore.clients import Client, Watch
from stub.devices.xenstore.limits import MEMORY, OUTSTANDING, StoreError
from stub.devices.xenstore.traffic import event_line, request_line

if TYPE_CHECKING:
    from stub.devices.xenstore.store import Store

_HEADER = struct.Struct("<4I")
HEADER_SIZE: Final = _HEADER.size


@dataclass(slots=True, eq=False)
class Request:
    """What was asked. ``waiting``: how many messages on its account are still to be taken."""

    kind: int
    number: int
    transaction: int
    payload: bytes
    waiting: int = 0


class _Message(NamedTuple):
    data: bytes
    event: tuple[str, str] | None
    """A watch event's path and token, for telling twice the same."""
    request: Request | None


class Wire(Client):
    """A domain. ``answer`` does what a request asks (``requests.answer``); ``on_output`` is called when something
    is there to be taken.
    """

    def __init__(self, store: Store, domid: int, answer: Callable[[Store, Wire, Request], None]) -> None:
        super().__init__(domid)
        self.store = store
        self._answer = answer
        self._header = b""
        self._in = bytearray()
        self._out: deque[_Message] = deque()
        self._taken = 0  # bytes of the first message
        self._told: set[tuple[str, str]] = set()
        self._out_bytes = 0
        self._outstanding = 0
        self._current: Request | None = None
        self.error = abi.XENSTORE_ERROR_NONE
        """Why it is no longer listened to, as the ring's error field has it; 0 while it is."""
        self.on_output: Callable[[], object] = lambda: None
        self.on_traffic: Callable[[str], object] | None = None
        """Is given a line for each request that is answered and each event, if anybody wants them."""

    @property
    def memory(self) -> int:
        """Bytes that are kept for it, nodes aside."""
        return super().memory + self._out_bytes

    # -- in

    @property
    def listens(self) -> bool:
        """Whether more is read: not after an error, nor with too much outstanding, nor at the end of its memory."""
        if self.error or self._outstanding >= OUTSTANDING:
            return False
        return self.privileged or self.store.memory_of(self.domid) < MEMORY

    def receive(self, data: bytes) -> int:
        """Take bytes and answer what is complete; how many were taken, fewer only when it no longer listens."""
        at = 0
        while at < len(data) and self.listens:
            missing = self._missing()
            self._in += data[at : at + missing]
            at = min(at + missing, len(data))
            if len(self._in) == HEADER_SIZE and not self._header:
                self._header, self._in = bytes(self._in), bytearray()
                if _HEADER.unpack(self._header)[3] > abi.XENSTORE_PAYLOAD_MAX:
                    self.fail(abi.XENSTORE_ERROR_PROTO)
                    break
            if self._header and not self._missing():
                self._handle()
        self.store.dom0.deliver()
        return at

    def _missing(self) -> int:
        """How many bytes the header lacks, or the payload."""
        size = _HEADER.unpack(self._header)[3] if self._header else HEADER_SIZE
        return int(size) - len(self._in)

    def _handle(self) -> None:
        kind, number, transaction, _ = _HEADER.unpack(self._header)
        request = Request(kind, number, transaction, bytes(self._in))
        self._header, self._in = b"", bytearray()
        self._current = request
        try:
            self._answer(self.store, self, request)
        except StoreError as refusal:
            self.reply(request, refusal.word.encode() + b"\0", abi.XS_ERROR)
        finally:
            self._current = None

    def fail(self, error: int) -> None:
        """No longer listen, and forget all about it (ignore_connection)."""
        self.reset()
        self._forget()
        self.error = error

    def restart(self) -> None:
        """Begin anew, as if it had never said anything."""
        self.reset()
        self._forget()
        self.error = abi.XENSTORE_ERROR_NONE

    def _forget(self) -> None:
        self._header, self._in = b"", bytearray()
        self._out.clear()
        self._told.clear()
        self._taken = self._out_bytes = self._outstanding = 0

    # -- out

    @property
    def pending(self) -> bool:
        """Whether something is there to be taken."""
        return bool(self._out)

    def reply(self, request: Request, data: bytes, kind: int | None = None) -> None:
        """Answer a request; too long an answer is the error E2BIG instead."""
        if len(data) > abi.XENSTORE_PAYLOAD_MAX:
            kind, data = abi.XS_ERROR, b"E2BIG\0"
        self._outstanding += 1
        kind = request.kind if kind is None else kind
        self._queue(_HEADER.pack(kind, request.number, request.transaction, len(data)) + data, None, request)
        if self.on_traffic is not None:
            self.on_traffic(request_line(request.kind, request.transaction, request.payload, kind, data))

    def event(self, watch: Watch, path: str) -> None:
        """Tell of a change, unless the very same is still to be taken, or its memory is used up."""
        self._tell(watch, path, self._current)

    def first_event(self, watch: Watch) -> None:
        """Tell of the watch itself; it is on nobody's account."""
        self._tell(watch, watch.path, None)

    def _tell(self, watch: Watch, path: str, request: Request | None) -> None:
        size = len(path) - watch.hidden + len(watch.token) + 2
        if size > abi.XENSTORE_PAYLOAD_MAX or self.store.memory_of(self.domid) + size >= MEMORY:
            return
        shown = path[watch.hidden :]
        same = None if path.startswith("@") else (shown, watch.token)
        if same in self._told:
            return
        data = f"{shown}\0{watch.token}\0".encode("latin-1")
        self._queue(_HEADER.pack(abi.XS_WATCH_EVENT, 0, 0, len(data)) + data, same, request)
        if self.on_traffic is not None:
            self.on_traffic(event_line(shown, watch.token))

    def _queue(self, data: bytes, event: tuple[str, str] | None, request: Request | None) -> None:
        self._out.append(_Message(data, event, request))
        self._out_bytes += len(data)
        if event is not None:
            self._told.add(event)
        if request is not None:
            request.waiting += 1
        self.on_output()

    def take(self, most: int) -> bytes:
        """Up to ``most`` bytes of what is to be told, in its order."""
        taken = bytearray()
        while self._out and len(taken) < most:
            message = self._out[0]
            piece = message.data[self._taken : self._taken + most - len(taken)]
            taken += piece
            self._taken += len(piece)
            if self._taken == len(message.data):
                self._out.popleft()
                self._taken = 0
                self._gone(message)
        return bytes(taken)

    def _gone(self, message: _Message) -> None:
        self._out_bytes -= len(message.data)
        if message.event is not None:
            self._told.discard(message.event)
        if message.request is not None:
            message.request.waiting -= 1
            if not message.request.waiting:
                self._outstanding -= 1
