"""What must always hold of a domain's memory, counted again from scratch.

The frame table says who uses each frame as what. Here all of that is taken anew from the page tables and from what
the hypervisor itself holds, and compared: a difference is a fault of pvstub, whatever the guest did.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stub.hypervisor import p2m
from stub.hypervisor.event_ports import INTERDOMAIN, VIRQ, FarEnd, Peer, Port
from stub.hypervisor.verdict import Verdict
from stub.memory import entries as e
from stub.memory.frames import (
    ALLOCATED,
    FREE,
    GUEST,
    L1,
    L2,
    L4,
    PINNED,
    SEG_DESC,
    TYPE_NAMES,
    WRITABLE,
    XEN,
    XEN_HEAP,
    XEN_L2,
)

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

Counts = npt.NDArray[np.int64]
_P, _RW = np.uint64(e.P), np.uint64(e.RW)
_SHIFT, _FRAME = np.uint64(12), np.uint64(e.FRAME_MASK)
_MOST = 20  # findings of one sort that are told one by one


@dataclass(frozen=True)
class Finding:
    """One thing that does not hold: the invariant's name (a row of ``INVARIANTS``), and what is wrong in words."""

    invariant: str
    text: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.text}"


@dataclass
class Entries:
    """The present entries of all validated tables of a level: parallel arrays, in the order of the tables."""

    level: int
    table: Counts
    slot: Counts
    value: npt.NDArray[np.uint64]

    @property
    def target(self) -> Counts:
        """The frame that each leads to."""
        return ((self.value >> _SHIFT) & _FRAME).astype(np.int64)


@dataclass
class View:
    """What is looked at: the hypervisor's books, and the tables as they lie in memory."""

    xen: Hypervisor
    levels: dict[int, Entries] = field(init=False)

    def __post_init__(self) -> None:
        self.levels = {level: self._entries(level) for level in range(L1, L4 + 1)}

    def _entries(self, level: int) -> Entries:
        domain = self.xen.domain
        frames = domain.frames
        live = (frames.np_type == level) & (frames.np_type_count != 0) & (frames.np_owner == GUEST)
        tables = np.flatnonzero(live)
        block = domain.ram.table[tables]
        if level == L4:
            block[:, e.XEN_FIRST_SLOT : e.XEN_LAST_SLOT + 1] = 0
        elif level == L2:
            block[frames.np_flags[tables] & XEN_L2 != 0, e.PAE_FIRST_XEN_SLOT :] = 0
        row, slot = np.nonzero(block & _P)
        return Entries(level, tables[row], slot, block[row, slot])


# -- the invariants


def _targets(view: View) -> Iterator[str]:
    """Every present entry leads to a frame that the domain may map."""
    frames = view.xen.domain.frames
    for level, found in view.levels.items():
        target = found.target
        outside = target >= frames.frames
        owner = frames.np_owner[np.where(outside, 0, target)]
        for i in np.flatnonzero(outside | (owner != GUEST)).tolist():
            whose = "no frame" if outside[i] else {FREE: "nobody's", XEN: "Xen's"}[int(owner[i])]
            yield f"{_name(found, i)} leads to frame {int(target[i]):#x}, which is {whose}"
        flags = found.value & np.uint64(e.L1_DISALLOW if level == L1 else e.UPPER_DISALLOW)
        for i in np.flatnonzero(flags).tolist():
            yield f"{_name(found, i)} has flags that no guest may set: {e.names(int(flags[i]), level)}"


def _writable(view: View) -> Iterator[str]:
    """No page table, descriptor table or frame of Xen's is mapped writable."""
    frames = view.xen.domain.frames
    found = view.levels[L1]
    target = found.target
    known = (found.value & _RW != 0) & (target < frames.frames)
    kind = frames.np_type[np.where(known, target, 0)]
    for i in np.flatnonzero(known & (kind != WRITABLE)).tolist():
        yield f"{_name(found, i)} maps frame {int(target[i]):#x} writable, which is {TYPE_NAMES[int(kind[i])]}"


