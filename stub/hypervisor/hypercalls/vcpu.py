"""vcpu_op: vCPUs, their info pages and timers (xen/common/domain.c, arch/x86/domain.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stub.abi import vcpu as abi
from stub.abi.arch_x86 import VcpuGuestContext
from stub.abi.errno import EEXIST, EFAULT, EINVAL, ENOENT, ENXIO
from stub.abi.xen import VIRQ_TIMER, Hypercall, VcpuInfo, VcpuTimeInfo
from stub.hypervisor import runstate
from stub.hypervisor.arguments import take
from stub.hypervisor.pointers import structure_okay
from stub.hypervisor.refusals import refuse
from stub.hypervisor.registry import SubOps, hypercall
from stub.units import PAGE_SIZE

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

_MIN_PERIOD = 1_000_000  # ns
_MAX_PERIOD = (1 << 62) - 1  # STIME_DELTA_MAX
VCPU_OPS: SubOps[[int, int]] = SubOps(Hypercall.vcpu_op)


@hypercall(Hypercall.vcpu_op)
def vcpu_op(xen: Hypervisor, command: int, vcpu: int, arg: int, _: int, __: int) -> int:
    """Dispatch on the command; a vCPU that does not exist is -ENOENT, by which guests count them."""
    vcpu, command = vcpu & 0xFFFFFFFF, command & 0xFFFFFFFF
    if vcpu >= xen.domain.config.vcpus:
        return refuse(xen, ENOENT, f"there is no vCPU {vcpu}")
    return VCPU_OPS.dispatch(xen, command, vcpu, arg)


@VCPU_OPS(abi.VCPUOP_initialise)
def initialise(xen: Hypervisor, _: int, arg: int) -> int:
    """The only vCPU is initialised; what it was to begin with is read before that is seen."""
    xen.domain.guest.read(arg, VcpuGuestContext.of(xen.width.bits).size)
    return refuse(xen, EEXIST, "the vCPU is initialised")


@VCPU_OPS(abi.VCPUOP_up)
def up(_: Hypervisor, __: int, ___: int) -> int:
    """Already up."""
    return 0


@VCPU_OPS(abi.VCPUOP_down)
def down(xen: Hypervisor, _: int, __: int) -> int:
    """The last vCPU going down powers the domain off."""
    xen.shutdown(0)
    return 0


@VCPU_OPS(abi.VCPUOP_is_up)
def is_up(_: Hypervisor, __: int, ___: int) -> int:
    """Up."""
    return 1


@VCPU_OPS(abi.VCPUOP_get_runstate_info)
def get_runstate_info(xen: Hypervisor, _: int, arg: int) -> int:
    """Times in each state."""
    xen.out = runstate.current(xen)
    xen.domain.guest.write(arg, xen.out)
    return 0


def _area(xen: Hypervisor, arg: int) -> int:
    """Where an area is that the guest registers: a pointer, whose upper half a 32-bit guest may leave as it is."""
    xen.payload = xen.domain.guest.read(arg, xen.width.word)
    return int.from_bytes(xen.payload, "little")


@VCPU_OPS(abi.VCPUOP_register_runstate_memory_area)
def register_runstate(xen: Hypervisor, _: int, arg: int) -> int:
    """Keep the times at a guest virtual address."""
    address = _area(xen, arg)
    if not structure_okay(xen, address, 1, abi.VcpuRunstateInfo.of(xen.width.bits).size):
        return refuse(xen, EFAULT, f"an area cannot begin at {address:#x}")
    xen.vcpu.runstate_at = address
    runstate.write(xen)
    return 0


@VCPU_OPS(abi.VCPUOP_set_periodic_timer)
def set_periodic(xen: Hypervisor, _: int, arg: int) -> int:
    """A timer event every so many ns."""
    xen.payload = xen.domain.guest.read(arg, 8)
    period = int.from_bytes(xen.payload, "little")
    if not _MIN_PERIOD <= period <= _MAX_PERIOD:
        return refuse(xen, EINVAL, f"a period of {period} ns is shorter than {_MIN_PERIOD} or too long")
    xen.period = period
    xen.clock.arm("periodic", xen.clock.now + period)
    return 0


@VCPU_OPS(abi.VCPUOP_stop_periodic_timer)
def stop_periodic(xen: Hypervisor, _: int, __: int) -> int:
    """No more periodic events."""
    xen.clock.arm("periodic", None)
    return 0


@VCPU_OPS(abi.VCPUOP_set_singleshot_timer)
def set_singleshot(xen: Hypervisor, _: int, arg: int) -> int:
    """One timer event at an absolute system time; at once if that has passed, even where the guest asked otherwise.

    (Later versions of Xen 4.17 ignore VCPU_SSHOTTMR_future.)
    """
    when = take(xen, abi.VcpuSetSingleshotTimer, arg).timeout_abs_ns
    if when < xen.clock.now or when >> 63:
        xen.clock.arm("singleshot", None)
        xen.events.raise_virq(VIRQ_TIMER)
    else:
        xen.clock.arm("singleshot", when)
    return 0


@VCPU_OPS(abi.VCPUOP_stop_singleshot_timer)
def stop_singleshot(xen: Hypervisor, _: int, __: int) -> int:
    """Cancel it."""
    xen.clock.arm("singleshot", None)
    return 0


@VCPU_OPS(abi.VCPUOP_register_vcpu_info)
def register_vcpu_info(xen: Hypervisor, _: int, arg: int) -> int:
    """Move vcpu_info to a page of the guest's; the guest gets a spurious upcall so that no event is lost."""
    domain, vcpu = xen.domain, xen.vcpu
    request, info = take(xen, abi.VcpuRegisterVcpuInfo, arg), VcpuInfo.of(xen.width.bits)
    if request.offset > PAGE_SIZE - info.size or request.offset & xen.width.word - 1:
        return refuse(xen, ENXIO, f"vcpu_info does not fit at offset {request.offset:#x} of a page")
    if vcpu.info_registered:
        return refuse(xen, EINVAL, "vcpu_info was moved before")
    if domain.types.hold(request.mfn):
        return refuse(xen, EINVAL, f"frame {request.mfn:#x} cannot be written")
    old, new = vcpu.info_at, request.mfn * PAGE_SIZE + request.offset
    xen.ram_bytes[new : new + info.size] = xen.ram_bytes[old : old + info.size]
    vcpu.info_at, vcpu.info_registered = new, True
    xen.pause = True  # the loop looks at the new place when it is entered
    info.pack_into(xen.ram_bytes, new, evtchn_upcall_pending=1, evtchn_pending_sel=xen.width.mask)
    return 0


@VCPU_OPS(abi.VCPUOP_send_nmi)
def send_nmi(xen: Hypervisor, _: int, arg: int) -> int:
    """Raise an NMI on the vCPU."""
    if arg:
        return refuse(xen, EINVAL, "VCPUOP_send_nmi takes no argument")
    xen.nmi_pending = xen.pause = True
    return 0


@VCPU_OPS(abi.VCPUOP_get_physid)
def get_physid(xen: Hypervisor, __: int, ___: int) -> int:
    """Only for vCPUs pinned for good."""
    return refuse(xen, EINVAL, "the vCPU is not the hardware domain's, pinned")


@VCPU_OPS(abi.VCPUOP_register_vcpu_time_memory_area)
def register_time_area(xen: Hypervisor, _: int, arg: int) -> int:
    """A second copy of the time information, at a guest virtual address; null drops it."""
    address = _area(xen, arg)
    if not structure_okay(xen, address, 1, VcpuTimeInfo.size):
        return refuse(xen, EFAULT, f"an area cannot begin at {address:#x}")
    xen.time_area = address
    runstate.update_time(xen)
    return 0
