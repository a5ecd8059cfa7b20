"""From one address space to another: ``vtop`` down the page tables, ``p2m`` and ``m2p`` through the frame lists."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stub.gdb.monitor import show
from stub.gdb.monitor.context import Context
from stub.gdb.monitor.faults import MonitorError
from stub.gdb.monitor.p2m import BadList, compare, guest_list
from stub.gdb.monitor.registry import command
from stub.memory import entries as e
from stub.memory.frames import GUEST, NONE, TYPE_NAMES
from stub.memory.walker import FrameArray, Walk
from stub.memory.walker import walk as walk_tables
from stub.units import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE

_NO_ADDRESS = {
    64: "not a canonical address: bits 63 to 47 are not all the same",
    32: "not an address: it has more than 32 bits",
}


def walk(context: Context, root: int, vaddr: int) -> Walk:
    """The levels of a translation from the root table in frame ``root``."""
    domain = context.xen.domain
    return walk_tables(FrameArray(domain.ram.table), domain.format, root << PAGE_SHIFT, vaddr)


def root_of(context: Context, cr3: int | None) -> int:
    """The frame of a root table: of CR3's value, of an MFN (no machine address of one is so low), or the one in use."""
    xen = context.xen
    if cr3 is None:
        return xen.domain.root_in_use
    frames = xen.domain.frames.frames
    mfn = cr3 if cr3 < frames else cr3 >> 12
    if mfn >= frames:
        raise MonitorError(f"cr3 {cr3:#x} is beyond machine memory, which ends at {frames << 12:#x}")
    return mfn


def which_root(context: Context, root: int) -> str:
    """What a root table is to the vCPU."""
    xen = context.xen
    names = [
        name
        for name, mfn in (
            ("in use", xen.domain.root_in_use),
            ("the kernel's", xen.vcpu.kernel_root),
            ("user code's", xen.vcpu.user_root),
        )
        if mfn == root
    ]
    frames = xen.domain.frames
    level = xen.types.root_level
    if not names and not (frames.type[root] == level and frames.type_count[root]):
        names = [f"not an L{level} table to Xen: {show.state(xen.domain, root)}"]
    return ", ".join(names) or "not in use"


@command("xen vtop VA [cr3 N]", "every level of a translation, the frame it leads to, or where it ends and why")
def vtop(context: Context, va: int, cr3: int | None = None) -> str:
    """N is the machine address of a root table, as CR3 holds it, or its MFN; without it, the one in use is walked."""
    return "".join(f"{line}\n" for line in _vtop(context, va, cr3))


def _vtop(context: Context, va: int, cr3: int | None) -> Iterator[str]:
    domain = context.xen.domain
    if not domain.format.is_address(va):
        yield f"{va:#x}: {_NO_ADDRESS[domain.bits]}"
        return
    root = root_of(context, cr3)
    found = walk(context, root, va)
    yield f"virtual {context.label(va)} under cr3 {root << 12:#x} ({which_root(context, root)})"
    for step in found.steps:
        yield f" L{step.level} {show.both(domain, step.table)}: {show.state(domain, step.table)}"
        leads = f" -> {show.both(domain, show.target(step.entry))}" if step.entry & e.P else ""
        yield f"    [{step.slot:#05x}] = {step.entry:016x}{leads}  {show.flags(step.entry, step.level)}"
    if not found.found:
        yield f" ends here: {found.why}"
        yield from _hint(context, root, va)
        return
    maddr = found.maddr
    if found.size > PAGE_SIZE:
        yield f" a page of {found.size >> 20} MiB"
    mfn = maddr >> 12
    pfn = show.pfn_of(domain, mfn)
    physical = "-" if pfn is None else f"{(pfn << 12) + (va & PAGE_MASK):#x}"
    yield f" {show.both(domain, mfn)}: {show.state(domain, mfn)}"
    yield f"machine {maddr:#x}  pseudo-physical {physical}  {found.access}"


def _hint(context: Context, root: int, va: int) -> Iterator[str]:
    """Where an address is mapped after all: a PV user's root has nothing of its kernel."""
    vcpu = context.xen.vcpu
    for name, other in (("the kernel's", vcpu.kernel_root), ("user code's", vcpu.user_root)):
        if other and other != root and walk(context, other, va).found:
            yield f" it is mapped under {name} root: monitor xen vtop {va:#x} cr3 {other << 12:#x}"


@command("xen pte VALUE [level N]", "a page-table entry decoded, and what Xen would make of it (level 1 if not given)")
def pte(context: Context, value: int, level: int = 1) -> str:
    """Xen keeps no entry quite as the guest wrote it: in ring 3, all pages are user pages (arch/x86/pv/mm.h)."""
    domain = context.xen.domain
    if not 1 <= level <= domain.types.root_level:
        raise MonitorError(f"level {level}: there are 1 to {domain.types.root_level}")
    lines = [f"L{level} entry {value:#018x}: {show.flags(value, level)}"]
    if not value & e.P:
        return lines[0] + "\n not present: the other bits mean nothing to the CPU\n"
    mfn = show.target(value)
    lines.append(f" names {show.both(domain, mfn)}: {show.state(domain, mfn)}")
    refused = value & (e.L1_DISALLOW if level == 1 else e.UPPER_DISALLOW)
    if refused:
        lines.append(f" Xen refuses it of a domain without I/O rights: {show.flags(refused, level)} (-EINVAL)")
    types = domain.types
    stored = types.adjust_l1e(value) if level == 1 else types.adjust_upper(value, level)
    if stored != value and not refused:
        lines.append(f" written by the guest, it is stored as {stored:#018x}: {show.flags(stored, level)}")
    lines += _taken(context, value, level, mfn)
    return "\n".join(lines) + "\n"


