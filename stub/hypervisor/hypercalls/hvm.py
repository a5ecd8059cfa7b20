"""hvm_op from a PV guest: most of it is refused, the clock is not (xen/arch/x86/hvm/hvm.c, do_hvm_op)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stub.abi import hvm_op as abi
from stub.abi.errno import EINVAL, EOPNOTSUPP, EPERM, ESRCH
from stub.abi.layout import Struct
from stub.abi.xen import Hypercall
from stub.hypervisor.refusals import bad_pointer, refuse
from stub.hypervisor.registry import hypercall
from stub.memory.guest import GuestFault

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

_EVENTS = 1 << 12  # TRC_SUBCLS_SHIFT: a guest's own trace records are of one class
# What is read before the domain it is about is looked up.
_ABOUT_A_DOMAIN: dict[int, Struct] = {
    abi.HVMOP_set_param: abi.XenHvmParam,
    abi.HVMOP_get_param: abi.XenHvmParam,
    abi.HVMOP_pagetable_dying: abi.XenHvmPagetableDying,
    abi.HVMOP_get_mem_type: abi.XenHvmGetMemType,
}
# Those of a PV guest that are refused before their argument is looked at.
_HVM_ONLY = frozenset({abi.HVMOP_set_evtchn_upcall_vector, abi.HVMOP_flush_tlbs})


@hypercall(Hypercall.hvm_op)
def hvm_op(xen: Hypervisor, command: int, arg: int, _: int, __: int, ___: int) -> int:
    """Dispatch on the command, all of whose 64 bits count."""
    try:
        return _hvm_op(xen, command, arg)
    except GuestFault as fault:
        return bad_pointer(xen, fault)


def _hvm_op(xen: Hypervisor, command: int, arg: int) -> int:
    layout = _ABOUT_A_DOMAIN.get(command)
    if layout is not None:
        return _about_a_domain(xen, command, arg, layout)
    if command in _HVM_ONLY:
        return refuse(xen, EINVAL, f"{abi.HVM_OPS[command]} is for HVM guests")
    if command == abi.HVMOP_get_time:
        xen.payload = xen.domain.guest.read(arg, abi.XenHvmGetTime.size)
        xen.out = abi.XenHvmGetTime.pack(now=xen.clock.now)
        xen.domain.guest.write(arg, xen.out)
        return 0
    if command == abi.HVMOP_xentrace:
        return _trace(xen, arg)
    if command == abi.HVMOP_guest_request_vm_event:
        return refuse(xen, EINVAL, "HVMOP_guest_request_vm_event takes no argument") if arg else 0
    if command == abi.HVMOP_altp2m:
        return refuse(xen, EOPNOTSUPP, "there is no altp2m")
    return xen.not_there(Hypercall.hvm_op, command)


def _about_a_domain(xen: Hypervisor, command: int, arg: int, layout: Struct) -> int:
    xen.payload = xen.domain.guest.read(arg, layout.size)
    request = layout.unpack_from(xen.payload)
    if layout is abi.XenHvmParam and request.index_ >= abi.HVM_NR_PARAMS:
        return refuse(xen, EINVAL, f"there is no parameter {request.index_}")
    named = xen.domain.naming(request.domid)
    if named == -ESRCH:
        return refuse(xen, ESRCH, f"there is no domain {request.domid}")
    if named and command == abi.HVMOP_get_mem_type:
        return refuse(xen, EPERM, "it is about another domain's memory")
    return refuse(xen, EINVAL, f"domain {request.domid} is no HVM guest")


def _trace(xen: Hypervisor, arg: int) -> int:
    """A record for Xen's trace buffers, which nobody reads."""
    xen.payload = xen.domain.guest.read(arg, abi.XenHvmXentrace.size)
    request = abi.XenHvmXentrace.unpack_from(xen.payload)
    if request.extra_bytes > len(request.extra) or request.event >= _EVENTS:
        return refuse(xen, EINVAL, f"trace record {request.event:#x} with {request.extra_bytes} bytes")
    return 0
