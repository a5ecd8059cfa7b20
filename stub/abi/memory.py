"""xen/memory.h: memory_op."""

from __future__ import annotations

from stub.abi.layout import Struct, Twin
from stub.abi.names import value_names

# The first argument: the command below, and how many extents a continued call has done. Not in the public headers.
MEMOP_EXTENT_SHIFT = 6
MEMOP_CMD_MASK = (1 << MEMOP_EXTENT_SHIFT) - 1

# memory_op commands.
XENMEM_increase_reservation = 0
XENMEM_decrease_reservation = 1
XENMEM_populate_physmap = 6
XENMEM_exchange = 11
XENMEM_maximum_ram_page = 2
XENMEM_current_reservation = 3
XENMEM_maximum_reservation = 4
XENMEM_maximum_gpfn = 14
XENMEM_machphys_mfn_list = 5
XENMEM_machphys_compat_mfn_list = 25
XENMEM_machphys_mapping = 12
XENMEM_add_to_physmap = 7
XENMEM_add_to_physmap_batch = 23
XENMEM_remove_from_physmap = 15
XENMEM_memory_map = 9
XENMEM_machine_memory_map = 10
XENMEM_set_memory_map = 13
XENMEM_set_pod_target = 16
XENMEM_get_pod_target = 17
XENMEM_acquire_resource = 28
XENMEM_get_vnumainfo = 26

# Only for tools; the hypercall refuses them to a guest.
XENMEM_get_sharing_freed_pages = 18
XENMEM_get_sharing_shared_pages = 19
XENMEM_paging_op = 20
XENMEM_access_op = 21
XENMEM_sharing_op = 22
XENMEM_claim_pages = 24
XENMEM_reserved_device_memory_map = 27

MEMORY_OPS = value_names(globals(), "XENMEM_")

# xen_memory_reservation.mem_flags: bits 7:0 limit the address width (0: any), bits 15:8 are node + 1, and the flags:
XENMEMF_populate_on_demand = 1 << 16
XENMEMF_exact_node_request = 1 << 17
XENMEMF_vnode = 1 << 18

# xen_add_to_physmap.space.
XENMAPSPACE_shared_info = 0
XENMAPSPACE_grant_table = 1
XENMAPSPACE_gmfn = 2
XENMAPSPACE_gmfn_range = 3
XENMAPSPACE_gmfn_foreign = 4
XENMAPSPACE_dev_mmio = 5

XENMAPSPACES = value_names(globals(), "XENMAPSPACE_")

# xen_add_to_physmap.idx: in XENMAPSPACE_grant_table, a status frame.
XENMAPIDX_grant_table_status = 0x80000000

# xen_mem_acquire_resource.type, then the ids of a grant table.
XENMEM_resource_ioreq_server = 0
XENMEM_resource_grant_table = 1
XENMEM_resource_vmtrace_buf = 2
XENMEM_resource_grant_table_id_shared = 0
XENMEM_resource_grant_table_id_status = 1

# extent_start is a guest pointer to xen_pfn_t.
XenMemoryReservation64 = Struct(
    "XenMemoryReservation64",
    32,
    extent_start=(0, "Q"),
    nr_extents=(8, "Q"),
    extent_order=(16, "I"),
    mem_flags=(20, "I"),
    domid=(24, "H"),
)
XenMemoryReservation32 = Struct(
    "XenMemoryReservation32",
    20,
    extent_start=(0, "I"),
    nr_extents=(4, "I"),
    extent_order=(8, "I"),
    mem_flags=(12, "I"),
    domid=(16, "H"),
)
XenMemoryReservation = Twin(XenMemoryReservation64, XenMemoryReservation32)

# in and out are XenMemoryReservations.
XenMemoryExchange64 = Struct("XenMemoryExchange64", 72, in_=(0, "32s"), out=(32, "32s"), nr_exchanged=(64, "Q"))
XenMemoryExchange32 = Struct("XenMemoryExchange32", 44, in_=(0, "20s"), out=(20, "20s"), nr_exchanged=(40, "I"))
XenMemoryExchange = Twin(XenMemoryExchange64, XenMemoryExchange32)

XenMemoryDomain = Struct("XenMemoryDomain", 2, domid=(0, "H"))

XenMachphysMfnList64 = Struct(
    "XenMachphysMfnList64", 24, max_extents=(0, "I"), extent_start=(8, "Q"), nr_extents=(16, "I")
)
XenMachphysMfnList32 = Struct(
    "XenMachphysMfnList32", 12, max_extents=(0, "I"), extent_start=(4, "I"), nr_extents=(8, "I")
)
XenMachphysMfnList = Twin(XenMachphysMfnList64, XenMachphysMfnList32)

XenMachphysMapping64 = Struct("XenMachphysMapping64", 24, v_start=(0, "Q"), v_end=(8, "Q"), max_mfn=(16, "Q"))
XenMachphysMapping32 = Struct("XenMachphysMapping32", 12, v_start=(0, "I"), v_end=(4, "I"), max_mfn=(8, "I"))
XenMachphysMapping = Twin(XenMachphysMapping64, XenMachphysMapping32)