def _tables(view: View) -> Iterator[str]:
    """Every table's entries lead to tables of the level below, or linearly to one of its own; Xen's slots are Xen's."""
    domain = view.xen.domain
    frames = domain.frames
    for level in range(L1 + 1, L4 + 1):
        found = view.levels[level]
        target = np.where(found.target < frames.frames, found.target, 0)
        kind = np.where(frames.np_type_count[target] > 0, frames.np_type[target], 0)
        linear = (kind == level) & (found.value & _RW == 0)
        for i in np.flatnonzero((kind != level - 1) & ~linear).tolist():
            yield f"{_name(found, i)} leads to frame {int(target[i]):#x}, which is {TYPE_NAMES[int(kind[i])]}"
    for root in np.flatnonzero((frames.np_type == L4) & (frames.np_type_count != 0)).tolist():
        slots = domain.ram.table[root, e.XEN_FIRST_SLOT : e.XEN_LAST_SLOT + 1].tolist()
        if slots[1:] != domain.types.xen_slots[1:] or slots[0] not in (0, domain.types.xen_slots[0]):
            yield f"the L4 table {root:#x} has other entries in Xen's slots than Xen's"
    last = (frames.np_type == L2) & (frames.np_type_count != 0) & (frames.np_flags & XEN_L2 != 0)
    for table in np.flatnonzero(last).tolist():
        if domain.ram.table[table, e.PAE_FIRST_XEN_SLOT :].tolist() != domain.types.xen_slots:
            yield f"the L2 table {table:#x} has other entries in Xen's slots than Xen's"


def _pinned(view: View) -> Iterator[str]:
    """What is pinned is a page table in use."""
    frames = view.xen.domain.frames
    bad = (frames.np_flags & PINNED != 0) & (
        (frames.np_type < L1) | (frames.np_type > L4) | (frames.np_type_count == 0) | (frames.np_owner != GUEST)
    )
    for mfn in np.flatnonzero(bad).tolist():
        yield f"frame {mfn:#x} is pinned as {TYPE_NAMES[frames.type[mfn]]}"


def _counts(view: View) -> Iterator[str]:
    """Type counts and references are what a recount gives."""
    frames = view.xen.domain.frames
    refs, types = np.zeros(frames.frames, np.int64), np.zeros(frames.frames, np.int64)
    for level, found in view.levels.items():
        target = found.target
        inside = target < frames.frames
        if level == L1:
            typed = inside & (found.value & _RW != 0)
        else:
            inside &= target != found.table  # a table's entry for itself takes nothing
            typed = inside
        refs += np.bincount(target[inside], minlength=frames.frames)
        types += np.bincount(target[typed], minlength=frames.frames)
    for mfn, kind, why in _held(view.xen):
        refs[mfn] += 1
        types[mfn] += 1
        if frames.type[mfn] != kind:
            yield f"frame {mfn:#x} is {TYPE_NAMES[frames.type[mfn]]}, and is held as {TYPE_NAMES[kind]}: {why}"
    for mfn in view.xen.grants.reads():
        refs[mfn] += 1
    refs += (frames.np_flags & (ALLOCATED | XEN_HEAP)) != 0
    types += (frames.np_flags & XEN_HEAP) != 0
    pinned = (frames.np_flags & PINNED) != 0
    refs, types = refs + pinned, types + pinned
    wrong = ((frames.np_refs != refs) | (frames.np_type_count != types)) & (frames.np_owner == GUEST)
    for mfn in np.flatnonzero(wrong).tolist():
        yield (
            f"frame {mfn:#x} ({TYPE_NAMES[frames.type[mfn]]}): references {frames.refs[mfn]}, counted {refs[mfn]};"
            f" type count {frames.type_count[mfn]}, counted {types[mfn]}"
        )


def _held(xen: Hypervisor) -> Iterator[tuple[int, int, str]]:
    """(frame, type, why) of each use that is not an entry of a table."""
    vcpu = xen.vcpu
    for root, why in ((vcpu.kernel_root, "the kernel runs on it"), (vcpu.user_root, "user code runs on it")):
        if root:
            yield root, xen.types.root_level, why
    for mfn in (*vcpu.gdt_frames, *xen.ldt_frames.values()):
        yield mfn, SEG_DESC, "the GDT or the LDT"
    for mfn, times in xen.domain.types.held.items():
        for _ in range(times):
            yield mfn, WRITABLE, "the hypervisor writes to it"


