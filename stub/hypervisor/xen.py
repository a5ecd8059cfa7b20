"""The hypervisor of one domain: what the hypercall and trap handlers work on, and the run loop.

The loop: deliver what is pending → run the engine → act on the exit, by the table in ``exits.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

from stub.abi import sched
from stub.abi.errno import ENOSYS
from stub.abi.widths import WIDTHS
from stub.abi.xen import VIRQ_TIMER, Hypercall
from stub.devices.console import Console
from stub.domain.builder import CONSOLE_PORT, XENSTORE_PORT
from stub.domain.domain import Domain
from stub.engine.base import (
    EXIT_ERROR_CODE,
    EXIT_SOFTWARE,
    EXIT_VECTOR,
    FLUSH,
    R8,
    R10,
    RBX,
    RCX,
    RDI,
    RDX,
    RIP,
    RSI,
    RSP,
    STEP,
    Engine,
    Exit,
)
from stub.hypervisor import (
    debugregs,
    hypercalls,  # noqa: F401 - fills the registry
    runstate,
    segments,
    traps,
    xenstore,
)
from stub.hypervisor.clock import Clock
from stub.hypervisor.compat import CompatVcpu
from stub.hypervisor.disks import Disks
from stub.hypervisor.event_ports import UNBOUND, FarEnd
from stub.hypervisor.events import EventChannels
from stub.hypervisor.exits import EXITS
from stub.hypervisor.grants import GrantTable
from stub.hypervisor.onlookers import Onlookers
from stub.hypervisor.pirqs import Pirqs
from stub.hypervisor.stops import Stops
from stub.hypervisor.vcpu import Vcpu
from stub.hypervisor.verdict import Verdict, of_shutdown
from stub.memory.frames import L1
from stub.trace.writer import HypercallLog
from stub.units import PAGE_SIZE, U64

_MOST_NAMES = 64  # of hypercalls that are not there: the guest makes the numbers up
_ARGUMENTS = {64: ((RDI, RSI, RDX, R10, R8), U64), 32: ((RBX, RCX, RDX, RSI, RDI), 0xFFFFFFFF)}
_NAMES = {int(number): number.name for number in Hypercall}
_BACKEND_DELAY = 50_000  # ns
_MIDWAY = frozenset({Exit.IN, Exit.OUT, Exit.CPUID, Exit.DONE})  # exits that may leave the instruction to be ended


def _is_onlookers(words: memoryview) -> bool:
    """Whether an exception is the #DB of a step or a watch, and not of the guest's own stepping."""
    return words[EXIT_VECTOR] == 1 and not words[EXIT_SOFTWARE] and not words[EXIT_ERROR_CODE]


