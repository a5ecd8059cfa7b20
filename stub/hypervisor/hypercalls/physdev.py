"""physdev_op: what a domU may ask of the physical machine, which is its own I/O privilege (arch/x86/physdev.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stub.abi import physdev as abi
from stub.abi.errno import EBUSY, EINVAL, ENODEV, ENOSPC, ESRCH
from stub.abi.layout import Layout
from stub.abi.xen import Hypercall
from stub.hypervisor.arguments import give, take
from stub.hypervisor.pirqs import GSIS, PIRQS
from stub.hypervisor.pointers import structure_okay
from stub.hypervisor.refusals import bad_pointer, hardware_domains, refuse
from stub.hypervisor.registry import SubOps, hypercall
from stub.memory.guest import GuestFault
from stub.units import U64

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

PHYSDEV_OPS: SubOps[[int]] = SubOps(Hypercall.physdev_op)
_MAX_PORTS = 65536
_BITMAP_BYTES = _MAX_PORTS // 8
# Refused whatever they say, but a bad pointer is told apart; None: the argument is not looked at.
_HARDWARE_ONLY: dict[int, Layout | None] = {
    abi.PHYSDEVOP_apic_read: abi.PhysdevApic,
    abi.PHYSDEVOP_apic_write: abi.PhysdevApic,
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
        data = xen.domain.guest.read(arg, layout.of(xen.width.bits).size) if layout else b""
        return _refused(xen, command, data)
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
    """The old form: a command and, a word on, its argument; it knows the six oldest commands."""
    layout = abi.PhysdevOp.of(xen.width.bits)
    try:
        data = xen.domain.guest.read(operation, layout.size)
    except GuestFault as fault:
        return bad_pointer(xen, fault)
    command = layout.unpack_from(data).cmd
    if command not in _OLD_OPS:
        return xen.not_there(Hypercall.physdev_op_compat, command)
    return physdev_op(xen, command, (operation + layout.offset("u")) & U64, 0, 0, 0) or 0


@PHYSDEV_OPS(abi.PHYSDEVOP_set_iopl)
def set_iopl(xen: Hypervisor, arg: int) -> int:
    """The vCPU's virtual I/O privilege level."""
    level = take(xen, abi.PhysdevSetIopl, arg).iopl
    if level > 3:
        return refuse(xen, EINVAL, f"there is no I/O privilege level {level}")
    xen.vcpu.iopl = level
    return 0


@PHYSDEV_OPS(abi.PHYSDEVOP_set_iobitmap)
def set_iobitmap(xen: Hypervisor, arg: int) -> int:
    """The vCPU's I/O permission bitmap, a guest pointer."""
    request = take(xen, abi.PhysdevSetIobitmap, arg)
    if not structure_okay(xen, request.bitmap, _BITMAP_BYTES, 1):
        return refuse(xen, EINVAL, f"a bitmap cannot begin at {request.bitmap:#x}")
    if request.nr_ports > _MAX_PORTS:
        return refuse(xen, EINVAL, f"there are {_MAX_PORTS} ports, not {request.nr_ports}")
    xen.vcpu.io_bitmap, xen.vcpu.io_bitmap_ports = request.bitmap, request.nr_ports
    return 0


@PHYSDEV_OPS(abi.PHYSDEVOP_eoi)
def eoi(xen: Hypervisor, arg: int) -> int:
    """The end of an interrupt: of one that the domain has the number of."""
    irq = take(xen, abi.PhysdevEoi, arg).irq
    return 0 if irq in xen.pirqs.allocated else refuse(xen, EINVAL, f"the domain has no interrupt {irq}")


@PHYSDEV_OPS(abi.PHYSDEVOP_irq_status_query)
def irq_status_query(xen: Hypervisor, arg: int) -> int:
    """Whether an interrupt needs an EOI, which Xen always says."""
    irq = take(xen, abi.PhysdevIrqStatusQuery, arg).irq
    if irq >= PIRQS:
        return refuse(xen, EINVAL, f"the domain has {PIRQS} interrupts, not {irq}")
    return give(xen, abi.PhysdevIrqStatusQuery, arg, irq=irq, flags=abi.XENIRQSTAT_needs_eoi)


@PHYSDEV_OPS(abi.PHYSDEVOP_get_free_pirq)
def get_free_pirq(xen: Hypervisor, arg: int) -> int:
    """A number for an interrupt that could be mapped, had the domain the right."""
    kind = take(xen, abi.PhysdevGetFreePirq, arg).type
    number = xen.pirqs.allocate(kind)
    if number is None:
        return refuse(xen, ENOSPC, "all interrupt numbers are taken")
    return give(xen, abi.PhysdevGetFreePirq, arg, type=kind, pirq=number)


@PHYSDEV_OPS(abi.PHYSDEVOP_map_pirq)
def map_pirq(xen: Hypervisor, arg: int) -> int:
    """The toolstack's; the request goes back as it came."""
    rc = _of_domain(xen, take(xen, abi.PhysdevMapPirq, arg).domid, "map_pirq")
    xen.domain.guest.write(arg, xen.payload)
    return rc


@PHYSDEV_OPS(abi.PHYSDEVOP_unmap_pirq)
def unmap_pirq(xen: Hypervisor, arg: int) -> int:
    """The toolstack's."""
    return _of_domain(xen, take(xen, abi.PhysdevUnmapPirq, arg).domid, "unmap_pirq")


def _of_domain(xen: Hypervisor, domid: int, what: str) -> int:
    if xen.domain.naming(domid) == -ESRCH:
        return refuse(xen, ESRCH, f"there is no domain {domid}")
    return hardware_domains(xen, what)


@PHYSDEV_OPS(abi.PHYSDEVOP_pirq_eoi_gmfn_v1)
@PHYSDEV_OPS(abi.PHYSDEVOP_pirq_eoi_gmfn_v2)
def pirq_eoi_gmfn(xen: Hypervisor, arg: int) -> int:
    """A page in which Xen says which physical interrupts need an EOI: none does. There can be one such page."""
    mfn = take(xen, abi.PhysdevPirqEoiGmfn, arg).gmfn
    types, pirqs = xen.domain.types, xen.pirqs
    if types.hold(mfn):
        return refuse(xen, EINVAL, f"frame {mfn:#x} cannot be written")
    if pirqs.eoi_page:
        types.let_go(mfn)
        return refuse(xen, EBUSY, f"frame {pirqs.eoi_page:#x} is the page already")
    pirqs.eoi_page = mfn
    return 0