XenAddToPhysmap64 = Struct(
    "XenAddToPhysmap64",
    24,
    domid=(0, "H"),
    size=(2, "H"),
    space=(4, "I"),
    idx=(8, "Q"),
    gpfn=(16, "Q"),
)
XenAddToPhysmap32 = Struct(
    "XenAddToPhysmap32",
    16,
    domid=(0, "H"),
    size=(2, "H"),
    space=(4, "I"),
    idx=(8, "I"),
    gpfn=(12, "I"),
)
XenAddToPhysmap = Twin(XenAddToPhysmap64, XenAddToPhysmap32)

XenAddToPhysmapBatch64 = Struct(
    "XenAddToPhysmapBatch64",
    32,
    domid=(0, "H"),
    space=(2, "H"),
    size=(4, "H"),
    foreign_domid=(6, "H"),
    idxs=(8, "Q"),
    gpfns=(16, "Q"),
    errs=(24, "Q"),
)
XenAddToPhysmapBatch32 = Struct(
    "XenAddToPhysmapBatch32",
    20,
    domid=(0, "H"),
    space=(2, "H"),
    size=(4, "H"),
    foreign_domid=(6, "H"),
    idxs=(8, "I"),
    gpfns=(12, "I"),
    errs=(16, "I"),
)
XenAddToPhysmapBatch = Twin(XenAddToPhysmapBatch64, XenAddToPhysmapBatch32)

XenRemoveFromPhysmap64 = Struct("XenRemoveFromPhysmap64", 16, domid=(0, "H"), gpfn=(8, "Q"))
XenRemoveFromPhysmap32 = Struct("XenRemoveFromPhysmap32", 8, domid=(0, "H"), gpfn=(4, "I"))
XenRemoveFromPhysmap = Twin(XenRemoveFromPhysmap64, XenRemoveFromPhysmap32)

# buffer is a guest pointer to E820Entry.
XenMemoryMap64 = Struct("XenMemoryMap64", 16, nr_entries=(0, "I"), buffer=(8, "Q"))
XenMemoryMap32 = Struct("XenMemoryMap32", 8, nr_entries=(0, "I"), buffer=(4, "I"))
XenMemoryMap = Twin(XenMemoryMap64, XenMemoryMap32)

# One entry of XENMEM_memory_map, as the BIOS gives it (packed). Not in the public headers.
E820Entry = Struct("E820Entry", 20, addr=(0, "Q"), size=(8, "Q"), type=(16, "I"))

# map is a XenMemoryMap.
XenForeignMemoryMap64 = Struct("XenForeignMemoryMap64", 24, domid=(0, "H"), map=(8, "16s"))
XenForeignMemoryMap32 = Struct("XenForeignMemoryMap32", 12, domid=(0, "H"), map=(4, "8s"))
XenForeignMemoryMap = Twin(XenForeignMemoryMap64, XenForeignMemoryMap32)

XenPodTarget64 = Struct(
    "XenPodTarget64",
    40,
    target_pages=(0, "Q"),
    tot_pages=(8, "Q"),
    pod_cache_pages=(16, "Q"),
    pod_entries=(24, "Q"),
    domid=(32, "H"),
)
XenPodTarget32 = Struct(
    "XenPodTarget32",
    36,
    target_pages=(0, "Q"),
    tot_pages=(8, "Q"),
    pod_cache_pages=(16, "Q"),
    pod_entries=(24, "Q"),
    domid=(32, "H"),
)
XenPodTarget = Twin(XenPodTarget64, XenPodTarget32)

XenMemAcquireResource64 = Struct(
    "XenMemAcquireResource64",
    32,
    domid=(0, "H"),
    type=(2, "H"),
    id=(4, "I"),
    nr_frames=(8, "I"),
    pad=(12, "I"),
    frame=(16, "Q"),
    frame_list=(24, "Q"),
)
XenMemAcquireResource32 = Struct(
    "XenMemAcquireResource32",
    28,
    domid=(0, "H"),
    type=(2, "H"),
    id=(4, "I"),
    nr_frames=(8, "I"),
    pad=(12, "I"),
    frame=(16, "Q"),
    frame_list=(24, "I"),
)
XenMemAcquireResource = Twin(XenMemAcquireResource64, XenMemAcquireResource32)

XenVmemrange = Struct(
    "XenVmemrange",
    24,
    start=(0, "Q"),
    end=(8, "Q"),
    flags=(16, "I"),
    nid=(20, "I"),
)

XenVnumaTopologyInfo = Struct(
    "XenVnumaTopologyInfo",
    40,
    domid=(0, "H"),
    pad=(2, "H"),
    nr_vnodes=(4, "I"),
    nr_vcpus=(8, "I"),
    nr_vmemranges=(12, "I"),
    vdistance=(16, "Q"),
    vcpu_to_vnode=(24, "Q"),
    vmemrange=(32, "Q"),
)
