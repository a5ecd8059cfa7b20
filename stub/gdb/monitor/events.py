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
from stub.hypervisor.events import INTERDOMAIN, IPI, PIRQ, UNBOUND, VIRQ, EventChannels, Port
from stub.hypervisor.vcpu import VCPU_INFO_MASK, VCPU_INFO_SELECTOR
from stub.units import PAGE_SIZE

_STATES = {UNBOUND: "unbound", INTERDOMAIN: "interdomain", PIRQ: "pirq", VIRQ: "virq", IPI: "ipi"}
_BACK_ENDS = {CONSOLE_PORT: "console", XENSTORE_PORT: "XenStore"}
_F_PENDING, _F_MASKED, _F_LINKED, _F_BUSY = 1 << 31, 1 << 30, 1 << 29, 1 << 28
_PER_ARRAY = PAGE_SIZE // 4
_MASK_WORDS = 2560 // 8  # shared_info.evtchn_mask, in words


@command("xen evtchn", "every port in use: what it is bound to, pending, masked")
def evtchn(context: Context) -> str:
    """``pending`` and ``masked`` are the guest's bits: in shared_info, or in the event words of the FIFO ABI."""
    xen = context.xen
    events, at, memory = xen.events, xen.vcpu.info_at, xen.ram_bytes
    selector = int.from_bytes(memory[at + VCPU_INFO_SELECTOR : at + VCPU_INFO_SELECTOR + 8], "little")
    kind = "two-level" if events.fifo is None else "FIFO"
    masked = "masked" if memory[at + VCPU_INFO_MASK] else "unmasked"
    upcall = f"upcall {'pending' if memory[at] else 'not pending'}, {masked}"
    head = f"{kind} ABI; vCPU 0: {upcall}" + (f", selector {selector:#x}\n" if events.fifo is None else "\n")
    rows = [(port, *_row(context, port, content)) for port, content in sorted(events.ports.items())]
    titles = ("port", "state", "bound to", "pending", "masked", "" if events.fifo is None else "queue")
    return head + "".join(_queues(context)) + show.columns(rows, titles)


def _row(context: Context, port: int, content: Port) -> tuple[str, ...]:
    events = context.xen.events
    pending, masked, more = _bits(context, events, port)
    if content.priority != 7 and events.fifo is not None:
        more = f"priority {content.priority} {more}".rstrip()
    if port in context.xen.vcpu.polling:
        more = f"{more} polled".strip()
    yes = {True: "yes", False: "-"}
    return _STATES.get(content.state, "?"), _bound(port, content), yes[pending], yes[masked], more


def _bound(port: int, content: Port) -> str:
    if content.state == VIRQ:
        return f"{VIRQS.get(content.virq, f'VIRQ {content.virq}')}, vCPU {content.vcpu}"
    if content.state == IPI:
        return f"vCPU {content.vcpu}"
    if content.notify is not None:
        return f"domain 0, {_BACK_ENDS.get(port, 'a back end')}"
    if content.state == INTERDOMAIN:
        return f"domain {content.remote_domain} port {content.remote_port}"
    return f"for domain {content.remote_domain}"


def _bits(context: Context, events: EventChannels, port: int) -> tuple[bool, bool, str]:
    """(pending, masked, what else the FIFO's word says)."""
    words = context.xen.domain.ram.words
    if events.fifo is None:
        word = words[(context.xen.domain.area.shared_info << 9) + _MASK_WORDS + (port >> 6)]
        return events.is_pending(port), bool(word >> (port & 63) & 1), ""
    value = _event_word(context, events, port)
    if value is None:
        return False, False, "no event word yet"
    linked = f"linked, next {value & 0x1FFFF}" if value & _F_LINKED else ""
    return bool(value & _F_PENDING), bool(value & _F_MASKED), linked + (" busy" if value & _F_BUSY else "")


def _event_word(context: Context, events: EventChannels, port: int) -> int | None:
    arrays = events._arrays
    if port // _PER_ARRAY >= len(arrays):
        return None
    at = arrays[port // _PER_ARRAY] * PAGE_SIZE + port % _PER_ARRAY * 4
    return int.from_bytes(context.xen.ram_bytes[at : at + 4], "little")


def _queues(context: Context) -> Iterator[str]:
    """The FIFO ABI's control block (struct evtchn_fifo_control_block)."""
    fifo = context.xen.events.fifo
    if fifo is None:
        return
    block = abi.EvtchnFifoControlBlock.unpack_from(context.xen.ram_bytes, fifo.control)
    heads = ", ".join(f"priority {i} head {head}" for i, head in enumerate(block.head) if block.ready >> i & 1)
    yield f"control block at machine {fifo.control:#x}: ready {block.ready:#x}{'; ' + heads if heads else ''}\n"


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
