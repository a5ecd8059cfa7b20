"""memory_op: what the domain may know of its pages and of the machine's (xen/common/memory.c, arch/x86/mm.c).

The sub-operations that give and take pages are in ``reservation.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stub.abi import memory as abi
from stub.abi.arch_x86 import ArchSharedInfo
from stub.abi.errno import EACCES, EDOM, EINVAL, ENOSYS, EOPNOTSUPP, EPERM, ESRCH
from stub.abi.layout import Layout
from stub.abi.xen import Hypercall, SharedInfo
from stub.hypervisor.arguments import Words, give, take
from stub.hypervisor.refusals import refuse
from stub.hypervisor.registry import SubOps, hypercall
from stub.memory.frames import GUEST, XEN_HEAP
from stub.units import PAGE_SHIFT, PAGE_SIZE, U64

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

MEMORY_OPS: SubOps[[int]] = SubOps(Hypercall.memory_op)
_E820_MAX = 1024
# Commands that take no count of extents done. Others of Xen's common part do; to the rest it belongs to the command.
_WHOLE = {
    abi.XENMEM_exchange, abi.XENMEM_maximum_ram_page, abi.XENMEM_current_reservation, abi.XENMEM_maximum_reservation,
    abi.XENMEM_maximum_gpfn, abi.XENMEM_remove_from_physmap, abi.XENMEM_claim_pages, abi.XENMEM_get_vnumainfo,
}  # fmt: skip
_CONTINUED = {
    abi.XENMEM_increase_reservation, abi.XENMEM_decrease_reservation, abi.XENMEM_populate_physmap,
    abi.XENMEM_add_to_physmap, abi.XENMEM_add_to_physmap_batch,
}  # fmt: skip
_NOT_IN = {64: frozenset({abi.XENMEM_machphys_compat_mfn_list}), 32: frozenset({abi.XENMEM_claim_pages})}
_LARGEST = {64: U64, 32: 0x7FFFFFFF}  # result (compat_memory_op)
_MAPPED_AT_ONCE = 21  # log2 of the bytes of the machine-to-physical table that machphys_mfn_list names a frame for


@hypercall(Hypercall.memory_op)
def memory_op(xen: Hypervisor, command: int, arg: int, _: int, __: int, ___: int) -> int:
    """Dispatch on the low bits of the command; the others count extents done before (a continuation)."""
    command &= 0xFFFFFFFF
    xen.start_extent, operation = command >> abi.MEMOP_EXTENT_SHIFT, command & abi.MEMOP_CMD_MASK
    bits = xen.width.bits
    if xen.start_extent and operation in _WHOLE - _NOT_IN[bits]:
        return -EINVAL
    if operation in _NOT_IN[bits] or (xen.start_extent and operation not in _CONTINUED):
        return xen.not_there(Hypercall.memory_op, command)
    return min(MEMORY_OPS.dispatch(xen, operation, arg), _LARGEST[bits])


# -- what the domain may know


@MEMORY_OPS(abi.XENMEM_maximum_ram_page)
def maximum_ram_page(xen: Hypervisor, _: int) -> int:
    """The machine's highest frame, and one."""
    return xen.domain.frames.frames


def _domain_of(xen: Hypervisor, arg: int) -> int:
    data = xen.payload = xen.domain.guest.read(arg, 2)
    return xen.domain.naming(int.from_bytes(data, "little"))


@MEMORY_OPS(abi.XENMEM_current_reservation)
def current_reservation(xen: Hypervisor, arg: int) -> int:
    """How many pages the domain has."""
    rc = _domain_of(xen, arg)
    frames = xen.domain.frames
    return rc or int(((frames.np_owner == GUEST) & (frames.np_flags & XEN_HEAP == 0)).sum())


@MEMORY_OPS(abi.XENMEM_maximum_reservation)
def maximum_reservation(xen: Hypervisor, arg: int) -> int:
    """How many pages the domain may have."""
    rc = _domain_of(xen, arg)
    return rc or xen.domain.max_pages


@MEMORY_OPS(abi.XENMEM_maximum_gpfn)
def maximum_gpfn(xen: Hypervisor, arg: int) -> int:
    """The highest PFN, as the guest itself wrote it (domain_get_maximum_gpfn: arch_shared_info.max_pfn)."""
    rc = _domain_of(xen, arg)
    shared, arch = (layout.of(xen.width.bits) for layout in (SharedInfo, ArchSharedInfo))
    at = xen.domain.area.shared_info * PAGE_SIZE + shared.offset("arch")
    return rc or (arch.unpack_from(xen.ram_bytes, at).max_pfn or 1) - 1


