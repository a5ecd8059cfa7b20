"""callback_op: the guest's entry points (xen/arch/x86/pv/callback.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stub.abi import callback as abi
from stub.abi.errno import EFAULT, EINVAL
from stub.abi.xen import Hypercall
from stub.hypervisor.registry import hypercall
from stub.hypervisor.vcpu import Gate
from stub.memory.guest import GuestFault
from stub.units import is_canonical

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

_GATES = {
    abi.CALLBACKTYPE_event: "event",
    abi.CALLBACKTYPE_failsafe: "failsafe",
    abi.CALLBACKTYPE_syscall: "syscall",
    abi.CALLBACKTYPE_sysenter: "sysenter",
    abi.CALLBACKTYPE_syscall32: "syscall32",
    abi.CALLBACKTYPE_nmi: "nmi",
}


@hypercall(Hypercall.callback_op)
def callback_op(xen: Hypervisor, command: int, arg: int, _: int, __: int, ___: int) -> int:
    """Register or unregister an entry point."""
    command &= 0xFFFFFFFF
    guest = xen.domain.guest
    try:
        if command == abi.CALLBACKOP_register:
            xen.payload = guest.read(arg, abi.CallbackRegister64.size)
            request = abi.CallbackRegister64.unpack_from(xen.payload)
            name = _GATES.get(request.type)
            if name is None:
                return xen.not_there(Hypercall.callback_op, command)
            if not is_canonical(request.address):
                return -EINVAL
            masks = name == "event" or bool(request.flags & abi.CALLBACKF_mask_events)
            setattr(xen.vcpu, name, Gate(request.address, masks))
            return 0
        if command == abi.CALLBACKOP_unregister:
            xen.payload = guest.read(arg, 4)
            kind = int.from_bytes(xen.payload[:2], "little")
            if kind == abi.CALLBACKTYPE_nmi:
                xen.vcpu.nmi = Gate()
                return 0
            return -EINVAL
    except GuestFault:
        return -EFAULT
    return xen.not_there(Hypercall.callback_op, command)
