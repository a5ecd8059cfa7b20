"""The guest of ``images/tests/hostile/rounds`` on a machine that is watched: what no guest may bring about.

The guest makes rounds of hypercalls, stores and instructions from a seed, then tells how many, and ends. While it
runs, every hypercall that the hypervisor decides is timed, and every so many are followed by an audit. Afterwards the
frames that the guest never had are compared with what they held before.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness import small_guests
from stub.domain.config import DomainConfig
from stub.domain.xenarea import LDT_SLOT
from stub.engine.base import Exit
from stub.hypervisor.audit import audit
from stub.machine import Limits, Machine
from stub.memory import entries as e
from stub.memory.frames import GUEST
from stub.units import PAGE_SIZE, pages

FOLDER = small_guests.TESTS / "hostile" / "rounds"
LIMITS = Limits(instructions=400_000_000, wall_s=300)  # a guest's rounds take a tenth of that
AUDIT_EVERY = 200  # hypercalls

# How the domain may end, by the last act that the guest announced: (verdict, a part of its reason).
LAST_ACTS = {
    "shutdown": ("poweroff", "powered off"),
    "vcpu-down": ("poweroff", "powered off"),
    "crash": ("crash", "SHUTDOWN_crash"),
    "iret-from-nowhere": ("crash", "while reading the iret frame"),
    "iret-to-nobody": ("crash", "without a user page table"),
    "iret-to-xen": ("crash", "iret to ring 0"),
    "no-handlers": ("crash", "the guest has no handler for it"),
    "no-stack": ("crash", "on the kernel stack"),
    "no-kernel": ("crash", "on the kernel stack"),
}
_ACCESSED_DIRTY = np.uint64(e.A | e.D)
_TOTAL = re.compile(r"(\w+) (\d+)")
_ACT = re.compile(r"^last act: ([\w-]+)\r?$", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """What came of a seed: the guest's own totals by name, the hypercalls logged, the longest of them in seconds."""

    totals: dict[str, int]
    logged: int
    longest: float

    @property
    def attempts(self) -> int:
        """Hypercalls, stores, privileged instructions and frames for iret that were made up from the seed."""
        return sum(self.totals[name] for name in ("calls", "stores", "pieces", "excursions", "irets"))


class Frames:
    """The frames that are not the guest's at its start, with their content; and which it had in the meantime."""

    def __init__(self, made: Machine) -> None:
        self._domain = domain = made.xen.domain
        frames = domain.frames
        self._foreign = np.flatnonzero(frames.np_owner != GUEST)
        self._before = domain.ram.table[self._foreign].copy()
        self._had = frames.np_owner == GUEST
        self._m2p = domain.area.m2p.copy()
        give_one, share = frames.give_one, frames.share

        def given(mfn: int) -> None:
            self._had[mfn] = True
            give_one(mfn)

        def shared(mfn: int) -> None:
            self._had[mfn] = True
            share(mfn)

        frames.give_one, frames.share = given, shared  # type: ignore[method-assign]

    def changed(self, made: Machine) -> list[str]:
        """What was written to that the guest never had, but for what Xen itself keeps there; one line for each."""
        domain, area = self._domain, self._domain.area
        after = domain.ram.table[self._foreign]
        differs = (after & ~_ACCESSED_DIRTY) != (self._before & ~_ACCESSED_DIRTY)
        first = area.m2p_word // e.ENTRIES
        m2p = (self._foreign >= first) & (self._foreign < first + len(area.m2p) // e.ENTRIES)
        own = m2p | np.isin(self._foreign, self._compat_frames()) | self._had[self._foreign]
        own |= np.isin(self._foreign, [area.per_domain_l1, area.monitor])
        found = [f"frame {mfn:#x} was written to" for mfn in self._foreign[differs.any(axis=1) & ~own].tolist()]
        stray = np.flatnonzero(area.m2p != self._m2p)
        stray = stray[~np.isin(stray, np.flatnonzero(self._had))]
        found += [f"the M2P of frame {mfn:#x} was changed" for mfn in stray.tolist()]
        compat = domain.frames.compat_m2p
        if compat is not None and (compat != (area.m2p[: len(compat)] & np.uint64(0xFFFFFFFF))).any():
            found.append("the two M2Ps differ")
        return found + self._per_domain(made)

    def _compat_frames(self) -> range:
        """The frames that hold the M2P as a 32-bit guest sees it."""
        compat = self._domain.frames.compat_m2p
        if compat is None:
            return range(0)
        first = (compat.ctypes.data - self._domain.ram.table.ctypes.data) // PAGE_SIZE
        return range(first, first + pages(compat.nbytes))

    def _per_domain(self, made: Machine) -> list[str]:
        """What is wrong with the page that maps the GDT and the LDT: only frames that are held for it may be there."""
        area, xen = self._domain.area, made.xen
        row: npt.NDArray[np.uint64] = self._domain.ram.table[area.per_domain_l1]
        before = self._before[self._foreign.tolist().index(area.per_domain_l1)]
        wanted = {slot: int(value) >> 12 for slot, value in enumerate(before.tolist())}
        wanted |= dict(enumerate(xen.vcpu.gdt_frames)) | {LDT_SLOT + page: mfn for page, mfn in xen.ldt_frames.items()}
        return [
            f"slot {slot} of the per-domain area leads to frame {int(value) >> 12:#x}"
            for slot, value in enumerate(row.tolist())
            if int(value) >> 12 != wanted[slot]
        ]


class Stopwatch:
    """The longest time, of this thread alone, that any hypercall took."""

    def __init__(self, made: Machine) -> None:
        self.longest = 0.0
        onlookers = made.xen.onlookers

        def timed() -> None:
            began = time.thread_time()
            onlookers.act(Exit.SYSCALL)
            self.longest = max(self.longest, time.thread_time() - began)

        onlookers.stand_in_front(Exit.SYSCALL, timed)


def machine(kernel: Path, seed: int, rounds: int) -> Machine:
    """A machine for a seed, with nothing kept on disk, audited as it runs."""
    config = DomainConfig(kernel=kernel, memory=small_guests.MEMORY, cmdline=f"all {seed} {rounds}")
    return Machine(config, None, LIMITS, audit=AUDIT_EVERY)


def live(kernel: Path, seed: int, rounds: int) -> Outcome:
    """Run a seed to its end, which has to be the one that the guest announced, and look at what it left."""
    with machine(kernel, seed, rounds) as made:
        frames, watch = Frames(made), Stopwatch(made)
        verdict = made.run()
        assert verdict is not None
        console = made.xen.console.output.decode(errors="replace")
        told = _ACT.search(console)
        assert told, f"seed {seed}: it ended before it was at the end: {verdict}\n{console}"
        kind, reason = LAST_ACTS[told[1]]
        assert verdict.kind == kind, f"seed {seed}: {verdict}\n{console}"
        assert reason in verdict.reason, f"seed {seed}: {verdict}"
        wrong = [*map(str, audit(made.xen)), *frames.changed(made)]
        assert not wrong, f"seed {seed}: {wrong[:10]}"
        totals = {name: int(count) for name, count in _TOTAL.findall(console[: told.start()])}
        return Outcome(totals, sum(made.log.counts()["hypercalls"].values()), watch.longest)
