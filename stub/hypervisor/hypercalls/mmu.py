"""Page tables: mmu_update, update_va_mapping, mmuext_op (xen/arch/x86/mm.c)."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from stub.abi import xen as abi
from stub.abi.arch_x86 import HYPERVISOR_VIRT_END
from stub.abi.errno import EACCES, EFAULT, EINVAL, ENOSYS, EOPNOTSUPP, EPERM, ESRCH
from stub.abi.xen import Hypercall
from stub.engine.base import FLUSH
from stub.hypervisor import segments
from stub.hypervisor.registry import hypercall
from stub.memory import entries as e
from stub.memory.frames import GUEST, L1, L4, SEG_DESC, WRITABLE
from stub.memory.guest import GuestFault
from stub.units import PAGE_SIZE, U64

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

_PAIR = struct.Struct("<QQ")
_EXT = struct.Struct("<IIQQ")
_PREEMPT = 1 << 31  # MMU_UPDATE_PREEMPTED in count: a continuation, made by Xen itself
_PAYLOAD_CAP = 4096
_VCPU_WORD = 8  # bytes of a bitmap of vCPUs that are read for a domain of up to 64
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


def handle_okay(address: int, count: int, size: int) -> bool:
    """Whether a list may begin here (array_access_ok): not in Xen's own part, nor in the non-canonical one."""
    if count >= U64 // size:
        return False
    return address < 1 << 47 or address >= HYPERVISOR_VIRT_END


def begin_list(xen: Hypervisor, start: int, count: int, size: int, pdone: int) -> tuple[int, int, int]:
    """(count, number done before, error) of a call that takes a list; a continuation goes on with its count."""
    before = 0
    if count & _PREEMPT:
        count &= ~_PREEMPT
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
    if count == _PREEMPT and not requests:
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
            xen.payload = guest.read_available(requests, min(16 * count, _PAYLOAD_CAP))
            while done < count:
                if done == A_TIME:
                    settle(xen)
                    end_list(xen, pdone, before + done, 0)
                    return xen.continue_later(Hypercall.mmu_update, requests + 16 * done, count - done | _PREEMPT)
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
        return -ENOSYS
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
        domain.ram.words[domain.area.m2p_word + mfn] = value
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
def update_va_mapping(xen: Hypervisor, vaddr: int, value: int, flags: int, _: int, __: int) -> int:
    """Write the L1 entry that maps ``vaddr`` in the current tables; -EINVAL, and nothing else, where there is none."""
    return _update_va(xen, vaddr, value, flags, False)


@hypercall(Hypercall.update_va_mapping_otherdomain)
def update_va_mapping_otherdomain(xen: Hypervisor, vaddr: int, value: int, flags: int, domid: int, _: int) -> int:
    """The same for a page of another domain's: a domU may name itself, as DOMID_SELF, and I/O space."""
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
            xen.domain.guest.read(target, _VCPU_WORD)
        except GuestFault:
            return -EFAULT
    if kind:
        flush_if_stale(xen)
    return 0


# -- mmuext_op

ExtHandler = Callable[["Hypervisor", int, int], int]
MMUEXT: dict[int, ExtHandler] = {}


def _mmuext(*commands: int) -> Callable[[ExtHandler], ExtHandler]:
    def register(handler: ExtHandler) -> ExtHandler:
        for command in commands:
            if command in MMUEXT:
                raise ValueError(f"mmuext_op {command} has two handlers")
            MMUEXT[command] = handler
        return handler

    return register


@hypercall(Hypercall.mmuext_op)
def mmuext_op(xen: Hypervisor, operations: int, count: int, pdone: int, foreign: int, _: int) -> int:
    """A list of extended operations; stops at the first that fails."""
    count &= 0xFFFFFFFF
    foreign &= 0xFFFFFFFF
    if count == _PREEMPT and not operations:
        return foreign - ((foreign & 1 << 31) << 1)
    count, before, rc = begin_list(xen, operations, count, 24, pdone)
    if rc:
        return rc
    owner = page_owner(xen, foreign & 0xFFFF)
    if owner != abi.DOMID_SELF:
        return owner if owner < 0 else -EPERM
    guest = xen.domain.guest
    done = 0
    payload = b""
    try:
        while done < count:
            if done == A_TIME:
                settle(xen)
                end_list(xen, pdone, before + done, 0)
                return xen.continue_later(Hypercall.mmuext_op, operations + 24 * done, count - done | _PREEMPT)
            data = guest.read(operations + 24 * done, 24)
            if len(payload) < _PAYLOAD_CAP:
                payload += data
            command, _pad, arg1, arg2 = _EXT.unpack(data)
            handler = MMUEXT.get(command)
            rc = handler(xen, arg1, arg2) if handler is not None else _pin(xen, command, arg1)
            if rc:
                break
            done += 1
    except GuestFault:
        rc = -EFAULT
    xen.payload = payload
    xen.work += done
    settle(xen)
    return end_list(xen, pdone, before + done, rc) if pdone else rc


