"""Block requests as they lie in a ring's slots, in both layouts, and the responses (xen/io/blkif.h)."""

from __future__ import annotations

from typing import NamedTuple

from stub.abi import blkif as abi
from stub.abi.layout import Struct
from stub.abi.xenbus import XEN_IO_PROTO_ABI_X86_32, XEN_IO_PROTO_ABI_X86_64


class Layout(NamedTuple):
    """How one kind of guest lays out a slot: what the ``protocol`` node names."""

    request: Struct
    discard: Struct
    indirect: Struct
    response: Struct


LAYOUTS = {
    protocol: Layout(
        abi.BlkifRequest.of(bits),
        abi.BlkifRequestDiscard.of(bits),
        abi.BlkifRequestIndirect.of(bits),
        abi.BlkifResponse.of(bits),
    )
    for protocol, bits in {XEN_IO_PROTO_ABI_X86_64: 64, XEN_IO_PROTO_ABI_X86_32: 32}.items()
}


class Request(NamedTuple):
    """A request. Nothing in it is checked.

    ``operation`` is what is to be done (for an indirect one its ``indirect_op``), and what the response names.
    ``segments`` are in ``listed``, or in the pages ``grefs`` when it is ``indirect``; ``sectors`` is a discard's.
    """

    operation: int
    id: int
    sector: int
    segments: int = 0
    listed: bytes = b""
    grefs: tuple[int, ...] = ()
    indirect: bool = False
    sectors: int = 0


def decode(slot: bytes, layout: Layout) -> Request:
    """The request in a slot's bytes."""
    if slot[0] == abi.BLKIF_OP_DISCARD:
        d = layout.discard.unpack_from(slot)
        return Request(d.operation, d.id, d.sector_number, sectors=d.nr_sectors)
    if slot[0] == abi.BLKIF_OP_INDIRECT:
        i = layout.indirect.unpack_from(slot)
        return Request(i.indirect_op, i.id, i.sector_number, i.nr_segments, grefs=i.indirect_grefs, indirect=True)
    r = layout.request.unpack_from(slot)
    return Request(r.operation, r.id, r.sector_number, r.nr_segments, r.seg)


def response(request: Request, status: int, layout: Layout) -> bytes:
    """The response's bytes."""
    return layout.response.pack(id=request.id, operation=request.operation, status=status)