def _channels(view: View) -> Iterator[str]:
    """Both ends of a channel know each other, VIRQs their ports; what the FIFO ABI writes to is held."""
    events = view.xen.events
    for port in events.in_use():
        if port.peer is not None and (port.state != INTERDOMAIN or _back(port.peer) is not port):
            yield f"port {port.number} leads to domain {port.remote_domain}'s {port.peer.number}, and that not back"
        if port.state == VIRQ and events.virq_port(port.virq, port.vcpu) is not port:
            yield f"port {port.number} is bound to VIRQ {port.virq}, which is bound elsewhere"
    written = Counter(mfn for _, mfn in events.fifo.frames()) if events.fifo is not None else Counter()
    for mfn, times in sorted(written.items()):
        if view.xen.domain.types.held.get(mfn, 0) < times:
            yield f"frame {mfn:#x} is written to for event channels, and not held"


def _back(peer: Peer) -> Port | None:
    """The end that an end leads to."""
    return peer.port if isinstance(peer, FarEnd) else peer.peer if isinstance(peer.peer, Port) else None


def _free(view: View) -> Iterator[str]:
    """Nobody's frames have no references, and those that can be had are nobody's."""
    frames = view.xen.domain.frames
    free = np.fromiter(frames.free, np.int64, len(frames.free))
    for mfn in free[(frames.np_owner[free] != FREE) | (frames.np_refs[free] != 0)].tolist():
        yield f"frame {mfn:#x} can be had, but is {'in use' if frames.refs[mfn] else 'owned'}"
    left = (frames.np_owner == FREE) & ((frames.np_refs != 0) | (frames.np_type_count != 0))
    for mfn in np.flatnonzero(left).tolist():
        yield f"frame {mfn:#x} is nobody's, and has references {frames.refs[mfn]}, type count {frames.type_count[mfn]}"


def _p2m(view: View) -> Iterator[str]:
    """Each frame in the guest's own list is its, and the M2P leads back. In the midst of a change it may not."""
    wrong = p2m.disagreements(view.xen.domain)
    for pfn, mfn in wrong:
        yield f"the guest's p2m has frame {mfn:#x} for pfn {pfn:#x}, which the M2P or the frame table deny"


def _name(found: Entries, i: int) -> str:
    """An entry in words."""
    return f"l{found.level}e {int(found.value[i]):#x} (table {int(found.table[i]):#x}, slot {int(found.slot[i])})"


INVARIANTS: dict[str, Callable[[View], Iterator[str]]] = {
    "targets": _targets,
    "writable": _writable,
    "tables": _tables,
    "pinned": _pinned,
    "counts": _counts,
    "free": _free,
    "channels": _channels,
}


OF_THE_GUEST: dict[str, Callable[[View], Iterator[str]]] = {"p2m": _p2m}
"""What a sound guest keeps itself, and another need not."""


def audit(xen: Hypervisor, *, guest: bool = False) -> list[Finding]:
    """What does not hold now; twenty of each sort at most. ``guest``: what a sound guest keeps itself, too."""
    view = View(xen)
    found: list[Finding] = []
    for name, look in (INVARIANTS | OF_THE_GUEST if guest else INVARIANTS).items():
        for number, text in enumerate(look(view)):
            if number == _MOST:
                found.append(Finding(name, "and more"))
                break
            found.append(Finding(name, text))
    return found


class Auditor:
    """Audits a guest each ``every`` hypercalls; the first finding ends the run.

    The engine answers some calls by itself, which change nothing that is audited: then it is the next one's turn.
    """

    def __init__(self, xen: Hypervisor, every: int) -> None:
        self._xen, self._every, self._due = xen, every, every
        xen.onlookers.after_calls(self._call)

    def _call(self) -> None:
        made = self._xen.log.made
        if made >= self._due:
            self._due = made - made % self._every + self._every
            self.look()

    def look(self) -> None:
        """Audit now."""
        xen = self._xen
        found = audit(xen)
        if found:
            xen.verdict = Verdict(
                "audit",
                f"an invariant is broken after hypercall {xen.log.made}: {found[0]}",
                tuple(map(str, found[1:])),
            )
            xen.pause = True
