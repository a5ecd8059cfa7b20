"""grant_table_op: what one domain alone can ask of it (xen/common/grant_table.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stub.abi import grant_table as abi
from stub.abi.errno import EBUSY, EINVAL
from stub.abi.layout import Struct
from stub.abi.xen import Hypercall
from stub.hypervisor.grants import MAX_FRAMES, RESERVED_ENTRIES
from stub.hypervisor.registry import SubOps, hypercall
from stub.units import PAGE_SIZE

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

GRANT_OPS = SubOps(Hypercall.grant_table_op)
_ENTRY_SIZE = {1: 8, 2: 16}


@hypercall(Hypercall.grant_table_op)
def grant_table_op(xen: Hypervisor, command: int, arg: int, count: int, _: int, __: int) -> int:
    """Dispatch on the command; ``count`` elements, each with a status of its own."""
    count &= 0xFFFFFFFF
    if count >> 31:
        return -EINVAL
    xen.element_count = count
    return GRANT_OPS.dispatch(xen, command & 0xFFFFFFFF, arg)


@GRANT_OPS(abi.GNTTABOP_setup_table)
def setup_table(xen: Hypervisor, arg: int) -> int:
    """Have a number of frames, and tell where they are."""
    if xen.element_count != 1:
        return -EINVAL
    guest, table = xen.domain.guest, xen.grants
    xen.payload = guest.read(arg, abi.GnttabSetupTable64.size)
    request = abi.GnttabSetupTable64.unpack_from(xen.payload)
    if not xen.domain.is_self(request.dom):
        result = abi.GNTST_permission_denied
    elif request.nr_frames > MAX_FRAMES or not table.grow(request.nr_frames):
        result = abi.GNTST_general_error
    else:
        result = abi.GNTST_okay
        if table.version == 2:
            table.match_status()
        _list_frames(xen, request.frame_list, table.frames[: request.nr_frames])
    return _answer(xen, arg, abi.GnttabSetupTable64, result)


def _list_frames(xen: Hypervisor, at: int, frames: list[int]) -> None:
    for i, mfn in enumerate(frames):
        xen.domain.guest.write_u64(at + 8 * i, mfn)


def _answer(xen: Hypervisor, arg: int, layout: Struct, result: int) -> int:
    """Put the result into a request's status (16 bits); the operation itself has done its work."""
    guest = xen.domain.guest
    guest.write(arg + layout.offset("status"), (result & 0xFFFF).to_bytes(2, "little"))
    xen.out = guest.read(arg, layout.size)
    return 0


@GRANT_OPS(abi.GNTTABOP_query_size)
def query_size(xen: Hypervisor, arg: int) -> int:
    """How many frames there are, and how many there may be."""
    if xen.element_count != 1:
        return -EINVAL
    guest = xen.domain.guest
    xen.payload = guest.read(arg, abi.GnttabQuerySize.size)
    domid = abi.GnttabQuerySize.unpack_from(xen.payload).dom
    good = xen.domain.is_self(domid)
    xen.out = abi.GnttabQuerySize.pack(
        dom=domid,
        nr_frames=len(xen.grants.frames) if good else 0,
        max_nr_frames=MAX_FRAMES if good else 0,
        status=abi.GNTST_okay if good else abi.GNTST_permission_denied,
    )
    guest.write(arg, xen.out)
    return 0


@GRANT_OPS(abi.GNTTABOP_set_version)
def set_version(xen: Hypervisor, arg: int) -> int:
    """Use entries of version 1 or 2; the first eight survive the change."""
    guest, table, ram = xen.domain.guest, xen.grants, xen.domain.ram
    xen.payload = guest.read(arg, 4)
    wanted = int.from_bytes(xen.payload, "little")
    if wanted not in _ENTRY_SIZE:
        return -EINVAL
    if wanted != table.version:
        size = _ENTRY_SIZE[table.version]
        for number, mfn in enumerate(table.frames):
            first = RESERVED_ENTRIES * size if number == 0 else 0
            if ram.pages[mfn][first:].any():
                return -EBUSY
        at = table.frames[0] * PAGE_SIZE
        kept = bytes(ram.bytes[at : at + RESERVED_ENTRIES * size])
        entries = [_convert(kept[i * size : (i + 1) * size], table.version) for i in range(RESERVED_ENTRIES)]
        ram.pages[table.frames[0]] = 0
        data = b"".join(entries)
        ram.bytes[at : at + len(data)] = data
        table.version = wanted
        if wanted == 2:
            table.match_status()
    xen.out = wanted.to_bytes(4, "little")
    guest.write(arg, xen.out)
    return 0


def _convert(entry: bytes, version: int) -> bytes:
    if version == 1:
        return entry[:4] + bytes(4) + entry[4:8] + bytes(4)
    return entry[:4] + entry[8:12]


@GRANT_OPS(abi.GNTTABOP_get_version)
def get_version(xen: Hypervisor, arg: int) -> int:
    """The version in use."""
    xen.payload = xen.domain.guest.read(arg, abi.GnttabGetVersion.size)
    xen.domain.guest.write_u32(arg + abi.GnttabGetVersion.offset("version"), xen.grants.version)
    xen.out = xen.domain.guest.read(arg, abi.GnttabGetVersion.size)
    return 0


@GRANT_OPS(abi.GNTTABOP_get_status_frames)
def get_status_frames(xen: Hypervisor, arg: int) -> int:
    """Where the status words of version 2 are."""
    if xen.element_count != 1:
        return -EINVAL
    guest, table = xen.domain.guest, xen.grants
    xen.payload = guest.read(arg, abi.GnttabGetStatusFrames64.size)
    request = abi.GnttabGetStatusFrames64.unpack_from(xen.payload)
    if not xen.domain.is_self(request.dom):
        result = abi.GNTST_permission_denied
    elif table.version != 2 or request.nr_frames > len(table.status_frames):
        result = abi.GNTST_general_error
    else:
        result = abi.GNTST_okay
        _list_frames(xen, request.frame_list, table.status_frames[: request.nr_frames])
    return _answer(xen, arg, abi.GnttabGetStatusFrames64, result)


@GRANT_OPS(abi.GNTTABOP_dump_table)
def dump_table(xen: Hypervisor, arg: int) -> int:
    """A debugging aid of Xen's own console; nothing to say."""
    return 0
