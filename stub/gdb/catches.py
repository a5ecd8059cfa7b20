"""Stops at what the guest does with its hypervisor: they stand between an exit and whoever acts on it.

Where nothing is caught the hypervisor's own table of exits is in place. A hypercall, an upcall and a trap are shown
before they take effect: the guest is stopped, and the action runs first when it runs on.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from stub.abi.x86_defns import INSN_PREFIXES
from stub.abi.xen import Hypercall
from stub.engine.base import (
    EXIT_ERROR_CODE,
    EXIT_PORT,
    EXIT_SIZE,
    EXIT_SOFTWARE,
    EXIT_VALUE,
    EXIT_VECTOR,
    RAX,
    RDI,
    RETIRED,
    RIP,
    RSI,
    Exit,
)
from stub.gdb.points import HypercallCatch, Points, PortWatch
from stub.hypervisor import traps
from stub.hypervisor.xen import Hypervisor
from stub.trace.schema import CALLS
from stub.units import U64

_MULTICALL_ENTRY = struct.Struct("<QQQ40x")  # op, result, the first argument
_MMUEXT_OP = struct.Struct("<I20x")
_MOST_ENTRIES = 1024
_LENGTHS = {0xE4: 2, 0xE5: 2, 0xE6: 2, 0xE7: 2, 0xEC: 1, 0xED: 1, 0xEE: 1, 0xEF: 1}  # in and out, strings apart


class Catches:
    """Puts itself in front of one hypervisor's exits as the points ask."""

    def __init__(self, xen: Hypervisor, points: Points) -> None:
        self._xen = xen
        self._points = points
        self._own_upcall = xen.deliver_upcall

    def tell(self) -> None:
        """Stand where something is to be caught, and nowhere else."""
        xen, points = self._xen, self._points
        calls = list(points.having(HypercallCatch))
        ports = list(points.having(PortWatch))
        refusals = points.catches("page-type") is not None
        shown = points.catches("guest-traps") is not None
        stands: dict[int, tuple[bool, Callable[[], None]]] = {
            Exit.SYSCALL: (bool(calls) or refusals, self._syscall),
            Exit.EXCEPTION: (refusals or shown, self._exception),
            Exit.IN: (bool(ports), lambda: self._port(Exit.IN)),
            Exit.OUT: (bool(ports), lambda: self._port(Exit.OUT)),
        }
        for kind, (wanted, stand) in stands.items():
            xen.onlookers.stand_in_front(kind, stand if wanted else None)
        xen.deliver_upcall = self._upcall if points.catches("upcall") is not None else self._own_upcall
        all_exits = bool(ports) or any(getattr(c, "number", None) == Hypercall.iret for _, c in calls)
        xen.onlookers.see_all(self, all_exits)

    # -- hypercalls

    def _syscall(self) -> None:
        xen, points = self._xen, self._points
        if not xen.vcpu.kernel_mode:
            xen.onlookers.act(Exit.SYSCALL)
            return
        made = set(self._made())
        for number, catch in points.having(HypercallCatch):
            assert isinstance(catch, HypercallCatch)
            if catch.result is None and self._matches(catch, made):
                points.report(number, catch)
                xen.defer(lambda: self._answer(made))
                return
        self._answer(made)

    def _answer(self, made: set[tuple[int, int]]) -> None:
        """The hypercall, and a look at what came of it."""
        xen, points = self._xen, self._points
        xen.onlookers.act(Exit.SYSCALL)
        result = xen.words[RAX]
        result -= (result >> 63) << 64
        for number, catch in points.having(HypercallCatch):
            assert isinstance(catch, HypercallCatch)
            if catch.result == result and catch.result is not None and self._matches(catch, made):
                points.report(number, catch)
                xen.pause = True
                return
        self._look_at_refusal()

    @staticmethod
    def _matches(catch: HypercallCatch, made: set[tuple[int, int]]) -> bool:
        return any(n == catch.number and catch.operation in (None, operation) for n, operation in made)

    def _made(self) -> Iterator[tuple[int, int]]:
        """(hypercall, operation) of the call at hand, and of those in a multicall."""
        words = self._xen.words
        yield from self._operations(words[RAX], words[RDI], words[RSI])
        if words[RAX] == Hypercall.multicall:
            for op, _, first in self._array(_MULTICALL_ENTRY, words[RDI], words[RSI]):
                yield from self._operations(op, first, 1)

    def _operations(self, call: int, first: int, count: int) -> Iterator[tuple[int, int]]:
        if call == Hypercall.mmuext_op:
            yield from ((call, op) for (op,) in self._array(_MMUEXT_OP, first, count))
        row = CALLS.get(call)
        yield call, first & row.mask if row is not None and row.command == 0 else first

    def _array(self, layout: struct.Struct, address: int, count: int) -> Iterator[tuple[int, ...]]:
        size = layout.size * min(count & 0xFFFFFFFF, _MOST_ENTRIES)
        data = self._xen.domain.guest.read_available(address, size)
        return layout.iter_unpack(data[: len(data) // layout.size * layout.size])

    def _look_at_refusal(self) -> None:
        xen, points = self._xen, self._points
        number = points.catches("page-type")
        if number is not None and xen.types.refusal:
            points.report(number, points.extras[number], f"page-type: {xen.types.refusal}")
            xen.pause = True

    # -- events and traps

    def _upcall(self) -> None:
        xen, points = self._xen, self._points
        number = points.catches("upcall")
        assert number is not None
        points.report(number, points.extras[number], f"an event upcall to {xen.vcpu.event.address:#x} is due")
        xen.defer(lambda: traps.deliver_upcall(xen))

    def _exception(self) -> None:
        xen, points, words = self._xen, self._points, self._xen.words
        number = points.catches("guest-traps")
        vector = words[EXIT_VECTOR]
        of_guest = (vector == 3 and words[EXIT_SOFTWARE]) or (vector == 1 and words[EXIT_ERROR_CODE])
        if number is not None and of_guest:
            points.report(number, points.extras[number], f"the guest's own {'int3' if vector == 3 else 'single step'}")
            xen.defer(lambda: xen.onlookers.act(Exit.EXCEPTION))
            return
        xen.types.refusal = ""
        xen.onlookers.act(Exit.EXCEPTION)
        self._look_at_refusal()

    # -- ports

    def _port(self, kind: Exit) -> None:
        """An access to a port, once it is made: the rest of the instruction is done here, so that the guest stands."""
        xen, points, words = self._xen, self._points, self._xen.words
        at, port, size = words[RIP], words[EXIT_PORT], words[EXIT_SIZE]
        written = words[EXIT_VALUE]
        xen.onlookers.act(kind)
        for number, watch in points.having(PortWatch):
            if isinstance(watch, PortWatch) and watch.port == port:
                value = words[EXIT_VALUE] if kind == Exit.IN else written
                how = "read from" if kind == Exit.IN else "written to"
                points.report(number, watch, f"{value & (1 << 8 * size) - 1:#x} was {how} port {port:#x}")
                if words[RIP] != at or xen.verdict is not None or self._finish(kind, at, size):
                    xen.stand_still()
                else:
                    xen.clock.slice(0)  # to the next jump: in the middle of a string instruction there is no standing
                return

    def _finish(self, kind: Exit, at: int, size: int) -> bool:
        """Do the rest of an instruction that is not a string instruction; whether it was none."""
        words = self._xen.words
        code = self._xen.domain.guest.read_available(at, 15)
        behind = next((i for i, byte in enumerate(code) if byte not in INSN_PREFIXES), len(code))
        length = _LENGTHS.get(code[behind], 0) if behind < len(code) else 0
        if not length:
            return False
        if kind == Exit.IN:
            mask = (1 << 8 * size) - 1
            kept = 0 if size == 4 else words[RAX] & ~mask
            words[RAX] = kept | words[EXIT_VALUE] & mask
        words[RIP] = (at + behind + length) & U64
        words[RETIRED] += 1
        return True
