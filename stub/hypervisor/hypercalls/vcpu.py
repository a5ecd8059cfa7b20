"""vcpu_op: vCPUs, their info pages and timers (xen/common/domain.c, arch/x86/domain.c)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from stub.abi import vcpu as abi
from stub.abi.errno import EEXIST, EFAULT, EINVAL, ENOENT, ENXIO, ETIME
from stub.abi.xen import Hypercall
from stub.hypervisor import runstate
from stub.hypervisor.registry import hypercall
from stub.hypervisor.vcpu import VCPU_INFO_SELECTOR
from stub.memory.frames import WRITABLE
from stub.memory.guest import GuestFault
from stub.units import PAGE_SIZE, U64

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

_MIN_PERIOD = 1_000_000  # ns
_INFO_SIZE = 64
Handler = Callable[["Hypervisor", int, int], int]
VCPU_HANDLERS: dict[int, Handler] = {}


def _op(command: int) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        if command in VCPU_HANDLERS:
            raise ValueError(f"vcpu_op {command} has two handlers")
        VCPU_HANDLERS[command] = handler
        return handler

    return register


@hypercall(Hypercall.vcpu_op)
def vcpu_op(xen: Hypervisor, command: int, vcpu: int, arg: int, _: int, __: int) -> int:
    """Dispatch on the command; a vCPU that does not exist is -ENOENT, by which guests count them."""
    if vcpu & 0xFFFFFFFF >= xen.domain.config.vcpus:
        return -ENOENT
    handler = VCPU_HANDLERS.get(command & 0xFFFFFFFF)
    if handler is None:
        return xen.not_there(Hypercall.vcpu_op, command & 0xFFFFFFFF)
    try:
        return handler(xen, vcpu & 0xFFFFFFFF, arg)
    except GuestFault:
        return -EFAULT


@_op(abi.VCPUOP_initialise)
def initialise(_: Hypervisor, __: int, ___: int) -> int:
    """The only vCPU is initialised."""
    return -EEXIST


@_op(abi.VCPUOP_up)
def up(_: Hypervisor, __: int, ___: int) -> int:
    """Already up."""
    return 0


@_op(abi.VCPUOP_down)
def down(xen: Hypervisor, _: int, __: int) -> int:
    """The last vCPU going down powers the domain off."""
    xen.shutdown(0)
    return 0


@_op(abi.VCPUOP_is_up)
def is_up(_: Hypervisor, __: int, ___: int) -> int:
    """Up."""
    return 1


@_op(abi.VCPUOP_get_runstate_info)
def get_runstate_info(xen: Hypervisor, _: int, arg: int) -> int:
    """Times in each state."""
    xen.out = runstate.current(xen)
    xen.domain.guest.write(arg, xen.out)
    return 0


@_op(abi.VCPUOP_register_runstate_memory_area)
def register_runstate(xen: Hypervisor, _: int, arg: int) -> int:
    """Keep the times at a guest virtual address."""
    xen.payload = xen.domain.guest.read(arg, 8)
    xen.vcpu.runstate_at = int.from_bytes(xen.payload, "little")
    runstate.write(xen)
    return 0


@_op(abi.VCPUOP_set_periodic_timer)
def set_periodic(xen: Hypervisor, _: int, arg: int) -> int:
    """A timer event every so many ns."""
    xen.payload = xen.domain.guest.read(arg, 8)
    period = int.from_bytes(xen.payload, "little")
    if not _MIN_PERIOD <= period < 1 << 63:
        return -EINVAL
    xen.period = period
    xen.clock.arm("periodic", xen.clock.now + period)
    return 0


@_op(abi.VCPUOP_stop_periodic_timer)
def stop_periodic(xen: Hypervisor, _: int, __: int) -> int:
    """No more periodic events."""
    xen.clock.arm("periodic", None)
    return 0


@_op(abi.VCPUOP_set_singleshot_timer)
def set_singleshot(xen: Hypervisor, _: int, arg: int) -> int:
    """One timer event at an absolute system time; a time that has passed is now, unless only the future will do."""
    xen.payload = xen.domain.guest.read(arg, abi.VcpuSetSingleshotTimer64.size)
    when, flags = abi.VcpuSetSingleshotTimer64.unpack_from(xen.payload)
    if flags & abi.VCPU_SSHOTTMR_future and when < xen.clock.now:
        return -ETIME
    xen.clock.arm("singleshot", when)
    return 0


@_op(abi.VCPUOP_stop_singleshot_timer)
def stop_singleshot(xen: Hypervisor, _: int, __: int) -> int:
    """Cancel it."""
    xen.clock.arm("singleshot", None)
    return 0


@_op(abi.VCPUOP_register_vcpu_info)
def register_vcpu_info(xen: Hypervisor, _: int, arg: int) -> int:
    """Move vcpu_info to a page of the guest's; the guest gets a spurious upcall so that no event is lost."""
    domain, vcpu = xen.domain, xen.vcpu
    xen.payload = domain.guest.read(arg, abi.VcpuRegisterVcpuInfo.size)
    request = abi.VcpuRegisterVcpuInfo.unpack_from(xen.payload)
    if request.offset > PAGE_SIZE - _INFO_SIZE or request.offset & 7:
        return -ENXIO
    if vcpu.info_registered:
        return -EINVAL
    if domain.types.get_page_and_type(request.mfn, WRITABLE):
        return -EINVAL
    old, new = vcpu.info_at, request.mfn * PAGE_SIZE + request.offset
    xen.ram_bytes[new : new + _INFO_SIZE] = xen.ram_bytes[old : old + _INFO_SIZE]
    vcpu.info_at, vcpu.info_registered = new, True
    xen.pause = True  # the loop looks at the new place when it is entered
    domain.ram.words[(new + VCPU_INFO_SELECTOR) >> 3] = U64
    xen.ram_bytes[new] = 1
    return 0


@_op(abi.VCPUOP_send_nmi)
def send_nmi(xen: Hypervisor, _: int, arg: int) -> int:
    """Raise an NMI on the vCPU."""
    if arg:
        return -EINVAL
    xen.nmi_pending = xen.pause = True
    return 0


@_op(abi.VCPUOP_get_physid)
def get_physid(_: Hypervisor, __: int, ___: int) -> int:
    """Only for vCPUs pinned for good."""
    return -EINVAL


@_op(abi.VCPUOP_register_vcpu_time_memory_area)
def register_time_area(xen: Hypervisor, _: int, arg: int) -> int:
    """A second copy of the time information, at a guest virtual address; null drops it."""
    xen.payload = xen.domain.guest.read(arg, 8)
    xen.time_area = int.from_bytes(xen.payload, "little")
    runstate.update_time(xen)
    return 0
