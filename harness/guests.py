"""From a marker's or a call's parameters to a guest: its files found, its memory admitted, its machine made."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stub.errors import ImageError, UsageError

from .admission import Lease, MemoryBudget
from .machine import NS_PER_SECOND, Launch, MachineLike, RunLimits, VerdictLike

if TYPE_CHECKING:
    from stub.domain.config import DomainConfig

    from .catalogue import CatalogueImage
    from .console import GuestConsole
    from .hypercalls import Hypercalls
    from .pagetables import PageTables
    from .xenstore import XenStore

DEFAULT_MEMORY = 256


@dataclass(frozen=True)
class GuestSpec:
    """What a test asks for. None is the image's own value, or pvstub's.

    ``image``: a catalogue name, or the path of a kernel file or of a configuration of xl's or xm's. ``memory`` in MiB.
    ``cmdline`` replaces the image's command line, ``extra`` is added to it. ``ramdisk`` replaces the image's; ``files``
    (path in the guest → text, bytes or a host file) are added to it, all executable. ``epoch``: the guest's time of day
    at the start, seconds since 1970. ``on_reboot``: ``destroy``, ``restart`` or another action. ``compat``: ``xen-3``.
    ``cpuid``: features of the CPU that it does not have, as in ``host,avx=0``.
    ``audit``: after how many hypercalls the invariants of the guest's memory are looked at, again and again; the first
    that is broken ends the run. ``disks`` (as ``PATH,xvda,w``) and ``faults`` are what ``pvstub boot`` takes with
    ``--disk`` and ``--fault``.
    """

    image: str | Path = ""
    memory: int | None = None
    cmdline: str | None = None
    extra: str = ""
    ramdisk: str | Path | bytes | None = None
    files: Mapping[str, str | bytes | Path] = field(default_factory=dict)
    seed: int | None = None
    p2m: str | None = None
    epoch: int | None = None
    on_reboot: str | None = None
    compat: str | None = None
    cpuid: str | None = None
    audit: int | None = None
    disks: Sequence[str] = ()
    faults: Sequence[str] = ()

    def changed(self, **changes: Any) -> GuestSpec:
        """The same with some parameters changed. UsageError for a name that is not a parameter."""
        known = [parameter.name for parameter in fields(self)]
        for name in changes:
            if name not in known:
                raise UsageError(f"guest({name}=…): no such parameter; there are {', '.join(known)}")
        return replace(self, **changes)


class ImageLaunch:
    """The real thing: a :class:`~harness.machine.Launch` of ``stub.machine.Machine``. Fetches the image when made."""

    def __init__(self, spec: GuestSpec) -> None:
        from . import catalogue

        if not spec.image:
            raise UsageError('no image: name one, as in @pytest.mark.guest(image="debian-cloud") or guest(image=…)')
        self._spec = spec
        known = None if isinstance(spec.image, Path) else catalogue.resolve(spec.image)
        if known is None and not Path(spec.image).is_file():
            near = None if isinstance(spec.image, Path) else catalogue.suggest(spec.image)
            hint = f"did you mean {near}?" if near else "give a catalogue name (pvstub images list) or a kernel file"
            raise ImageError(f"{spec.image}: no such image or file; {hint}")
        self._config, known = _described(spec.image, known)
        self.kernel = self._config.kernel
        self.memory = spec.memory or self._config.memory
        own = self._config.cmdline
        self.cmdline = " ".join(filter(None, (own if spec.cmdline is None else spec.cmdline, spec.extra)))
        self._provenance = {"name": known.name, "version": known.version} if known else {}

    def ramdisk(self, run_directory: Path) -> Path | None:
        """The ramdisk's file; written into ``run_directory`` when it is made up for this guest."""
        from . import catalogue

        base, made = self._spec.ramdisk, run_directory / "ramdisk.img"
        if isinstance(base, bytes):
            made.write_bytes(base)
            base = made
        own = self._config.ramdisk
        assert not isinstance(own, bytes)  # no file says so
        path = own if base is None else Path(base)
        if self._spec.files:
            files = {name: data.encode() if isinstance(data, str) else data for name, data in self._spec.files.items()}
            made.write_bytes(catalogue.ramdisk_with(path or Path("/dev/null"), files))
            path = made
        return path

    def command(self, run_directory: Path) -> list[str]:
        """``pvstub boot …`` for the same guest; names the run folder's ramdisk when the guest has one of its own."""
        spec, made = self._spec, run_directory / "ramdisk.img"
        ramdisk = made if made.exists() else spec.ramdisk
        options = {
            "--memory": self.memory,
            "--cmdline": self.cmdline,
            "--ramdisk": ramdisk,
            "--seed": spec.seed,
            "--p2m": spec.p2m,
            "--epoch": spec.epoch,
            "--on-reboot": spec.on_reboot,
            "--compat": spec.compat,
            "--cpuid": spec.cpuid,
            "--audit": spec.audit,
        }
        words = [f"{option}={value}" for option, value in options.items() if value is not None]
        words += [f"--disk={disk}" for disk in spec.disks] + [f"--fault={fault}" for fault in spec.faults]
        return ["pvstub", "boot", str(spec.image), *words]

    def start(self, run_directory: Path, limits: RunLimits) -> MachineLike:
        """Make the machine."""
        from stub.domain.cpuidoption import parse_cpuid
        from stub.domain.diskoption import parse_disks
        from stub.machine import Limits, Machine

        from .cache import cache_folder

        optional = ("seed", "p2m", "epoch", "on_reboot", "compat")
        chosen: dict[str, Any] = {name: getattr(self._spec, name) for name in optional}
        chosen["without"] = parse_cpuid(self._spec.cpuid) if self._spec.cpuid is not None else None
        config = replace(
            self._config,
            ramdisk=self.ramdisk(run_directory),
            cmdline=self.cmdline,
            memory=self.memory,
            disks=(*self._config.disks, *parse_disks(self._spec.disks, self._config.disks)),
            faults=tuple(self._spec.faults),
            **{name: value for name, value in chosen.items() if value is not None},
        )
        virtual_ns = None if limits.virtual is None else round(limits.virtual * NS_PER_SECOND)
        return Machine(
            config,
            run_directory,
            Limits(virtual_ns, limits.instructions, limits.wall),
            cache=cache_folder() / "kernels",
            provenance=self._provenance,
            audit=self._spec.audit,
        )


