"""sched_op: yield, block, poll, shut down (xen/common/sched/core.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stub.abi import sched as abi
from stub.abi.errno import EFAULT, EINVAL, ENOSPC, ESRCH
from stub.abi.xen import Hypercall
from stub.domain.domain import HARDWARE_DOMAIN
from stub.hypervisor import runstate, traps
from stub.hypervisor.arguments import take
from stub.hypervisor.clock import SECOND
from stub.hypervisor.pointers import handle_okay
from stub.hypervisor.refusals import hardware_domains, refuse
from stub.hypervisor.registry import SubOps, hypercall
from stub.hypervisor.vcpu import VCPU_INFO_MASK
from stub.units import U64

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

SCHED_OPS: SubOps[[int]] = SubOps(Hypercall.sched_op)
_MAX_POLL_PORTS = 128
_WATCHDOGS = 2  # NR_DOMAIN_WATCHDOG_TIMERS


@hypercall(Hypercall.sched_op)
def sched_op(xen: Hypervisor, command: int, arg: int, _: int, __: int, ___: int) -> int:
    """Dispatch on the command."""
    command &= 0xFFFFFFFF
    return SCHED_OPS.dispatch(xen, command, arg)


@hypercall(Hypercall.sched_op_compat)
def sched_op_compat(xen: Hypervisor, command: int, arg: int, _: int, __: int, ___: int) -> int:
    """The old form: shutdown takes the reason itself, of which Xen keeps a byte."""
    command &= 0xFFFFFFFF
    if command == abi.SCHEDOP_shutdown:
        xen.shutdown(arg & 0xFF)
        return 0
    if command in (abi.SCHEDOP_yield, abi.SCHEDOP_block):
        return sched_op(xen, command, arg, 0, 0, 0) or 0
    return xen.not_there(Hypercall.sched_op_compat, command)


@SCHED_OPS(abi.SCHEDOP_yield)
def do_yield(xen: Hypervisor, _: int) -> int:
    """Let others run: the back ends, here."""
    xen.run_backends()
    traps.reload_selectors(xen)
    return 0


@SCHED_OPS(abi.SCHEDOP_block)
def block(xen: Hypervisor, _: int) -> int:
    """Unmask events and sleep until one is pending."""
    vcpu = xen.vcpu
    xen.ram_bytes[vcpu.info_at + VCPU_INFO_MASK] = 0
    if not xen.ram_bytes[vcpu.info_at]:
        vcpu.blocked, vcpu.was_pending = True, False
        if not runstate.pass_time(xen):
            xen.pause = True
    return 0


@SCHED_OPS(abi.SCHEDOP_shutdown)
def shutdown(xen: Hypervisor, arg: int) -> int:
    """End the domain for a reason."""
    xen.payload = xen.domain.guest.read(arg, abi.SchedShutdown.size)
    xen.shutdown(xen.payload[0])  # Xen keeps a byte of it
    return 0


@SCHED_OPS(abi.SCHEDOP_shutdown_code)
def shutdown_code(xen: Hypervisor, arg: int) -> int:
    """The reason that a later shutdown has, whatever it says; the first one stays."""
    xen.payload = xen.domain.guest.read(arg, abi.SchedShutdown.size)
    if xen.shutdown_code is None:
        xen.shutdown_code = xen.payload[0]
    return 0


class _AnyPort(frozenset[int]):
    """What a vCPU waits for that polls not just one port: Xen wakes it whatever port becomes pending."""

    def __contains__(self, port: object) -> bool:
        return True


@SCHED_OPS(abi.SCHEDOP_poll)
def poll(xen: Hypervisor, arg: int) -> int:
    """Sleep until a port is pending, or an event can be delivered, or a time (do_poll)."""
    guest, vcpu = xen.domain.guest, xen.vcpu
    request = take(xen, abi.SchedPoll, arg)
    if request.nr_ports > _MAX_POLL_PORTS:
        return refuse(xen, EINVAL, f"{request.nr_ports} ports are more than {_MAX_POLL_PORTS}")
    if not handle_okay(request.ports, request.nr_ports, 4):
        return refuse(xen, EFAULT, f"a list of ports cannot begin at {request.ports:#x}")
    if xen.ram_bytes[vcpu.info_at] and not xen.ram_bytes[vcpu.info_at + VCPU_INFO_MASK]:
        return 0
    ports = set()
    for i in range(request.nr_ports):
        number = guest.read_u32((request.ports + 4 * i) & U64)
        port = xen.events.get(number)
        if port is None:
            return refuse(xen, EINVAL, f"there is no port {number}")
        if xen.events.is_pending(port):
            return 0
        ports.add(number)
    vcpu.was_pending = bool(xen.ram_bytes[vcpu.info_at])
    vcpu.blocked, vcpu.polling = True, frozenset(ports) if request.nr_ports == 1 else _AnyPort(ports)
    xen.pause = True
    if request.timeout:
        xen.clock.arm("poll", 0 if request.timeout >> 63 else request.timeout)
    return 0


@SCHED_OPS(abi.SCHEDOP_watchdog)
def watchdog(xen: Hypervisor, arg: int) -> int:
    """Arm, kick or stop one of the domain's two watchdogs (domain_watchdog)."""
    xen.payload = xen.domain.guest.read(arg, abi.SchedWatchdog.size)
    number, timeout = abi.SchedWatchdog.unpack_from(xen.payload)
    if number > _WATCHDOGS:
        return refuse(xen, EINVAL, f"there are {_WATCHDOGS} watchdogs, not {number}")
    due = xen.clock.now + timeout * SECOND
    if number == 0:
        free = next((i for i in range(1, _WATCHDOGS + 1) if f"watchdog {i}" not in xen.clock.timers), None)
        if free is None:
            return refuse(xen, ENOSPC, "all watchdogs are in use")
        xen.clock.arm(f"watchdog {free}", due)
        return free
    if f"watchdog {number}" not in xen.clock.timers:
        return refuse(xen, EINVAL, f"watchdog {number} is not in use")
    xen.clock.arm(f"watchdog {number}", due if timeout else None)
    return 0


@SCHED_OPS(abi.SCHEDOP_remote_shutdown)
def remote_shutdown(xen: Hypervisor, arg: int) -> int:
    """The toolstack's; a domain may not even do it to itself."""
    xen.payload = xen.domain.guest.read(arg, abi.SchedRemoteShutdown.size)
    domid = abi.SchedRemoteShutdown.unpack_from(xen.payload).domain_id
    if domid not in (xen.domain.domid, HARDWARE_DOMAIN):
        return refuse(xen, ESRCH, f"there is no domain {domid}")
    return hardware_domains(xen, "remote_shutdown")


@SCHED_OPS(abi.SCHEDOP_pin_override)
def pin_override(xen: Hypervisor, __: int) -> int:
    """The hardware domain's."""
    return hardware_domains(xen, "pin_override")
