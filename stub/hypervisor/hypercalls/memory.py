"""memory_op: the domain's pages and what it may know of the machine's (xen/common/memory.c, arch/x86/mm.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stub.abi import memory as abi
from stub.abi.arch_x86 import MACH2PHYS_VIRT_END, MACH2PHYS_VIRT_START
from stub.abi.errno import EACCES, EINVAL, ENOMEM, EOPNOTSUPP, EPERM, ESRCH
from stub.abi.xen import Hypercall
from stub.domain.xenarea import INVALID_M2P_ENTRY
from stub.hypervisor.registry import SubOps, hypercall
from stub.memory.frames import ALLOCATED, GUEST
from stub.memory.guest import GuestFault
from stub.units import U64

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

MEMORY_OPS = SubOps(Hypercall.memory_op)
MAX_MFN = 0x7FFFFFFFF  # what Xen reports whatever the machine has: the M2P's size in entries, less one
_MAX_ORDER = 9  # domu_max_order


@hypercall(Hypercall.memory_op)
def memory_op(xen: Hypervisor, command: int, arg: int, _: int, __: int, ___: int) -> int:
    """Dispatch on the low bits of the command; the others count extents done before (a continuation)."""
    command &= 0xFFFFFFFF
    xen.start_extent = command >> abi.MEMOP_EXTENT_SHIFT
    return MEMORY_OPS.dispatch(xen, command & abi.MEMOP_CMD_MASK, arg)


def _reservation(xen: Hypervisor, arg: int) -> tuple[int, int, int] | None:
    """(extent list, number, order), or None for one that Xen answers with what was done before."""
    data = xen.payload = xen.domain.guest.read(arg, abi.XenMemoryReservation64.size)
    r = abi.XenMemoryReservation64.unpack_from(data)
    if not xen.domain.is_self(r.domid) or r.extent_order > _MAX_ORDER or r.nr_extents > 1 << 40:
        return None
    return r.extent_start, r.nr_extents, r.extent_order


@MEMORY_OPS(abi.XENMEM_decrease_reservation)
def decrease_reservation(xen: Hypervisor, arg: int) -> int:
    """Give frames back; the count done, stopping at the first that is not the domain's."""
    wanted = _reservation(xen, arg)
    done = xen.start_extent
    if wanted is None:
        return done
    start, count, order = wanted
    frames, guest = xen.domain.frames, xen.domain.guest
    try:
        while done < count:
            first = guest.read_u64(start + 8 * done)
            for mfn in range(first, first + (1 << order)):
                if mfn >= frames.frames or frames.owner[mfn] != GUEST or not frames.disown(mfn):
                    return done
            done += 1
    except GuestFault:
        return done
    return done


def _populate(xen: Hypervisor, arg: int, physmap: bool) -> int:
    wanted = _reservation(xen, arg)
    done = xen.start_extent
    if wanted is None:
        return done
    start, count, order = wanted
    domain = xen.domain
    blocks = domain.frames.take(order, max(count - done, 0))
    used = 0
    try:
        for block in blocks:
            pfn = domain.guest.read_u64(start + 8 * done) if physmap else 0
            used += 1
            for i, mfn in enumerate(block):
                domain.frames.give_one(mfn)
                domain.ram.pages[mfn] = 0
                if physmap:
                    domain.ram.words[domain.area.m2p_word + mfn] = (pfn + i) & U64
            if start:
                domain.guest.write_u64(start + 8 * done, block[0])
            done += 1
    except GuestFault:
        pass
    domain.frames.untake(blocks[used:])
    return done


@MEMORY_OPS(abi.XENMEM_increase_reservation)
def increase_reservation(xen: Hypervisor, arg: int) -> int:
    """Take frames; their MFNs go to the list."""
    return _populate(xen, arg, False)


@MEMORY_OPS(abi.XENMEM_populate_physmap)
def populate_physmap(xen: Hypervisor, arg: int) -> int:
    """Take frames for the PFNs in the list, which become their MFNs."""
    return _populate(xen, arg, True)


