"""grant_table_op: the table itself, and lists of operations on grants (xen/common/grant_table.c).

One domain alone is here: it may map, copy and transfer what it granted to itself, named by its own number. The back
ends of domain 0 are pvstub's own; they grant nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from stub.abi import grant_table as abi
from stub.abi.errno import EFAULT, EILSEQ, EINVAL, ENOSYS, EOPNOTSUPP, EPERM, ESRCH
from stub.abi.layout import Layout, Record
from stub.abi.xen import Hypercall
from stub.hypervisor.arguments import Numbers, Words, take
from stub.hypervisor.grants import MAX_FRAMES
from stub.hypervisor.hypercalls.grant_copy import copy_grant, transfer_page
from stub.hypervisor.hypercalls.grant_mapping import map_grant, unmap_grant
from stub.hypervisor.hypercalls.mmu import flush_if_stale
from stub.hypervisor.pointers import handle_okay, structure_okay, translated_okay
from stub.hypervisor.refusals import bad_pointer, refuse, refused
from stub.hypervisor.registry import SubOps, hypercall
from stub.memory.frames import GUEST
from stub.memory.guest import GuestFault
from stub.units import PAGE_SHIFT, PAGE_SIZE, U64

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

GRANT_OPS: SubOps[[int]] = SubOps(Hypercall.grant_table_op)
A_TIME = 512  # elements of a list before the guest is made to ask again
_COMMAND = 0xFFF  # GNTTABOP_CMD_MASK; what is above belongs to a cache_flush that goes on
_PAYLOAD_CAP = 4096
_ONE_ELEMENT = frozenset({abi.GNTTABOP_setup_table, abi.GNTTABOP_query_size, abi.GNTTABOP_get_status_frames})
# Those of them that Xen, translating a 32-bit guest's, does not even look at when there is no element.
_NONE_WILL_DO = {64: frozenset[int](), 32: frozenset({abi.GNTTABOP_setup_table, abi.GNTTABOP_get_status_frames})}
_TRANSLATED = 8192  # bytes of 64-bit elements that it makes of a 32-bit guest's at a time (COMPAT_ARG_XLAT_SIZE)


class ListOp(NamedTuple):
    """An operation on each element of a list: ``act`` does one, changes its bytes, and returns its status.

    ``whole``: the element goes back to the guest as it became, else its status only.
    """

    layout: Layout
    act: Callable[[Hypervisor, Record, bytearray], int]
    whole: bool = False


def _map(xen: Hypervisor, r: Record, data: bytearray) -> int:
    status, handle, maddr = map_grant(xen, r)
    if status == abi.GNTST_okay:
        abi.GnttabMapGrantRef.pack_into(data, 0, handle=handle, dev_bus_addr=maddr)
    return status


def _unmap(xen: Hypervisor, r: Record, _: bytearray) -> int:
    return unmap_grant(xen, r.handle, r.host_addr, r.dev_bus_addr, 0)


def _unmap_and_replace(xen: Hypervisor, r: Record, _: bytearray) -> int:
    return unmap_grant(xen, r.handle, r.host_addr, 0, r.new_addr)


def _swap(xen: Hypervisor, r: Record, _: bytearray) -> int:
    status = xen.grants.swap(r.ref_a, r.ref_b)
    if status:
        xen.refusal = xen.grants.refusal
    return status


LIST_OPS: dict[int, ListOp] = {
    abi.GNTTABOP_map_grant_ref: ListOp(abi.GnttabMapGrantRef, _map, whole=True),
    abi.GNTTABOP_unmap_grant_ref: ListOp(abi.GnttabUnmapGrantRef, _unmap),
    abi.GNTTABOP_unmap_and_replace: ListOp(abi.GnttabUnmapAndReplace, _unmap_and_replace),
    abi.GNTTABOP_swap_grant_ref: ListOp(abi.GnttabSwapGrantRef, _swap),
    abi.GNTTABOP_copy: ListOp(abi.GnttabCopy, lambda xen, r, _: copy_grant(xen, r)),
    abi.GNTTABOP_transfer: ListOp(abi.GnttabTransfer, lambda xen, r, _: transfer_page(xen, r)),
}


@hypercall(Hypercall.grant_table_op)
def grant_table_op(xen: Hypervisor, command: int, arg: int, count: int, _: int, __: int) -> int:
    """Dispatch on the command; each of the ``count`` elements has a status of its own, and the call's is 0."""
    command, count = command & 0xFFFFFFFF, count & 0xFFFFFFFF
    if count >> 31:
        return refuse(xen, EINVAL, f"a list of {count:#x} elements")
    if command & _COMMAND == abi.GNTTABOP_cache_flush:
        return _cache_flush(xen, command & ~_COMMAND, arg, count)
    if command & ~_COMMAND:
        return refuse(xen, EINVAL, f"command {command:#x} is beyond {_COMMAND:#x}")
    operation = LIST_OPS.get(command)
    if operation is None:
        if command not in GRANT_OPS.handlers:
            return xen.not_there(Hypercall.grant_table_op, command)
        if not count and command in _NONE_WILL_DO[xen.width.bits]:
            return 0
        if command in _ONE_ELEMENT and count != 1:
            return refuse(xen, EINVAL, f"grant_table_op {command} takes one element, not {count}")
        return GRANT_OPS.dispatch(xen, command, arg)
    if not handle_okay(arg, count, operation.layout.of(xen.width.bits).size):
        return refuse(xen, EFAULT, f"a list of {count} elements cannot begin at {arg:#x}")
    return _each(xen, command, arg, count, operation)


