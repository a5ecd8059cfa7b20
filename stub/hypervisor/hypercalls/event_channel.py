"""event_channel_op (xen/common/event_channel.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stub.abi import event_channel as abi
from stub.abi.errno import EINVAL, ENOENT, EPERM, ESRCH
from stub.abi.xen import Hypercall
from stub.hypervisor import events
from stub.hypervisor.pirqs import PIRQS
from stub.hypervisor.registry import SubOps, hypercall
from stub.units import PAGE_SIZE

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

EVENT_CHANNEL_OPS = SubOps(Hypercall.event_channel_op)
_CONTROL_BLOCK = 72  # bytes
_LINK_BITS = 17


@hypercall(Hypercall.event_channel_op)
def event_channel_op(xen: Hypervisor, command: int, arg: int, _: int, __: int, ___: int) -> int:
    """Dispatch on the command."""
    return EVENT_CHANNEL_OPS.dispatch(xen, command & 0xFFFFFFFF, arg)


def _answer(xen: Hypervisor, arg: int, offset: int, value: int, size: int) -> int:
    """Store a port at ``offset`` of the argument, or pass an error on."""
    if value < 0:
        return value
    xen.domain.guest.write_u32(arg + offset, value)
    xen.out = xen.domain.guest.read(arg, size)
    return 0


@EVENT_CHANNEL_OPS(abi.EVTCHNOP_alloc_unbound)
def alloc_unbound(xen: Hypervisor, arg: int) -> int:
    """A port that another domain may bind to."""
    xen.payload = xen.domain.guest.read(arg, abi.EvtchnAllocUnbound.size)
    request = abi.EvtchnAllocUnbound.unpack_from(xen.payload)
    error = xen.domain.naming(request.dom)
    if error:
        return error
    port = xen.events.open(events.Port(events.UNBOUND, remote_domain=request.remote_dom))
    return _answer(xen, arg, 4, port, abi.EvtchnAllocUnbound.size)


@EVENT_CHANNEL_OPS(abi.EVTCHNOP_bind_interdomain)
def bind_interdomain(xen: Hypervisor, arg: int) -> int:
    """Connect to a port that was opened for us; only our own domain has any here."""
    xen.payload = xen.domain.guest.read(arg, abi.EvtchnBindInterdomain.size)
    request = abi.EvtchnBindInterdomain.unpack_from(xen.payload)
    error = xen.domain.naming(request.remote_dom)
    if error:
        return error if error == -ESRCH else -EINVAL  # no port of domain 0's is open to us
    remote = xen.events.get(request.remote_port)
    if remote is None or remote.state != events.UNBOUND or not xen.domain.is_self(remote.remote_domain):
        return -EINVAL
    local = events.Port(events.INTERDOMAIN, remote_domain=xen.domain.domid, remote_port=request.remote_port)
    port = xen.events.open(local)
    if port > 0:
        remote.state, remote.remote_domain, remote.remote_port = events.INTERDOMAIN, xen.domain.domid, port
        xen.events.raise_port(port)
    return _answer(xen, arg, 8, port, abi.EvtchnBindInterdomain.size)


@EVENT_CHANNEL_OPS(abi.EVTCHNOP_bind_virq)
def bind_virq(xen: Hypervisor, arg: int) -> int:
    """A port for a virtual interrupt."""
    xen.payload = xen.domain.guest.read(arg, abi.EvtchnBindVirq.size)
    request = abi.EvtchnBindVirq.unpack_from(xen.payload)
    return _answer(xen, arg, 8, xen.events.bind_virq(request.virq, request.vcpu), abi.EvtchnBindVirq.size)


@EVENT_CHANNEL_OPS(abi.EVTCHNOP_bind_pirq)
def bind_pirq(xen: Hypervisor, arg: int) -> int:
    """Physical interrupts are not a domU's."""
    xen.payload = xen.domain.guest.read(arg, abi.EvtchnBindPirq.size)
    return -EPERM if abi.EvtchnBindPirq.unpack_from(xen.payload).pirq < PIRQS else -EINVAL


@EVENT_CHANNEL_OPS(abi.EVTCHNOP_bind_ipi)
def bind_ipi(xen: Hypervisor, arg: int) -> int:
    """A port for interrupts between vCPUs."""
    xen.payload = xen.domain.guest.read(arg, abi.EvtchnBindIpi.size)
    request = abi.EvtchnBindIpi.unpack_from(xen.payload)
    if request.vcpu >= xen.domain.config.vcpus:
        return -ENOENT
    port = xen.events.open(events.Port(events.IPI, vcpu=request.vcpu))
    return _answer(xen, arg, 4, port, abi.EvtchnBindIpi.size)


@EVENT_CHANNEL_OPS(abi.EVTCHNOP_close)
def close(xen: Hypervisor, arg: int) -> int:
    """Free a port."""
    xen.payload = xen.domain.guest.read(arg, 4)
    return xen.events.close(int.from_bytes(xen.payload, "little"))


@EVENT_CHANNEL_OPS(abi.EVTCHNOP_send)
def send(xen: Hypervisor, arg: int) -> int:
    """Notify the other end."""
    xen.payload = xen.domain.guest.read(arg, 4)
    return xen.events.send(int.from_bytes(xen.payload, "little"))


