"""event_channel_op: what each operation checks, in Xen's order (xen/common/event_channel.c, event_fifo.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stub.abi import event_channel as abi
from stub.abi.errno import EACCES, EBUSY, EEXIST, EINVAL, ENOENT, ENOSPC, ENOSYS, EOPNOTSUPP, EPERM, ESRCH
from stub.abi.layout import Struct
from stub.abi.xen import NR_VIRQS, Hypercall
from stub.hypervisor.arguments import take
from stub.hypervisor.event_fifo import MAX_PAGES
from stub.hypervisor.event_ports import FREE, INTERDOMAIN, IPI, PIRQ, RESERVED, UNBOUND, VIRQ, Peer, Port
from stub.hypervisor.events import PORTS_OF_DOMAIN_0, is_per_vcpu
from stub.hypervisor.pirqs import PIRQS
from stub.hypervisor.refusals import refuse
from stub.hypervisor.registry import SubOps, hypercall
from stub.units import PAGE_SIZE

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

EVENT_CHANNEL_OPS: SubOps[[int]] = SubOps(Hypercall.event_channel_op)
_STATES = {
    FREE: "closed",
    RESERVED: "reserved",
    UNBOUND: "unbound",
    INTERDOMAIN: "a channel's end",
    PIRQ: "a PIRQ's",
    VIRQ: "a VIRQ's",
    IPI: "an IPI's",
}
_STATUSES = {
    UNBOUND: abi.EVTCHNSTAT_unbound,
    INTERDOMAIN: abi.EVTCHNSTAT_interdomain,
    PIRQ: abi.EVTCHNSTAT_pirq,
    VIRQ: abi.EVTCHNSTAT_virq,
    IPI: abi.EVTCHNSTAT_ipi,
}


@hypercall(Hypercall.event_channel_op)
def event_channel_op(xen: Hypervisor, command: int, arg: int, _: int, __: int, ___: int) -> int:
    """Dispatch on the command."""
    return EVENT_CHANNEL_OPS.dispatch(xen, command & 0xFFFFFFFF, arg)


# -- what they have in common


def _answer(xen: Hypervisor, arg: int, layout: Struct, **values: Any) -> int:
    """Give the structure back with these members set; what was done stays done where it cannot be written."""
    answer = bytearray(xen.payload)
    layout.pack_into(answer, 0, **values)
    xen.out = bytes(answer)
    xen.domain.guest.write(arg, xen.out)
    return 0


def _port_or_refuse(xen: Hypervisor, number: int) -> Port | int:
    """A port that there is a record of, in use or not; or -EINVAL."""
    port = xen.events.get(number)
    return refuse(xen, EINVAL, f"there is no port {number}") if port is None else port


def _free_port_or_refuse(xen: Hypervisor) -> Port | int:
    port = xen.events.free_port()
    return refuse(xen, ENOSPC, f"no port up to {xen.events.max_port} is free") if port is None else port


def _wrong_state(xen: Hypervisor, port: Port) -> int:
    return refuse(xen, EINVAL, f"port {port.number} is {_STATES[port.state]}")


def _no_vcpu(xen: Hypervisor, vcpu: int) -> int:
    """-ENOENT for a vCPU that the domain does not have, else 0."""
    return refuse(xen, ENOENT, f"there is no vCPU {vcpu}") if vcpu >= len(xen.events.vcpus) else 0


def _not_ours(xen: Hypervisor, domid: int) -> int:
    """-ESRCH or -EPERM for a domain that is not this one, else 0."""
    error = xen.domain.naming(domid)
    if error == -ESRCH:
        return refuse(xen, ESRCH, f"there is no domain {domid}")
    return refuse(xen, EPERM, f"domain {domid} is not the caller's to change") if error else 0


# -- the operations


@EVENT_CHANNEL_OPS(abi.EVTCHNOP_alloc_unbound)
def alloc_unbound(xen: Hypervisor, arg: int) -> int:
    """A port that a domain, any at all, may bind to."""
    request = take(xen, abi.EvtchnAllocUnbound, arg)
    error = _not_ours(xen, request.dom)
    if error:
        return error
    port = _free_port_or_refuse(xen)
    if isinstance(port, int):
        return port
    domid = xen.domain.domid if xen.domain.is_self(request.remote_dom) else request.remote_dom
    xen.events.open(port, UNBOUND, remote_domain=domid)
    return _answer(xen, arg, abi.EvtchnAllocUnbound, port=port.number)


@EVENT_CHANNEL_OPS(abi.EVTCHNOP_bind_interdomain)
def bind_interdomain(xen: Hypervisor, arg: int) -> int:
    """Bind to a port that waits for this domain: its own, or a back end's whose channel the guest had closed."""
    request = take(xen, abi.EvtchnBindInterdomain, arg)
    if xen.domain.naming(request.remote_dom) == -ESRCH:
        return refuse(xen, ESRCH, f"there is no domain {request.remote_dom}")
    port = _free_port_or_refuse(xen)
    if isinstance(port, int):
        return port
    remote = _waiting(xen, request.remote_dom, request.remote_port)
    if remote is None:
        return refuse(xen, EINVAL, f"port {request.remote_port} of domain {request.remote_dom} waits for no-one here")
    xen.events.connect_ports(port, remote)
    return _answer(xen, arg, abi.EvtchnBindInterdomain, local_port=port.number)


