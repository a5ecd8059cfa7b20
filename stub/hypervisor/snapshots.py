"""When the guest's page tables are looked at, and what the hypervisor knows of them then.

To look changes nothing: a run with snapshots is the run without. For a hypercall's number the run loop's own handler
is wrapped, and the reflexes, which answer some hypercalls out of its sight, are off until the number is reached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stub.engine.base import RIP
from stub.errors import UsageError
from stub.memory.frames import GUEST, PINNED
from stub.trace.pagetables.moments import NOW, Moment, Root
from stub.trace.pagetables.snapshot import Facts, Snapshot, capture
from stub.trace.pagetables.store import Keeper
from stub.trace.writer import HypercallLog
from stub.units import PAGE_SHIFT

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor


class Place(NamedTuple):
    """How far a run has come, over all its boots: virtual time, instructions; and the number of the boot."""

    virtual_ns: int
    retired: int
    boot: int


Act = Callable[[Moment], object]


def roots_of(xen: Hypervisor) -> Iterable[Root]:
    """The vCPU's root tables, and all others that Xen knows: L4 tables, or a 32-bit guest's L3 tables."""
    frames, vcpu, level = xen.domain.frames, xen.vcpu, xen.types.root_level
    own: dict[int, list[str]] = {}
    in_use = vcpu.kernel_root if vcpu.compat else xen.domain.guest.root >> PAGE_SHIFT
    named = (("in use", in_use), ("kernel", vcpu.kernel_root), ("user", vcpu.user_root))
    for name, mfn in named:
        if mfn:
            own.setdefault(mfn, []).append(name)
    held = (frames.np_type == level) & (frames.np_type_count > 0) & (frames.np_owner == GUEST)
    for mfn in [*own, *(mfn for mfn in np.flatnonzero(held).tolist() if mfn not in own)]:
        pinned = ["pinned"] if frames.flags[mfn] & PINNED else []
        yield Root(mfn << PAGE_SHIFT, "pae" if vcpu.compat else "long", tuple(own.get(mfn, []) + pinned))


class Snapshots:
    """Takes snapshots, keeps them in the run's folder if there is one, and waits for the moments to do so."""

    def __init__(
        self, log: HypercallLog, run_directory: Path | None, identity: Mapping[str, Any], place: Callable[[], Place]
    ) -> None:
        self._log = log
        self._keeper = Keeper(run_directory) if run_directory is not None else None
        self._identity = identity
        self._place = place
        self._waiting: list[tuple[Moment, Act]] = []
        self._xen: Hypervisor | None = None

    def take(self, moment: Moment = NOW, *, keep: bool = True) -> Snapshot:
        """The page tables as they are now, and those that the moment's roots lead to; ``keep``: write a file, too."""
        assert self._xen is not None
        xen, place = self._xen, self._place()
        facts = Facts(moment.text, 0, place.virtual_ns, self._log.made, place.retired, xen.words[RIP], place.boot)
        domain, roots = xen.domain, [*roots_of(xen), *moment.roots]
        taken = capture(domain.ram.table, domain.frames, domain.area.m2p, roots, facts, self._identity)
        return self._keeper.keep(taken) if keep and self._keeper is not None else taken

    @property
    def waiting(self) -> list[Moment]:
        """The moments that have not come."""
        return [moment for moment, _ in self._waiting]

    def add(self, moment: Moment, act: Act) -> None:
        """Do something at a moment; UsageError for one that is over."""
        made = self._log.made
        if moment.hypercalls is not None and moment.hypercalls <= made:
            raise UsageError(f"hypercall {moment.hypercalls} has been made: the guest has made {made}")
        if self._xen is not None and moment.virtual_ns is not None and moment.virtual_ns < self._place().virtual_ns:
            raise UsageError(f"{moment.text} has passed: it is {self._place().virtual_ns / 1e9:.9f} s now")
        self._waiting.append((moment, act))
        self._count()

    def remove(self, moment: Moment) -> None:
        """Wait for a moment no longer."""
        self._waiting = [row for row in self._waiting if row[0] is not moment]

    def watch(self, xen: Hypervisor) -> None:
        """The guest is this one from now on."""
        self._xen = xen
        self._count()

    def deadline(self, deadline_ns: int | None) -> int | None:
        """The earlier of a virtual time and the next moment's."""
        times = [moment.virtual_ns for moment, _ in self._waiting if moment.virtual_ns is not None]
        return min([*times, *([] if deadline_ns is None else [deadline_ns])], default=None)

    def passed(self, now_ns: int) -> None:
        """Virtual time is this now."""
        if self._waiting:
            self._act(lambda moment: moment.virtual_ns is not None and moment.virtual_ns <= now_ns)

    def ended(self) -> None:
        """The run is over."""
        self._act(lambda moment: moment.end)

    def close(self) -> None:
        """Let go of the guest; what was waited for in vain is still known."""
        self._xen = None
        self._place = lambda: Place(0, 0, 0)
        self._waiting = [(moment, lambda _: None) for moment, _ in self._waiting]

    def _act(self, due: Callable[[Moment], bool]) -> None:
        now = [row for row in self._waiting if due(row[0])]
        self._waiting = [row for row in self._waiting if not due(row[0])]
        for moment, act in now:
            act(moment)

    # -- hypercalls

    def _next_count(self) -> int | None:
        return min((m.hypercalls for m, _ in self._waiting if m.hypercalls is not None), default=None)

    def _count(self) -> None:
        """See each hypercall from now on, if a number of them is waited for, and no longer if none is."""
        if self._xen is None:
            return
        counted, onlookers = self._next_count() is not None, self._xen.onlookers
        (onlookers.after_calls if counted else onlookers.no_longer)(self._look)
        onlookers.see_all(self, counted)

    def _look(self) -> None:
        """A hypercall was answered: whether it was one that was waited for."""
        made = self._log.made
        at = self._next_count()
        if at is not None and made >= at:
            self._act(lambda moment: moment.hypercalls is not None and moment.hypercalls <= made)
            self._count()
