"""Whole page tables, and who maps a frame: ``ptable``, ``ptdump``, ``whomaps``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from stub.gdb.monitor import show
from stub.gdb.monitor.addresses import root_of, which_root
from stub.gdb.monitor.context import Context
from stub.gdb.monitor.faults import MonitorError
from stub.gdb.monitor.registry import command
from stub.gdb.monitor.tables import CUT, MAX_RUNS, Mappings, U64s, forest, mappings, places
from stub.gdb.monitor.values import text
from stub.hypervisor.grants import DEVICE_READ, DEVICE_WRITE, HOST_READ, HOST_WRITE
from stub.memory import entries as e
from stub.memory.formats import LONG, Format
from stub.memory.frames import ALLOCATED, L1, L4, PINNED, WRITABLE, XEN_HEAP
from stub.memory.walker import owner_of
from stub.memory.words import size as size_text
from stub.trace.pagetables.moments import Moment, Root
from stub.trace.pagetables.reverse import SHOWN, mapping_lines, roots_in_words
from stub.trace.pagetables.store import path_of
from stub.units import PAGE_SIZE, U64


def checked(context: Context, mfn: int) -> int:
    """A frame of the machine's; MonitorError for a number beyond."""
    frames = context.xen.domain.frames.frames
    if mfn >= frames:
        raise MonitorError(f"mfn {mfn:#x} is beyond machine memory, which ends at mfn {frames:#x}")
    return mfn


# -- a whole table


@command("xen ptable MFN [level N]", "the present entries of a page table, runs of like ones in a line")
def ptable(context: Context, mfn: int, level: int = 0) -> str:
    """N is 1 to 4; it need not be said of a frame that Xen knows as a page table. A run has the same flags and
    consecutive PFNs."""
    checked(context, mfn)
    domain = context.xen.domain
    known = domain.frames.type[mfn] if domain.frames.type_count[mfn] else 0
    level = level or (known if L1 <= known <= L4 else 0)
    if not level:
        raise MonitorError(f"mfn {mfn:#x} is no page table now ({show.state(domain, mfn)}); say level 1 to 4")
    if not 1 <= level <= 4:
        raise MonitorError(f"level {level}: there are 1 to 4")
    table = domain.ram.table[mfn]
    slots = np.flatnonzero(table & np.uint64(e.P)).tolist()
    lines = [f"L{level} table {show.both(domain, mfn)}: {show.state(domain, mfn)}; {len(slots)} of 512 present"]
    bases = _bases(context, mfn, level)
    lines += [f" begins at {text}" for text in bases]
    values = [int(table[slot]) for slot in slots]
    lines += _entry_lines(context, level, slots, values)
    return "\n".join(lines) + "\n"


def _bases(context: Context, mfn: int, level: int) -> list[str]:
    """The virtual addresses at which a table begins, each with the roots under which it does."""
    domain = context.xen.domain
    if level == domain.types.root_level:
        return []
    found: defaultdict[int, list[int]] = defaultdict(list)
    for base, root in places(domain.ram, domain.frames, level, {mfn}, domain.format)[mfn]:
        found[domain.format.canonical(base)].append(root)
    return [f"{base:#x} under {_roots(context, roots)}" for base, roots in sorted(found.items())[:SHOWN]]


def _roots(context: Context, roots: list[int]) -> str:
    vcpu = context.xen.vcpu
    names = {vcpu.kernel_root: "kernel", vcpu.user_root: "user"}
    return roots_in_words(roots, names, context.xen.types.root_level)


def _entry_lines(context: Context, level: int, slots: list[int], values: list[int]) -> Iterator[str]:
    domain = context.xen.domain
    frames = [show.target(value) for value in values]
    pfns = [show.pfn_of(domain, mfn) for mfn in frames]
    at = 0
    while at < len(slots):
        end = at + 1
        while end < len(slots) and slots[end] == slots[end - 1] + 1 and _alike(values, frames, pfns, end):
            end += 1
        last = end - 1
        pfn, names = pfns[at], show.flags(values[at], level)
        if last == at:
            kind = "" if leafless(level, values[at]) else f"  {show.state(domain, frames[at])}"
            yield f" [{slots[at]:03x}]      {values[at]:016x}  {show.both(domain, frames[at])}  {names}{kind}"
        else:
            straight = frames[last] - frames[at] == last - at
            mfns = f"{frames[at]:#x}-{frames[last]:#x}" if straight else "scattered"
            of = "-" if pfn is None else f"{pfn:#x}-{pfn + last - at:#x}"
            yield f" [{slots[at]:03x}-{slots[last]:03x}]  {last - at + 1} entries  mfn {mfns} pfn {of}  {names}"
        at = end