def _waiting(xen: Hypervisor, domid: int, number: int) -> Peer | None:
    """An end that this domain may bind to."""
    if not xen.domain.is_self(domid):
        far = xen.events.far_end(number)
        return far if far is not None and far.port is None else None
    port = xen.events.get(number)
    waits = port is not None and port.state == UNBOUND and port.remote_domain == xen.domain.domid
    return port if waits else None


@EVENT_CHANNEL_OPS(abi.EVTCHNOP_bind_virq)
def bind_virq(xen: Hypervisor, arg: int) -> int:
    """A port for a virtual interrupt; one that is global is bound by vCPU 0, and may be moved afterwards."""
    request = take(xen, abi.EvtchnBindVirq, arg)
    virq, vcpu = request.virq, request.vcpu
    if virq >= NR_VIRQS:
        return refuse(xen, EINVAL, f"there is no VIRQ {virq}")
    if not is_per_vcpu(virq) and vcpu:
        return refuse(xen, EINVAL, f"VIRQ {virq} is no vCPU's own, and is bound for vCPU 0")
    error = _no_vcpu(xen, vcpu)
    if error:
        return error
    bound = xen.events.virq_port(virq, vcpu)
    if bound is not None:
        return refuse(xen, EEXIST, f"VIRQ {virq} is bound to port {bound.number}")
    port = _free_port_or_refuse(xen)
    if isinstance(port, int):
        return port
    xen.events.bind_virq(port, virq, vcpu)
    return _answer(xen, arg, abi.EvtchnBindVirq, port=port.number)


@EVENT_CHANNEL_OPS(abi.EVTCHNOP_bind_pirq)
def bind_pirq(xen: Hypervisor, arg: int) -> int:
    """Physical interrupts are not a domU's."""
    pirq = take(xen, abi.EvtchnBindPirq, arg).pirq
    if pirq >= PIRQS:
        return refuse(xen, EINVAL, f"there is no PIRQ {pirq}")
    return refuse(xen, EPERM, f"PIRQ {pirq} is not the domain's")


@EVENT_CHANNEL_OPS(abi.EVTCHNOP_bind_ipi)
def bind_ipi(xen: Hypervisor, arg: int) -> int:
    """A port for interrupts between vCPUs."""
    vcpu = take(xen, abi.EvtchnBindIpi, arg).vcpu
    error = _no_vcpu(xen, vcpu)
    if error:
        return error
    port = _free_port_or_refuse(xen)
    if isinstance(port, int):
        return port
    xen.events.open(port, IPI, vcpu=vcpu)
    return _answer(xen, arg, abi.EvtchnBindIpi, port=port.number)


@EVENT_CHANNEL_OPS(abi.EVTCHNOP_close)
def close(xen: Hypervisor, arg: int) -> int:
    """Free a port."""
    port = _port_or_refuse(xen, take(xen, abi.EvtchnClose, arg).port)
    if isinstance(port, int):
        return port
    if not port.in_use:
        return _wrong_state(xen, port)
    xen.events.close(port)
    return 0


@EVENT_CHANNEL_OPS(abi.EVTCHNOP_send)
def send(xen: Hypervisor, arg: int) -> int:
    """Notify the other end; where there is none yet that is lost."""
    port = _port_or_refuse(xen, take(xen, abi.EvtchnSend, arg).port)
    if isinstance(port, int):
        return port
    if port.state not in (UNBOUND, INTERDOMAIN, IPI):
        return _wrong_state(xen, port)
    xen.events.send(port)
    return 0


@EVENT_CHANNEL_OPS(abi.EVTCHNOP_status)
def status(xen: Hypervisor, arg: int) -> int:
    """What a port is bound to. Another domain's port must be there before it is refused."""
    request = take(xen, abi.EvtchnStatus, arg)
    error = xen.domain.naming(request.dom)
    if error == -EPERM and request.port >= PORTS_OF_DOMAIN_0:
        return refuse(xen, EINVAL, f"domain {request.dom} has no port {request.port}")
    if error:
        return _not_ours(xen, request.dom)
    port = _port_or_refuse(xen, request.port)
    if isinstance(port, int):
        return port
    kind = _STATUSES.get(port.state, abi.EVTCHNSTAT_closed)
    return _answer(xen, arg, abi.EvtchnStatus, status=kind, vcpu=port.vcpu, **_bound_to(port))