def _described(image: str | Path, known: CatalogueImage | None) -> tuple[DomainConfig, CatalogueImage | None]:
    """What an image, a kernel file or a configuration file says of its guest; and the image, which a file may name."""
    from stub.asked import complete
    from stub.domain.config import DomainConfig
    from stub.domain.guestfile.reader import is_one, read

    path = Path(image)
    if known is not None:
        files = (known.kernel, path.name, known.ramdisk)
        return DomainConfig(*files, cmdline=known.cmdline, memory=known.memory), known
    if is_one(path):
        guest, named = complete(read(path))
        return guest.config, named
    return DomainConfig(kernel=path, name=path.name, memory=DEFAULT_MEMORY), None


class WrongVerdict(AssertionError):
    """A guest's run ended in another way than the test asked for, or not at all."""


@dataclass
class GuestHouse:
    """What all guests of one test share: where they get a folder, memory and a machine, and what bounds them.

    ``reserve`` in MiB is taken from the budget in one go, for all guests of the test together; 0 takes memory guest
    by guest. ``timeout`` is the consoles' default, in virtual seconds.
    """

    who: str
    launch: Callable[[GuestSpec], Launch]
    budget: MemoryBudget
    new_run_directory: Callable[[], Path]
    limits: RunLimits
    timeout: float
    reserve: int = 0
    started: list[Guest] = field(default_factory=list)
    announce: Callable[[Guest], None] = lambda guest: None
    _reserved: Lease | None = None

    def admit(self, memory: int) -> Lease | None:
        """Wait for ``memory`` MiB; None when the test's reservation covers them."""
        if self.reserve and self._reserved is None:
            self._reserved = self.budget.acquire(self.reserve, self.who)
        if sum(guest.memory for guest in self.started) + memory <= self.reserve:
            return None
        if self.reserve:
            raise UsageError(f"{self.who}: its guests need more than the {self.reserve} MiB of pv_limits(memory=…)")
        return self.budget.acquire(memory, self.who)

    def close(self) -> None:
        """Close all guests and give their memory back."""
        with ExitStack() as stack:
            if self._reserved is not None:
                stack.callback(self._reserved.release)
            for guest in self.started:
                stack.callback(guest.close)


