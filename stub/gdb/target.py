"""A machine under a debugger: run control, stop points, registers and memory (the ``Target`` that sessions drive)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from stub.abi.x86_defns import INSN_PREFIXES
from stub.domain.builder import start_registers
from stub.engine.base import RETIRED, RIP, RSP
from stub.errors import PvstubError
from stub.gdb import monitor, registers
from stub.gdb.catches import Catches
from stub.gdb.model import SIGABRT, SIGINT, Ended, Kind, Space, Stop, StopPoint, TargetError
from stub.gdb.points import Points, Retired
from stub.gdb.symbols import Symbols
from stub.hypervisor.verdict import Verdict
from stub.machine import Machine
from stub.memory.frames import GUEST, L1, L4, SEG_DESC
from stub.memory.guest import GuestFault
from stub.units import PAGE_MASK, PAGE_SIZE, U64

_TURN = 10_000_000  # instructions between looks at the client: some milliseconds
_PATIENCE = 20_000_000  # ns: however little the guest gets done
_STEPS = 1000  # the same, when the guest goes step by step
_MARGIN = 5_000  # instructions before a count at which single steps begin
_LONGEST_READ = 1 << 26


class MachineTarget:
    """The guest of a machine. Its own thread of control is whoever calls :meth:`advance`."""

    steps_into_events = False

    def __init__(self, machine: Machine, executable: Path | None = None, *, stop_on_crash: bool = False) -> None:
        self.machine = machine
        self.bits = machine.xen.domain.bits
        self.has_avx = registers.has_avx(machine)
        self.running = False
        self.points = Points(machine)
        self._stop_on_crash = stop_on_crash
        self._stop: Stop | Ended = Stop()
        self._interrupted = False
        self._stepping: tuple[int, int] | None = None
        self._began = False
        self._over: tuple[int, int] | None = None
        machine.hold = self._hold
        self.use(executable)
        self._attach()

    def use(self, executable: Path | None) -> None:
        """Take the guest's symbols from this file, and offer it to the client."""
        self.executable = executable.resolve() if executable is not None else None
        names = Symbols(executable)
        self._context = monitor.Context(self.machine, monitor.Names(names.address, names.nearest), self.points)

    # -- the guest's beginning

    def _attach(self) -> None:
        """Look on a guest that was just made, and bring it to its first instruction."""
        xen = self._xen = self.machine.xen
        self.words = xen.words
        xen.stops.onlooker = self.points
        self._catches = Catches(xen, self.points)
        self.points.keep_branches(self.points.branches)
        self.points.changed = True
        if xen.words[RETIRED] == 0 and self.machine.verdict is None:
            self._run_to(start_registers(xen.domain)["rip"], None)
            self.machine.turn()
            self._run_to(None, None)
        self.points.why = None

    def _run_to(self, address: int | None, stack: int | None) -> None:
        self.points.until = None if address is None else (address, stack)
        self.points.reached = False
        self.points.changed = True
        self._tell()

    def _tell(self) -> None:
        if self.points.changed:
            self.points.tell()
            self._catches.tell()

    def let_go(self) -> None:
        """Look on no longer: the guest runs as if nobody had."""
        self.points.clear()
        self._tell()
        self.machine.hold = lambda _: False
        self._xen.stops.onlooker = None

    def restart(self) -> None:
        """See :class:`stub.gdb.model.Target`."""
        try:
            self.machine.reboot()
        except PvstubError as error:
            raise TargetError(f"the guest cannot be booted again: {error}") from error
        self.running = self._interrupted = False
        self._stepping = self._over = None
        self._attach()
        self._stop = Stop(note="the guest was booted again")

    # -- run control

    def go(self) -> None:
        """See :class:`stub.gdb.model.Target`."""
        self._stepping = None
        self._start()

    def step(self, start: int = 0, end: int = 0) -> None:
        """See :class:`stub.gdb.model.Target`."""
        self._stepping = (start, end)
        self._start()

    def _start(self) -> None:
        if self.running or isinstance(self._stop, Ended):
            self.running = True  # whoever continues what has ended is told so again
            return
        self.running = True
        self.machine.stood_still()

    def interrupt(self) -> None:
        """See :class:`stub.gdb.model.Target`."""
        self._interrupted = True

    def advance(self) -> Stop | Ended | None:
        """See :class:`stub.gdb.model.Target`."""
        machine, points = self.machine, self.points
        if machine.held is not None and not self._interrupted:
            machine.let_end()
        stop: Stop | Ended | None = self._ended()
        if stop is None and self._interrupted:
            stop = Stop(SIGINT)
        if stop is None:
            points.why = None
            self._tell()
            stop = self._step() if self._stepping is not None and self._over is None else self._go()
        if stop is None:
            return None
        self._interrupted = self.running = False
        if self._over is not None:
            self._over = None
            self._run_to(None, None)
        self._stop = stop
        return stop

    def last_stop(self) -> Stop | Ended:
        """See :class:`stub.gdb.model.Target`."""
        return self._stop

    def _ended(self) -> Ended | None:
        verdict = self.machine.verdict
        return None if verdict is None else Ended(verdict.exit_status, f"{verdict.kind}: {verdict.reason}")

    def _hold(self, verdict: Verdict) -> bool:
        return verdict.kind == "crash" and (self._stop_on_crash or self.points.catches("crash") is not None)

    def _looked(self) -> Stop | Ended | None:
        """What the last turn came to."""
        machine = self.machine
        if machine.xen is not self._xen:  # it rebooted by itself
            self._over = None
            self._attach()
            self._tell()
            if self._stepping is not None:
                return Stop(note="the guest rebooted")
            if self.points.at_stop_point():
                return self.points.why
        if machine.held is not None:
            lines = (machine.held.reason, *machine.held.details)
            return Stop(SIGABRT, note="the guest crashed: " + "\n".join(lines))
        return self.points.why or self._ended()

    def _go(self) -> Stop | Ended | None:
        count = self._next_count()
        left = _TURN if count is None else count - self.machine.retired - _MARGIN
        if left <= 0 and count is not None:
            return self._count_to(count)
        self.machine.turn(instructions=min(_TURN, left), patience_ns=_PATIENCE)
        if self.points.reached:
            self._over = None
            self._run_to(None, None)
        return self._looked()

    def _next_count(self) -> int | None:
        """The count of instructions to stop at next."""
        counts = [e.count for _, e in self.points.having(Retired) if isinstance(e, Retired)]
        return min((count for count in counts if count > self.machine.retired), default=None)

    def _count_to(self, count: int) -> Stop | Ended | None:
        """Single steps, as the guest would run by itself, to an exact count."""
        for _ in range(_STEPS):
            xen = self._xen
            if xen.upcall_due:
                xen.deliver_upcall()
                began = True
            else:
                began = self._turn_step()
            stop = self._looked()
            if stop is None and began and xen.words[RIP] in self.points.addresses and self.points.at_stop_point():
                xen.overlooked = True
                stop = self.points.why
            if stop is None and self.machine.retired >= count:
                for number, extra in self.points.having(Retired):
                    if isinstance(extra, Retired) and extra.count == count:
                        self.points.report(number, extra)
                stop = self.points.why
            if stop is not None:
                return stop
        return None

    def _turn_step(self) -> bool:
        """One instruction; whether it began (time may have to pass first)."""
        self._began = False
        self.machine.turn(act=self._act)
        return self._began

    def _act(self) -> None:
        self._began = self._xen.step()

    def _step(self) -> Stop | Ended | None:
        """Steps until one is done that ends outside the range; events that come in are served in between."""
        assert self._stepping is not None
        start, end = self._stepping
        words = self._xen.words
        for _ in range(_STEPS):
            if self._xen.upcall_due:
                place = words[RIP], words[RSP]
                self._xen.deliver_upcall()
                if self.points.why is None and self.steps_into_events:
                    return self._looked() or Stop()
                if self.points.why is None:
                    self._over = place
                    self._run_to(*place)
                return self._looked()
            at = words[RIP]
            began = self._turn_step()
            stop = self._looked()
            if stop is not None:
                return stop
            if began and not start <= words[RIP] < end:
                return Stop()
            repeats = words[RIP] == at and self._repeats(at)
            if began and not repeats and words[RIP] in self.points.addresses and self.points.at_stop_point():
                return self.points.why
            if self.machine.xen.vcpu.blocked:
                return None
        return None

    def _repeats(self, at: int) -> bool:
        """Whether an instruction has a repeat prefix: its next turn is not another instruction."""
        code = self._xen.domain.guest.read_available(at, 4)
        return not {0xF2, 0xF3}.isdisjoint(code[: next((i for i, b in enumerate(code) if b not in INSN_PREFIXES), 4)])

    def kill(self) -> None:
        """See :class:`stub.gdb.model.Target`."""
        self.machine.let_end()
        self.machine.interrupt("killed from the debugger")
        self.running = self._interrupted = False
        self._stop = self._ended() or Ended(1, "killed from the debugger")

    # -- stop points

    def insert(self, point: StopPoint) -> None:
        """See :class:`stub.gdb.model.Target`."""
        try:
            self.points.insert(point)
        except PvstubError as error:
            raise TargetError(str(error)) from error

    def remove(self, kind: Kind, address: int, length: int) -> None:
        """See :class:`stub.gdb.model.Target`."""
        self.points.remove(kind, address, length)

    def remove_all(self) -> None:
        """See :class:`stub.gdb.model.Target`."""
        self.points.clear()

    # -- state

    def vcpus(self) -> int:
        """See :class:`stub.gdb.model.Target`."""
        return 0 if isinstance(self._stop, Ended) else 1

    def describe_vcpu(self, vcpu: int) -> str:
        """See :class:`stub.gdb.model.Target`."""
        return f"vCPU {vcpu}: {registers.kernel_or_user(self.machine.xen)}"

    def read_register(self, name: str) -> int:
        """See :class:`stub.gdb.model.Target`."""
        return registers.read(self.machine, name)

    def write_register(self, name: str, value: int) -> None:
        """See :class:`stub.gdb.model.Target`."""
        registers.write(self.machine, name, value)

    def read_memory(self, address: int, size: int, space: Space = Space.VIRTUAL) -> bytes:
        """See :class:`stub.gdb.model.Target`."""
        size = min(size, _LONGEST_READ)
        if space is Space.MACHINE:
            return bytes(self._xen.ram_bytes[address : address + size])
        return self._xen.domain.guest.read_available(address & U64, size)

    def write_memory(self, address: int, data: bytes, space: Space = Space.VIRTUAL) -> None:
        """See :class:`stub.gdb.model.Target`. Frames that only Xen may write (tables, descriptors) are refused."""
        xen = self._xen
        pieces = list(self._pieces(address & U64, len(data), space))
        done = 0
        for at, size in pieces:
            xen.ram_bytes[at : at + size] = data[done : done + size]
            xen.engine.flush_code(at, size)
            done += size

    def _pieces(self, address: int, size: int, space: Space) -> Iterator[tuple[int, int]]:
        """(machine address, bytes) of each page's part, checked."""
        xen = self._xen
        types = xen.domain.types.frames
        while size:
            here = min(size, PAGE_SIZE - (address & PAGE_MASK))
            at = address
            if space is Space.VIRTUAL:
                try:
                    at = xen.domain.guest.locate_any(address)
                except GuestFault as fault:
                    raise TargetError(f"nothing is mapped at {address:#x}") from fault
            mfn = at // PAGE_SIZE
            if mfn >= types.frames or types.owner[mfn] != GUEST:
                raise TargetError(f"machine frame {mfn:#x} is not the guest's")
            if types.type_count[mfn] and (L1 <= types.type[mfn] <= L4 or types.type[mfn] == SEG_DESC):
                raise TargetError(f"machine frame {mfn:#x} holds tables, which are changed by hypercalls only")
            yield at, here
            address, size = (address + here) & U64, size - here

    def monitor(self, command: str) -> str:
        """See :class:`stub.gdb.model.Target`."""
        return monitor.run(self._context, command)