@MEMORY_OPS(abi.XENMEM_memory_map)
def memory_map(xen: Hypervisor, arg: int) -> int:
    """The e820 map that the toolstack set: one region of RAM from 0 (libxl: maxmem and the slack it adds)."""
    guest = xen.domain.guest
    request = take(xen, abi.XenMemoryMap, arg)
    regions = xen.domain.e820
    if regions is None:
        regions = abi.E820Entry.pack(addr=0, size=xen.domain.layout.nr_pages * PAGE_SIZE, type=1)
    if not regions:
        return -ENOSYS
    count = min(request.nr_entries, len(regions) // abi.E820Entry.size)
    guest.write(request.buffer, regions[: count * abi.E820Entry.size])
    guest.write_u32(arg, count)
    xen.out = guest.read(arg, len(xen.payload))
    return 0


@MEMORY_OPS(abi.XENMEM_machphys_mapping)
def machphys_mapping(xen: Hypervisor, arg: int) -> int:
    """Where the machine-to-physical table is."""
    start, end = xen.width.m2p, xen.width.m2p_end
    # As many entries as there is room for, whatever the machine has.
    last = (end - start) // xen.width.word - 1
    return give(xen, abi.XenMachphysMapping, arg, v_start=start, v_end=end, max_mfn=last)


@MEMORY_OPS(abi.XENMEM_set_memory_map)
def set_memory_map(xen: Hypervisor, arg: int) -> int:
    """A domain may set the map that it will read."""
    guest = xen.domain.guest
    request = take(xen, abi.XenForeignMemoryMap, arg)
    wanted = abi.XenMemoryMap.of(xen.width.bits).unpack_from(request.map)
    if wanted.nr_entries > _E820_MAX:
        return -EINVAL
    error = xen.domain.naming(request.domid)
    if error:
        return error
    xen.domain.e820 = guest.read(wanted.buffer, wanted.nr_entries * abi.E820Entry.size) if wanted.nr_entries else b""
    return 0


@MEMORY_OPS(abi.XENMEM_machphys_mfn_list)
@MEMORY_OPS(abi.XENMEM_machphys_compat_mfn_list)
def machphys_mfn_list(xen: Hypervisor, arg: int) -> int:
    """The machine frames of the machine-to-physical table, one for each 2 MiB of it."""
    guest, width = xen.domain.guest, xen.width
    request = take(xen, abi.XenMachphysMfnList, arg)
    mapped = min(xen.domain.frames.frames * width.word, width.m2p_end - width.m2p)
    count = min(request.max_extents, -(-mapped >> _MAPPED_AT_ONCE))
    frames = Words(xen, request.extent_start)
    for i in range(count):
        frames[i] = guest.locate_any(width.m2p + (i << _MAPPED_AT_ONCE)) >> PAGE_SHIFT
    guest.write_u32(arg + abi.XenMachphysMfnList.of(width.bits).offset("nr_extents"), count)
    return 0


@MEMORY_OPS(abi.XENMEM_acquire_resource)
def acquire_resource(xen: Hypervisor, arg: int) -> int:
    """Another domain's grant table or rings: for its device model."""
    return xen.domain.naming(take(xen, abi.XenMemAcquireResource, arg).domid) or -EPERM


@MEMORY_OPS(abi.XENMEM_claim_pages)
def claim_pages(xen: Hypervisor, arg: int) -> int:
    """For the toolstack."""
    request = take(xen, abi.XenMemoryReservation, arg)
    if request.extent_start or request.extent_order or request.mem_flags or request.domid != xen.domain.domid:
        return -EINVAL
    return -EPERM


@MEMORY_OPS(abi.XENMEM_machine_memory_map)
def machine_memory_map(xen: Hypervisor, arg: int) -> int:
    """The host's map: the hardware domain's. Of a 32-bit guest's the argument is read before that is seen."""
    if xen.width.bits == 32:
        take(xen, abi.XenMemoryMap, arg)
    return -EPERM


def _translated(xen: Hypervisor, arg: int, layout: Layout, space: int = -1, error: int = 0) -> int:
    """A call that changes the PFNs of a translated guest, which this is not; ``error`` is what one ``space`` gives."""
    if xen.start_extent > 0xFFFF:
        return -EDOM
    request = take(xen, layout, arg)
    if error and request.space == space:
        return -error
    if xen.domain.naming(request.domid) == -ESRCH:
        return -ESRCH
    return refuse(xen, EACCES, "the domain keeps its own p2m: only a translated one has it changed so")


@MEMORY_OPS(abi.XENMEM_remove_from_physmap)
def remove_from_physmap(xen: Hypervisor, arg: int) -> int:
    """For translated guests."""
    return _translated(xen, arg, abi.XenRemoveFromPhysmap)


@MEMORY_OPS(abi.XENMEM_add_to_physmap)
def add_to_physmap(xen: Hypervisor, arg: int) -> int:
    """For translated guests."""
    return _translated(xen, arg, abi.XenAddToPhysmap, abi.XENMAPSPACE_gmfn_foreign, ENOSYS)


@MEMORY_OPS(abi.XENMEM_add_to_physmap_batch)
def add_to_physmap_batch(xen: Hypervisor, arg: int) -> int:
    """For translated guests."""
    return _translated(xen, arg, abi.XenAddToPhysmapBatch, abi.XENMAPSPACE_gmfn_range, EOPNOTSUPP)


@MEMORY_OPS(abi.XENMEM_get_vnumainfo)
def get_vnumainfo(xen: Hypervisor, arg: int) -> int:
    """No virtual NUMA."""
    request = take(xen, abi.XenVnumaTopologyInfo, arg)
    if request.pad:
        return -EINVAL
    return xen.domain.naming(request.domid) or -EOPNOTSUPP