@EVENT_CHANNEL_OPS(abi.EVTCHNOP_status)
def status(xen: Hypervisor, arg: int) -> int:
    """What a port is bound to."""
    xen.payload = xen.domain.guest.read(arg, abi.EvtchnStatus.size)
    request = abi.EvtchnStatus.unpack_from(xen.payload)
    error = xen.domain.naming(request.dom)
    if error:
        return error
    port = xen.events.get(request.port)
    if port is None:
        if not 0 <= request.port <= events.MAX_PORT:
            return -EINVAL
        answer = (abi.EVTCHNSTAT_closed, 0, b"")
    else:
        detail = {
            events.UNBOUND: port.remote_domain.to_bytes(2, "little"),
            events.INTERDOMAIN: port.remote_domain.to_bytes(4, "little") + port.remote_port.to_bytes(4, "little"),
            events.VIRQ: port.virq.to_bytes(4, "little"),
        }.get(port.state, b"")
        kind = {
            events.UNBOUND: abi.EVTCHNSTAT_unbound,
            events.INTERDOMAIN: abi.EVTCHNSTAT_interdomain,
            events.VIRQ: abi.EVTCHNSTAT_virq,
            events.IPI: abi.EVTCHNSTAT_ipi,
        }.get(port.state, abi.EVTCHNSTAT_closed)
        answer = (kind, port.vcpu, detail)
    state, vcpu, detail = answer
    xen.out = xen.payload[:8] + state.to_bytes(4, "little") + vcpu.to_bytes(4, "little") + detail.ljust(8, b"\0")
    xen.domain.guest.write(arg, xen.out)
    return 0


@EVENT_CHANNEL_OPS(abi.EVTCHNOP_bind_vcpu)
def bind_vcpu(xen: Hypervisor, arg: int) -> int:
    """Move a port's notifications to a vCPU."""
    xen.payload = xen.domain.guest.read(arg, 8)
    number, vcpu = int.from_bytes(xen.payload[:4], "little"), int.from_bytes(xen.payload[4:], "little")
    if vcpu >= xen.domain.config.vcpus:
        return -ENOENT
    port = xen.events.get(number)
    if port is None or port.state == events.IPI or (port.state == events.VIRQ and port.virq in events.PER_VCPU_VIRQS):
        return -EINVAL
    port.vcpu = vcpu
    return 0


@EVENT_CHANNEL_OPS(abi.EVTCHNOP_unmask)
def unmask(xen: Hypervisor, arg: int) -> int:
    """Clear a port's mask; what was pending is raised again."""
    xen.payload = xen.domain.guest.read(arg, 4)
    return xen.events.unmask(int.from_bytes(xen.payload, "little"))


@EVENT_CHANNEL_OPS(abi.EVTCHNOP_reset)
def reset(xen: Hypervisor, arg: int) -> int:
    """Close every port."""
    xen.payload = xen.domain.guest.read(arg, 2)
    error = xen.domain.naming(int.from_bytes(xen.payload, "little"))
    if error:
        return error
    for mfn in xen.events.reset():
        xen.domain.types.let_go(mfn)
    return 0


@EVENT_CHANNEL_OPS(abi.EVTCHNOP_init_control)
def init_control(xen: Hypervisor, arg: int) -> int:
    """Use the FIFO ABI, with this control block."""
    xen.payload = xen.domain.guest.read(arg, abi.EvtchnInitControl.size)
    request = abi.EvtchnInitControl.unpack_from(xen.payload)
    if request.vcpu >= xen.domain.config.vcpus:
        return -ENOENT
    if request.offset & 7 or request.offset > PAGE_SIZE - _CONTROL_BLOCK:
        return -EINVAL
    if xen.events.fifo is not None or xen.domain.types.hold(request.control_gfn):
        return -EINVAL
    xen.events.init_control(request.control_gfn, request.offset)
    xen.domain.guest.write(arg + 16, bytes([_LINK_BITS]))
    xen.out = xen.domain.guest.read(arg, abi.EvtchnInitControl.size)
    return 0


@EVENT_CHANNEL_OPS(abi.EVTCHNOP_expand_array)
def expand_array(xen: Hypervisor, arg: int) -> int:
    """Another page of event words."""
    xen.payload = xen.domain.guest.read(arg, 8)
    mfn = int.from_bytes(xen.payload, "little")
    if xen.events.fifo is None or xen.domain.types.hold(mfn):
        return -EINVAL if xen.events.fifo is not None else xen.events.expand_array(mfn)
    rc = xen.events.expand_array(mfn)
    if rc:
        xen.domain.types.let_go(mfn)
    return rc


@EVENT_CHANNEL_OPS(abi.EVTCHNOP_set_priority)
def set_priority(xen: Hypervisor, arg: int) -> int:
    """A port's place among the FIFO queues."""
    xen.payload = xen.domain.guest.read(arg, 8)
    return xen.events.set_priority(int.from_bytes(xen.payload[:4], "little"), int.from_bytes(xen.payload[4:], "little"))