class Hypervisor:
    """State shared by the handlers. Plain attributes; what changes them is in the family files."""

    def __init__(
        self,
        domain: Domain,
        engine: Engine,
        log: HypercallLog,
        on_output: Callable[[bytes], None],
        disks: Disks | None = None,
    ) -> None:
        self.domain = domain
        self.width = WIDTHS[domain.bits]
        self.types = domain.types
        self.engine = engine
        self.words = engine.words
        self.log = log
        self.ram_bytes = domain.ram.bytes
        self.clock = Clock(engine.words, domain.ram)
        self.vcpu: Vcpu = self._make_vcpu()
        self.events = EventChannels(
            domain.ram,
            domain.area.shared_info,
            (self.vcpu,),
            domain.bits,
            domain.domid,
            domain.config.event_channels,
        )
        self.grants = GrantTable(domain)
        self.events.polled = self._polled_port
        self.verdict: Verdict | None = None
        self.pause = False
        self.realtime = domain.config.realtime
        self.unimplemented: Counter[str] = Counter()
        # what a hypercall leaves for the log
        self.payload = self.out = b""
        self.start_extent = 0
        self.in_multicall = False
        self.rest: tuple[int, ...] | None = None
        self.refusal = ""
        """What the hypercall being made broke, in words; page tables and types have theirs in ``types.refusal``."""
        self.reload_due = False
        """The guest's selectors are to be loaded again when the multicall is over."""
        self.work = 0
        """Elements of lists that the multicall being made has taken on, all its entries together."""
        self.shutdown_code: int | None = None
        self.pirqs = Pirqs()
        # assists and virtual hardware
        self.assists: set[int] = set()
        self.writable_tables: tuple[int, ...] = (L1,)
        """The levels of page tables to which the writable_pagetables assist lets the guest write."""
        self.pci_address = self.rtc_index = 0
        self.rex_r = self.rex_b = 0
        self.ldt_frames: dict[int, int] = {}
        self.period = 0
        self.time_area = 0
        self.nmi_pending = False
        # stop points
        self.stops = Stops(engine)
        self.mid_flight = self.overlooked = False
        self.deferred: tuple[Callable[[], None], int, int] | None = None  # and where
        self.descriptors: dict[int, int] = {}  # of the GDT, by offset: nobody changes one but by a hypercall
        self.code_widths: dict[int, bool] = {}
        self.runnable: set[tuple[int, int]] = set()  # (CS, SS) known to be good for ring 3
        self._connect_devices(on_output)
        self.vbds = disks.connect(self) if disks is not None else []
        self.deliver_upcall: Callable[[], None] = lambda: traps.deliver_upcall(self)
        self.exits: dict[int, Callable[[], None]] = {kind: partial(act, self) for kind, act in EXITS.items()}
        self.exits |= {
            Exit.DEADLINE: self._on_deadline,
            Exit.STOP_POINT: self._on_stop_point,
            Exit.WAITED: self._on_waited,
        }
        vcpu = self.vcpu
        self.onlookers = Onlookers(self.exits, lambda on: engine.use_reflex(vcpu.reflex() if on else None))

    def _make_vcpu(self) -> Vcpu:
        words, domain, log = self.words, self.domain, self.log
        info_at = domain.area.shared_info * PAGE_SIZE
        if domain.bits == 64:
            return Vcpu(words, domain.guest, log, info_at)
        return CompatVcpu(words, domain.guest, log, info_at, self.clock, partial(segments.descriptor, self))

    def _connect_devices(self, on_output: Callable[[bytes], None]) -> None:
        domain, layout = self.domain, self.domain.layout
        store_end, console_end = map(self._builders_channel, (XENSTORE_PORT, CONSOLE_PORT))
        self.console = Console(
            domain.ram,
            int(domain.p2m[layout.console.pfn]) * PAGE_SIZE,
            console_end.signal,
            on_output,
        )
        self.xenstore = xenstore.connect(domain, store_end.signal, self.backend_notified)
        for span in (layout.console, layout.xenstore):  # the back ends' own mappings, by grant
            domain.types.hold(int(domain.p2m[span.pfn]))

    def _builders_channel(self, number: int) -> FarEnd:
        """A channel between the domain and a back end that the domain is built with: it has the lowest free port."""
        port = self.events.free_port()
        assert port is not None
        assert port.number == number, "the builder's ports are the first, in this order"
        self.events.open(port, UNBOUND)
        end = self.events.connect(number, self.backend_notified)
        assert end is not None
        return end

    def close(self) -> None:
        """Let go of all that refers back here, so that the memory is freed with the last user, and of the CPU."""
        self.exits = {}
        self.onlookers.close()
        self.deliver_upcall = lambda: None
        self.stops.onlooker = self.deferred = None
        self.events.forget()
        self.vbds = []
        self.console.disconnect()
        self.xenstore.disconnect()
        self.engine.close()
        self.domain.ram.discard()

    # -- the run loop

    def run(self) -> None:
        """Run the guest, acting on each exit, until ``pause`` is set: there is a verdict, or something to look at."""
        vcpu, memory, exits, run = self.vcpu, self.ram_bytes, self.exits, self.engine.run
        self.pause = False
        at = vcpu.info_at  # a guest that moves it pauses the loop
        if self._resume():
            self.pass_on(run())
        if self._nmi_due:
            self.nmi_pending = False
            traps.deliver_nmi(self)
        while not self.pause:
            if memory[at] and not memory[at + 1]:
                self.deliver_upcall()
                if self.pause:
                    return
            exits[run()]()

    def _resume(self) -> bool:
        """Go on from where the guest was stopped; whether it stands between two exits, where no event comes in.

        So the guest runs the same however often it was stopped.
        """
        if self._deferred_here():
            deferred, self.deferred = self.deferred, None
            assert deferred is not None
            deferred[0]()
        mid_flight, self.mid_flight = self.mid_flight, False
        if self.overlooked:
            self.overlooked = False
            if debugregs.at_stop_point(self):
                return False
        return mid_flight and not self.pause

    def stand_still(self) -> None:
        """Stop the guest where it is, for somebody who looks on."""
        self.pause = self.mid_flight = True

    def defer(self, action: Callable[[], None]) -> None:
        """Stop the guest before what an exit asks for is done; it is done first when the guest runs on."""
        self.deferred = action, self.words[RIP], self.words[RSP]
        self.pause = True

    def _deferred_here(self) -> bool:
        """Whether an action waits for the guest to run on here: a debugger may have it run something else first."""
        return self.deferred is not None and self.deferred[1:] == (self.words[RIP], self.words[RSP])

    @property
    def _nmi_due(self) -> bool:
        return self.nmi_pending and not self.vcpu.nmi_masked

    @property
    def upcall_due(self) -> bool:
        """Whether the guest's event callback runs before its next instruction."""
        at = self.vcpu.info_at
        due = bool(self.ram_bytes[at]) and not self.ram_bytes[at + 1]
        return due and not self.mid_flight and not self._deferred_here() and not self._nmi_due

    def step(self) -> bool:
        """Run one instruction, or what it leads to (an exception, a hypercall), and stand still; whether it began."""
        words, run = self.words, self.engine.run
        self.pause = False
        if self._deferred_here():
            self._resume()
            return True
        if self.overlooked and not self._resume():
            return True
        if self._nmi_due:
            self.nmi_pending = False
            traps.deliver_nmi(self)
            if self.upcall_due:
                self.deliver_upcall()
            return True
        words[STEP] = 1
        try:
            while True:
                at = words[RIP]
                kind = run()
                if kind == Exit.STOP_POINT:
                    if debugregs.at_stop_point(self):
                        return True
                    continue
                if kind == Exit.WAITED:
                    return False
                self.mid_flight = kind == Exit.EXCEPTION and _is_onlookers(words)
                if self.mid_flight:
                    debugregs.debug_trap(self)
                    return True
                self.exits[kind]()
                if kind == Exit.DEADLINE:
                    return False
                if kind not in _MIDWAY or self.verdict is not None or words[RIP] != at:
                    return True
        finally:
            words[STEP] = 0

    def _on_stop_point(self) -> None:
        self.pass_on(Exit.STOP_POINT)

    def pass_on(self, kind: int) -> None:
        """Act on an exit at which the guest stood between two others, and on those that follow of the same sort.

        They are an onlooker's, or the host's: nothing came to pass in the guest, and no event comes in.
        """
        onlooker, run = self.stops.onlooker, self.engine.run
        while True:
            if kind == Exit.STOP_POINT:
                if onlooker is not None and onlooker.at_stop_point():
                    self.stand_still()
                    self.overlooked = True
                    return
                if debugregs.at_stop_point(self):
                    return
            elif kind == Exit.WAITED:
                self.stand_still()
                return
            elif kind == Exit.EXCEPTION and _is_onlookers(self.words):
                if debugregs.debug_trap(self):
                    return
            else:
                break
            kind = run()
        self.exits[kind]()

    def _on_waited(self) -> None:
        self.pause = True

    def _on_deadline(self) -> None:
        self.pause = True
        self.mid_flight = not self.fire_timers()

    # -- time

    def fire_timers(self) -> bool:
        """Act on every timer that is due; whether one was."""
        due = self.clock.due()
        for name in due:
            _TIMERS[name](self)
        if runstate.event_came(self):
            runstate.wake(self)
        if due:
            self.mid_flight = False
        return bool(due)

    def _polled_port(self, port: int) -> None:
        """A port became pending: SCHEDOP_poll may be waiting for it."""
        if port in self.vcpu.polling:
            runstate.wake(self)

    # -- devices

    def backend_notified(self) -> None:
        """Back ends have something to do: they run elsewhere, a little later, and take what they find in one go."""
        if "backends" not in self.clock.timers:
            self.clock.arm("backends", self.clock.now + _BACKEND_DELAY)

    def run_backends(self) -> bool:
        """Let the back ends move what waits; whether anything did."""
        moved = self.console.service()
        moved = self.xenstore.service() or moved
        for vbd in self.vbds:
            moved = vbd.service() or moved
        if moved:
            self.mid_flight = False
        return moved

    def flush_tlb(self) -> None:
        """Drop every translation on the way back to the guest."""
        self.words[FLUSH] = 1

    # -- ends

    def note(self, text: str) -> None:
        """A line in the log, with the hypercall that follows."""
        self.log.note(self.clock.now, self.words[RIP], text)

    def not_there(self, number: int, operation: int | None = None) -> int:
        """Count a hypercall, or an operation of one, that nobody handles: -ENOSYS."""
        name = _NAMES.get(number, str(number))
        name = name if operation is None else f"{name}:{operation}"
        if name not in self.unimplemented and len(self.unimplemented) >= _MOST_NAMES:
            name = "others"
        self.unimplemented[name] += 1
        self.refusal = f"there is no {_NAMES.get(number, 'hypercall')} {number if operation is None else operation}"
        return -ENOSYS

    def continue_later(self, number: int, *arguments: int) -> int:
        """Have the guest make the rest of a long hypercall by itself (hypercall_create_continuation).

        Inside a multicall the rest goes into the entry, and the multicall is what is made again.
        """
        if self.in_multicall:
            self.rest = tuple(value & U64 for value in arguments)
            return 0
        words = self.words
        words[RIP] = (words[RIP] - 2) & U64
        registers, mask = _ARGUMENTS[self.domain.bits]
        for register, value in zip(registers, arguments, strict=False):
            words[register] = value & mask
        self.pause = True
        return number

    def shutdown(self, reason: int) -> None:
        """SCHEDOP_shutdown with a reason of Xen's, or another number that the guest made up.

        A reason that was set before stays (domain_shutdown).
        """
        if self.shutdown_code is None:
            self.shutdown_code = reason
        self._end(of_shutdown(self.shutdown_code))

    def crash(self, reason: str, address: int | None = None) -> None:
        """Crash the domain, as Xen does, with what led to it."""
        from stub.hypervisor.report import describe_crash

        self.pause = True
        if self.verdict is None:
            self._end(Verdict("crash", reason, tuple(describe_crash(self, address))))

    def _end(self, verdict: Verdict) -> None:
        """The domain is no more: whoever watches for that is told, as by VIRQ_DOM_EXC."""
        self.verdict = verdict
        self.pause = True
        self.xenstore.store.released()


def _tick(xen: Hypervisor) -> None:
    xen.events.raise_virq(VIRQ_TIMER)


def _tick_again(xen: Hypervisor) -> None:
    xen.clock.arm("periodic", xen.clock.now + xen.period)
    _tick(xen)


def _renew_time(xen: Hypervisor) -> None:
    runstate.update_time(xen)
    xen.clock.arm("time", xen.clock.now + runstate.TIME_UPDATE)


def _bite(xen: Hypervisor) -> None:
    xen.shutdown(sched.SHUTDOWN_watchdog)


_TIMERS: Mapping[str, Callable[[Hypervisor], object]] = {
    "singleshot": _tick,
    "periodic": _tick_again,
    "time": _renew_time,
    "backends": Hypervisor.run_backends,
    "poll": runstate.wake,
    "watchdog 1": _bite,
    "watchdog 2": _bite,
}
"""What each timer of the clock does when it is due."""
