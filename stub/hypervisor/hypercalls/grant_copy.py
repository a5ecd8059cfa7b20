"""Grants without a mapping: copy and transfer (xen/common/grant_table.c, gnttab_copy, gnttab_transfer)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from stub.abi import grant_table as abi
from stub.abi.layout import Record
from stub.abi.xen import DOMID_SELF
from stub.hypervisor.grants import HOST_READ, HOST_WRITE
from stub.hypervisor.refusals import refused
from stub.memory.frames import ALLOCATED, GUEST, INVALID_M2P_ENTRY, NONE, WRITABLE
from stub.units import PAGE_SIZE

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor


class _Buffer(NamedTuple):
    """One side of a copy: the frame, the part of it that may be touched, and the grant it came by, if any."""

    frame: int
    start: int
    length: int
    ref: int | None


def copy_grant(xen: Hypervisor, r: Record) -> int:
    """The status of one copy."""
    from_grant, to_grant = bool(r.flags & abi.GNTCOPY_source_gref), bool(r.flags & abi.GNTCOPY_dest_gref)
    for domid, by_grant in ((r.source_domid, from_grant), (r.dest_domid, to_grant)):
        if domid != DOMID_SELF and not by_grant:
            why = f"a frame of domain {domid} is reached by grant only; one's own is of DOMID_SELF"
            return refused(xen, abi.GNTST_permission_denied, why)
        if not xen.domain.is_self(domid):
            return refused(xen, abi.GNTST_bad_domain, f"domain {domid} grants nothing here")
    source = _claim(xen, r.source_ref if from_grant else None, r.source_gmfn, True)
    if isinstance(source, int):
        return source
    dest = _claim(xen, r.dest_ref if to_grant else None, r.dest_gmfn, False)
    if isinstance(dest, int):
        _release(xen, source, True)
        return dest
    status = _within(xen, r, source, dest)
    if not status:
        memory = xen.ram_bytes
        first = source.frame * PAGE_SIZE + r.source_offset
        at = dest.frame * PAGE_SIZE + r.dest_offset
        memory[at : at + r.len] = bytes(memory[first : first + r.len])
    _release(xen, source, True)
    _release(xen, dest, False)
    return status


def _claim(xen: Hypervisor, ref: int | None, gmfn: int, readonly: bool) -> _Buffer | int:
    """Hold a frame for a copy (gnttab_copy_claim_buf), or the status that says why not."""
    frames, grants = xen.domain.frames, xen.grants
    if ref is None:
        buffer = _Buffer(gmfn, 0, PAGE_SIZE, None)
    else:
        status = grants.take(ref, [HOST_READ if readonly else HOST_WRITE], mapping=False)
        if status:
            return refused(xen, status, grants.refusal)
        active = grants.active[ref]
        buffer = _Buffer(active.frame, active.start, active.length, ref)
    if not frames.get(buffer.frame):
        _end_use(xen, ref, readonly)
        status = abi.GNTST_bad_page if ref is None else abi.GNTST_bad_domain
        return refused(xen, status, f"frame {buffer.frame:#x} is not the domain's")
    if not readonly and xen.domain.types.get_type(buffer.frame, WRITABLE):
        frames.put(buffer.frame)
        _end_use(xen, ref, readonly)
        return refused(xen, abi.GNTST_general_error, f"frame {buffer.frame:#x} cannot be written: it is a table")
    return buffer


def _end_use(xen: Hypervisor, ref: int | None, readonly: bool) -> None:
    if ref is not None:
        xen.grants.release(ref, HOST_READ if readonly else HOST_WRITE)


def _release(xen: Hypervisor, buffer: _Buffer, readonly: bool) -> None:
    _end_use(xen, buffer.ref, readonly)
    if not readonly:
        xen.domain.types.put_type(buffer.frame)
    xen.domain.frames.put(buffer.frame)


def _within(xen: Hypervisor, r: Record, source: _Buffer, dest: _Buffer) -> int:
    """Whether a copy stays in its pages, and in what is granted of them (gnttab_copy_buf)."""
    if max(r.source_offset, r.dest_offset) + r.len > PAGE_SIZE:
        return refused(xen, abi.GNTST_bad_copy_arg, f"{r.len} bytes reach past the end of a page")
    for name, offset, part in (("source", r.source_offset, source), ("destination", r.dest_offset, dest)):
        if offset < part.start or offset + r.len > part.start + part.length:
            granted = f"{part.length} bytes from {part.start:#x}"
            why = f"{r.len} bytes from {offset:#x} of the {name} are not within the {granted} that are granted"
            return refused(xen, abi.GNTST_general_error, why)
    return abi.GNTST_okay


def transfer_page(xen: Hypervisor, r: Record) -> int:
    """The status of one transfer: give a page to whoever accepts it by a grant.

    The page has to be mapped nowhere; from then on it is lost to the domain, even where the taker refuses it.
    """
    domain, frames = xen.domain, xen.domain.frames
    mfn = r.mfn
    if mfn >= frames.frames or frames.owner[mfn] != GUEST or not frames.flags[mfn] & ALLOCATED:
        return refused(xen, abi.GNTST_bad_page, f"frame {mfn:#x} is not one of the domain's pages")
    if frames.refs[mfn] != 1:
        return refused(xen, abi.GNTST_bad_page, f"frame {mfn:#x} is still mapped or in use")
    status = _accepts(xen, r.domid, r.ref)
    if status:
        frames.disown(mfn)
        domain.area.set_m2p(mfn, INVALID_M2P_ENTRY)
        return status
    frames.type[mfn] = NONE
    xen.grants.set_flags(r.ref, abi.GTF_transfer_committed)
    domain.area.set_m2p(mfn, xen.grants.entry(r.ref).frame)
    xen.grants.set_frame(r.ref, mfn)
    xen.grants.set_flags(r.ref, abi.GTF_transfer_completed)
    return abi.GNTST_okay


def _accepts(xen: Hypervisor, domid: int, ref: int) -> int:
    """Whether a grant is ready to take a page from the domain (gnttab_prepare_for_transfer)."""
    grants = xen.grants
    if domid != xen.domain.domid:
        return refused(xen, abi.GNTST_bad_domain, f"domain {domid} takes no pages here")
    if ref >= grants.entries:
        return refused(xen, abi.GNTST_general_error, f"grant reference {ref:#x} is beyond the table")
    entry = grants.entry(ref)
    if entry.flags != abi.GTF_accept_transfer or entry.domid != domid:
        why = (
            f"grant {ref:#x} has flags {entry.flags:#x} for domain {entry.domid}: it takes no page from domain {domid}"
        )
        return refused(xen, abi.GNTST_general_error, why)
    return abi.GNTST_okay
