"""Every place where a debugger has the guest stop, and why it stopped.

The client's breakpoints and watchpoints come by the protocol; the others (an address in one address space only,
machine memory, a port, a hypercall, an upcall, a count of instructions…) by ``monitor`` commands. All are looked at
in Python, at the engine's stop points and exits, and nothing in the guest is changed for one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stub.engine.base import READS, RIP, RSP, WRITES, Watch
from stub.gdb.agent import AgentError
from stub.gdb.model import Kind, Stop, StopPoint
from stub.trace.names import errno_name
from stub.units import PAGE_SHIFT

if TYPE_CHECKING:
    from stub.machine import Machine

_ACCESS = {Kind.WRITE: WRITES, Kind.READ: READS, Kind.ACCESS: READS | WRITES}


@dataclass(frozen=True)
class Place:
    """An address that is looked at only while one table is CR3."""

    address: int
    root: int

    def __str__(self) -> str:
        return f"at {self.address:#x} with cr3 {self.root:#x}"


@dataclass(frozen=True)
class MachineWatch:
    """Bytes of machine memory: ``first`` to ``last``."""

    first: int
    last: int
    access: int

    def __str__(self) -> str:
        how = {READS: "reads", WRITES: "writes"}.get(self.access, "accesses")
        return f"{how} of machine memory {self.first:#x} to {self.last:#x}"


@dataclass(frozen=True)
class PortWatch:
    """An I/O port."""

    port: int

    def __str__(self) -> str:
        return f"accesses to port {self.port:#x}"


@dataclass(frozen=True)
class Retired:
    """A count of retired instructions since the first boot."""

    count: int

    def __str__(self) -> str:
        return f"{self.count:,} instructions retired"


@dataclass(frozen=True)
class HypercallCatch:
    """A hypercall, by number; one of its operations; with ``result``: only when it is answered so, and afterwards."""

    number: int
    name: str
    operation: int | None = None
    result: int | None = None
    operation_name: str = ""

    def __str__(self) -> str:
        shown = [f"hypercall {self.name}"]
        if self.operation is not None:
            shown.append(self.operation_name or f"operation {self.operation}")
        if self.result is not None:
            error = errno_name(self.result)
            shown.append(f"that gives -{error}" if error else f"that gives {self.result}")
        return " ".join(shown)


@dataclass(frozen=True)
class EventCatch:
    """``upcall``, ``page-type``, ``crash`` or ``guest-traps``."""

    what: str

    def __str__(self) -> str:
        return self.what


Extra = Place | MachineWatch | PortWatch | Retired | HypercallCatch | EventCatch


@dataclass
class Points:
    """All stop points of one guest. ``changed`` is set until the engine knows; ``why`` is the stop that one made."""

    machine: Machine
    client: dict[tuple[Kind, int, int], StopPoint] = field(default_factory=dict)
    extras: dict[int, Extra] = field(default_factory=dict)
    until: tuple[int, int | None] | None = None
    """A place of our own: the address, and RSP there."""
    changed: bool = False
    why: Stop | None = None
    reached: bool = False
    """``until`` was."""
    numbered: int = 0
    branches: int = 0
    """How many of the last ones the engine is to keep."""
    _code: dict[int, list[StopPoint]] = field(default_factory=dict)
    _places: dict[int, list[tuple[int, Place]]] = field(default_factory=dict)
    _addresses: set[int] = field(default_factory=set)
    _data: list[StopPoint] = field(default_factory=list)
    _machine: list[tuple[int, MachineWatch]] = field(default_factory=list)

    # -- setting them

    def insert(self, point: StopPoint) -> None:
        """Set one of the client's; it replaces its like. UsageError if the engine cannot watch so much."""
        key = point.kind, point.address, point.length
        if point.kind in _ACCESS and key not in self.client:
            self._check(Watch(point.address, point.address + point.length - 1, _ACCESS[point.kind]))
        self.client[key] = point
        self.changed = True

    def remove(self, kind: Kind, address: int, length: int) -> None:
        """Take one of the client's away."""
        if self.client.pop((kind, address, length), None) is not None:
            self.changed = True

    def clear(self) -> None:
        """Take all away, the numbered ones too."""
        self.client.clear()
        self.extras.clear()
        self.keep_branches(0)
        self.changed = True

    def add(self, extra: Extra) -> int:
        """Set another kind; its number. UsageError if the engine cannot watch machine memory."""
        if isinstance(extra, MachineWatch):
            self._check(Watch(extra.first, extra.last, extra.access, machine=True))
        self.numbered += 1
        self.extras[self.numbered] = extra
        self.changed = True
        return self.numbered

    def delete(self, number: int) -> bool:
        """Take a numbered one away; whether it was there."""
        self.changed = True
        return self.extras.pop(number, None) is not None

    def keep_branches(self, count: int) -> None:
        """Keep the last ``count`` branches, and forget those before."""
        self.branches = count
        self.machine.xen.engine.keep_branches(count)

    def having(self, kind: type[Extra]) -> Iterator[tuple[int, Extra]]:
        """The numbered ones of a kind."""
        return ((number, extra) for number, extra in self.extras.items() if isinstance(extra, kind))

    def catches(self, what: str) -> int | None:
        """The number of the catch of an event; None without one."""
        return next((n for n, extra in self.extras.items() if extra == EventCatch(what)), None)

    @property
    def addresses(self) -> set[int]:
        """Where the engine stops for us."""
        return self._addresses

    def tell(self) -> None:
        """Have the engine know them."""
        if not self.changed:
            return
        self.changed = False
        self._code, self._places, self._data, self._machine = {}, {}, [], []
        for point in self.client.values():
            if point.kind in _ACCESS:
                self._data.append(point)
            else:
                self._code.setdefault(point.address, []).append(point)
        for number, extra in self.extras.items():
            if isinstance(extra, Place):
                self._places.setdefault(extra.address, []).append((number, extra))
            elif isinstance(extra, MachineWatch):
                self._machine.append((number, extra))
        code = self._addresses = {*self._code, *self._places}
        if self.until is not None:
            code.add(self.until[0])
        self.machine.xen.stops.for_onlooker(code, self._watches())

    def _watches(self) -> list[Watch]:
        points = [point for point in self.client.values() if point.kind in _ACCESS]
        watches = [Watch(p.address, p.address + p.length - 1, _ACCESS[p.kind]) for p in points]
        machine = [extra for extra in self.extras.values() if isinstance(extra, MachineWatch)]
        return watches + [Watch(w.first, w.last, w.access, machine=True) for w in machine]

    def _check(self, watch: Watch) -> None:
        self.machine.xen.stops.check_onlookers([*self._watches(), watch])

    # -- looking (stub.hypervisor.stops.Onlooker)

    def at_stop_point(self) -> bool:
        """Whether somebody wants to see the instruction at RIP."""
        words = self.machine.xen.words
        rip = words[RIP]
        for point in self._code.get(rip, ()):
            if not point.conditions or any(_holds(condition) for condition in point.conditions):
                self.why = Stop(kind=point.kind)
                return True
        for number, place in self._places.get(rip, ()):
            if self.machine.xen.domain.root_in_use << PAGE_SHIFT == place.root:
                self.report(number, place)
                return True
        if self.until is not None and rip == self.until[0] and self.until[1] in (None, words[RSP]):
            self.reached = True
            return True
        return False

    def accessed(self, address: int, size: int, write: bool) -> bool:
        """Whether somebody wants to see this access to memory."""
        end = address + size
        made = WRITES if write else READS
        for point in self._data:
            if point.address < end and address < point.address + point.length and _ACCESS[point.kind] & made:
                if point.conditions and not any(_holds(condition) for condition in point.conditions):
                    continue
                self.why = Stop(kind=point.kind, address=max(address, point.address))
                return True
        if not self._machine:
            return False
        where = self._machine_address(address)
        for number, watch in self._machine:
            if watch.first < where + size and where <= watch.last and watch.access & made:
                how = "written" if write else "read"
                bytes_were = "1 byte" if size == 1 else f"{size} bytes"
                be = "was" if size == 1 else "were"
                note = f"{bytes_were} at machine address {where:#x} ({address:#x}) {be} {how}"
                self.report(number, watch, note)
                return True
        return False

    def _machine_address(self, address: int) -> int:
        return self.machine.xen.domain.guest.locate_any(address)

    def report(self, number: int, extra: Extra, note: str = "") -> None:
        """A numbered one is the reason to stop."""
        self.why = Stop(note=f"stop {number}: {note or extra}")


def _holds(condition: Callable[[], int]) -> bool:
    """Whether a condition is met; one that cannot be evaluated is (GDB manual, E.2, "Z0")."""
    try:
        return condition() != 0
    except AgentError:
        return True
