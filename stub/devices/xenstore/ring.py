"""XenStore's end of a domain's shared page (xen/io/xs_wire.h, docs/misc/xenstore-ring.txt).

The four indexes run freely and are the guest's to write: one further from its fellow than the ring is long ends the
conversation (XENSTORE_ERROR_RINGIDX), as does a payload that is too long (XENSTORE_ERROR_PROTO). The guest may begin
anew by setting the connection's state to XENSTORE_RECONNECT.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from stub.abi import xs_wire as abi
from stub.devices.xenstore.store import Store
from stub.devices.xenstore.wire import Wire
from stub.memory.ram import Ram

FEATURES: Final = abi.XENSTORE_SERVER_FEATURE_RECONNECTION | abi.XENSTORE_SERVER_FEATURE_ERROR

_SIZE: Final = abi.XENSTORE_RING_SIZE
_MASK: Final = _SIZE - 1
_U32: Final = 0xFFFFFFFF
_AT = {name: field.offset for name, field in abi.XenstoreDomainInterface.fields.items()}
_FOUR = struct.Struct("<4I")  # req_cons, req_prod, rsp_cons, rsp_prod
_THREE = struct.Struct("<3I")  # server_features, connection, error


def _nobody() -> None:
    """Listens to a domain that is gone."""


class Ring:
    """Moves bytes between a page and a :class:`Wire`. ``page`` is the page's byte offset in machine memory.

    ``raise_event`` tells the guest that something moved; ``wake`` asks to be serviced, when somebody else changed what
    the guest watches.
    """

    def __init__(
        self,
        ram: Ram,
        page: int,
        wire: Wire,
        raise_event: Callable[[], None],
        wake: Callable[[], None],
    ) -> None:
        self._bytes, self._map, self._page = ram.bytes, ram.map, page
        self.wire = wire
        self._raise_event = raise_event
        self._wake = wake
        self._serving = False
        wire.on_output = self._output
        _THREE.pack_into(self._bytes, page + _AT["server_features"], FEATURES, abi.XENSTORE_CONNECTED, wire.error)

    @property
    def store(self) -> Store:
        """The whole store."""
        return self.wire.store

    def disconnect(self) -> None:
        """Let go of whoever listens, and have nobody hold the page."""
        self._raise_event = self._wake = self.wire.on_output = _nobody
        self.wire.on_traffic = None

    def _output(self) -> None:
        if not self._serving:
            self._wake()

    def _set(self, field: str, value: int) -> None:
        at = self._page + _AT[field]
        self._bytes[at : at + 4] = (value & _U32).to_bytes(4, "little")

    def service(self) -> bool:
        """Read, answer and write as long as something moves; whether anything did."""
        self._serving = True
        try:
            moved = self._reconnect()
            while not self.wire.error and (self._read() | self._write()):
                moved = True
            if self.wire.error:
                self._set("error", self.wire.error)
        finally:
            self._serving = False
        if moved:
            self._raise_event()
        return moved

    def _reconnect(self) -> bool:
        """Begin anew if the guest asks for it: all that was said before is forgotten."""
        (state,) = struct.unpack_from("<I", self._map, self._page + _AT["connection"])
        if state != abi.XENSTORE_RECONNECT:
            return False
        self.wire.restart()
        for field in ("req_cons", "req_prod", "rsp_cons", "rsp_prod", "error"):
            self._set(field, 0)
        self._set("connection", abi.XENSTORE_CONNECTED)
        return True

    def _indexes(self) -> tuple[int, int, int, int]:
        return _FOUR.unpack_from(self._map, self._page + _AT["req_cons"])

    def _read(self) -> bool:
        """Take requests, as many as are listened to; whether anything moved."""
        wire = self.wire
        consumer, producer, _, _ = self._indexes()
        waiting = (producer - consumer) & _U32
        if not waiting or not wire.listens:
            return False
        if waiting > _SIZE:
            wire.fail(abi.XENSTORE_ERROR_RINGIDX)
            return False
        start = consumer & _MASK
        ring = self._page + _AT["req"]
        first = bytes(self._bytes[ring + start : ring + min(start + waiting, _SIZE)])
        taken = wire.receive(first + bytes(self._bytes[ring : ring + waiting - len(first)]))
        self._set("req_cons", consumer + taken)
        return taken > 0

    def _write(self) -> bool:
        """Give answers and events, as far as there is room; whether anything moved."""
        wire = self.wire
        if not wire.pending:
            return False
        _, _, consumer, producer = self._indexes()
        used = (producer - consumer) & _U32
        if used > _SIZE:
            wire.fail(abi.XENSTORE_ERROR_RINGIDX)
            return False
        data = wire.take(_SIZE - used)
        start = producer & _MASK
        ring = self._page + _AT["rsp"]
        first = data[: _SIZE - start]
        self._bytes[ring + start : ring + start + len(first)] = first
        self._bytes[ring : ring + len(data) - len(first)] = data[len(first) :]
        self._set("rsp_prod", producer + len(data))
        return bool(data)
