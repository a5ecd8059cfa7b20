"""The vCPU as Xen keeps it: ``vcpu``, ``traps``, ``gdt``, ``ldt``."""

from __future__ import annotations

from collections.abc import Iterator

from stub.abi.arch_x86 import FIRST_RESERVED_GDT_ENTRY, FIRST_RESERVED_GDT_PAGE
from stub.domain.xenarea import GDT_PAGES, GDT_VA
from stub.engine.base import CR3, FS_BASE, GS_BASE, RFLAGS, RIP, RSP
from stub.gdb.monitor import show
from stub.gdb.monitor.context import Context
from stub.gdb.monitor.faults import MonitorError
from stub.gdb.monitor.registry import command
from stub.hypervisor.debugregs import enabled
from stub.hypervisor.vcpu import VCPU_INFO_MASK, Gate
from stub.memory.guest import GuestFault
from stub.trace.names import exception_name

_RUNSTATES = ("running", "runnable", "blocked", "offline")
_PER_PAGE = 512


@command("xen vcpu [N]", "what Xen keeps of a vCPU: mode, roots, entry points, events, time")
def vcpu(context: Context, n: int = 0) -> str:
    """Its registers are the debugger's own: info registers."""
    if n >= context.xen.domain.config.vcpus:
        raise MonitorError(f"vCPU {n}: there are {context.xen.domain.config.vcpus}, counted from 0")
    return show.columns([*_doing(context), *_entries(context), *_debug(context)], indent="")


def _doing(context: Context) -> Iterator[tuple[str, str]]:
    xen = context.xen
    v, words, memory = xen.vcpu, xen.words, xen.ram_bytes
    mode = "kernel" if v.kernel_mode else "user"
    state = "blocked" if v.blocked else "running"
    if v.polling:
        state += f", polls ports {', '.join(map(str, sorted(v.polling)))}"
    yield "vCPU", f"{v.number} {state} in {mode} mode at {context.label(words[RIP])}, sp {words[RSP]:#x}"
    yield (
        "roots",
        (f"kernel {v.kernel_root << 12:#x}, user {v.user_root << 12:#x}; cr3 {words[CR3]:#x}, cr2 {v.cr2:#x}"),
    )
    selector = xen.events.two_level.selector(v)
    registered = "registered by the guest" if v.info_registered else "in shared_info"
    yield "vcpu_info", f"machine {v.info_at:#x}, {show.both(xen.domain, v.info_at >> 12)}, {registered}"
    masked = "masked" if memory[v.info_at + VCPU_INFO_MASK] else "unmasked"
    yield "events", f"{masked}, upcall {'pending' if memory[v.info_at] else 'not pending'}, selector {selector:#x}"
    nmi = "pending" if xen.nmi_pending else "not pending"
    yield "NMI", f"{nmi}, {'masked' if v.nmi_masked else 'unmasked'}"
    yield "rflags", f"{words[RFLAGS]:#x}, virtual IOPL {v.iopl}, task switched {'yes' if v.task_switched else 'no'}"
    times = list(v.runstate_times)
    times[v.runstate] += xen.clock.now - v.runstate_since
    yield (
        "run state",
        (
            f"{_RUNSTATES[v.runstate]} since {v.runstate_since / 1e9:.9f} s; "
            + ", ".join(f"{name} {ns / 1e9:.6f} s" for name, ns in zip(_RUNSTATES, times, strict=True) if ns)
        ),
    )
    if v.runstate_at:
        yield "runstate area", f"{v.runstate_at:#x}"
    if xen.time_area:
        yield "time area", f"{xen.time_area:#x}"
    yield "periodic timer", f"{xen.period} ns" if xen.period else "stopped"


def _entries(context: Context) -> Iterator[tuple[str, str]]:
    v, words = context.xen.vcpu, context.xen.words
    yield "kernel stack", f"ss {v.kernel_ss:#x} sp {v.kernel_sp:#x}"
    for name in ("event", "failsafe", "syscall", "syscall32", "sysenter"):
        gate: Gate = getattr(v, name)
        masks = ", masks events" if gate.masks_events else ""
        yield f"{name} entry", f"{context.label(gate.address)}{masks}" if gate.address else "none"
    yield "bases", f"fs {words[FS_BASE]:#x} gs {words[GS_BASE]:#x} other mode's gs {v.gs_base_other:#x}"
    yield "tables", f"GDT {len(v.gdt_frames)} pages of the guest's, LDT {v.ldt_entries} entries at {v.ldt_base:#x}"
    if v.io_bitmap_ports:
        yield "I/O bitmap", f"{v.io_bitmap_ports} ports at {v.io_bitmap:#x}"