def _taken(context: Context, value: int, level: int, mfn: int) -> Iterator[str]:
    """Whether the frame could be had as the entry wants it."""
    frames = context.xen.domain.frames
    if mfn >= frames.frames or frames.owner[mfn] != GUEST:
        yield " Xen refuses it: the frame is not the domain's"
        return
    held = frames.type[mfn] if frames.type_count[mfn] else NONE
    wanted = 7 if level == 1 and value & e.RW else level - 1
    if wanted and held not in (NONE, wanted):
        yield f" Xen refuses it: it needs the frame as {TYPE_NAMES[wanted]}, and it is {TYPE_NAMES.get(held)} now"


@command("xen p2m [PFN]", "the MFN of a PFN, and whether all tables agree; without a PFN, all frames compared")
def p2m(context: Context, pfn: int | None = None) -> str:
    """Compared are the guest's own list (shared_info arch.p2m_vaddr, or pfn_to_mfn_frame_list_list, or else the
    domain builder's list), the machine-to-physical table, and Xen's knowledge of whose the frame is."""
    if pfn is None:
        return compare(context)
    domain = context.xen.domain
    found = guest_list(context)
    lines = [f"pfn {pfn:#x}"]
    mfn = None
    try:
        value = found.entry(pfn)
        mfn = found.mfn(value)
        lines.append(_row(found.name, found.text(value), found.where))
    except BadList as error:
        lines.append(_row(found.name, "-", str(error)))
    if pfn < domain.layout.nr_pages:
        lines.append(_row("at the start", f"mfn {int(domain.p2m[pfn]):#x}", "as the domain was built"))
    if mfn is None:
        there = ", ".join(f"mfn {m:#x}" for m in _m2p_says(context, pfn))
        lines.append(_row("m2p", there or "no frame", "has this pfn"))
        return "\n".join(lines) + "\n"
    back = show.pfn_of(domain, mfn)
    lines.append(_row(f"m2p[{mfn:#x}]", "nothing" if back is None else f"pfn {back:#x}", "0xffff800000000000 on"))
    lines.append(_row("frame", show.owner(domain, mfn), show.state(domain, mfn)))
    lines.append(" " + _agreement(context, pfn, mfn))
    return "\n".join(lines) + "\n"


def _row(name: str, value: str, remark: str) -> str:
    return f" {name:14} {value:14} ({remark})"


def _m2p_says(context: Context, pfn: int) -> list[int]:
    """The frames for which the machine-to-physical table gives ``pfn``."""
    m2p = context.xen.domain.area.m2p
    return [int(mfn) for mfn in np.flatnonzero(m2p == np.uint64(pfn))[:8]]


def _agreement(context: Context, pfn: int, mfn: int) -> str:
    domain = context.xen.domain
    back = show.pfn_of(domain, mfn)
    if mfn >= domain.frames.frames:
        return "they do NOT agree: the list names a frame beyond machine memory"
    wrong = []
    if back != pfn:
        wrong.append(f"m2p has {'nothing' if back is None else f'pfn {back:#x}'} for mfn {mfn:#x}")
    if domain.frames.owner[mfn] != GUEST:
        wrong.append(f"the frame is {show.owner(domain, mfn)}'s, not the domain's")
    return f"they do NOT agree: {'; '.join(wrong)}" if wrong else "the tables agree"


@command("xen m2p MFN", "the PFN of an MFN, and whether all tables agree")
def m2p(context: Context, mfn: int) -> str:
    """The machine-to-physical table is the one that the guest sees, read-only, at 0xffff800000000000."""
    domain = context.xen.domain
    if mfn >= domain.frames.frames:
        raise MonitorError(f"mfn {mfn:#x} is beyond machine memory, which ends at mfn {domain.frames.frames:#x}")
    pfn = show.pfn_of(domain, mfn)
    lines = [f"mfn {mfn:#x} (machine {mfn << 12:#x})"]
    lines.append(_row(f"m2p[{mfn:#x}]", "nothing" if pfn is None else f"pfn {pfn:#x}", "0xffff800000000000 on"))
    verdict = ""
    if pfn is not None:
        found = guest_list(context)
        try:
            value = found.entry(pfn)
            lines.append(_row(found.name, found.text(value), f"at pfn {pfn:#x}; {found.where}"))
            verdict = (
                _agreement(context, pfn, mfn)
                if found.mfn(value) == mfn
                else f"they do NOT agree: the list has {found.text(value)} for pfn {pfn:#x}"
            )
        except BadList as error:
            lines.append(_row(found.name, "-", str(error)))
    lines.append(_row("frame", show.owner(domain, mfn), show.state(domain, mfn)))
    if verdict:
        lines.append(f" {verdict}")
    return "\n".join(lines) + "\n"