@MEMORY_OPS(abi.XENMEM_exchange)
def exchange(xen: Hypervisor, arg: int) -> int:
    """Give frames for as many others, contiguous as asked; each given one may have no mapping and no type left."""
    guest = xen.domain.guest
    data = xen.payload = guest.read(arg, abi.XenMemoryExchange64.size)
    whole = abi.XenMemoryExchange64.unpack_from(data)
    given, wanted = (abi.XenMemoryReservation64.unpack_from(part) for part in (whole.in_, whole.out))
    if whole.nr_exchanged > given.nr_extents or max(given.nr_extents, wanted.nr_extents) > 1 << 40:
        return -EINVAL
    if given.extent_order > _MAX_ORDER or wanted.extent_order > _MAX_ORDER:
        return -EPERM
    if not (xen.domain.is_self(given.domid) and xen.domain.is_self(wanted.domid)) or (
        given.nr_extents << given.extent_order != wanted.nr_extents << wanted.extent_order
    ):
        return -EINVAL
    a_time = max(given.extent_order, wanted.extent_order)  # frames are exchanged in blocks of this order
    per_in, per_out = 1 << a_time - given.extent_order, 1 << a_time - wanted.extent_order
    for block in range(whole.nr_exchanged >> a_time - given.extent_order, given.nr_extents // per_in):
        out: list[int] = []
        for i in range(block * per_in, (block + 1) * per_in):
            first = guest.read_u64(given.extent_start + 8 * i)
            out += range(first, first + (1 << given.extent_order))
        slots = [wanted.extent_start + 8 * i for i in range(block * per_out, (block + 1) * per_out)]
        pfns = [guest.read_u64(slot) for slot in slots]
        for slot in slots:
            guest.locate(slot, True)
        rc = _exchange_block(xen, out, pfns, slots, wanted.extent_order)
        if rc:
            return rc
        guest.write_u64(arg + abi.XenMemoryExchange64.offset("nr_exchanged"), (block + 1) * per_in)
    return 0


def _exchange_block(xen: Hypervisor, out: list[int], pfns: list[int], slots: list[int], order: int) -> int:
    """Exchange the frames ``out`` for blocks of ``order`` that become ``pfns``; nothing is changed on failure."""
    domain = xen.domain
    frames, words = domain.frames, domain.ram.words
    for mfn in out:
        if mfn >= frames.frames or frames.owner[mfn] != GUEST:
            return -EINVAL
        if frames.refs[mfn] != 1 or not frames.flags[mfn] & ALLOCATED:
            return -EINVAL
    if len(set(out)) != len(out):
        return -EINVAL
    frames.free.update(dict.fromkeys(out))  # they count as room for the others
    taken = frames.take(order, len(pfns))
    frames.untake(taken)
    for mfn in out:
        del frames.free[mfn]
    if len(taken) != len(pfns):
        return -ENOMEM
    for mfn in out:
        words[domain.area.m2p_word + mfn] = INVALID_M2P_ENTRY
        frames.disown(mfn)
    for pfn, slot, block in zip(pfns, slots, taken, strict=True):
        for k, mfn in enumerate(block):
            del frames.free[mfn]
            frames.give_one(mfn)
            domain.ram.pages[mfn] = 0
            words[domain.area.m2p_word + mfn] = (pfn + k) & U64
        domain.guest.write_u64(slot, block[0])
    return 0


@MEMORY_OPS(abi.XENMEM_maximum_ram_page)
def maximum_ram_page(xen: Hypervisor, _: int) -> int:
    """The machine's highest frame."""
    return xen.domain.frames.frames


def _domain_of(xen: Hypervisor, arg: int) -> int:
    data = xen.payload = xen.domain.guest.read(arg, 2)
    return 0 if xen.domain.is_self(int.from_bytes(data, "little")) else -ESRCH


@MEMORY_OPS(abi.XENMEM_current_reservation)
def current_reservation(xen: Hypervisor, arg: int) -> int:
    """How many pages the domain has."""
    rc = _domain_of(xen, arg)
    return rc or int((xen.domain.frames.np_flags & ALLOCATED != 0).sum())


@MEMORY_OPS(abi.XENMEM_maximum_reservation)
def maximum_reservation(xen: Hypervisor, arg: int) -> int:
    """How many pages the domain may have."""
    rc = _domain_of(xen, arg)
    return rc or xen.domain.max_pages


@MEMORY_OPS(abi.XENMEM_memory_map)
def memory_map(xen: Hypervisor, arg: int) -> int:
    """The e820 map that the toolstack set: one region of RAM from 0 (libxl: maxmem and the slack it adds)."""
    guest = xen.domain.guest
    data = xen.payload = guest.read(arg, abi.XenMemoryMap64.size)
    request = abi.XenMemoryMap64.unpack_from(data)
    if request.nr_entries < 1:
        return -EINVAL
    entry = abi.E820Entry.pack(addr=0, size=xen.domain.layout.nr_pages << 12, type=1)
    guest.write(request.buffer, entry)
    guest.write_u32(arg, 1)
    xen.out = guest.read(arg, abi.XenMemoryMap64.size)
    return 0


@MEMORY_OPS(abi.XENMEM_machphys_mapping)
def machphys_mapping(xen: Hypervisor, arg: int) -> int:
    """Where the machine-to-physical table is."""
    xen.out = abi.XenMachphysMapping64.pack(v_start=MACH2PHYS_VIRT_START, v_end=MACH2PHYS_VIRT_END, max_mfn=MAX_MFN)
    xen.domain.guest.write(arg, xen.out)
    return 0


@MEMORY_OPS(abi.XENMEM_machine_memory_map)
def machine_memory_map(xen: Hypervisor, arg: int) -> int:
    """The host's map: the hardware domain's."""
    return -EPERM


@MEMORY_OPS(abi.XENMEM_remove_from_physmap)
def remove_from_physmap(xen: Hypervisor, arg: int) -> int:
    """For translated guests."""
    return -EACCES


@MEMORY_OPS(abi.XENMEM_add_to_physmap)
def add_to_physmap(xen: Hypervisor, arg: int) -> int:
    """For translated guests."""
    return -EACCES


@MEMORY_OPS(abi.XENMEM_get_vnumainfo)
def get_vnumainfo(xen: Hypervisor, arg: int) -> int:
    """No virtual NUMA."""
    return -EOPNOTSUPP
