"""What a disk does with a request: check it as xen-blkback does, move the data, say how it went.

Sources: Linux, drivers/block/xen-blkback/blkback.c (dispatch_rw_block_io, dispatch_discard_io, xen_blkbk_map). Data
goes between the image and the guest's page directly. A request is done when ``serve`` returns.
"""

from __future__ import annotations

from typing import NamedTuple

from stub.abi import blkif as abi
from stub.devices.access import GuestAccess
from stub.devices.block.faults import Faults
from stub.devices.block.images import SECTOR, Image
from stub.devices.block.requests import Request
from stub.units import PAGE_SIZE

MAX_INDIRECT_SEGMENTS = 256
MAX_PERSISTENT = 1056  # grants that stay mapped, as xen-blkback's max_persistent_grants
_PER_PAGE = PAGE_SIZE // abi.BlkifRequestSegment.size
_LAST_SECTOR = PAGE_SIZE // SECTOR - 1


class _Refused(Exception):
    """The request is answered BLKIF_RSP_ERROR; the text says why."""


class _Operation(NamedTuple):
    """``flushes``: what was written before is safe first. ``indirect``: it may come with indirect segments."""

    name: str
    writes: bool = False
    flushes: bool = False
    indirect: bool = False


_OPERATIONS = {
    abi.BLKIF_OP_READ: _Operation("read", indirect=True),
    abi.BLKIF_OP_WRITE: _Operation("write", writes=True, indirect=True),
    abi.BLKIF_OP_WRITE_BARRIER: _Operation("write", writes=True, flushes=True),
    abi.BLKIF_OP_FLUSH_DISKCACHE: _Operation("flush", writes=True, flushes=True),
}


class Server:
    """One disk for one connected front end. ``persistent``: grants stay mapped once they were used.

    ``moved`` counts the bytes that went either way.
    """

    def __init__(self, image: Image, guest: GuestAccess, *, writable: bool, faults: Faults, persistent: bool) -> None:
        self._image, self._guest, self._writable, self._faults = image, guest, writable, faults
        self._persistent = persistent
        self._kept: dict[int, memoryview] = {}
        self._held: list[tuple[int, bool]] = []
        self.moved = 0

    @property
    def sectors(self) -> int:
        """The disk's size."""
        return self._image.size // SECTOR

    def serve(self, request: Request) -> int:
        """Do what is asked; the response's status, BLKIF_RSP_*."""
        try:
            if request.operation == abi.BLKIF_OP_DISCARD and not request.indirect:
                return self._discard(request)
            operation = _OPERATIONS.get(request.operation)
            if operation is None and not request.indirect:
                self._guest.note(f"block: there is no operation {request.operation}")
                return abi.BLKIF_RSP_EOPNOTSUPP
            if operation is None or (request.indirect and not operation.indirect):
                raise _Refused(f"operation {request.operation} cannot have indirect segments")
            self._transfer(operation, request)
        except _Refused as why:
            self._guest.note(f"block: {why}")
            return abi.BLKIF_RSP_ERROR
        except OSError as error:
            self._guest.note(f"block: {error.strerror or error}, at sector {request.sector:#x}")
            return abi.BLKIF_RSP_ERROR
        finally:
            self._release()
        return abi.BLKIF_RSP_OKAY

    def close(self) -> None:
        """Unmap what is still mapped."""
        for ref in self._kept:
            self._guest.unmap(ref, readonly=False)
        self._kept.clear()

    # -- reading and writing

    def _transfer(self, operation: _Operation, request: Request) -> None:
        limit = MAX_INDIRECT_SEGMENTS if request.indirect else abi.BLKIF_MAX_SEGMENTS_PER_REQUEST
        if request.segments > limit or (not request.segments and not operation.flushes):
            raise _Refused(f"a {operation.name} of {request.segments} segments")
        segments = abi.BlkifRequestSegment.unpack_array(self._list(request), request.segments)
        for s in segments:
            if s.last_sect < s.first_sect or s.last_sect > _LAST_SECTOR:
                raise _Refused(f"a segment from sector {s.first_sect} to {s.last_sect} of a page")
        sectors = sum(s.last_sect - s.first_sect + 1 for s in segments)
        self._may(operation.name, operation.writes, request.sector, sectors)
        pieces = []
        for s in segments:
            page = self._map(s.gref, readonly=operation.writes and not self._persistent, keep=self._persistent)
            pieces.append(page[s.first_sect * SECTOR : (s.last_sect + 1) * SECTOR])
        if operation.flushes:
            self._image.flush()
        if sectors:
            (self._image.write if operation.writes else self._image.read)(request.sector * SECTOR, pieces)
            self.moved += sectors * SECTOR

    def _list(self, request: Request) -> bytes:
        """The bytes of the request's segments, of those pages that have some."""
        if not request.indirect:
            return request.listed
        grefs = request.grefs[: -(-request.segments // _PER_PAGE)]
        return b"".join(bytes(self._map(ref, readonly=True)) for ref in grefs)

    def _may(self, what: str, writes: bool, sector: int, sectors: int) -> None:
        """Whether the disk is so large, and may be written (xen_vbd_translate)."""
        if writes and not self._writable:
            raise _Refused(f"a {what} at sector {sector:#x}: the disk is read-only")
        if sectors and sector + sectors > self.sectors:
            end = sector + sectors
            raise _Refused(f"a {what} of sectors {sector:#x} to {end:#x}: the disk has {self.sectors:#x}")
        if self._faults.hits(what, sector, sectors):
            raise _Refused(f"a {what} of {sectors} sectors at {sector:#x} fails on purpose")

    def _map(self, ref: int, *, readonly: bool, keep: bool = False) -> memoryview:
        page = self._kept.get(ref) if keep else None
        if page is not None:
            return page
        page = self._guest.map(ref, readonly=readonly)
        if page is None:
            raise _Refused(self._guest.refusal)
        if keep and len(self._kept) < MAX_PERSISTENT:
            self._kept[ref] = page
        else:
            self._held.append((ref, readonly))
        return page

    def _release(self) -> None:
        for ref, readonly in self._held:
            self._guest.unmap(ref, readonly=readonly)
        self._held.clear()

    # -- discarding

    def _discard(self, request: Request) -> int:
        if not self._image.can_discard:
            return abi.BLKIF_RSP_EOPNOTSUPP
        self._may("discard", True, request.sector, request.sectors)
        if request.sectors:
            self._image.discard(request.sector * SECTOR, request.sectors * SECTOR)
        return abi.BLKIF_RSP_OKAY
