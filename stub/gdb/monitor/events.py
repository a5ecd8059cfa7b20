"""Event channels and grants: ``evtchn``, ``grants``."""

from __future__ import annotations

from collections.abc import Iterator

from stub.abi import event_channel as abi
from stub.abi import grant_table as gnt
from stub.abi.xen import VIRQS
from stub.domain.builder import CONSOLE_PORT, XENSTORE_PORT
from stub.gdb.monitor import show
from stub.gdb.monitor.context import Context
from stub.gdb.monitor.registry import command
from stub.hypervisor.event_fifo import BUSY, LINKED, Fifo
from stub.hypervisor.event_ports import INTERDOMAIN, IPI, PIRQ, UNBOUND, VIRQ, FarEnd, Port
from stub.hypervisor.vcpu import VCPU_INFO_MASK
from stub.units import PAGE_SIZE

_STATES = {UNBOUND: "unbound", INTERDOMAIN: "interdomain", PIRQ: "pirq", VIRQ: "virq", IPI: "ipi"}
_BACK_ENDS = {CONSOLE_PORT: "console", XENSTORE_PORT: "XenStore"}
_MOST_LINKS = 32  # of a queue that are shown: the guest can make it as long as it likes, or a loop


@command("xen evtchn", "every port in use: what it is bound to, pending, masked; the FIFO's queues")
def evtchn(context: Context) -> str:
    """``pending`` and ``masked`` are the guest's bits: in shared_info, or in the event words of the FIFO ABI."""
    xen = context.xen
    events = xen.events
    rows = [(port.number, *_row(context, port)) for port in events.in_use()]
    titles = ("port", "state", "bound to", "pending", "masked", "" if events.fifo is None else "queue")
    vcpus = "".join(_vcpu(context, number) for number in range(len(events.vcpus)))
    return f"{events.abi.name} ABI\n" + vcpus + "".join(_fifo(events.fifo)) + show.columns(rows, titles)


def _vcpu(context: Context, number: int) -> str:
    events, memory = context.xen.events, context.xen.ram_bytes
    vcpu = events.vcpus[number]
    masked = "masked" if memory[vcpu.info_at + VCPU_INFO_MASK] else "unmasked"
    upcall = f"vCPU {number}: upcall {'pending' if memory[vcpu.info_at] else 'not pending'}, {masked}"
    return upcall + (f", selector {events.two_level.selector(vcpu):#x}\n" if events.fifo is None else "\n")


def _row(context: Context, port: Port) -> tuple[str, ...]:
    events = context.xen.events
    more = [] if events.fifo is None else _queued(events.fifo, port)
    if port.number in context.xen.vcpu.polling:
        more.append("polled")
    yes = {True: "yes", False: "-"}
    pending, masked = yes[events.is_pending(port)], yes[events.abi.is_masked(port)]
    return _STATES[port.state], _bound(port), pending, masked, " ".join(more)


def _bound(port: Port) -> str:
    if port.state == VIRQ:
        return f"{VIRQS.get(port.virq, f'VIRQ {port.virq}')}, vCPU {port.vcpu}"
    if port.state == IPI:
        return f"vCPU {port.vcpu}"
    if isinstance(port.peer, FarEnd):
        return f"domain 0 port {port.peer.number}, {_BACK_ENDS.get(port.number, 'a back end')}"
    if port.peer is not None:
        return f"domain {port.remote_domain} port {port.peer.number}"
    return f"for domain {port.remote_domain}"


def _queued(fifo: Fifo, port: Port) -> list[str]:
    """What an event word says besides pending and masked."""
    word = fifo.word(port.number)
    told = [] if port.priority == abi.EVTCHN_FIFO_PRIORITY_DEFAULT else [f"priority {port.priority}"]
    if word is None:
        return [*told, "pending until it has an event word" if port.pending else "no event word yet"]
    if word & LINKED:
        told.append(f"linked, next {word & abi.EVTCHN_FIFO_LINK_MASK}")
    return [*told, "busy"] if word & BUSY else told


def _fifo(fifo: Fifo | None) -> Iterator[str]:
    """The control blocks (struct evtchn_fifo_control_block), the queues from their heads on, the event array."""
    if fifo is None:
        return
    for vcpu, queues in enumerate(fifo.queues):
        block = fifo.block(vcpu)
        if block is None or queues.control is None:
            yield f"vCPU {vcpu} has no control block\n"
            continue
        ready, heads = block
        yield f"vCPU {vcpu}'s control block at machine {queues.control:#x}: ready {ready:#x}\n"
        for priority, (head, tail) in enumerate(zip(heads, queues.tails, strict=True)):
            if ready >> priority & 1 or (fifo.word(tail) or 0) & LINKED:
                yield f" priority {priority}: ports {_chain(fifo, head)}; tail {tail}\n"
    yield f"event array: {', '.join(f'mfn {mfn:#x}' for mfn in fifo.arrays) or 'no page yet'}\n"


def _chain(fifo: Fifo, head: int) -> str:
    """The ports from a head on, as far as they are linked."""
    ports: list[str] = []
    while head and len(ports) < _MOST_LINKS:
        word = fifo.word(head)
        if word is None or not word & LINKED:
            return " ".join([*ports, f"{head} (not linked)"])
        ports.append(str(head))
        head = word & abi.EVTCHN_FIFO_LINK_MASK
    return " ".join([*ports, "…"] if head else ports) or "none"


_KINDS = {
    gnt.GTF_permit_access: "access",
    gnt.GTF_accept_transfer: "transfer",
    gnt.GTF_transitive: "transitive",
}
_ROWS = 200


@command("xen grants", "the grant table: version, frames, every entry in use")
def grants(context: Context) -> str:
    """Entries 0 and 1 are made by the domain builder, for the console's and XenStore's rings."""
    xen = context.xen
    table = xen.grants
    layout = gnt.GrantEntryV1 if table.version == 1 else gnt.GrantEntryV2
    per_frame = PAGE_SIZE // layout.size
    rows = []
    for number, mfn in enumerate(table.frames):
        for i, entry in enumerate(layout.unpack_array(xen.ram_bytes, per_frame, mfn * PAGE_SIZE)):
            if entry.flags & gnt.GTF_type_mask:
                frame = entry.frame if table.version == 1 else entry.full_page_frame
                rows.append((str(number * per_frame + i), *_grant(context, entry.flags, entry.domid, frame)))
    where = ", ".join(f"{mfn:#x}" for mfn in table.frames)
    head = f"version {table.version}, {len(table.frames)} frames (mfn {where}), {len(rows)} entries in use\n"
    if table.status_frames:
        head += f"status words in mfn {', '.join(f'{mfn:#x}' for mfn in table.status_frames)}\n"
    more = f" … and {len(rows) - _ROWS} more\n" if len(rows) > _ROWS else ""
    return head + show.columns(rows[:_ROWS], ("ref", "to", "kind", "frame", "")) + more


def _grant(context: Context, flags: int, domid: int, frame: int) -> tuple[str, ...]:
    kind = flags & gnt.GTF_type_mask
    marks = []
    if kind == gnt.GTF_permit_access:
        marks = ["read-only"] if flags & gnt.GTF_readonly else ["read and write"]
        marks += [
            name for bit, name in ((gnt.GTF_reading, "being read"), (gnt.GTF_writing, "being written")) if flags & bit
        ]
    domain = context.xen.domain
    where = show.both(domain, frame) if kind != gnt.GTF_accept_transfer else f"pfn {frame:#x}"
    return f"domain {domid}", _KINDS[kind], where, ", ".join(marks)