def _each(xen: Hypervisor, command: int, arg: int, count: int, operation: ListOp) -> int:
    layout, guest = operation.layout.of(xen.width.bits), xen.domain.guest
    wide = operation.layout.of(64)
    read_first = 0 if layout is wide else _TRANSLATED // wide.size  # a part is read before any of it is done
    status_at = layout.offset("status")
    before, after = bytearray(), bytearray()
    why = ""
    rc = 0
    try:
        xen.work += min(count, A_TIME)
        for i in range(min(count, A_TIME)):
            at = (arg + i * layout.size) & U64
            if read_first and i % read_first == 0:
                guest.read(at, min(read_first, count - i) * layout.size)
            data = bytearray(guest.read(at, layout.size))
            if len(before) < _PAYLOAD_CAP:
                before += data
            xen.refusal = xen.types.refusal = ""
            status = operation.act(xen, layout.unpack_from(data), data)
            if status and not why:
                why = f"element {i}, {abi.GNTST_NAMES[status]}: {xen.refusal or xen.types.refusal}"
            layout.pack_into(data, 0, status=status)
            if operation.whole:
                guest.write(at, bytes(data))
            else:
                guest.write((at + status_at) & U64, bytes(data[status_at : status_at + 2]))
            if len(after) < _PAYLOAD_CAP:
                after += data
    except GuestFault as fault:
        xen.types.refusal = ""
        rc = bad_pointer(xen, fault)
    else:
        xen.refusal = ""
        if why:
            xen.log.note(xen.vcpu.call_time, xen.vcpu.call_rip, why)
    flush_if_stale(xen)
    xen.payload, xen.out = bytes(before), bytes(after)
    if rc or count <= A_TIME:
        return rc
    return xen.continue_later(Hypercall.grant_table_op, command, arg + A_TIME * layout.size, count - A_TIME)


# -- the table


def _other_domain(xen: Hypervisor, domid: int) -> int:
    """GNTST_okay for the domain itself, else the status of asking about another one's table."""
    error = xen.domain.naming(domid)
    if error == -EPERM:
        return refused(xen, abi.GNTST_permission_denied, f"domain {domid}'s grant table is its own")
    return refused(xen, abi.GNTST_bad_domain, f"there is no domain {domid}") if error else abi.GNTST_okay


def _answer(xen: Hypervisor, arg: int, structure: Layout, status: int) -> int:
    """Put the status (16 bits) into the request; the operation itself has done its work."""
    guest, layout = xen.domain.guest, structure.of(xen.width.bits)
    guest.write((arg + layout.offset("status")) & U64, (status & 0xFFFF).to_bytes(2, "little"))
    xen.out = guest.read_available(arg, layout.size)
    if status:
        xen.log.note(xen.vcpu.call_time, xen.vcpu.call_rip, f"{abi.GNTST_NAMES[status]}: {xen.refusal}")
        xen.refusal = ""
    return 0


def _list_frames(xen: Hypervisor, target: Numbers, frames: list[int]) -> int:
    """Write a list of frames; the status. Those that can be written are, whatever becomes of the others."""
    status = abi.GNTST_okay
    for i, mfn in enumerate(frames):
        try:
            target[i] = mfn
        except GuestFault as fault:
            bad_pointer(xen, fault)
            status = abi.GNTST_bad_virt_addr
    return status


@GRANT_OPS(abi.GNTTABOP_setup_table)
def setup_table(xen: Hypervisor, arg: int) -> int:
    """Have a number of frames, and tell where they are."""
    table = xen.grants
    request = take(xen, abi.GnttabSetupTable, arg)
    if not structure_okay(xen, request.frame_list, request.nr_frames, xen.width.word):
        return refuse(xen, EFAULT, f"a list of frames cannot begin at {request.frame_list:#x}")
    status = _other_domain(xen, request.dom)
    if not status:
        if table.grow(request.nr_frames):
            status = _list_frames(xen, Words(xen, request.frame_list), table.frames[: request.nr_frames])
        else:
            xen.refusal = f"{request.nr_frames} frames are more than the {MAX_FRAMES} that the domain may have"
            status = abi.GNTST_general_error
    return _answer(xen, arg, abi.GnttabSetupTable, status)


