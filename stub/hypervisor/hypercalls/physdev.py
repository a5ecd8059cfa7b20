"""physdev_op: what a domU may ask of the physical machine, which is its own I/O privilege (arch/x86/physdev.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stub.abi import physdev as abi
from stub.abi.errno import EFAULT, EINVAL, ENOSYS, EPERM
from stub.abi.xen import Hypercall
from stub.hypervisor.registry import SubOps, hypercall
from stub.memory.frames import WRITABLE
from stub.memory.guest import GuestFault

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

PHYSDEV_OPS = SubOps(Hypercall.physdev_op)


@hypercall(Hypercall.physdev_op)
def physdev_op(xen: Hypervisor, command: int, arg: int, _: int, __: int, ___: int) -> int:
    """Dispatch on the command."""
    handler = PHYSDEV_OPS.handlers.get(command & 0xFFFFFFFF)
    if handler is None:
        return -EPERM if command in abi.PHYSDEV_OPS else -ENOSYS
    try:
        return handler(xen, arg)
    except GuestFault:
        return -EFAULT


@hypercall(Hypercall.physdev_op_compat)
def physdev_op_compat(xen: Hypervisor, operation: int, _: int, __: int, ___: int, ____: int) -> int:
    """The old form: a command and, 8 bytes on, its argument."""
    try:
        command = xen.domain.guest.read_u32(operation)
    except GuestFault:
        return -EFAULT
    return physdev_op(xen, command, operation + 8, 0, 0, 0) or 0


@PHYSDEV_OPS(abi.PHYSDEVOP_set_iopl)
def set_iopl(xen: Hypervisor, arg: int) -> int:
    """The vCPU's virtual I/O privilege level."""
    xen.payload = xen.domain.guest.read(arg, 4)
    level = int.from_bytes(xen.payload, "little")
    if level > 3:
        return -EINVAL
    xen.vcpu.iopl = level
    return 0


@PHYSDEV_OPS(abi.PHYSDEVOP_set_iobitmap)
def set_iobitmap(xen: Hypervisor, arg: int) -> int:
    """The vCPU's I/O permission bitmap, a guest pointer."""
    xen.payload = xen.domain.guest.read(arg, abi.PhysdevSetIobitmap64.size)
    request = abi.PhysdevSetIobitmap64.unpack_from(xen.payload)
    if request.nr_ports > 65536:
        return -EINVAL
    xen.vcpu.io_bitmap, xen.vcpu.io_bitmap_ports = request.bitmap, request.nr_ports
    return 0


@PHYSDEV_OPS(abi.PHYSDEVOP_pirq_eoi_gmfn_v2)
def pirq_eoi_gmfn(xen: Hypervisor, arg: int) -> int:
    """A page in which Xen says which physical interrupts need an EOI: none does."""
    xen.payload = xen.domain.guest.read(arg, 8)
    mfn = int.from_bytes(xen.payload, "little")
    return -EINVAL if xen.domain.types.get_page_and_type(mfn, WRITABLE) else 0
