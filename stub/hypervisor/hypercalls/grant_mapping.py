"""Grants mapped and unmapped: map_grant_ref, unmap_grant_ref, unmap_and_replace.

Sources: xen/common/grant_table.c (map_grant_ref, unmap_common) and xen/arch/x86/pv/grant_table.c. A mapping for the
guest is an L1 entry like any other, so it is entered as one: the entry owns what the grant took of the frame, a
reference and where it is writable the type. There is no IOMMU: a device's mapping only holds the frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stub.abi import grant_table as abi
from stub.abi.layout import Record
from stub.hypervisor.grants import DEVICE_READ, DEVICE_WRITE, HOST_READ, HOST_WRITE
from stub.hypervisor.hypercalls.mmu import l1_entry_of
from stub.hypervisor.maptrack import Mapping
from stub.hypervisor.refusals import refused
from stub.memory import entries as e
from stub.memory.frames import GUEST, L1
from stub.units import PAGE_SHIFT

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

_GUEST_AVAIL_SHIFT = 16  # _GNTMAP_guest_avail0
_AVAIL_SHIFT = 9  # of e.AVAIL
_MAPS = abi.GNTMAP_device_map | abi.GNTMAP_host_map


def _entry_at(xen: Hypervisor, address: int, flags: int) -> int | None:
    """The word index of the L1 entry meant: by its machine address (GNTMAP_contains_pte) or what it translates."""
    frames = xen.domain.frames
    if flags & abi.GNTMAP_contains_pte:
        mfn = address >> PAGE_SHIFT
        if address & 7 or mfn >= frames.frames or frames.owner[mfn] != GUEST:
            at = None
        else:
            at = address >> 3 if frames.type[mfn] == L1 and frames.type_count[mfn] else None
    else:
        at = l1_entry_of(xen, address)
    if at is None:
        how = "machine address" if flags & abi.GNTMAP_contains_pte else "for"
        xen.refusal = f"there is no l1 entry {how} {address:#x}"
    return at


def _entry_for(frame: int, flags: int) -> int:
    """The L1 entry of a mapping (grant_to_pte_flags), as a guest would write it."""
    entry = frame << PAGE_SHIFT | e.P | e.A | e.D | e.NX
    if flags & abi.GNTMAP_application_map:
        entry |= e.US
    if not flags & abi.GNTMAP_readonly:
        entry |= e.RW
    return entry | flags >> _GUEST_AVAIL_SHIFT << _AVAIL_SHIFT & e.AVAIL


def _uses(flags: int) -> list[int]:
    """The sorts of use that a mapping with these flags is."""
    readonly = bool(flags & abi.GNTMAP_readonly)
    device = [DEVICE_READ if readonly else DEVICE_WRITE] if flags & abi.GNTMAP_device_map else []
    return device + ([HOST_READ if readonly else HOST_WRITE] if flags & abi.GNTMAP_host_map else [])


def map_grant(xen: Hypervisor, request: Record) -> tuple[int, int, int]:
    """(status, handle, machine address) of one map_grant_ref."""
    if not request.flags & _MAPS:
        return refused(xen, abi.GNTST_bad_gntref, f"flags {request.flags:#x} map it for nobody"), 0, 0
    if request.dom != xen.domain.domid:
        own = " (name it by its number)" if xen.domain.is_self(request.dom) else ""
        return refused(xen, abi.GNTST_bad_domain, f"domain {request.dom} grants nothing here{own}"), 0, 0
    mappings, grants = xen.grants.mappings, xen.grants
    handle = mappings.take()
    if handle is None:
        return refused(xen, abi.GNTST_no_device_space, "there are no more handles"), 0, 0
    uses = _uses(request.flags)
    status = grants.take(request.ref, uses, mapping=True)
    if status:
        xen.refusal = grants.refusal
    else:
        frame = grants.active[request.ref].frame
        if _hold(xen, frame, request):
            mappings.live[handle] = Mapping(request.ref, request.flags & 0xFFFF)
            return abi.GNTST_okay, handle, frame << PAGE_SHIFT
        for use in uses:
            grants.release(request.ref, use)
        status = abi.GNTST_general_error
    mappings.put(handle)
    return status, 0, 0


def _hold(xen: Hypervisor, frame: int, request: Record) -> bool:
    """Take the frame for each mapping asked for, and enter the guest's; nothing is held when that fails."""
    types, device = xen.domain.types, bool(request.flags & abi.GNTMAP_device_map)
    if device and not _hold_for_device(xen, frame, request.flags):
        xen.refusal = f"frame {frame:#x} is in use as a table: it cannot be mapped writable"
        return False
    if request.flags & abi.GNTMAP_host_map:
        at = _entry_at(xen, request.host_addr, request.flags)
        if at is None or types.mod_l1(at, _entry_for(frame, request.flags)):
            if device:
                _drop_for_device(xen, frame, request.flags)
            return False
    return True