@GRANT_OPS(abi.GNTTABOP_query_size)
def query_size(xen: Hypervisor, arg: int) -> int:
    """How many frames there are, and how many there may be."""
    status = _other_domain(xen, take(xen, abi.GnttabQuerySize, arg).dom)
    if not status:
        data = bytearray(xen.payload)
        abi.GnttabQuerySize.pack_into(data, 0, nr_frames=len(xen.grants.frames), max_nr_frames=MAX_FRAMES)
        xen.domain.guest.write(arg, bytes(data))
    return _answer(xen, arg, abi.GnttabQuerySize, status)


@GRANT_OPS(abi.GNTTABOP_get_status_frames)
def get_status_frames(xen: Hypervisor, arg: int) -> int:
    """Where the status words of version 2 are."""
    frames = xen.grants.status_frames
    request = take(xen, abi.GnttabGetStatusFrames, arg)
    if not translated_okay(xen, request.frame_list, request.nr_frames, 8):
        return refuse(xen, EFAULT, f"a list of frames cannot begin at {request.frame_list:#x}")
    status = _other_domain(xen, request.dom)
    if not status:
        if request.nr_frames <= len(frames):
            status = _list_frames(xen, Numbers(xen, request.frame_list), frames[: request.nr_frames])
        else:
            xen.refusal = f"there are {len(frames)} status frames, not {request.nr_frames}"
            status = abi.GNTST_general_error
    return _answer(xen, arg, abi.GnttabGetStatusFrames, status)


@GRANT_OPS(abi.GNTTABOP_set_version)
def set_version(xen: Hypervisor, arg: int) -> int:
    """Use entries of version 1 or 2; the version in use is written back, whatever comes of it."""
    guest, table = xen.domain.guest, xen.grants
    wanted = take(xen, abi.GnttabSetVersion, arg).version
    rc = 0
    if wanted not in (1, 2):
        rc = refuse(xen, EINVAL, f"there is no version {wanted}")
    elif wanted != table.version:
        rc = table.set_version(wanted)
        if rc:
            xen.refusal = table.refusal
    xen.out = abi.GnttabSetVersion.pack(version=table.version)
    guest.write(arg, xen.out)
    return rc


@GRANT_OPS(abi.GNTTABOP_get_version)
def get_version(xen: Hypervisor, arg: int) -> int:
    """The version in use; the one operation whose refusal is the call's."""
    status = _other_domain(xen, take(xen, abi.GnttabGetVersion, arg).dom)
    if status:
        return -EPERM if status == abi.GNTST_permission_denied else -ESRCH
    xen.domain.guest.write_u32((arg + abi.GnttabGetVersion.offset("version")) & U64, xen.grants.version)
    xen.out = xen.domain.guest.read(arg, abi.GnttabGetVersion.size)
    return 0


@GRANT_OPS(abi.GNTTABOP_dump_table)
def dump_table(xen: Hypervisor, arg: int) -> int:
    """Xen has a key of its console for it, and no such operation any more."""
    return refuse(xen, ENOSYS, "Xen has no dump_table any more")


# -- cache_flush


def _cache_flush(xen: Hypervisor, started: int, arg: int, count: int) -> int:
    """Caches of the domain's own memory: there are none, but what Xen would refuse is refused."""
    size = abi.GnttabCacheFlush.size
    if not handle_okay(arg, count, size):
        return refuse(xen, EFAULT, f"a list of {count} elements cannot begin at {arg:#x}")
    try:
        for i in range(min(count, A_TIME)):
            data = xen.domain.guest.read((arg + i * size) & U64, size)
            if not xen.payload:
                xen.payload = data
            rc = _flush_one(xen, started, data)
            if rc:
                return rc
            started = 0
    except GuestFault as fault:
        return bad_pointer(xen, fault)
    if count > A_TIME:
        rest = abi.GNTTABOP_cache_flush, arg + A_TIME * size, count - A_TIME
        return xen.continue_later(Hypercall.grant_table_op, *rest)
    return 0


def _flush_one(xen: Hypervisor, started: int, data: bytes) -> int:
    """cache_flush of common code, with x86's own rule: what is only invalidated is not supported."""
    r = abi.GnttabCacheFlush.unpack_from(data)
    known = abi.GNTTAB_CACHE_INVAL | abi.GNTTAB_CACHE_CLEAN
    if r.offset >= PAGE_SIZE or r.offset + r.length > PAGE_SIZE or r.op & ~known:
        return refuse(xen, EINVAL, f"{r.length} bytes from {r.offset:#x}, operation {r.op:#x}")
    if not r.length or not r.op:
        return refuse(xen, EILSEQ, "a flush of nothing cannot go on") if started else 0
    frames, mfn = xen.domain.frames, r.dev_bus_addr >> PAGE_SHIFT
    if mfn >= frames.frames:
        return refuse(xen, EINVAL, f"frame {mfn:#x} is no memory")
    if frames.owner[mfn] != GUEST:
        return refuse(xen, EPERM, f"frame {mfn:#x} is not the domain's")
    return 0 if r.op & abi.GNTTAB_CACHE_CLEAN else refuse(xen, EOPNOTSUPP, "caches are not thrown away unwritten")