class Guest:
    """A guest in a test. Nothing happens until something of it is asked for; then its machine is made.

    It runs only inside :meth:`wait`, :meth:`run` and the console's ``expect`` family. Calling it gives another guest
    with the same parameters but those changed: ``guest(memory=64)``.
    """

    def __init__(self, house: GuestHouse, spec: GuestSpec) -> None:
        self.spec = spec
        self._house = house
        self._machine: MachineLike | None = None
        self._lease: Lease | None = None
        self._last_registers: dict[str, int] | None = None
        self._ended_at = (0, 0)

    def __call__(self, image: str | Path | None = None, **changes: Any) -> Guest:
        """Another guest: this one's parameters, with changes."""
        return Guest(self._house, self.spec.changed(**changes, **({} if image is None else {"image": image})))

    # -- life --------------------------------------------------------------------------------------------------

    @cached_property
    def launch(self) -> Launch:
        """The guest's files and size; fetches its image."""
        return self._house.launch(self.spec)

    @cached_property
    def run_directory(self) -> Path:
        """The folder that this run writes: console.log, hypercalls, summary.json."""
        return self._house.new_run_directory()

    @property
    def machine(self) -> MachineLike:
        """The machine, made at the first use: waits for memory, then gives the guest its start of day."""
        if self._machine is None:
            self._lease = self._house.admit(self.launch.memory)
            try:
                self._machine = self.launch.start(self.run_directory, self._house.limits)
            except BaseException:
                self._release()
                raise
            self._house.started.append(self)
            self._house.announce(self)
        return self._machine

    def close(self) -> None:
        """End the run where it stands and give its memory back. What it wrote can still be read."""
        if self._last_registers is None and self._machine is not None:
            self._last_registers = self._machine.registers()
            self._ended_at = self._machine.now_ns, len(self._machine.console.output)
        if "hypercalls" in vars(self):
            self.hypercalls.close()
        try:
            if self._machine is not None:
                self._machine.close()
        finally:
            self._release()

    def leave_artefact(self, path: Path) -> None:
        """Write the file from which ``pvstub replay`` boots it again; the guest is closed. UsageError if it cannot."""
        from stub.machine import Machine

        from . import artefact

        if not isinstance(self._machine, Machine):
            raise UsageError("a machine of the test's own leaves no artefact")
        artefact.write(path, self._machine, self._ended_at)

    def _release(self) -> None:
        if self._lease is not None:
            self._lease.release()

    # -- what a test uses --------------------------------------------------------------------------------------

    @cached_property
    def console(self) -> GuestConsole:
        """Expect on its console."""
        from .console import GuestConsole

        return GuestConsole(lambda: self.machine, self._house.timeout)

    @cached_property
    def hypercalls(self) -> Hypercalls:
        """Questions to its hypercall log."""
        from .hypercalls import Hypercalls

        return Hypercalls.of(self)

    @cached_property
    def pagetables(self) -> PageTables:
        """Its page tables."""
        from .pagetables import PageTables

        return PageTables.of(self)

    @cached_property
    def xenstore(self) -> XenStore:
        """Its XenStore."""
        from .xenstore import XenStore

        return XenStore.of(self, self._house.timeout)

    @property
    def memory(self) -> int:
        """Its memory in MiB."""
        return self.launch.memory

    @property
    def now(self) -> float:
        """Virtual seconds since its start."""
        return self.machine.now_ns / NS_PER_SECOND

    @property
    def verdict(self) -> VerdictLike | None:
        """How its run ended; None while it can go on."""
        return self.machine.verdict

    @property
    def rerun(self) -> str:
        """The shell command that boots the same guest without pytest."""
        return shlex.join(self.launch.command(self.run_directory))

    def registers(self) -> dict[str, int]:
        """Its registers; once it is closed, those that it had then."""
        return self.machine.registers() if self._last_registers is None else self._last_registers

    def run(self, seconds: float) -> VerdictLike | None:
        """Run for ``seconds`` of virtual time; the verdict if that was the end of it."""
        machine = self.machine
        return machine.run(deadline_ns=machine.now_ns + round(seconds * NS_PER_SECOND))

    def wait(self, kind: str | None = None, timeout: float | None = None) -> VerdictLike:
        """Run to the verdict, at most ``timeout`` virtual seconds (None: as far as its limits let it).

        WrongVerdict when there is none by then, or when it is not of the ``kind`` that is given.
        """
        __tracebackhide__ = True
        machine = self.machine
        machine.run(deadline_ns=None if timeout is None else machine.now_ns + round(timeout * NS_PER_SECOND))
        verdict = machine.verdict
        if verdict is None:
            raise WrongVerdict(f"the guest still runs at {self.now:.3f} virtual seconds, after {timeout} of waiting")
        if kind is not None and verdict.kind != kind:
            details = "".join(f"\n    {line}" for line in verdict.details)
            raise WrongVerdict(f"expected {kind} but at {self.now:.3f} s: {verdict.kind}: {verdict.reason}{details}")
        return verdict