def leafless(level: int, value: int) -> bool:
    """Whether an entry maps memory, so that what it leads to is of no interest here."""
    return show.leaf(value, level)


def _alike(values: list[int], frames: list[int], pfns: list[int | None], at: int) -> bool:
    """Whether an entry goes on where the one before it ended: flags, and PFN or MFN."""
    if (values[at] ^ values[at - 1]) & ~e.ADDRESS_MASK:
        return False
    before, here = pfns[at - 1], pfns[at]
    if before is not None and here is not None:
        return here == before + 1
    return before is here and frames[at] == frames[at - 1] + 1


# -- all that a root maps


@command(
    "xen ptdump [cr3 N]", "all that is mapped: ranges of like rights, and where they lie in pseudo-physical memory"
)
def ptdump(context: Context, cr3: int | None = None) -> str:
    """N is the machine address of a root table, or its MFN; without it, the one in use. Xen's slots are included."""
    domain = context.xen.domain
    root = root_of(context, cr3)
    found = mappings(domain.ram, root, fmt=domain.format)
    pfns = pseudo_physical(context, found)
    rights = found.rights & np.uint64(e.US | e.RW | e.NX)
    marks = found.entry & np.uint64(e.GUEST_KERNEL if domain.format.marks_kernel else 0)
    rows = []
    for run in found.runs(rights, marks, found.size):
        first, count, size = run.start, run.stop - run.start, int(found.size[run.start])
        start = int(found.vaddr[first])
        rows.append(
            (
                f"{start:016x}-{start + count * size & U64:016x}",
                size_text(count * size),
                access(domain.format, int(found.rights[first]), int(found.entry[first])),
                "" if size == PAGE_SIZE else f"pages of {size_text(size)}",
                _stretch(pfns[run], size // PAGE_SIZE),
            )
        )
    head = f"cr3 {root << 12:#x} ({which_root(context, root)}), mfn {root:#x}: {len(found)} mappings\n"
    return head + show.columns(rows) + (CUT if found.cut or len(rows) == MAX_RUNS else "")


def _stretch(pfns: U64s, step: int) -> str:
    """Where a range lies in pseudo-physical memory."""
    first, last = int(pfns[0]), int(pfns[-1])
    if (pfns == np.uint64(U64)).all():
        return "no pfn"
    if len(pfns) == 1:
        return f"pfn {first:#x}"
    if (pfns[1:] - pfns[:-1] == np.uint64(step)).all():
        return f"pfn {first:#x}-{last + step - 1:#x}"
    different = len(np.unique(pfns))
    return f"pfn {first:#x} each" if different == 1 else f"{different} pfns, scattered"


def pseudo_physical(context: Context, found: Mappings) -> U64s:
    """The PFN of each mapping; all ones for frames that have none."""
    m2p = context.xen.domain.area.m2p
    frames = found.frame
    inside = frames < len(m2p)
    return np.where(inside, m2p[np.where(inside, frames, 0)], np.uint64(U64))


def access(fmt: Format, rights: int, entry: int) -> str:
    """``u`` user, ``k`` guest kernel or ``X`` Xen alone; then r, w, x."""
    who = {"Xen": "X", "kernel": "k", "user": "u"}[owner_of(fmt, rights, entry)]
    return who + "r" + ("w" if rights & e.RW else "-") + ("-" if rights & e.NX else "x")


@command("xen snapshot [ROOT]", "keep all page tables in the run's folder, for pvstub pagetables", {"ROOT": text})
def snapshot(context: Context, root: str = "") -> str:
    """ROOT, as FORMAT:MADDR, is a table that Xen does not know yet; the formats are long, raw, pae and legacy."""
    machine = context.machine
    taken = machine.snapshots.take(Moment(roots=(Root.parse(root),) if root else ()))
    if machine.run_directory is None:
        raise MonitorError("this run has no folder to keep it in")
    path = path_of(machine.run_directory, taken.facts.number)
    return f"{taken.facts}: {len(taken.tables.mfns)} tables kept in {path.absolute()}\n"


# -- who maps a frame


@command("xen whomaps MFN", "every mapping of a frame: addresses, tables and flags; and who else holds it")
def whomaps(context: Context, mfn: int) -> str:
    """Looked through are all frames that are page tables of the domain to Xen. The holders are counted against the
    frame's own counts, so that a reference that nobody owns shows."""
    checked(context, mfn)
    domain = context.xen.domain
    all_tables = forest(domain.ram, domain.frames, domain.format)
    lines = [f"{show.both(domain, mfn)}: {show.state(domain, mfn)}"]
    references = types = 0
    for level in range(1, domain.types.root_level + 1):
        rows = all_tables.mappers(mfn, level)
        references += len(rows)
        types += sum(1 for row in rows if level > 1 or row.entry & e.RW)
        lines += mapping_lines(all_tables, level, rows, lambda roots: _roots(context, roots))
    if not references:
        lines.append(" no page table of the domain maps it")
    lines += _xen_lines(context, mfn)
    for name, refs, kinds in holders(context, mfn):
        lines.append(f" held: {name}")
        references, types = references + refs, types + kinds
    if domain.frames.refs[mfn] and show.owner(domain, mfn) == "guest":
        lines.append(_sum(context, mfn, references, types))
    return "\n".join(lines) + "\n"


def _xen_lines(context: Context, mfn: int) -> Iterator[str]:
    """Mappings in Xen's own slots, which every address space has, and the table that a 32-bit guest's root hangs on."""
    domain = context.xen.domain
    found = mappings(domain.ram, domain.area.monitor or context.xen.vcpu.kernel_root, LONG.xen_slots)
    here = found.only(found.frame == mfn)
    for vaddr, entry in list(zip(here.vaddr.tolist(), here.entry.tolist(), strict=True))[:SHOWN]:
        yield f" mapped at {vaddr:#x} by Xen, in every address space: {entry:016x} {show.flags(entry, 1)}"


def holders(context: Context, mfn: int) -> Iterator[tuple[str, int, int]]:
    """Who else holds a frame: what for, references, type counts."""
    xen = context.xen
    domain, vcpu, events = xen.domain, xen.vcpu, xen.events
    layout, bits = domain.layout, domain.frames.flags[mfn]
    rows: list[tuple[str, bool, int]] = [
        ("allocated to the domain", bool(bits & ALLOCATED), 0),
        ("Xen's page, shared with the domain", bool(bits & XEN_HEAP), 1),
        ("pinned as a page table", bool(bits & PINNED), 1),
        ("the kernel's root table", mfn == vcpu.kernel_root, 1),
        ("user code's root table", mfn == vcpu.user_root and mfn != 0, 1),
        ("vcpu_info of vCPU 0", vcpu.info_registered and mfn == vcpu.info_at >> 12, 1),
        ("the console's ring", mfn == int(domain.p2m[layout.console.pfn]), 1),
        ("XenStore's ring", mfn == int(domain.p2m[layout.xenstore.pfn]), 1),
    ]
    rows += [(f"GDT page {i}", mfn == frame, 1) for i, frame in enumerate(vcpu.gdt_frames)]
    rows += [(f"LDT page {i}", mfn == frame, 1) for i, frame in sorted(xen.ldt_frames.items())]
    if events.fifo is not None:
        rows += [(use, mfn == frame, 1) for use, frame in events.fifo.frames()]
    for name, here, kinds in rows:
        if here:
            yield name, 1, kinds
    for ref, active in sorted(xen.grants.active.items()):
        if active.frame == mfn:
            mapped = active.uses[HOST_READ] + active.uses[HOST_WRITE]
            devices = active.uses[DEVICE_READ] + active.uses[DEVICE_WRITE]
            name = f"grant {ref} to domain {active.domid}, mapped {mapped} times, for devices {devices} times"
            yield name, devices, active.uses[DEVICE_WRITE]


def _sum(context: Context, mfn: int, references: int, types: int) -> str:
    frames = context.xen.domain.frames
    refs, count = frames.refs[mfn], frames.type_count[mfn]
    kind = "writable or table" if frames.type[mfn] != WRITABLE else "writable"
    if (references, types) == (refs, count):
        return f" all {refs} references and {count} {kind} uses are accounted for"
    return f" accounted for: {references} of {refs} references, {types} of {count} {kind} uses"
