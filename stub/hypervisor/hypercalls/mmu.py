"""Page tables: mmu_update, update_va_mapping, mmuext_op (xen/arch/x86/mm.c)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from stub.abi import xen as abi
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


def foreign_domain(xen: Hypervisor, value: int) -> int:
    """Check a foreigndom word of a domU: 0, or the error of asking for someone else's pages."""
    page_table_owner, owner = value >> 16 & 0xFFFF, value & 0xFFFF
    if page_table_owner and page_table_owner - 1 not in (xen.domain.domid, abi.DOMID_SELF):
        return -ESRCH
    if owner in (abi.DOMID_SELF, xen.domain.domid):
        return 0
    if owner == abi.DOMID_IO:
        return 0
    return -EPERM if owner == abi.DOMID_XEN else -ESRCH


def write_done(xen: Hypervisor, pdone: int, done: int, rc: int) -> int:
    """Add the number completed to *pdone, where there is one."""
    if pdone:
        try:
            xen.domain.guest.write_u32(pdone, xen.domain.guest.read_u32(pdone) + done)
        except GuestFault:
            return -EFAULT
    return rc


@hypercall(Hypercall.mmu_update)
def mmu_update(xen: Hypervisor, requests: int, count: int, pdone: int, domain: int, _: int) -> int:
    """A list of (where, what) updates; stops at the first that fails."""
    count &= 0xFFFFFFFF
    if count & _PREEMPT:
        count &= ~_PREEMPT
    foreign = 0 if domain == abi.DOMID_SELF else foreign_domain(xen, domain)
    if foreign:
        return foreign
    guest = xen.domain.guest
    rc = done = 0
    try:
        if count <= 256:
            data = xen.payload = guest.read(requests, 16 * count)
            for pointer, value in _PAIR.iter_unpack(data):
                rc = _update_one(xen, pointer, value)
                if rc:
                    break
                done += 1
        else:
            xen.payload = guest.read_available(requests, min(16 * count, _PAYLOAD_CAP))
            while done < count:
                if done == A_TIME:
                    settle(xen)
                    write_done(xen, pdone, done, 0)
                    return xen.continue_later(Hypercall.mmu_update, requests + 16 * done, count - done | _PREEMPT)
                pointer, value = _PAIR.unpack(guest.read(requests + 16 * done, 16))
                rc = _update_one(xen, pointer, value)
                if rc:
                    break
                done += 1
    except GuestFault:
        rc = -EFAULT
    settle(xen)
    return write_done(xen, pdone, done, rc) if pdone else rc


def _update_one(xen: Hypervisor, pointer: int, value: int) -> int:
    command = pointer & 7
    if command > abi.MMU_PT_UPDATE_NO_TRANSLATE:
        return -ENOSYS
    maddr = pointer - command
    mfn = maddr >> 12
    domain = xen.domain
    frames = domain.frames
    if mfn >= frames.frames or frames.owner[mfn] != GUEST:
        xen.refusal = f"frame {mfn:#x} is not the domain's"
        return -EINVAL
    if command == abi.MMU_MACHPHYS_UPDATE:
        domain.ram.words[domain.area.m2p_word + mfn] = value
        return 0
    if command == abi.MMU_PT_UPDATE_NO_TRANSLATE:
        command = abi.MMU_NORMAL_PT_UPDATE
    preserve = command == abi.MMU_PT_UPDATE_PRESERVE_AD
    kind = frames.type[mfn] if frames.type_count[mfn] else 0
    if kind == L1:
        return domain.types.mod_l1(maddr >> 3, value, preserve)
    if kind in (2, 3, L4):
        rc = domain.types.mod_upper(maddr >> 3, value, kind, preserve)
        if not rc:
            xen.words[FLUSH] = 1
        return rc
    if kind == SEG_DESC:
        xen.refusal = f"frame {mfn:#x} holds descriptors"
        return -EINVAL
    domain.ram.words[maddr >> 3] = value
    return 0


@hypercall(Hypercall.update_va_mapping)
def update_va_mapping(xen: Hypervisor, vaddr: int, value: int, flags: int, _: int, __: int) -> int:
    """Write the L1 entry that maps ``vaddr`` in the current tables; -EINVAL, and nothing else, where there is none."""
    domain = xen.domain
    at = l1_entry_of(xen, vaddr)
    if at is None:
        return -EINVAL
    rc = domain.types.mod_l1(at, value)
    if rc:
        return rc
    settle(xen)
    return flush_as_told(xen, flags)


@hypercall(Hypercall.update_va_mapping_otherdomain)
def update_va_mapping_otherdomain(xen: Hypervisor, vaddr: int, value: int, flags: int, domid: int, _: int) -> int:
    """The same for a page of another domain's: a domU may name only itself."""
    foreign = foreign_domain(xen, domid & 0xFFFF)
    return foreign if foreign else update_va_mapping(xen, vaddr, value, flags, 0, 0) or 0


def l1_entry_of(xen: Hypervisor, vaddr: int) -> int | None:
    """The word index of the L1 entry that translates ``vaddr``; None where there is no L1 table."""
    domain = xen.domain
    words = domain.ram.words
    table = domain.guest.root >> 12
    for level in (4, 3, 2):
        slot = e.index(vaddr, level)
        if level == 4 and e.XEN_FIRST_SLOT <= slot <= e.XEN_LAST_SLOT:
            return None
        entry = words[table * 512 + slot]
        if not entry & e.P:
            return None
        table = entry >> 12 & e.FRAME_MASK
    if domain.frames.type[table] != L1:
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
            xen.domain.guest.read(target, 1)
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
def mmuext_op(xen: Hypervisor, operations: int, count: int, pdone: int, domain: int, _: int) -> int:
    """A list of extended operations; stops at the first that fails."""
    count &= 0x7FFFFFFF
    foreign = 0 if domain == abi.DOMID_SELF else foreign_domain(xen, domain)
    if foreign:
        return foreign
    guest = xen.domain.guest
    rc = done = 0
    payload = b""
    try:
        while done < count:
            if done == A_TIME:
                settle(xen)
                write_done(xen, pdone, done, 0)
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
    settle(xen)
    return write_done(xen, pdone, done, rc) if pdone else rc


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
        xen.domain.guest.read(vcpus, 1)
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
    if address & (PAGE_SIZE - 1) or entries > 8192 or (entries and not 0 <= address <= U64):
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
