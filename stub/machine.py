"""A guest from its files to its verdict: what the command, the harness and the tests hold on to.

``Machine`` puts the parts together, runs the guest only while ``run`` is being called, keeps the run's folder
(console.log, xenstore.log, hypercalls, summary.json), and decides when a run is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

from stub.abi.cpufeatureset import remaining
from stub.devices.console import Console
from stub.domain.builder import build
from stub.domain.config import DomainConfig
from stub.domain.domain import Domain
from stub.engine import choice
from stub.engine.base import CS, NEVER, PATIENCE, RETIRED, RIP
from stub.errors import PvstubError, UsageError
from stub.hypervisor import runstate, segments
from stub.hypervisor.audit import Auditor
from stub.hypervisor.clock import SECOND
from stub.hypervisor.deaths import Deaths, write_core
from stub.hypervisor.disks import Disks
from stub.hypervisor.report import describe_state, registers
from stub.hypervisor.snapshots import Place, Snapshots
from stub.hypervisor.start import start
from stub.hypervisor.verdict import Verdict
from stub.hypervisor.xen import Hypervisor
from stub.image import load_image
from stub.inputs import Inputs, Typed
from stub.limits import Limits
from stub.runfiles import RunFiles, config_facts, identity, image_facts, verdict_facts
from stub.trace import summary
from stub.trace.pagetables.moments import Moment
from stub.trace.pagetables.snapshot import Snapshot
from stub.trace.text import stamp
from stub.trace.writer import HypercallLog

_SLICE = 20_000_000  # instructions between looks at the wall clock and at signals
_REALTIME_SLICE = 1_000_000
_UNLIMITED = Limits()


class Machine:
    """One guest. ``on_output`` is called with each piece of console output; ``provenance`` goes into the summary.

    ``snapshots``: when to keep a snapshot of its page tables in the run's folder. ``audit``: after how many hypercalls
    all invariants of its memory are looked at, again and again. ``core``: where its core file goes; given, one is
    written at the run's end, else only if the configuration asks for it, into the run's folder.
    """

    def __init__(
        self,
        config: DomainConfig,
        run_directory: Path | None = None,
        limits: Limits = _UNLIMITED,
        *,
        cache: Path | None = None,
        on_output: Callable[[bytes], None] | None = None,
        provenance: Mapping[str, str] | None = None,
        snapshots: Sequence[Moment] = (),
        audit: int | None = None,
        core: Path | None = None,
    ) -> None:
        if config.realtime:
            config = replace(config, epoch=int(time.time()))
        self.config = config
        self.limits = limits
        self.run_directory = run_directory
        self._provenance = dict(provenance or {})
        self._on_output = on_output
        self._image = load_image(config.kernel, cache=cache)
        domain = self._built()  # what cannot be built leaves no run behind
        self._disks = Disks(config.disks, config.faults)
        self._files = RunFiles(run_directory)
        said = identity(domain)
        self.log = HypercallLog(run_directory / "hypercalls" if run_directory else None, identity=said)
        self._audit = audit
        self.deaths = Deaths(run_directory, core)
        self.verdict: Verdict | None = None
        self.boots = 0
        self._output = bytearray()
        self.typed: list[Typed] = []
        self._fresh_output = False
        self._started_at = time.monotonic()
        self._wall_zero = self._turned_at = time.monotonic_ns()
        self._done_ns = self._done_instructions = 0
        self._closed = False
        self.hold: Callable[[Verdict], bool] = lambda _: False
        self.held: Verdict | None = None
        self.lent: Callable[[], str | None] = lambda: None
        try:
            self.snapshots = Snapshots(self.log, run_directory, said, self._place)
            for moment in snapshots:
                self.snapshots.add(moment, self.snapshots.take)
            self._disks.keep_changes(run_directory)
            self._boot(domain)
        except BaseException:  # an interrupt, too: the log's lock and the guest's memory must not stay behind
            self._let_go()
            raise

    def _let_go(self) -> None:
        """Release what the host gave, all of it whatever happens on the way."""
        with ExitStack() as parts:
            if hasattr(self, "xen"):
                parts.callback(self.xen.close)
            parts.callback(self._disks.close)
            parts.callback(self._files.close)
            parts.callback(self.log.close)
            if hasattr(self, "snapshots"):
                parts.callback(self.snapshots.close)

    def _built(self) -> Domain:
        return build(self._image, self.config, choice.hidden_frames(self.config.engine))

    def _boot(self, domain: Domain) -> None:
        def is_64bit() -> bool:
            return segments.is_64bit_code(self.xen, engine.words[CS])

        ram, entries = domain.ram, domain.area.engine_entries
        name, accel = self.config.engine, self.config.accel
        wanted = remaining(self.config.without)
        engine = choice.make(name, accel, wanted, ram.map, ram.file, entries, domain.guest.read_available, is_64bit)
        self.xen = Hypervisor(domain, engine, self.log, self._output_came, self._disks)
        self.xen.console.output, self.xen.console.on_typed = self._output, self._typed_came
        if self.run_directory is not None:
            self.xen.xenstore.wire.on_traffic = self._store_said
        start(self.xen)
        self.boots += 1
        self.snapshots.watch(self.xen)
        if self._audit:
            Auditor(self.xen, self._audit)

    def _output_came(self, data: bytes) -> None:
        self._files.keep(data)
        self.prompt()
        if self._on_output is not None:
            self._on_output(data)

    def _typed_came(self, data: bytes) -> None:
        self.typed.append(Typed(self.now_ns, len(self._output), data))

    def _store_said(self, line: str) -> None:
        self._files.keep_traffic(f"{stamp(self.now_ns)} d{self.xen.domain.domid} {line}")

    def prompt(self) -> None:
        """Have :meth:`run` ask its ``until`` soon: what it waits for may have come to pass."""
        self._fresh_output = self.xen.pause = True

    # -- state

    @property
    def console(self) -> Console:
        """The guest's console: ``output`` so far, ``send`` to type."""
        return self.xen.console

    @property
    def now_ns(self) -> int:
        """Virtual time since the first boot, in ns."""
        return self._done_ns + self.xen.clock.now

    @property
    def retired(self) -> int:
        """Instructions retired since the first boot."""
        return self._done_instructions + self.xen.words[RETIRED]

    def inputs(self) -> Inputs:
        """What this run depends on, so far."""
        return Inputs(self.config, self.limits.virtual_ns, self.limits.instructions, self._audit, self.typed)

    def registers(self) -> dict[str, int]:
        """The vCPU's registers by name."""
        return registers(self.xen)

    # -- running

    def run(self, *, deadline_ns: int | None = None, until: Callable[[], bool] | None = None) -> Verdict | None:
        """Run to a verdict, to virtual time ``deadline_ns`` or until ``until()``, asked after each console output.

        UsageError while somebody else runs it, as ``lent()`` says.
        """
        driver = self.lent()
        if driver is not None:
            raise UsageError(f"{driver} runs this guest: continue it there, or detach first")
        if self.verdict is not None and self.verdict.kind == "deadlock" and self._woken:
            self.verdict = self.xen.verdict = None
        while self.verdict is None:
            if deadline_ns is not None and self.now_ns >= deadline_ns:
                break
            if self._fresh_output:
                self._fresh_output = False
                if until is not None and until():
                    break
            self.turn(deadline_ns)
        return self.verdict

    @property
    def _woken(self) -> bool:
        """Whether something from outside waits for a guest that was blocked for good: typed text, a changed value."""
        return self.console.has_input or not runstate.sleeps_for_good(self.xen)

    def turn(
        self,
        deadline_ns: int | None = None,
        *,
        act: Callable[[], object] | None = None,
        instructions: int = _SLICE,
        patience_ns: int = 0,
    ) -> None:
        """Run the engine (or do ``act`` instead), or let time pass, until the next thing to look at.

        That is after about ``instructions`` at the latest, and ``patience_ns`` of wall time if that is not 0. A verdict
        that ``hold`` holds back is in ``held``, and the guest is as it was then, until :meth:`let_end`.
        """
        xen = self.xen
        vcpu, clock = xen.vcpu, xen.clock
        deadline_ns = self.snapshots.deadline(deadline_ns)
        self._set_limits(deadline_ns, instructions)
        xen.words[PATIENCE] = time.monotonic_ns() + patience_ns if patience_ns else 0
        if vcpu.blocked:
            self._idle(deadline_ns)
        elif act is not None:
            act()
        else:
            xen.run()
        self.snapshots.passed(self.now_ns)
        if xen.verdict is not None:
            if self.hold(xen.verdict):
                self.held = xen.verdict
                return
            self._end(xen.verdict)
            self._check_limits()
            return
        if self.config.realtime:
            self._turned_at = time.monotonic_ns()
            self._follow_wall_clock()
        self._check_limits()
        clock.slice(NEVER)

    def let_end(self) -> None:
        """Let a verdict that was held back take effect."""
        held, self.held = self.held, None
        if held is not None:
            self._end(held)

    def stood_still(self) -> None:
        """The guest was stopped since its last turn on purpose: with --realtime its clock does not make up for it."""
        if self.config.realtime:
            self._wall_zero += time.monotonic_ns() - self._turned_at

    def reboot(self) -> None:
        """Boot the guest again, with its files as they are now; time and the log go on."""
        domain = self._built()  # what cannot be built leaves the guest as it is
        self._done_ns, self._done_instructions = self.now_ns, self.retired
        self.xen.close()
        self.verdict = self.held = None
        self._boot(domain)

    def _set_limits(self, deadline_ns: int | None, instructions: int) -> None:
        clock, limits = self.xen.clock, self.limits
        ends = [t for t in (deadline_ns, limits.virtual_ns) if t is not None]
        clock.limit(max(min(ends) - self._done_ns, 0) if ends else NEVER)
        end = self.xen.words[RETIRED] + min(instructions, _REALTIME_SLICE if self.config.realtime else instructions)
        if limits.instructions is not None:
            end = min(end, max(limits.instructions - self._done_instructions, 0))
        clock.slice(end)

    def _check_limits(self) -> None:
        if self.verdict is None:
            passed = self.limits.passed(self.now_ns, self.retired, time.monotonic() - self._started_at)
            if passed is not None:
                self._stop(*passed)

    def _stop(self, kind: str, reason: str) -> None:
        """End the run from outside, saying what the guest was doing."""
        self._end(Verdict(kind, reason, tuple(describe_state(self.xen))))

    def _idle(self, deadline_ns: int | None) -> None:
        """Every vCPU is blocked: pass the time to the next thing that can wake one."""
        xen, clock = self.xen, self.xen.clock
        if xen.console.has_input:
            xen.run_backends()
        if runstate.event_came(xen):
            runstate.wake(xen)
            return
        if runstate.sleeps_for_good(xen):
            if self.config.realtime:
                time.sleep(0.01)
                return
            self._stop("deadlock", "every vCPU is blocked and nothing is due that could wake one")
            return
        runstate.sleep(xen)
        ends = [t - self._done_ns for t in (deadline_ns, self.limits.virtual_ns) if t is not None]
        target = min([clock.next_event, *ends])
        if self.config.realtime:
            ahead = target - (time.monotonic_ns() - self._wall_zero - self._done_ns)
            if ahead > 0:
                pause = min(ahead, 10_000_000)
                time.sleep(pause / SECOND)
                clock.jump_to(clock.now + pause)
                xen.fire_timers()
                return
        clock.jump_to(target)
        xen.fire_timers()

    def _follow_wall_clock(self) -> None:
        """With --realtime the guest's clock is never behind the host's."""
        self.xen.clock.jump_to(time.monotonic_ns() - self._wall_zero - self._done_ns)

    # -- page tables

    def _place(self) -> Place:
        return Place(self.now_ns, self.retired, self.boots)

    def snapshot_at(self, moment: Moment) -> Snapshot | None:
        """Run to a moment and take a snapshot of it; None if the verdict comes first."""
        taken: list[Snapshot] = []

        def take(moment: Moment) -> None:
            taken.append(self.snapshots.take(moment))
            self.prompt()

        self.snapshots.add(moment, take)
        try:
            self.run(until=lambda: bool(taken))
        finally:
            self.snapshots.remove(moment)
        return taken[0] if taken else None

    # -- the end

    def _end(self, verdict: Verdict) -> None:
        self.xen.run_backends()
        ended = self.deaths.follow(self.xen, verdict, self.boots)
        if ended is None:
            self.reboot()
            return
        self.verdict = ended

    def dump_core(self, path: Path) -> None:
        """Write the guest as it is now to a core file, in Xen's format; UsageError when that cannot be."""
        write_core(self.xen, path)

    def interrupt(self, reason: str = "interrupted by the user") -> None:
        """End the run because somebody said so."""
        if self.verdict is None:
            self._stop("interrupted", reason)

    def leave(self) -> None:
        """End the run because the person at the console has seen enough."""
        if self.verdict is None:
            self._end(Verdict("interrupted", "left by Ctrl-]"))

    def summarise(self) -> dict[str, Any]:
        """What summary.json holds."""
        xen = self.xen
        return summary.build(
            pvstub=metadata.version("pvstub"),
            engine=xen.engine.name,
            image=image_facts(xen.domain, self._provenance),
            config=config_facts(self.config, self._disks.described),
            verdict=verdict_facts(self.verdict),
            virtual_ns=self.now_ns,
            retired=self.retired,
            wall_s=time.monotonic() - self._started_at,
            counts=self.log.counts(),
            unimplemented=xen.unimplemented,
            digests={"console": self._files.digest.hexdigest(), "hypercalls": self.log.digest()},
            **({} if self.config.realtime else {"inputs": self.inputs().as_object()}),
        )

    def close(self) -> None:
        """Write the summary and let go of everything."""
        if self._closed:
            return
        self._closed = True
        verdict = self.verdict
        try:
            if verdict is not None:
                self.log.end(self.now_ns, self.xen.words[RIP], verdict.kind, verdict.reason, verdict.exit_status)
            if self.run_directory is not None:
                summary.write(self.run_directory / summary.FILE_NAME, self.summarise())
            self.snapshots.ended()
        finally:
            self._let_go()

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


__all__ = ["Limits", "Machine", "PvstubError", "Verdict"]
