"""Page tables: mmu_update and update_va_mapping (xen/arch/x86/mm.c), and what calls that change them share."""

from __future__ import annotations

import contextlib
import struct
from typing import TYPE_CHECKING

from stub.abi import xen as abi
from stub.abi.errno import EFAULT, EINVAL, EPERM, ESRCH
from stub.abi.xen import Hypercall
from stub.engine.base import FLUSH
from stub.hypervisor.pointers import handle_okay
from stub.hypervisor.registry import hypercall
from stub.memory import entries as e
from stub.memory.frames import GUEST, L1, L4, SEG_DESC
from stub.memory.guest import GuestFault

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

_PAIR = struct.Struct("<QQ")
PREEMPTED = 1 << 31  # MMU_UPDATEPREEMPTEDED in count: a continuation, made by Xen itself
PAYLOAD_CAP = 4096
VCPU_WORD = 8  # bytes of a bitmap of vCPUs that are read for a domain of up to 64
A_TIME = 4096  # list entries before the guest is made to ask again


def flush_if_stale(xen: Hypervisor) -> None:
    """Drop the CPU's translations if any entry was narrowed since the last time."""
    types = xen.domain.types
    if types.stale:
        types.stale = False
        xen.words[FLUSH] = 1


def settle(xen: Hypervisor) -> None:
    """After page tables changed: no translation may let the guest write to a new one."""
    types = xen.domain.types
    if types.retyped:
        types.retyped = types.stale = False
        xen.words[FLUSH] = 1


def page_owner(xen: Hypervisor, domid: int) -> int:
    """Whose pages a call is about (get_pg_owner): DOMID_SELF, DOMID_IO, or a negative error number.

    A domain that names itself by its number is refused, as Xen does.
    """
    if domid in (abi.DOMID_SELF, abi.DOMID_IO):
        return domid
    if domid in (abi.DOMID_XEN, 0):
        xen.refusal = f"another domain's pages ({domid:#x}) are for privileged domains"
        return -EPERM
    own = " (itself: write DOMID_SELF)" if domid == xen.domain.domid else ""
    xen.refusal = f"there is no foreign domain {domid}{own}"
    return -ESRCH


def begin_list(xen: Hypervisor, start: int, count: int, size: int, pdone: int) -> tuple[int, int, int]:
    """(count, number done before, error) of a call that takes a list; a continuation goes on with its count."""
    before = 0
    if count & PREEMPTED:
        count &= ~PREEMPTED
        if pdone:
            with contextlib.suppress(GuestFault):
                before = xen.domain.guest.read_u32(pdone)
    return count, before, 0 if handle_okay(start, count, size) else -EFAULT


def end_list(xen: Hypervisor, pdone: int, done: int, rc: int) -> int:
    """Write the number completed to *pdone, where there is one; one that cannot be written is no error."""
    if pdone:
        with contextlib.suppress(GuestFault):
            xen.domain.guest.write_u32(pdone, done & 0xFFFFFFFF)
    return rc


@hypercall(Hypercall.mmu_update)
def mmu_update(xen: Hypervisor, requests: int, count: int, pdone: int, foreign: int, _: int) -> int:
    """A list of (where, what) updates; stops at the first that fails."""
    count &= 0xFFFFFFFF
    foreign &= 0xFFFFFFFF
    if count == PREEMPTED and not requests:
        return foreign - ((foreign & 1 << 31) << 1)  # Xen's way to end a continuation: the result is in its place
    count, before, rc = begin_list(xen, requests, count, 16, pdone)
    if rc:
        return rc
    tables = (foreign >> 16) - 1
    if tables not in (-1, 0, xen.domain.domid):
        xen.refusal = f"there is no domain {tables} whose page tables these are"
        return -ESRCH
    owner = page_owner(xen, foreign & 0xFFFF) if tables else -EPERM
    if owner == -ESRCH:
        return end_list(xen, pdone, before, owner)
    guest = xen.domain.guest
    done = 0
    try:
        if count <= 256:
            data = xen.payload = guest.read_available(requests, 16 * count) if count else b""
            for pointer, value in _PAIR.iter_unpack(data[: len(data) & ~15]):
                rc = _update_one(xen, pointer, value, owner)
                if rc:
                    break
                done += 1
            if not rc and done < count:
                rc = -EFAULT
        else:
            xen.payload = guest.read_available(requests, min(16 * count, PAYLOAD_CAP))
            while done < count:
                if done == A_TIME:
                    settle(xen)
                    end_list(xen, pdone, before + done, 0)
                    return xen.continue_later(Hypercall.mmu_update, requests + 16 * done, count - done | PREEMPTED)
                pointer, value = _PAIR.unpack(guest.read(requests + 16 * done, 16))
                rc = _update_one(xen, pointer, value, owner)
                if rc:
                    break
                done += 1
    except GuestFault:
        rc = -EFAULT
    xen.work += done
    settle(xen)
    return end_list(xen, pdone, before + done, rc) if pdone else rc


