"""callback_op, set_callbacks, nmi_op: the guest's entry points (xen/arch/x86/pv/callback.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stub.abi import callback as abi
from stub.abi import nmi
from stub.abi.arch_x86 import FLAT_KERNEL_CS, FLAT_RING1_CS
from stub.abi.errno import EINVAL, ENOSYS
from stub.abi.x86_defns import X86_EXC_NMI
from stub.abi.xen import Hypercall
from stub.hypervisor.refusals import bad_pointer, refuse
from stub.hypervisor.registry import hypercall
from stub.hypervisor.vcpu import Gate, TrapGate
from stub.memory.guest import GuestFault
from stub.units import is_canonical

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

_GATES = {
    64: {
        abi.CALLBACKTYPE_event: "event",
        abi.CALLBACKTYPE_failsafe: "failsafe",
        abi.CALLBACKTYPE_syscall: "syscall",
        abi.CALLBACKTYPE_sysenter: "sysenter",
        abi.CALLBACKTYPE_syscall32: "syscall32",
    },
    32: {
        abi.CALLBACKTYPE_event: "event",
        abi.CALLBACKTYPE_failsafe: "failsafe",
        abi.CALLBACKTYPE_syscall32: "syscall32",
        abi.CALLBACKTYPE_sysenter: "sysenter",
    },
}
_REGISTER = {64: abi.CallbackRegister64, 32: abi.CallbackRegister32}
_NMI = {64: nmi.XennmiCallback64, 32: nmi.XennmiCallback32}


def _set_nmi(xen: Hypervisor, address: int) -> None:
    """The NMI callback is the trap table's entry 2, entered with events masked."""
    cs = FLAT_RING1_CS if xen.vcpu.compat else FLAT_KERNEL_CS
    xen.vcpu.set_trap(X86_EXC_NMI, TrapGate(cs, address, 0, True))


def _register(xen: Hypervisor, kind: int, flags: int, address: int, cs: int = 0) -> int:
    """register_guest_callback, compat_register_guest_callback; the address is looked at before the kind."""
    if not is_canonical(address):
        return refuse(xen, EINVAL, f"entry point {address:#x} is not canonical")
    if kind == abi.CALLBACKTYPE_nmi:
        _set_nmi(xen, address)
        return 0
    name = _GATES[xen.domain.bits].get(kind)
    if name is None:
        return refuse(xen, ENOSYS, f"there is no callback {kind}")
    masks = name == "event" or bool(flags & abi.CALLBACKF_mask_events)
    setattr(xen.vcpu, name, Gate(address, masks, xen.vcpu.fixed(cs) if xen.vcpu.compat else 0))
    return 0


def _unregister(xen: Hypervisor, kind: int) -> int:
    if kind == abi.CALLBACKTYPE_nmi:
        xen.vcpu.set_trap(X86_EXC_NMI, None)
        return 0
    if kind in _GATES[xen.domain.bits]:
        return refuse(xen, EINVAL, f"{abi.CALLBACK_TYPES[kind]} cannot be unregistered")
    return refuse(xen, ENOSYS, f"there is no callback {kind}")


@hypercall(Hypercall.callback_op)
def callback_op(xen: Hypervisor, command: int, arg: int, _: int, __: int, ___: int) -> int:
    """Register or unregister an entry point."""
    command &= 0xFFFFFFFF
    guest = xen.domain.guest
    try:
        if command == abi.CALLBACKOP_register:
            layout = _REGISTER[xen.domain.bits]
            xen.payload = guest.read(arg, layout.size)
            request = layout.unpack_from(xen.payload)
            if xen.vcpu.compat:
                return _register(xen, request.type, request.flags, request.address_eip, request.address_cs & 0xFFFF)
            return _register(xen, request.type, request.flags, request.address)
        if command == abi.CALLBACKOP_unregister:
            xen.payload = guest.read(arg, abi.CallbackUnregister.size)
            return _unregister(xen, abi.CallbackUnregister.unpack_from(xen.payload).type)
    except GuestFault as fault:
        return bad_pointer(xen, fault)
    missing = xen.not_there(Hypercall.callback_op, command)
    return -EINVAL if xen.vcpu.compat else missing  # compat_callback_op's own answer


@hypercall(Hypercall.set_callbacks)
def set_callbacks(xen: Hypervisor, event: int, failsafe: int, syscall: int, fourth: int, __: int) -> int:
    """The old way to register three entry points; one that is not canonical is passed over, and the answer is 0.

    A 32-bit guest has two of them, each a selector and an address.
    """
    if xen.vcpu.compat:
        _register(xen, abi.CALLBACKTYPE_event, 0, failsafe, event & 0xFFFF)
        _register(xen, abi.CALLBACKTYPE_failsafe, 0, fourth, syscall & 0xFFFF)
        return 0
    for kind, address in (
        (abi.CALLBACKTYPE_event, event),
        (abi.CALLBACKTYPE_failsafe, failsafe),
        (abi.CALLBACKTYPE_syscall, syscall),
    ):
        _register(xen, kind, 0, address)
    return 0


@hypercall(Hypercall.nmi_op)
def nmi_op(xen: Hypervisor, command: int, arg: int, _: int, __: int, ___: int) -> int:
    """Register or drop the NMI handler (the older form of callback_op's)."""
    command &= 0xFFFFFFFF
    if command == nmi.XENNMI_register_callback:
        try:
            layout = _NMI[xen.domain.bits]
            xen.payload = xen.domain.guest.read(arg, layout.size)
        except GuestFault as fault:
            return bad_pointer(xen, fault)
        address = layout.unpack_from(xen.payload).handler_address
        return _register(xen, abi.CALLBACKTYPE_nmi, 0, address)
    if command == nmi.XENNMI_unregister_callback:
        return _unregister(xen, abi.CALLBACKTYPE_nmi)
    return xen.not_there(Hypercall.nmi_op, command)