def _hold_for_device(xen: Hypervisor, frame: int, flags: int) -> bool:
    if flags & abi.GNTMAP_readonly:
        return xen.domain.frames.get(frame)
    return not xen.domain.types.hold(frame)


def _drop_for_device(xen: Hypervisor, frame: int, flags: int) -> None:
    if flags & abi.GNTMAP_readonly:
        xen.domain.frames.put(frame)
    else:
        xen.domain.types.let_go(frame)


def unmap_grant(xen: Hypervisor, handle: int, host_addr: int, bus_addr: int, new_addr: int) -> int:
    """End the mappings of a handle that are named, 0 for none; the status.

    ``new_addr``: what is mapped there takes the place of the mapping (unmap_and_replace).
    """
    mapping = xen.grants.mappings.live.get(handle)
    if mapping is None:
        return refused(xen, abi.GNTST_bad_handle, f"nothing is mapped by handle {handle:#x}")
    frame, flags = xen.grants.active[mapping.ref].frame, mapping.flags
    readonly = flags & abi.GNTMAP_readonly
    if bus_addr not in (0, frame << PAGE_SHIFT):
        return refused(xen, abi.GNTST_general_error, f"handle {handle:#x} maps frame {frame:#x}, not {bus_addr:#x}")
    if host_addr and flags & abi.GNTMAP_host_map:
        if not _replace(xen, host_addr, frame, new_addr, flags):
            return abi.GNTST_general_error
        mapping.flags &= ~abi.GNTMAP_host_map
        xen.grants.release(mapping.ref, HOST_READ if readonly else HOST_WRITE)
    if bus_addr and flags & abi.GNTMAP_device_map:
        mapping.flags &= ~abi.GNTMAP_device_map
        _drop_for_device(xen, frame, flags)
        xen.grants.release(mapping.ref, DEVICE_READ if readonly else DEVICE_WRITE)
    if not mapping.flags & _MAPS:
        xen.grants.mappings.put(handle)
    return abi.GNTST_okay


def _replace(xen: Hypervisor, address: int, frame: int, new_address: int, flags: int) -> bool:
    """Put the entry for ``new_address`` (0: nothing) in the place of a mapping (replace_grant_pv_mapping).

    The entry taken from ``new_address`` is gone from there even where that fails, as in Xen.
    """
    types, words = xen.domain.types, xen.domain.ram.words
    source, new = None, 0
    if new_address:
        if flags & abi.GNTMAP_contains_pte:
            xen.refusal = "a mapping named by its entry cannot be replaced"
            return False
        source = _entry_at(xen, new_address, 0)
        if source is None:
            return False
        new = words[source]
    at = _entry_at(xen, address, flags)
    done = False
    if at is not None and at != source:
        wanted = _entry_for(frame, flags)
        if words[at] >> PAGE_SHIFT & e.FRAME_MASK != frame or (words[at] ^ wanted) & (e.P | e.RW):
            xen.refusal = f"l1e {words[at]:#x} for {address:#x} is not the grant's"
        else:
            done = not types.mod_l1(at, new)
    if source is not None:
        types.mod_l1(source, 0)
    return done
