"""memory_op: pages given back, taken and exchanged (xen/common/memory.c)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from stub.abi import memory as abi
from stub.abi.errno import E2BIG, EFAULT, EINVAL, ENOMEM, EPERM
from stub.abi.layout import Record
from stub.abi.xen import Hypercall
from stub.hypervisor.arguments import Words, take
from stub.hypervisor.hypercalls.memory import MEMORY_OPS
from stub.hypervisor.pointers import handle_okay, structure_okay
from stub.memory.frames import ALLOCATED, GUEST, INVALID_M2P_ENTRY
from stub.memory.guest import GuestFault
from stub.units import PAGE_SHIFT, U64

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

_MAX_ORDER = 9  # domu_max_order
_MOST_EXTENTS = 0xFFFFFFFF >> abi.MEMOP_EXTENT_SHIFT
_A_TIME = 4096  # frames before the guest is made to ask again
_SEARCH = 64  # what looking for a block, or for frames below a limit, counts as
_TRANSLATED = 8192  # bytes of 64-bit arguments that Xen makes of a 32-bit guest's at a time (COMPAT_ARG_XLAT_SIZE)


_List = Words | dict[int, int]
"""Words of the guest's, or those of them that were read before."""


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
        r = take(xen, abi.XenMemoryReservation, arg)
    except GuestFault:
        return None
    limit = _frame_limit(r.mem_flags, xen.domain.frames.frames)
    refused = {
        "that many extents": r.nr_extents > _MOST_EXTENTS,
        f"there is no domain {r.domid}": not xen.domain.is_self(r.domid),
        f"extents of order {r.extent_order}, beyond {_MAX_ORDER}": r.extent_order > _MAX_ORDER,
        "a page in so few address bits": limit < 0,
        "a node of its own choice": bool(r.mem_flags & abi.XENMEMF_exact_node_request),
        "a list there": not structure_okay(xen, r.extent_start, r.nr_extents, xen.width.word),
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
    frames, extents = xen.domain.frames, Words(xen, wanted.start)
    first_done = done
    try:
        while done < wanted.extents:
            if (done - first_done) << wanted.order >= _A_TIME:
                xen.work += _A_TIME
                return _continue(xen, abi.XENMEM_decrease_reservation, done, arg)
            first = extents[done]
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
    domain, extents = xen.domain, Words(xen, start)
    now = min(max(count - done, 0), max(_A_TIME >> order, 1))
    xen.work += now << order
    blocks = domain.frames.take(order, now, limit)
    used = 0
    try:
        for block in blocks:
            pfn = extents[done] if physmap else 0
            used += 1
            for i, mfn in enumerate(block):
                domain.frames.give_one(mfn)
                domain.ram.pages[mfn] = 0
                if physmap:
                    domain.area.set_m2p(mfn, pfn + i)
            if start or physmap:
                extents[done] = block[0]
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


@dataclass
class _Exchange:
    """Two lists of extents, one for the other, and how many of the first are ``done``."""

    given: Record
    wanted: Record
    done: int

    @property
    def order(self) -> int:
        """Frames are exchanged in blocks of this order."""
        order: int = max(self.given.extent_order, self.wanted.extent_order)
        return order


@MEMORY_OPS(abi.XENMEM_exchange)
def exchange(xen: Hypervisor, arg: int) -> int:
    """Give frames for as many others, contiguous as asked; each given one may have no mapping and no type left."""
    request, part = take(xen, abi.XenMemoryExchange, arg), abi.XenMemoryReservation.of(xen.width.bits)
    job = _Exchange(part.unpack_from(request.in_), part.unpack_from(request.out), request.nr_exchanged)
    return (_exchange_here if xen.width.bits == 64 else _exchange_translated)(xen, arg, job)


def _exchange_here(xen: Hypervisor, arg: int, job: _Exchange) -> int:
    rc = _checked_exchange(xen, job)
    if rc is None:
        old, new = Words(xen, job.given.extent_start), Words(xen, job.wanted.extent_start)
        rc = _exchange_extents(xen, job, old, new, job.given.nr_extents)
    elif not rc:
        return 0
    return _exchanged(xen, arg, job, rc)


def _exchange_translated(xen: Hypervisor, arg: int, job: _Exchange) -> int:
    """A 32-bit guest's (compat_memory_op): a part is read, exchanged and written; of one that fails nothing is said."""
    rc, at_once = _translatable(xen, job)
    if rc:
        return rc
    given, wanted = Words(xen, job.given.extent_start), Words(xen, job.wanted.extent_start)
    end = min(job.done + at_once, job.given.nr_extents)
    more = job.wanted.extent_order - job.given.extent_order
    shift = abs(more) & 31  # no order that the guest names may make a number long
    places = range(job.done >> shift, end >> shift) if more > 0 else range(job.done << shift, end << shift)
    old, new = {i: given[i] for i in range(job.done, end)}, {i: wanted[i] for i in places}
    first, checked = job.done, _checked_exchange(xen, job)
    rc = _exchange_extents(xen, job, old, new, end) if checked is None else checked
    if rc or job.done == first:
        return rc
    for i in places:
        wanted[i] = new[i]
    return _exchanged(xen, arg, job, 0)


def _translatable(xen: Hypervisor, job: _Exchange) -> tuple[int, int]:
    """What is wrong with a 32-bit guest's exchange before its lists are read; and how many extents are read at once."""
    given, wanted = job.given, job.wanted
    orders = given.extent_order & 31, wanted.extent_order & 31  # as the CPU shifts
    more = wanted.extent_order - given.extent_order
    counts = given.nr_extents, wanted.nr_extents
    sizes = [count << order for count, order in zip(counts, orders, strict=True)]
    odd = more > 0 and job.done & (1 << (more & 31)) - 1
    if job.done > given.nr_extents or odd or max(sizes) > xen.width.mask or sizes[0] != sizes[1]:
        return -EINVAL, 0
    if not all(structure_okay(xen, part.extent_start, part.nr_extents, xen.width.word) for part in (given, wanted)):
        return -EFAULT, 0
    at_once = (_TRANSLATED - abi.XenMemoryExchange64.size) // (((1 << (abs(more) & 31)) + 1) * 8)
    return (0, at_once << max(more, 0)) if at_once else (-E2BIG, 0)


def _exchanged(xen: Hypervisor, arg: int, job: _Exchange, rc: int) -> int:
    """Say how far an exchange came, and have the guest ask for the rest."""
    place = abi.XenMemoryExchange.of(xen.width.bits).offset("nr_exchanged")
    Words(xen, arg + place)[0] = job.done
    if rc or job.done >= job.given.nr_extents:
        return rc
    xen.work += _A_TIME
    return xen.continue_later(Hypercall.memory_op, abi.XENMEM_exchange, arg)


def _checked_exchange(xen: Hypervisor, job: _Exchange) -> int | None:
    """The result of an exchange that is not begun; None where it can be."""
    given, wanted = job.given, job.wanted
    if job.order > _MAX_ORDER:
        xen.refusal = f"extents of order {job.order}: {_MAX_ORDER} at most"
        return -EPERM
    if job.done > given.nr_extents or given.domid != wanted.domid:
        return -EINVAL
    if any(part.nr_extents > U64 >> part.extent_order for part in (given, wanted)):
        return -EINVAL
    if given.nr_extents << given.extent_order != wanted.nr_extents << wanted.extent_order:
        xen.refusal = "as many pages must be given as are asked for"
        return -EINVAL
    if job.done == given.nr_extents:
        return 0
    if not all(handle_okay(part.extent_start, part.nr_extents, 8) for part in (given, wanted)):
        return -EFAULT
    if wanted.mem_flags & abi.XENMEMF_exact_node_request:
        return -EINVAL
    return xen.domain.naming(given.domid) or None


def _exchange_extents(xen: Hypervisor, job: _Exchange, old: _List, new: _List, end: int) -> int:
    """Exchange the extents up to ``end``, or as many as can be in one go; 0 or the error of what was not done."""
    given, wanted = job.given, job.wanted
    limit = _frame_limit(wanted.mem_flags, xen.domain.frames.frames)
    per_in, per_out = 1 << job.order - given.extent_order, 1 << job.order - wanted.extent_order
    searched = job.order > 0 or limit < xen.domain.frames.frames
    most = max(_A_TIME >> job.order, 1) // (_SEARCH if searched else 1) or 1
    first = job.done // per_in
    rc = 0
    try:
        for block in range(first, min(first + most, end // per_in)):
            out: list[int] = []
            for i in range(block * per_in, (block + 1) * per_in):
                at = old[i]
                out += range(at, at + (1 << given.extent_order))
            places = range(block * per_out, (block + 1) * per_out)
            rc = _exchange_block(xen, out, new, places, wanted.extent_order, limit)
            if rc:
                break
            job.done = (block + 1) * per_in
    except GuestFault:
        rc = -EFAULT
    return rc


def _exchange_block(xen: Hypervisor, out: list[int], new: _List, places: range, order: int, limit: int) -> int:
    """Exchange the frames ``out`` for blocks of ``order``, below frame ``limit``; the PFNs are at ``places``.

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
    taken = frames.take(order, len(places), max(limit, 0))
    frames.untake(taken)
    if len(taken) != len(places):  # on a machine without other room they count as such themselves
        frames.free.update(dict.fromkeys(out))
        taken = frames.take(order, len(places), max(limit, 0))
        frames.untake(taken)
        for mfn in out:
            del frames.free[mfn]
    if len(taken) != len(places):
        xen.refusal = f"there are not {len(places)} free blocks of {1 << order} frames as asked for"
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
    for slot, block in zip(places, taken, strict=True):
        try:
            pfn = new[slot]
            for k, mfn in enumerate(block):
                domain.area.set_m2p(mfn, pfn + k)
            new[slot] = block[0]
        except GuestFault:
            rc = -EFAULT
    return rc
