"""physdev_op: what a domU may ask of the physical machine, which is its own I/O privilege (arch/x86/physdev.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stub.abi import physdev as abi
from stub.abi.errno import EBUSY, EINVAL, ENODEV, ENOSPC, ESRCH
from stub.abi.layout import Struct
from stub.abi.xen import Hypercall
from stub.hypervisor.pirqs import GSIS, PIRQS
from stub.hypervisor.pointers import handle_okay
from stub.hypervisor.refusals import bad_pointer, hardware_domains, refuse
from stub.hypervisor.registry import SubOps, hypercall
from stub.memory.guest import GuestFault
from stub.units import U64

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

PHYSDEV_OPS = SubOps(Hypercall.physdev_op)
_MAX_PORTS = 65536
_BITMAP_BYTES = _MAX_PORTS // 8
# Refused whatever they say, but a bad pointer is told apart; None: the argument is not looked at.
_HARDWARE_ONLY: dict[int, Struct | None] = {
    abi.PHYSDEVOP_apic_read: abi.PhysdevApic64,
    abi.PHYSDEVOP_apic_write: abi.PhysdevApic64,
    abi.PHYSDEVOP_alloc_irq_vector: abi.PhysdevIrq,
    abi.PHYSDEVOP_manage_pci_add: abi.PhysdevManagePci,
    abi.PHYSDEVOP_manage_pci_remove: abi.PhysdevManagePci,
    abi.PHYSDEVOP_manage_pci_add_ext: abi.PhysdevManagePciExt,
    abi.PHYSDEVOP_pci_device_add: abi.PhysdevPciDeviceAdd,
    abi.PHYSDEVOP_pci_device_remove: abi.PhysdevPciDevice,
    abi.PHYSDEVOP_prepare_msix: abi.PhysdevPciDevice,
    abi.PHYSDEVOP_release_msix: abi.PhysdevPciDevice,
    abi.PHYSDEVOP_setup_gsi: abi.PhysdevSetupGsi,
    abi.PHYSDEVOP_pci_mmcfg_reserved: None,
    abi.PHYSDEVOP_dbgp_op: None,
}
# About a device on the bus, which is looked for first: there is none.
_DEVICES = {abi.PHYSDEVOP_restore_msi: abi.PhysdevRestoreMsi, abi.PHYSDEVOP_restore_msi_ext: abi.PhysdevPciDevice}
_OLD_OPS = frozenset({
    abi.PHYSDEVOP_irq_status_query,
    abi.PHYSDEVOP_set_iopl,
    abi.PHYSDEVOP_set_iobitmap,
    abi.PHYSDEVOP_apic_read,
    abi.PHYSDEVOP_apic_write,
    abi.PHYSDEVOP_alloc_irq_vector,
})  # fmt: skip


@hypercall(Hypercall.physdev_op)
def physdev_op(xen: Hypervisor, command: int, arg: int, _: int, __: int, ___: int) -> int:
    """Dispatch on the command."""
    command &= 0xFFFFFFFF
    if command in PHYSDEV_OPS.handlers:
        return PHYSDEV_OPS.dispatch(xen, command, arg)
    if command not in _HARDWARE_ONLY and command not in _DEVICES:
        return xen.not_there(Hypercall.physdev_op, command)
    layout = _DEVICES[command] if command in _DEVICES else _HARDWARE_ONLY[command]
    try:
        return _refused(xen, command, xen.domain.guest.read(arg, layout.size) if layout else b"")
    except GuestFault as fault:
        return bad_pointer(xen, fault)


def _refused(xen: Hypervisor, command: int, data: bytes) -> int:
    """What Xen finds wrong with a request before it sees who asks, or that."""
    xen.payload = data
    if command in _DEVICES:
        return refuse(xen, ENODEV, "there is no such device")
    if command == abi.PHYSDEVOP_setup_gsi and not 0 <= (gsi := abi.PhysdevSetupGsi.unpack_from(data).gsi) < GSIS:
        return refuse(xen, EINVAL, f"there is no GSI {gsi}")
    if command == abi.PHYSDEVOP_manage_pci_add_ext:
        request = abi.PhysdevManagePciExt.unpack_from(data)
        if request.is_extfn > 1 or request.is_virtfn > 1:
            return refuse(xen, EINVAL, "a flag that is neither 0 nor 1")
    return hardware_domains(xen, abi.PHYSDEV_OPS[command])


@hypercall(Hypercall.physdev_op_compat)
def physdev_op_compat(xen: Hypervisor, operation: int, _: int, __: int, ___: int, ____: int) -> int:
    """The old form: a command and, 8 bytes on, its argument; it knows the six oldest commands."""
    try:
        data = xen.domain.guest.read(operation, abi.PhysdevOp64.size)
    except GuestFault as fault:
        return bad_pointer(xen, fault)
    command = abi.PhysdevOp64.unpack_from(data).cmd
    if command not in _OLD_OPS:
        return xen.not_there(Hypercall.physdev_op_compat, command)
    return physdev_op(xen, command, (operation + abi.PhysdevOp64.offset("u")) & U64, 0, 0, 0) or 0


@PHYSDEV_OPS(abi.PHYSDEVOP_set_iopl)
def set_iopl(xen: Hypervisor, arg: int) -> int:
    """The vCPU's virtual I/O privilege level."""
    xen.payload = xen.domain.guest.read(arg, abi.PhysdevSetIopl.size)
    level = abi.PhysdevSetIopl.unpack_from(xen.payload).iopl
    if level > 3:
        return refuse(xen, EINVAL, f"there is no I/O privilege level {level}")
    xen.vcpu.iopl = level
    return 0


