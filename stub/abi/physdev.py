"""xen/physdev.h: physdev_op."""

from __future__ import annotations

from stub.abi.layout import Struct, Twin
from stub.abi.names import value_names

# physdev_op commands.
PHYSDEVOP_eoi = 12
PHYSDEVOP_pirq_eoi_gmfn_v1 = 17
PHYSDEVOP_pirq_eoi_gmfn_v2 = 28
PHYSDEVOP_irq_status_query = 5
PHYSDEVOP_set_iopl = 6
PHYSDEVOP_set_iobitmap = 7
PHYSDEVOP_apic_read = 8
PHYSDEVOP_apic_write = 9
PHYSDEVOP_alloc_irq_vector = 10
PHYSDEVOP_free_irq_vector = 11
PHYSDEVOP_map_pirq = 13
PHYSDEVOP_unmap_pirq = 14
PHYSDEVOP_manage_pci_add = 15
PHYSDEVOP_manage_pci_remove = 16
PHYSDEVOP_restore_msi = 19
PHYSDEVOP_manage_pci_add_ext = 20
PHYSDEVOP_setup_gsi = 21
PHYSDEVOP_get_free_pirq = 23
PHYSDEVOP_pci_mmcfg_reserved = 24
PHYSDEVOP_pci_device_add = 25
PHYSDEVOP_pci_device_remove = 26
PHYSDEVOP_restore_msi_ext = 27
PHYSDEVOP_prepare_msix = 30
PHYSDEVOP_release_msix = 31
PHYSDEVOP_dbgp_op = 29

PHYSDEV_OPS = value_names(globals(), "PHYSDEVOP_")

# physdev_irq_status_query.flags.
XENIRQSTAT_needs_eoi = 1 << 0
XENIRQSTAT_shared = 1 << 1

# physdev_map_pirq.type.
MAP_PIRQ_TYPE_MSI = 0
MAP_PIRQ_TYPE_GSI = 1
MAP_PIRQ_TYPE_UNKNOWN = 2
MAP_PIRQ_TYPE_MSI_SEG = 3
MAP_PIRQ_TYPE_MULTI_MSI = 4

# Flags of the PCI commands.
XEN_PCI_MMCFG_RESERVED = 1
XEN_PCI_DEV_EXTFN = 1
XEN_PCI_DEV_VIRTFN = 2
XEN_PCI_DEV_PXM = 4

PhysdevEoi = Struct("PhysdevEoi", 4, irq=(0, "I"))

PhysdevPirqEoiGmfn64 = Struct("PhysdevPirqEoiGmfn64", 8, gmfn=(0, "Q"))
PhysdevPirqEoiGmfn32 = Struct("PhysdevPirqEoiGmfn32", 4, gmfn=(0, "I"))
PhysdevPirqEoiGmfn = Twin(PhysdevPirqEoiGmfn64, PhysdevPirqEoiGmfn32)

PhysdevIrqStatusQuery = Struct("PhysdevIrqStatusQuery", 8, irq=(0, "I"), flags=(4, "I"))

PhysdevSetIopl = Struct("PhysdevSetIopl", 4, iopl=(0, "I"))

PhysdevSetIobitmap64 = Struct("PhysdevSetIobitmap64", 16, bitmap=(0, "Q"), nr_ports=(8, "I"))
PhysdevSetIobitmap32 = Struct("PhysdevSetIobitmap32", 8, bitmap=(0, "I"), nr_ports=(4, "I"))
PhysdevSetIobitmap = Twin(PhysdevSetIobitmap64, PhysdevSetIobitmap32)

PhysdevApic64 = Struct("PhysdevApic64", 16, apic_physbase=(0, "Q"), reg=(8, "I"), value=(12, "I"))
PhysdevApic32 = Struct("PhysdevApic32", 12, apic_physbase=(0, "I"), reg=(4, "I"), value=(8, "I"))
PhysdevApic = Twin(PhysdevApic64, PhysdevApic32)

PhysdevIrq = Struct("PhysdevIrq", 8, irq=(0, "I"), vector=(4, "I"))

PhysdevMapPirq64 = Struct(
    "PhysdevMapPirq64",
    40,
    domid=(0, "H"),
    type=(4, "i"),
    index=(8, "i"),
    pirq=(12, "i"),
    bus=(16, "i"),
    devfn=(20, "i"),
    entry_nr=(24, "i"),
    table_base=(32, "Q"),
)
PhysdevMapPirq32 = Struct(
    "PhysdevMapPirq32",
    36,
    domid=(0, "H"),
    type=(4, "i"),
    index=(8, "i"),
    pirq=(12, "i"),
    bus=(16, "i"),
    devfn=(20, "i"),
    entry_nr=(24, "i"),
    table_base=(28, "Q"),
)
PhysdevMapPirq = Twin(PhysdevMapPirq64, PhysdevMapPirq32)

PhysdevUnmapPirq = Struct("PhysdevUnmapPirq", 8, domid=(0, "H"), pirq=(4, "i"))

PhysdevManagePci = Struct("PhysdevManagePci", 2, bus=(0, "B"), devfn=(1, "B"))

PhysdevRestoreMsi = Struct("PhysdevRestoreMsi", 2, bus=(0, "B"), devfn=(1, "B"))

PhysdevManagePciExt = Struct(
    "PhysdevManagePciExt",
    16,
    bus=(0, "B"),
    devfn=(1, "B"),
    is_extfn=(4, "I"),
    is_virtfn=(8, "I"),
    physfn_bus=(12, "B"),
    physfn_devfn=(13, "B"),
)

PhysdevSetupGsi = Struct("PhysdevSetupGsi", 8, gsi=(0, "i"), triggering=(4, "B"), polarity=(5, "B"))

PhysdevGetFreePirq = Struct("PhysdevGetFreePirq", 8, type=(0, "i"), pirq=(4, "I"))

PhysdevPciMmcfgReserved = Struct(
    "PhysdevPciMmcfgReserved",
    16,
    address=(0, "Q"),
    segment=(8, "H"),
    start_bus=(10, "B"),
    end_bus=(11, "B"),
    flags=(12, "I"),
)

# An array of 32-bit options follows.
PhysdevPciDeviceAdd = Struct(
    "PhysdevPciDeviceAdd",
    12,
    seg=(0, "H"),
    bus=(2, "B"),
    devfn=(3, "B"),
    flags=(4, "I"),
    physfn_bus=(8, "B"),
    physfn_devfn=(9, "B"),
)

PhysdevPciDevice = Struct("PhysdevPciDevice", 4, seg=(0, "H"), bus=(2, "B"), devfn=(3, "B"))

PhysdevDbgpOp = Struct(
    "PhysdevDbgpOp",
    6,
    op=(0, "B"),
    bus=(1, "B"),
    pci_seg=(2, "H"),
    pci_bus=(4, "B"),
    pci_devfn=(5, "B"),
)

# physdev_op_compat's one argument; u is the command's own structure.
PhysdevOp64 = Struct("PhysdevOp64", 24, cmd=(0, "I"), u=(8, "16s"))
PhysdevOp32 = Struct("PhysdevOp32", 16, cmd=(0, "I"), u=(4, "12s"))
PhysdevOp = Twin(PhysdevOp64, PhysdevOp32)
