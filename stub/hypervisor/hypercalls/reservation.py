"""memory_op: pages given back, taken and exchanged (xen/common/memory.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from stub.abi import memory as abi
from stub.abi.errno import EFAULT, EINVAL, ENOMEM, EPERM
from stub.abi.layout import Record
from stub.abi.xen import Hypercall
from stub.hypervisor.hypercalls.memory import MEMORY_OPS
from stub.hypervisor.pointers import handle_okay
from stub.memory.frames import ALLOCATED, GUEST, INVALID_M2P_ENTRY
from stub.memory.guest import GuestFault
from stub.units import PAGE_SHIFT, U64

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

_MAX_ORDER = 9  # domu_max_order
_MOST_EXTENTS = 0xFFFFFFFF >> abi.MEMOP_EXTENT_SHIFT
_A_TIME = 4096  # frames before the guest is made to ask again
_SEARCH = 64  # what looking for a block, or for frames below a limit, counts as
_NR_EXCHANGED = abi.XenMemoryExchange64.offset("nr_exchanged")


class _Reservation(NamedTuple):
    """A list of extents, and the machine frames that may be had for them: those below ``limit``."""

    start: int
    extents: int
    order: int
    limit: int


def _frame_limit(mem_flags: int, frames: int) -> int:
    """The first frame that cannot be reached with the address bits asked for (XENMEMF_address_bits); -1: too few."""
    bits = mem_flags & 0xFF
    if bits == 0 or bits >= frames.bit_length() + PAGE_SHIFT:
        return frames
    return 1 << bits - PAGE_SHIFT if bits > PAGE_SHIFT else -1


def _reservation(xen: Hypervisor, arg: int) -> _Reservation | None:
    """What was asked for, or None for a request that Xen answers with what was done before."""
    try:
        data = xen.payload = xen.domain.guest.read(arg, abi.XenMemoryReservation64.size)
    except GuestFault:
        return None
    r = abi.XenMemoryReservation64.unpack_from(data)
    limit = _frame_limit(r.mem_flags, xen.domain.frames.frames)
    refused = {
        "that many extents": r.nr_extents > _MOST_EXTENTS,
        f"there is no domain {r.domid}": not xen.domain.is_self(r.domid),
        f"extents of order {r.extent_order}, beyond {_MAX_ORDER}": r.extent_order > _MAX_ORDER,
        "a page in so few address bits": limit < 0,
        "a node of its own choice": bool(r.mem_flags & abi.XENMEMF_exact_node_request),
        "a list there": not handle_okay(r.extent_start, r.nr_extents, 8),
    }
    reason = next((text for text, found in refused.items() if found), None)
    if reason is not None:
        xen.refusal = f"the domain may not have what it asks for: {reason}"
        return None
    return _Reservation(r.extent_start, r.nr_extents, r.extent_order, limit)


@MEMORY_OPS(abi.XENMEM_decrease_reservation)
def decrease_reservation(xen: Hypervisor, arg: int) -> int:
    """Give frames back; the count done, stopping at the first that is not the domain's.

    One that is mapped still goes when its last mapping does.
    """
    wanted = _reservation(xen, arg)
    done = xen.start_extent
    if wanted is None:
        return done
    frames, guest = xen.domain.frames, xen.domain.guest
    first_done = done
    try:
        while done < wanted.extents:
            if (done - first_done) << wanted.order >= _A_TIME:
                xen.work += _A_TIME
                return _continue(xen, abi.XENMEM_decrease_reservation, done, arg)
            first = guest.read_u64(wanted.start + 8 * done)
            for mfn in range(first, first + (1 << wanted.order)):
                if mfn >= frames.frames or frames.owner[mfn] != GUEST:
                    xen.refusal = f"frame {mfn:#x} is not the domain's"
                    return done
                frames.disown(mfn)
            done += 1
    except GuestFault:
        return done
    return done


def _continue(xen: Hypervisor, operation: int, done: int, arg: int) -> int:
    """Have the guest ask for the rest itself."""
    return xen.continue_later(Hypercall.memory_op, operation | done << abi.MEMOP_EXTENT_SHIFT, arg)


def _populate(xen: Hypervisor, arg: int, operation: int) -> int:
    wanted = _reservation(xen, arg)
    done = xen.start_extent
    if wanted is None:
        return done
    start, count, order, limit = wanted
    physmap = operation == abi.XENMEM_populate_physmap
    domain = xen.domain
    now = min(max(count - done, 0), max(_A_TIME >> order, 1))
    xen.work += now << order
    blocks = domain.frames.take(order, now, limit)
    used = 0
    try:
        for block in blocks:
            pfn = domain.guest.read_u64(start + 8 * done) if physmap else 0
            used += 1
            for i, mfn in enumerate(block):
                domain.frames.give_one(mfn)
                domain.ram.pages[mfn] = 0
                if physmap:
                    domain.area.set_m2p(mfn, pfn + i)
            if start or physmap:
                domain.guest.write_u64(start + 8 * done, block[0])
            done += 1
    except GuestFault:
        pass
    domain.frames.untake(blocks[used:])
    return _continue(xen, operation, done, arg) if now and used == now and done < count else done


@MEMORY_OPS(abi.XENMEM_increase_reservation)
def increase_reservation(xen: Hypervisor, arg: int) -> int:
    """Take frames; their MFNs go to the list, where there is one."""
    return _populate(xen, arg, abi.XENMEM_increase_reservation)


@MEMORY_OPS(abi.XENMEM_populate_physmap)
def populate_physmap(xen: Hypervisor, arg: int) -> int:
    """Take frames for the PFNs in the list, which become their MFNs."""
    return _populate(xen, arg, abi.XENMEM_populate_physmap)


@MEMORY_OPS(abi.XENMEM_exchange)
def exchange(xen: Hypervisor, arg: int) -> int:
    """Give frames for as many others, contiguous as asked; each given one may have no mapping and no type left."""
    guest = xen.domain.guest
    data = xen.payload = guest.read(arg, abi.XenMemoryExchange64.size)
    whole = abi.XenMemoryExchange64.unpack_from(data)
    given, wanted = (abi.XenMemoryReservation64.unpack_from(part) for part in (whole.in_, whole.out))
    done, rc = whole.nr_exchanged, _checked_exchange(xen, whole.nr_exchanged, given, wanted)
    if rc is not None:
        if rc:
            guest.write_u64(arg + _NR_EXCHANGED, done)
        return rc
    limit = _frame_limit(wanted.mem_flags, xen.domain.frames.frames)
    a_time = max(given.extent_order, wanted.extent_order)  # frames are exchanged in blocks of this order
    per_in, per_out = 1 << a_time - given.extent_order, 1 << a_time - wanted.extent_order
    first = block = done >> a_time - given.extent_order
    searched = a_time > 0 or limit < xen.domain.frames.frames
    most = max(_A_TIME >> a_time, 1) // (_SEARCH if searched else 1) or 1
    rc = 0
    try:
        while block < given.nr_extents // per_in and not rc:
            if block - first >= most:
                xen.work += _A_TIME
                guest.write_u64(arg + _NR_EXCHANGED, block * per_in)
                return xen.continue_later(Hypercall.memory_op, abi.XENMEM_exchange, arg)
            out: list[int] = []
            for i in range(block * per_in, (block + 1) * per_in):
                at = guest.read_u64(given.extent_start + 8 * i)
                out += range(at, at + (1 << given.extent_order))
            slots = [wanted.extent_start + 8 * i for i in range(block * per_out, (block + 1) * per_out)]
            rc = _exchange_block(xen, out, slots, wanted.extent_order, limit)
            block += not rc
    except GuestFault:
        rc = -EFAULT
    guest.write_u64(arg + _NR_EXCHANGED, given.nr_extents if not rc else block * per_in)
    return rc


def _checked_exchange(xen: Hypervisor, done: int, given: Record, wanted: Record) -> int | None:
    """The result of an exchange that is not begun; None where it can be."""
    if max(given.extent_order, wanted.extent_order) > _MAX_ORDER:
        xen.refusal = f"extents of order {max(given.extent_order, wanted.extent_order)}: {_MAX_ORDER} at most"
        return -EPERM
    if done > given.nr_extents or given.domid != wanted.domid:
        return -EINVAL
    if any(part.nr_extents > U64 >> part.extent_order for part in (given, wanted)):
        return -EINVAL
    if given.nr_extents << given.extent_order != wanted.nr_extents << wanted.extent_order:
        xen.refusal = "as many pages must be given as are asked for"
        return -EINVAL
    if done == given.nr_extents:
        return 0
    if not all(handle_okay(part.extent_start, part.nr_extents, 8) for part in (given, wanted)):
        return -EFAULT
    if wanted.mem_flags & abi.XENMEMF_exact_node_request:
        return -EINVAL
    return xen.domain.naming(given.domid) or None


def _exchange_block(xen: Hypervisor, out: list[int], slots: list[int], order: int, limit: int) -> int:
    """Exchange the frames ``out`` for blocks of ``order``, below frame ``limit``, for the PFNs in ``slots``.

    Nothing is changed on failure; only a list that cannot be read or written is found when the frames are there.
    """
    domain = xen.domain
    frames = domain.frames
    for mfn in out:
        if mfn >= frames.frames or frames.owner[mfn] != GUEST:
            xen.refusal = f"frame {mfn:#x} is not the domain's"
            return -EINVAL
        if frames.refs[mfn] != 1 or not frames.flags[mfn] & ALLOCATED:
            xen.refusal = f"frame {mfn:#x} is mapped or in use"
            return -EINVAL
    if len(set(out)) != len(out):
        xen.refusal = "a frame is given twice"
        return -EINVAL
    taken = frames.take(order, len(slots), max(limit, 0))
    frames.untake(taken)
    if len(taken) != len(slots):  # on a machine without other room they count as such themselves
        frames.free.update(dict.fromkeys(out))
        taken = frames.take(order, len(slots), max(limit, 0))
        frames.untake(taken)
        for mfn in out:
            del frames.free[mfn]
    if len(taken) != len(slots):
        xen.refusal = f"there are not {len(slots)} free blocks of {1 << order} frames as asked for"
        return -ENOMEM
    for mfn in out:
        domain.area.set_m2p(mfn, INVALID_M2P_ENTRY)
        frames.disown(mfn)
    for block in taken:
        for mfn in block:
            del frames.free[mfn]
            frames.give_one(mfn)
            domain.ram.pages[mfn] = 0
            domain.area.set_m2p(mfn, INVALID_M2P_ENTRY)
    rc = 0
    for slot, block in zip(slots, taken, strict=True):
        try:
            pfn = domain.guest.read_u64(slot)
            for k, mfn in enumerate(block):
                domain.area.set_m2p(mfn, pfn + k)
            domain.guest.write_u64(slot, block[0])
        except GuestFault:
            rc = -EFAULT
    return rc
