"""sched_op: yield, block, poll, shut down (xen/common/sched/core.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stub.abi import sched as abi
from stub.abi.errno import EINVAL, ENOSPC, ENOSYS, EPERM
from stub.abi.xen import Hypercall
from stub.hypervisor import runstate
from stub.hypervisor.registry import SubOps, hypercall
from stub.hypervisor.vcpu import VCPU_INFO_MASK

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

SCHED_OPS = SubOps(Hypercall.sched_op)
_MAX_POLL_PORTS = 128


@hypercall(Hypercall.sched_op)
def sched_op(xen: Hypervisor, command: int, arg: int, _: int, __: int, ___: int) -> int:
    """Dispatch on the command."""
    return SCHED_OPS.dispatch(xen, command & 0xFFFFFFFF, arg)


@hypercall(Hypercall.sched_op_compat)
def sched_op_compat(xen: Hypervisor, command: int, arg: int, _: int, __: int, ___: int) -> int:
    """The old form: shutdown takes the reason itself, of which Xen keeps a byte."""
    if command == abi.SCHEDOP_shutdown:
        xen.shutdown(arg & 0xFF)
        return 0
    if command in (abi.SCHEDOP_yield, abi.SCHEDOP_block):
        return sched_op(xen, command, arg, 0, 0, 0) or 0
    return -ENOSYS


@SCHED_OPS(abi.SCHEDOP_yield)
def do_yield(xen: Hypervisor, _: int) -> int:
    """Let others run: the back ends, here."""
    xen.run_backends()
    return 0


@SCHED_OPS(abi.SCHEDOP_block)
def block(xen: Hypervisor, _: int) -> int:
    """Unmask events and sleep until one is pending."""
    vcpu = xen.vcpu
    xen.ram_bytes[vcpu.info_at + VCPU_INFO_MASK] = 0
    if not xen.ram_bytes[vcpu.info_at]:
        vcpu.blocked = True
        if not runstate.pass_time(xen):
            xen.pause = True
    return 0


@SCHED_OPS(abi.SCHEDOP_shutdown)
def shutdown(xen: Hypervisor, arg: int) -> int:
    """End the domain for a reason."""
    xen.payload = xen.domain.guest.read(arg, 4)
    xen.shutdown(xen.payload[0])  # Xen keeps a byte of it
    return 0


@SCHED_OPS(abi.SCHEDOP_poll)
def poll(xen: Hypervisor, arg: int) -> int:
    """Sleep until one of some ports is pending, or a time."""
    guest, vcpu = xen.domain.guest, xen.vcpu
    xen.payload = guest.read(arg, abi.SchedPoll64.size)
    request = abi.SchedPoll64.unpack_from(xen.payload)
    if request.nr_ports > _MAX_POLL_PORTS:
        return -EINVAL
    ports = frozenset(guest.read_u32(request.ports + 4 * i) for i in range(request.nr_ports))
    if any(xen.events.get(port) is None for port in ports):
        return -EINVAL
    if any(map(xen.events.is_pending, ports)):
        return 0
    at = vcpu.info_at
    if xen.ram_bytes[at] and not xen.ram_bytes[at + VCPU_INFO_MASK]:
        return 0
    vcpu.blocked, vcpu.polling = True, ports
    xen.pause = True
    if request.timeout:
        xen.clock.arm("poll", request.timeout)
    return 0


@SCHED_OPS(abi.SCHEDOP_watchdog)
def watchdog(xen: Hypervisor, arg: int) -> int:
    """Arm, kick or stop one of the domain's two watchdogs."""
    xen.payload = xen.domain.guest.read(arg, 8)
    number = int.from_bytes(xen.payload[:4], "little")
    timeout = int.from_bytes(xen.payload[4:], "little")
    if number > 2:
        return -EINVAL
    if number == 0:
        if timeout == 0:
            return -EINVAL
        number = next((i for i in (1, 2) if f"watchdog {i}" not in xen.clock.timers), 0)
        if not number:
            return -ENOSPC
        xen.clock.arm(f"watchdog {number}", xen.clock.now + timeout * 1_000_000_000)
        return number
    if f"watchdog {number}" not in xen.clock.timers:
        return -EINVAL
    xen.clock.arm(f"watchdog {number}", xen.clock.now + timeout * 1_000_000_000 if timeout else None)
    return 0


@SCHED_OPS(abi.SCHEDOP_remote_shutdown)
def remote_shutdown(_: Hypervisor, __: int) -> int:
    """The toolstack's."""
    return -EPERM


@SCHED_OPS(abi.SCHEDOP_shutdown_code)
def shutdown_code(xen: Hypervisor, arg: int) -> int:
    """The reason that a later shutdown would have."""
    xen.payload = xen.domain.guest.read(arg, 4)
    return 0


@SCHED_OPS(abi.SCHEDOP_pin_override)
def pin_override(_: Hypervisor, __: int) -> int:
    """The hardware domain's."""
    return -EPERM