def _pin(xen: Hypervisor, command: int, mfn: int) -> int:
    if command > abi.MMUEXT_PIN_L4_TABLE:
        return xen.not_there(Hypercall.mmuext_op, command)
    return xen.domain.types.pin(mfn, command + 1)


@_mmuext(abi.MMUEXT_UNPIN_TABLE)
def _unpin(xen: Hypervisor, mfn: int, _: int) -> int:
    return xen.domain.types.unpin(mfn)


@_mmuext(abi.MMUEXT_NEW_BASEPTR)
def _new_baseptr(xen: Hypervisor, mfn: int, _: int) -> int:
    return segments.new_base_pointer(xen, mfn)


@_mmuext(abi.MMUEXT_NEW_USER_BASEPTR)
def _new_user_baseptr(xen: Hypervisor, mfn: int, _: int) -> int:
    vcpu, types = xen.vcpu, xen.domain.types
    if mfn == vcpu.user_root:
        return 0
    if mfn:
        rc = types.get_page_and_type(mfn, L4)
        if rc:
            return rc
        if types.m2p_strict:
            types.hide_m2p(mfn)
    old, vcpu.user_root = vcpu.user_root, mfn
    if old:
        types.put_page_and_type(old)
    return 0


@_mmuext(
    abi.MMUEXT_TLB_FLUSH_LOCAL,
    abi.MMUEXT_INVLPG_LOCAL,
    abi.MMUEXT_TLB_FLUSH_ALL,
    abi.MMUEXT_INVLPG_ALL,
)
def _flush(xen: Hypervisor, _: int, __: int) -> int:
    flush_if_stale(xen)
    return 0


@_mmuext(abi.MMUEXT_TLB_FLUSH_MULTI, abi.MMUEXT_INVLPG_MULTI)
def _flush_multi(xen: Hypervisor, _: int, vcpus: int) -> int:
    try:
        xen.domain.guest.read(vcpus, _VCPU_WORD)
    except GuestFault:
        return -EINVAL
    flush_if_stale(xen)
    return 0


@_mmuext(abi.MMUEXT_FLUSH_CACHE)
def _flush_cache(_: Hypervisor, __: int, ___: int) -> int:
    return -EACCES


@_mmuext(abi.MMUEXT_FLUSH_CACHE_GLOBAL)
def _flush_cache_global(_: Hypervisor, __: int, ___: int) -> int:
    return -EINVAL


@_mmuext(abi.MMUEXT_SET_LDT)
def _set_ldt(xen: Hypervisor, address: int, entries: int) -> int:
    entries &= 0xFFFFFFFF
    address = address if entries else 0
    if address & (PAGE_SIZE - 1) or entries > 8192 or not handle_okay(address, 0, 1):
        xen.refusal = f"an LDT of {entries} entries at {address:#x} is not page-aligned, too long, or in Xen's part"
        return -EINVAL
    segments.set_ldt(xen, address, entries)
    return 0


@_mmuext(abi.MMUEXT_CLEAR_PAGE)
def _clear_page(xen: Hypervisor, mfn: int, _: int) -> int:
    if xen.domain.types.get_page_and_type(mfn, WRITABLE):
        return -EINVAL
    xen.domain.ram.pages[mfn] = 0
    xen.domain.types.put_page_and_type(mfn)
    return 0


@_mmuext(abi.MMUEXT_COPY_PAGE)
def _copy_page(xen: Hypervisor, mfn: int, source: int) -> int:
    frames = xen.domain.frames
    if not frames.get(source):
        return -EINVAL
    rc = xen.domain.types.get_page_and_type(mfn, WRITABLE)
    if not rc:
        xen.domain.ram.pages[mfn] = xen.domain.ram.pages[source]
        xen.domain.types.put_page_and_type(mfn)
    frames.put(source)
    return -EINVAL if rc else 0


@_mmuext(abi.MMUEXT_MARK_SUPER, abi.MMUEXT_UNMARK_SUPER)
def _superpage(_: Hypervisor, __: int, ___: int) -> int:
    return -EOPNOTSUPP
