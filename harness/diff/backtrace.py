"""Who called at the first difference: the run is booted again, to that place, and its stack is looked at there.

A boot is a pure function of its inputs, so a log needs no stacks in it. Whether it was the same boot is seen by the
digest of the log up to there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness import again
from harness.diff.places import Places
from harness.unwind import Unwinder
from stub.engine.base import Exit
from stub.errors import PvstubError
from stub.hypervisor.report import registers
from stub.inputs import Inputs
from stub.machine import Machine
from stub.trace.reader import LogReader, Place
from stub.trace.records import EndRecord, Record

LEAD_NS: Final = 10_000
"""So long before the place every exit is looked at, which is slow."""
_LOOKED_AT: Final = (Exit.SYSCALL, Exit.EXCEPTION, Exit.IN, Exit.OUT, Exit.CPUID)

Frames = tuple[tuple[int, str | None], ...]


@dataclass(frozen=True)
class Backtrace:
    """``frames``: (address, symbol), innermost first; else ``why`` there are none."""

    frames: Frames = ()
    why: str = ""

    def lines(self) -> Iterator[str]:
        """For a person."""
        for number, (address, symbol) in enumerate(self.frames):
            yield f"#{number:<2} {address:#x}" + (f" {symbol}" if symbol else "")

    def as_object(self) -> dict[str, Any]:
        """For a program."""
        frames = [{"address": f"{address:#x}", "symbol": symbol} for address, symbol in self.frames]
        return {"frames": frames, "why": self.why or None}


def backtrace(log: Path, record: Record, inputs: Callable[[], Inputs], places: Places, cache: Path) -> Backtrace:
    """Of a record of a log; ``inputs`` may raise PvstubError, which is why there is none then."""
    try:
        with LogReader(log) as reader:
            place = reader.place(record.seq)
        with log.open("rb") as file:
            digest = hashlib.sha256(file.read(place.offset)).hexdigest()
        known = inputs()
        with again.machine(known, None, cache) as guest:
            looked = _Look(guest, record, place, digest, places)
            looked.run(known)
    except PvstubError as error:
        return Backtrace(why=str(error))
    if looked.frames is None:
        return Backtrace(why="booted again, it does not come by there: something else was done to it")
    return Backtrace(looked.frames)


class _Look:
    """A guest on its way to a record, and who called there."""

    def __init__(self, guest: Machine, record: Record, place: Place, digest: str, places: Places) -> None:
        self.guest, self.record = guest, record
        self.place, self.digest = place, digest
        self.places = places
        self.frames: Frames | None = None

    def run(self, inputs: Inputs) -> None:
        """Go there."""
        guest, at = self.guest, self.place.earlier_ns + self.record.time_ns
        again.type_to(guest, inputs, at)
        while guest.boots < self.place.boot and guest.verdict is None:
            guest.turn()
        guest.run(deadline_ns=max(at - LEAD_NS, 0))
        onlookers = guest.xen.onlookers
        onlookers.see_all(self, True)
        for kind in _LOOKED_AT:
            onlookers.stand_in_front(kind, lambda kind=kind: self._exit(kind))  # type: ignore[misc]
        last = isinstance(self.record, EndRecord)
        guest.run(deadline_ns=None if last else at + 1, until=lambda: self.frames is not None)
        if last and guest.verdict is not None:
            self._see()

    def _exit(self, kind: int) -> None:
        if self.frames is None and self.guest.xen.clock.now >= self.record.time_ns:
            self._see()
            self.guest.prompt()
        self.guest.xen.onlookers.act(kind)

    def _see(self) -> None:
        log = self.guest.log
        if log.size == self.place.offset and log.digest() == self.digest:
            kernel = self.guest.xen.vcpu.kernel_mode
            self.frames = tuple(self._callers()) if kernel else ((self.record.rip, None),)

    def _callers(self) -> Iterator[tuple[int, str | None]]:
        xen, places = self.guest.xen, self.places
        unwinder = Unwinder(places.symbols.path, places.bits)
        values = registers(xen) | {"rip": self.record.rip}
        for frame in unwinder.frames(values, xen.domain.guest.read_available):
            yield frame.place, _behind_a_call(places, frame.place) if frame.caller else places.symbol(frame.place)


def _behind_a_call(places: Places, address: int) -> str | None:
    """What a call returns to may be another function's first instruction: the name is that of the call."""
    name, _, offset = (places.symbol(address - 1) or "").partition("+")
    return f"{name}+{int(offset or '0', 16) + 1:#x}" if name else None
