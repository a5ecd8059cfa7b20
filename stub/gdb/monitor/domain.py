"""What the domain is and has: ``domain``, ``memmap``."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from stub.abi.features import FEATURES
from stub.abi.xen import VM_ASSISTS
from stub.domain.xenarea import GDT_VA, LDT_VA, TRAMPOLINE_VA
from stub.gdb.monitor import show
from stub.gdb.monitor.context import Context
from stub.gdb.monitor.p2m import guest_list
from stub.gdb.monitor.registry import command
from stub.hypervisor.hypercalls.version import FEATURES as OFFERED
from stub.memory.frames import FREE, GUEST, PINNED, TYPE_NAMES, XEN
from stub.trace.styles import quote
from stub.units import MIB, PAGE_SIZE


@command("xen domain", "the domain: memory, kernel, time, features, how its run stands")
def domain(context: Context) -> str:
    """Times are virtual: one nanosecond an instruction."""
    machine, xen = context.machine, context.xen
    dom = xen.domain
    config, frames = dom.config, dom.frames
    owned = int((frames.np_owner == GUEST).sum())
    layout, info = dom.layout, dom.area.shared_info
    assists = ", ".join(VM_ASSISTS.get(kind, str(kind)).removeprefix("VMASST_TYPE_") for kind in sorted(xen.assists))
    offered = ", ".join(name.removeprefix("XENFEAT_") for bit, name in FEATURES.items() if OFFERED >> bit & 1)
    counts = machine.log.counts()
    verdict = machine.verdict
    shown = guest_list(context)
    rows = [
        ("domain", f"{dom.domid} {quote(config.name)}, {dom.bits}-bit PV, {config.vcpus} vCPU, boot {machine.boots}"),
        (
            "memory",
            f"{config.memory} MiB: {layout.nr_pages} pages at the start, {owned} owned, {dom.max_pages} at most",
        ),
        ("kernel", f"{config.kernel.name}, entry {context.label(dom.image.entry)}"),
        ("command line", quote(config.cmdline)),
        ("p2m", f"{config.p2m}, seed {config.seed}; {shown.name} at {shown.where}"),
        ("shared_info", f"mfn {info:#x}, machine {info * PAGE_SIZE:#x}"),
        ("start_info", f"{layout.start_info.vaddr:#x}, pfn {layout.start_info.pfn:#x}"),
        ("virtual time", f"{machine.now_ns / 1e9:.9f} s, {machine.retired} instructions"),
        ("timers", ", ".join(f"{n} at {t / 1e9:.9f} s" for n, t in sorted(xen.clock.timers.items())) or "none"),
        ("assists", assists or "none"),
        ("features", offered),
        (
            "so far",
            f"{sum(counts['hypercalls'].values())} hypercalls, {counts['events']} upcalls, "
            f"{sum(counts['exceptions'].values())} exceptions, {len(xen.console.output)} bytes of console",
        ),
        ("not there", ", ".join(f"{name} {n}" for name, n in sorted(xen.unimplemented.items())) or "nothing asked for"),
        ("verdict", f"{verdict.kind}: {verdict.reason}" if verdict else "none yet"),
    ]
    return show.columns(rows, indent="")


@command("xen memmap", "who has which machine memory, the start-of-day layout, a tally of the frames' types")
def memmap(context: Context) -> str:
    """The layout is the domain builder's: the guest moves out of much of it as it boots."""
    return "".join(_memmap(context))


def _memmap(context: Context) -> Iterator[str]:
    dom = context.xen.domain
    frames, area = dom.frames, dom.area
    yield f"machine memory: {frames.frames} frames, {frames.frames * PAGE_SIZE // MIB} MiB\n"
    owners = frames.np_owner
    ends = [0, *(np.flatnonzero(owners[1:] != owners[:-1]) + 1).tolist(), frames.frames]
    names = {FREE: "free", GUEST: "the guest's", XEN: "Xen's"}
    spans = list(pairwise(ends))
    rows = [(f"mfn {a:#x}-{b - 1:#x}", f"{b - a} frames", names.get(int(owners[a]), "?")) for a, b in spans[:24]]
    yield show.columns(rows)
    if len(spans) > len(rows):
        yield f" … and {len(spans) - len(rows)} stretches more\n"
    yield "Xen's part of every address space\n"
    m2p = area.m2p_word // 512
    yield show.columns(
        [
            ("0xffff800000000000", f"mfn {m2p:#x} on", "machine-to-physical table, the guest may read it"),
            (f"{GDT_VA:#x}", f"mfn {area.per_domain_l1:#x} maps it", "GDT"),
            (f"{TRAMPOLINE_VA:#x}", "", "where ring 3 is entered from"),
            (f"{LDT_VA:#x}", "", "LDT"),
            ("shared_info", f"mfn {area.shared_info:#x}", show.state(dom, area.shared_info)),
            ("pool", f"{area.room} frames", "left for grant tables"),
        ]
    )
    yield "start of day\n"
    yield show.columns(_layout_rows(context))
    yield "frames of the guest by type (in use, pinned)\n"
    yield show.columns(_type_rows(context))


def _layout_rows(context: Context) -> Iterator[tuple[str, str, str, str]]:
    dom = context.xen.domain
    layout = dom.layout
    spans = {
        "initial region": layout.region,
        "kernel": layout.kernel,
        "ramdisk": layout.ramdisk,
        "p2m list": layout.p2m,
        "start_info": layout.start_info,
        "XenStore ring": layout.xenstore,
        "console ring": layout.console,
        "page tables": layout.tables,
        "boot stack": layout.stack,
        "p2m page tables": layout.p2m_tables,
    }
    for name, span in spans.items():
        if span is None or not span.pages:
            continue
        where = f"{span.vaddr:#x}-{span.vaddr + span.pages * PAGE_SIZE:#x}" if span.vaddr else "not mapped"
        first = f"mfn {int(dom.p2m[span.pfn]):#x}" + (" first" if span.pages > 1 else "")
        yield name, f"pfn {span.pfn:#x}-{span.pfn + span.pages - 1:#x}", where, first


def _type_rows(context: Context) -> Iterator[tuple[str, str, str]]:
    frames = context.xen.domain.frames
    own = frames.np_owner == GUEST
    used = own & (frames.np_type_count > 0)
    pinned = used & (frames.np_flags & PINNED != 0)
    for kind, name in TYPE_NAMES.items():
        if not kind:
            yield name, str(int((own & ~used).sum())), ""
            continue
        count, pins = int((used & (frames.np_type == kind)).sum()), int((pinned & (frames.np_type == kind)).sum())
        yield name, str(count), f"{pins} pinned" if pins else ""