@PHYSDEV_OPS(abi.PHYSDEVOP_set_iobitmap)
def set_iobitmap(xen: Hypervisor, arg: int) -> int:
    """The vCPU's I/O permission bitmap, a guest pointer."""
    xen.payload = xen.domain.guest.read(arg, abi.PhysdevSetIobitmap64.size)
    request = abi.PhysdevSetIobitmap64.unpack_from(xen.payload)
    if not handle_okay(request.bitmap, _BITMAP_BYTES, 1):
        return refuse(xen, EINVAL, f"a bitmap cannot begin at {request.bitmap:#x}")
    if request.nr_ports > _MAX_PORTS:
        return refuse(xen, EINVAL, f"there are {_MAX_PORTS} ports, not {request.nr_ports}")
    xen.vcpu.io_bitmap, xen.vcpu.io_bitmap_ports = request.bitmap, request.nr_ports
    return 0


@PHYSDEV_OPS(abi.PHYSDEVOP_eoi)
def eoi(xen: Hypervisor, arg: int) -> int:
    """The end of an interrupt: of one that the domain has the number of."""
    xen.payload = xen.domain.guest.read(arg, abi.PhysdevEoi.size)
    irq = abi.PhysdevEoi.unpack_from(xen.payload).irq
    return 0 if irq in xen.pirqs.allocated else refuse(xen, EINVAL, f"the domain has no interrupt {irq}")


@PHYSDEV_OPS(abi.PHYSDEVOP_irq_status_query)
def irq_status_query(xen: Hypervisor, arg: int) -> int:
    """Whether an interrupt needs an EOI, which Xen always says."""
    xen.payload = xen.domain.guest.read(arg, abi.PhysdevIrqStatusQuery.size)
    irq = abi.PhysdevIrqStatusQuery.unpack_from(xen.payload).irq
    if irq >= PIRQS:
        return refuse(xen, EINVAL, f"the domain has {PIRQS} interrupts, not {irq}")
    xen.out = abi.PhysdevIrqStatusQuery.pack(irq=irq, flags=abi.XENIRQSTAT_needs_eoi)
    xen.domain.guest.write(arg, xen.out)
    return 0


@PHYSDEV_OPS(abi.PHYSDEVOP_get_free_pirq)
def get_free_pirq(xen: Hypervisor, arg: int) -> int:
    """A number for an interrupt that could be mapped, had the domain the right."""
    xen.payload = xen.domain.guest.read(arg, abi.PhysdevGetFreePirq.size)
    kind = abi.PhysdevGetFreePirq.unpack_from(xen.payload).type
    number = xen.pirqs.allocate(kind)
    if number is None:
        return refuse(xen, ENOSPC, "all interrupt numbers are taken")
    xen.out = abi.PhysdevGetFreePirq.pack(type=kind, pirq=number)
    xen.domain.guest.write(arg, xen.out)
    return 0


@PHYSDEV_OPS(abi.PHYSDEVOP_map_pirq)
def map_pirq(xen: Hypervisor, arg: int) -> int:
    """The toolstack's; the request goes back as it came."""
    xen.payload = xen.domain.guest.read(arg, abi.PhysdevMapPirq64.size)
    rc = _of_domain(xen, abi.PhysdevMapPirq64.unpack_from(xen.payload).domid, "map_pirq")
    xen.domain.guest.write(arg, xen.payload)
    return rc


@PHYSDEV_OPS(abi.PHYSDEVOP_unmap_pirq)
def unmap_pirq(xen: Hypervisor, arg: int) -> int:
    """The toolstack's."""
    xen.payload = xen.domain.guest.read(arg, abi.PhysdevUnmapPirq.size)
    return _of_domain(xen, abi.PhysdevUnmapPirq.unpack_from(xen.payload).domid, "unmap_pirq")


def _of_domain(xen: Hypervisor, domid: int, what: str) -> int:
    if xen.domain.naming(domid) == -ESRCH:
        return refuse(xen, ESRCH, f"there is no domain {domid}")
    return hardware_domains(xen, what)


@PHYSDEV_OPS(abi.PHYSDEVOP_pirq_eoi_gmfn_v1)
@PHYSDEV_OPS(abi.PHYSDEVOP_pirq_eoi_gmfn_v2)
def pirq_eoi_gmfn(xen: Hypervisor, arg: int) -> int:
    """A page in which Xen says which physical interrupts need an EOI: none does. There can be one such page."""
    xen.payload = xen.domain.guest.read(arg, abi.PhysdevPirqEoiGmfn64.size)
    mfn = abi.PhysdevPirqEoiGmfn64.unpack_from(xen.payload).gmfn
    types, pirqs = xen.domain.types, xen.pirqs
    if types.hold(mfn):
        return refuse(xen, EINVAL, f"frame {mfn:#x} cannot be written")
    if pirqs.eoi_page:
        types.let_go(mfn)
        return refuse(xen, EBUSY, f"frame {pirqs.eoi_page:#x} is the page already")
    pirqs.eoi_page = mfn
    return 0