def _bound_to(port: Port) -> dict[str, int]:
    """The members of the status that say what a port is bound to."""
    if port.peer is not None:
        return {"interdomain_dom": port.remote_domain, "interdomain_port": port.peer.number}
    return {UNBOUND: {"unbound_dom": port.remote_domain}, VIRQ: {"virq": port.virq}}.get(port.state, {})


@EVENT_CHANNEL_OPS(abi.EVTCHNOP_bind_vcpu)
def bind_vcpu(xen: Hypervisor, arg: int) -> int:
    """Have another vCPU told of a port, unless it is a vCPU's own."""
    request = take(xen, abi.EvtchnBindVcpu, arg)
    error = _no_vcpu(xen, request.vcpu)
    if error:
        return error
    port = _port_or_refuse(xen, request.port)
    if isinstance(port, int):
        return port
    if not port.in_use or port.state == IPI or (port.state == VIRQ and is_per_vcpu(port.virq)):
        return _wrong_state(xen, port)
    port.vcpu = request.vcpu
    return 0


@EVENT_CHANNEL_OPS(abi.EVTCHNOP_unmask)
def unmask(xen: Hypervisor, arg: int) -> int:
    """Clear a port's mask; what was pending is raised again. A port that is not in use has none, and that is well."""
    port = _port_or_refuse(xen, take(xen, abi.EvtchnUnmask, arg).port)
    if isinstance(port, int):
        return port
    if port.in_use:
        xen.events.abi.unmask(port)
    return 0


@EVENT_CHANNEL_OPS(abi.EVTCHNOP_reset)
def reset(xen: Hypervisor, arg: int) -> int:
    """Close every port, and use the two-level ABI again."""
    error = _not_ours(xen, take(xen, abi.EvtchnReset, arg).dom)
    if error:
        return error
    for mfn in xen.events.reset():
        xen.domain.types.let_go(mfn)
    return 0


@EVENT_CHANNEL_OPS(abi.EVTCHNOP_reset_cont)
def reset_cont(xen: Hypervisor, arg: int) -> int:
    """What Xen itself makes of a reset that it interrupted; ours never are, so there is nothing to go on with."""
    error = _not_ours(xen, take(xen, abi.EvtchnReset, arg).dom)
    return error or refuse(xen, EBUSY, "no reset was interrupted")


# -- the FIFO ABI's


@EVENT_CHANNEL_OPS(abi.EVTCHNOP_init_control)
def init_control(xen: Hypervisor, arg: int) -> int:
    """Use the FIFO ABI, with this control block of a vCPU."""
    request = take(xen, abi.EvtchnInitControl, arg)
    error = _no_vcpu(xen, request.vcpu)
    if error:
        return error
    if request.offset > PAGE_SIZE - abi.EvtchnFifoControlBlock.size or request.offset % 8:
        return refuse(xen, EINVAL, f"a control block cannot be at offset {request.offset:#x} of a page")
    fifo = xen.events.fifo
    if fifo is not None and fifo.queues[request.vcpu].control is not None:
        return refuse(xen, EINVAL, f"vCPU {request.vcpu} has a control block")
    if xen.domain.types.hold(request.control_gfn):
        return refuse(xen, EINVAL, f"frame {request.control_gfn:#x} cannot be written")
    xen.events.init_control(request.vcpu, request.control_gfn * PAGE_SIZE + request.offset)
    return _answer(xen, arg, abi.EvtchnInitControl, link_bits=abi.EVTCHN_FIFO_LINK_BITS)


@EVENT_CHANNEL_OPS(abi.EVTCHNOP_expand_array)
def expand_array(xen: Hypervisor, arg: int) -> int:
    """Another page of event words."""
    mfn = take(xen, abi.EvtchnExpandArray, arg).array_gfn
    fifo = xen.events.fifo
    if fifo is None:
        return refuse(xen, EOPNOTSUPP, "the domain uses the two-level ABI")
    if len(fifo.arrays) >= MAX_PAGES:
        return refuse(xen, ENOSPC, f"the event array has its {MAX_PAGES} pages")
    if xen.domain.types.hold(mfn):
        return refuse(xen, EINVAL, f"frame {mfn:#x} cannot be written")
    xen.events.expand_array(fifo, mfn)
    return 0


@EVENT_CHANNEL_OPS(abi.EVTCHNOP_set_priority)
def set_priority(xen: Hypervisor, arg: int) -> int:
    """A port's place among the FIFO's queues, from when it is raised next."""
    request = take(xen, abi.EvtchnSetPriority, arg)
    port = _port_or_refuse(xen, request.port)
    if isinstance(port, int):
        return port
    if xen.events.fifo is None:
        return refuse(xen, ENOSYS, "the domain uses the two-level ABI")
    if not port.in_use:
        return refuse(xen, EACCES, f"port {port.number} is {_STATES[port.state]}")
    if request.priority > abi.EVTCHN_FIFO_PRIORITY_MIN:
        return refuse(xen, EINVAL, f"there is no priority {request.priority}")
    port.priority = request.priority
    return 0