def _update_one(xen: Hypervisor, pointer: int, value: int, owner: int) -> int:
    command = pointer & 7
    if command > abi.MMU_PT_UPDATE_NO_TRANSLATE:
        return xen.not_there(Hypercall.mmu_update, command)
    if owner < 0:
        return owner
    maddr = pointer - command
    mfn = maddr >> 12
    domain = xen.domain
    frames = domain.frames
    io = owner == abi.DOMID_IO
    if mfn >= frames.frames or frames.owner[mfn] != GUEST or (io and command == abi.MMU_MACHPHYS_UPDATE):
        xen.types.refusal = f"frame {mfn:#x} is not the domain's"
        return -EINVAL
    if command == abi.MMU_MACHPHYS_UPDATE:
        domain.area.set_m2p(mfn, value)
        return 0
    preserve = command == abi.MMU_PT_UPDATE_PRESERVE_AD
    kind = frames.type[mfn] if frames.type_count[mfn] else 0
    if kind == L1:
        return domain.types.mod_l1(maddr >> 3, value, preserve, io)
    if kind in (2, 3, L4):
        if io:
            xen.types.refusal = f"frame {mfn:#x} is an l{kind} table: no I/O space is entered there"
            return -EINVAL
        rc = domain.types.mod_upper(maddr >> 3, value, kind, preserve)
        if not rc:
            xen.words[FLUSH] = 1
        return rc
    if kind == SEG_DESC:
        xen.types.refusal = f"frame {mfn:#x} holds descriptors"
        return -EINVAL
    domain.ram.words[maddr >> 3] = value
    return 0


@hypercall(Hypercall.update_va_mapping)
def update_va_mapping(xen: Hypervisor, vaddr: int, value: int, flags: int, last: int, _: int) -> int:
    """Write the L1 entry that maps ``vaddr`` in the current tables; -EINVAL, and nothing else, where there is none.

    A 32-bit guest gives the entry as two words.
    """
    if xen.domain.bits == 32:
        value, flags = flags << 32 | value, last
    return _update_va(xen, vaddr, value, flags, False)


@hypercall(Hypercall.update_va_mapping_otherdomain)
def update_va_mapping_otherdomain(xen: Hypervisor, vaddr: int, value: int, flags: int, domid: int, last: int) -> int:
    """The same for a page of another domain's: a domU may name itself, as DOMID_SELF, and I/O space."""
    if xen.domain.bits == 32:
        value, flags, domid = flags << 32 | value, domid, last
    owner = page_owner(xen, domid & 0xFFFF)
    return owner if owner < 0 else _update_va(xen, vaddr, value, flags, owner == abi.DOMID_IO)


def _update_va(xen: Hypervisor, vaddr: int, value: int, flags: int, io: bool) -> int:
    at = l1_entry_of(xen, vaddr)
    if at is None:
        xen.types.refusal = f"there is no l1 table for {vaddr:#x}"
        return -EINVAL
    rc = xen.domain.types.mod_l1(at, value, io=io)
    if rc:
        return rc
    settle(xen)
    return flush_as_told(xen, flags)


def l1_entry_of(xen: Hypervisor, vaddr: int) -> int | None:
    """The word index of the L1 entry that translates ``vaddr``; None where there is no L1 table."""
    domain = xen.domain
    words = domain.ram.words
    if not handle_okay(vaddr, 0, 1):
        return None
    table = domain.guest.root >> 12
    for level in (4, 3, 2):
        entry = words[table * 512 + e.index(vaddr, level)]
        if not entry & e.P:
            return None
        table = entry >> 12 & e.FRAME_MASK
    if domain.frames.type[table] != L1 or not domain.frames.type_count[table]:
        return None
    return table * 512 + e.index(vaddr, 1)


def flush_as_told(xen: Hypervisor, flags: int) -> int:
    """UVMF_*: what to flush, and on which vCPUs."""
    kind = flags & abi.UVMF_FLUSHTYPE_MASK
    target = flags & ~abi.UVMF_FLUSHTYPE_MASK
    if kind == 3:
        return 0
    if kind and target not in (abi.UVMF_LOCAL, abi.UVMF_ALL):
        try:
            xen.domain.guest.read(target, VCPU_WORD)
        except GuestFault:
            return -EFAULT
    if kind:
        flush_if_stale(xen)
    return 0
