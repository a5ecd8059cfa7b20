"""The console back end: the two rings of the shared page (xen/io/console.h, PV-ABI: all of it is drained at once).

What the guest writes is taken whole whenever it notifies or gives way, so its ring never stays full. What is typed
waits here until the ring has room.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from stub.memory.ram import Ram

_IN_SIZE, _OUT_SIZE = 1024, 2048
_IN, _OUT, _INDEXES = 0, 1024, 3072
_FOUR = struct.Struct("<4I")  # in_cons, in_prod, out_cons, out_prod


def _nobody(*_: object) -> None:
    """Listens to a device that is no longer used."""


class Console:
    """``output`` is everything the guest has printed; ``send`` types. ``page`` is the ring's byte offset."""

    def __init__(
        self, ram: Ram, page: int, raise_event: Callable[[], None], on_output: Callable[[bytes], None]
    ) -> None:
        self._bytes = ram.bytes
        self._map = ram.map
        self._page = page
        self._raise_event = raise_event
        self._on_output = on_output
        self.on_typed: Callable[[bytes], None] = _nobody
        self._typed = bytearray()
        self.output = bytearray()

    def send(self, data: bytes) -> None:
        """Type ``data`` at the guest's console; ``on_typed`` is told before."""
        self.on_typed(data)
        self._typed += data
        self.service()

    def disconnect(self) -> None:
        """Let go of whoever listens; ``output`` stays."""
        self._raise_event = _nobody
        self._on_output = self.on_typed = _nobody

    @property
    def has_input(self) -> bool:
        """Whether typed bytes still wait for room in the ring."""
        return bool(self._typed)

    def service(self) -> bool:
        """Move what can be moved, both ways; whether anything was."""
        page, memory = self._page, self._bytes
        at = page + _INDEXES
        in_cons, in_prod, out_cons, out_prod = _FOUR.unpack_from(self._map, at)
        moved = False
        waiting = (out_prod - out_cons) & 0xFFFFFFFF
        if waiting > _OUT_SIZE:  # nonsense from the guest: take what the ring can hold
            waiting = _OUT_SIZE
            out_cons = (out_prod - waiting) & 0xFFFFFFFF
        if waiting:
            start = out_cons & (_OUT_SIZE - 1)
            first = min(waiting, _OUT_SIZE - start)
            ring = page + _OUT
            data = bytes(memory[ring + start : ring + start + first]) + bytes(memory[ring : ring + waiting - first])
            memory[at + 8 : at + 12] = out_prod.to_bytes(4, "little")
            self.output += data
            self._on_output(data)
            moved = True
        if self._typed:
            used = (in_prod - in_cons) & 0xFFFFFFFF
            room = _IN_SIZE - used if used <= _IN_SIZE else 0
            take = bytes(self._typed[:room])
            for i, byte in enumerate(take):
                memory[page + _IN + ((in_prod + i) & (_IN_SIZE - 1))] = byte
            if take:
                del self._typed[:room]
                memory[at + 4 : at + 8] = ((in_prod + len(take)) & 0xFFFFFFFF).to_bytes(4, "little")
                moved = True
        if moved:
            self._raise_event()
        return moved