def _debug(context: Context) -> Iterator[tuple[str, str]]:
    v = context.xen.vcpu
    yield "debug", " ".join(f"dr{i} {value:#x}" for i, value in enumerate(v.debug) if i not in (4, 5))
    kinds = ("execute", "write", "I/O", "access")
    for number, kind, address, length in enabled(v):
        yield f"breakpoint {number}", f"{kinds[kind]} {context.label(address)}, {length} bytes"


@command("xen traps", "the trap table that the guest registered, and its other entry points")
def traps(context: Context) -> str:
    """``dpl``: the least privileged ring that may raise the vector with int; ``masks``: events are masked on entry."""
    v = context.xen.vcpu
    rows = [
        (
            f"{vector:#04x}",
            exception_name(vector) if vector < 32 else "",
            f"cs {gate.cs:#x}",
            context.label(gate.address),
            f"dpl {gate.dpl}",
            "masks events" if gate.masks_events else "",
        )
        for vector, gate in enumerate(v.traps)
        if gate is not None and gate.address
    ]
    if not rows:
        return "no trap handler is registered\n"
    return show.columns(rows, indent="") + show.columns(list(_entries(context))[1:7], indent="")


@command("xen gdt", "the descriptors of the GDT, the guest's and Xen's")
def gdt(context: Context) -> str:
    """The guest has entries 0 to 7167 of it, on frames of its own; from selector 0xe000 on they are Xen's."""
    xen = context.xen
    v, words = xen.vcpu, xen.domain.ram.words
    table = xen.domain.ram.words
    lines = [f"GDT at {GDT_VA:#x}: {len(v.gdt_frames)} pages of the guest's\n"]
    lines += [
        f" page {i}: {show.both(xen.domain, f)}: {show.state(xen.domain, f)}\n" for i, f in enumerate(v.gdt_frames)
    ]
    rows: list[tuple[str, str, str, str]] = []
    for page in [*range(len(v.gdt_frames)), *range(FIRST_RESERVED_GDT_PAGE, GDT_PAGES)]:
        mfn = table[xen.domain.area.per_domain_l1 * _PER_PAGE + page] >> 12
        rows += _rows(words, mfn, page * _PER_PAGE, 0, "Xen's" if page * _PER_PAGE >= FIRST_RESERVED_GDT_ENTRY else "")
    return "".join(lines) + (show.columns(rows) if rows else " all entries are empty\n")


def _rows(words: memoryview, mfn: int, first: int, table_bit: int, remark: str) -> Iterator[tuple[str, str, str, str]]:
    """The entries of one page: selector (with the ring that it is for), value, meaning."""
    for i in range(_PER_PAGE):
        value = words[mfn * _PER_PAGE + i]
        if value:
            selector = (first + i) << 3 | table_bit | value >> 45 & 3
            yield f"{selector:#06x}", f"{value:016x}", show.descriptor(value), remark


@command("xen ldt", "the descriptors of the LDT")
def ldt(context: Context) -> str:
    """They are read through the kernel's page tables, as Xen does when a selector is loaded."""
    xen = context.xen
    v = xen.vcpu
    if not v.ldt_entries:
        return "the guest has no LDT\n"
    rows: list[tuple[str, str, str]] = []
    for i in range(v.ldt_entries):
        try:
            maddr = xen.domain.guest.locate_from(v.kernel_tables, v.ldt_base + 8 * i)
        except GuestFault:
            continue
        value = xen.domain.ram.words[maddr >> 3]
        if value:
            rows.append((f"{i << 3 | 4 | value >> 45 & 3:#06x}", f"{value:016x}", show.descriptor(value)))
    loaded = ", ".join(f"page {page} mfn {mfn:#x}" for page, mfn in sorted(xen.ldt_frames.items())) or "none"
    return f"LDT at {v.ldt_base:#x}, {v.ldt_entries} entries; in use: {loaded}\n" + show.columns(rows)
