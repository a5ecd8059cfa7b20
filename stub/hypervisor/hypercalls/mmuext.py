"""mmuext_op: pins, roots, flushes, the LDT and whole pages (xen/arch/x86/mm.c, do_mmuext_op)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from stub.abi import xen as abi
from stub.abi.errno import EACCES, EFAULT, EINVAL, EOPNOTSUPP, EPERM
from stub.abi.xen import Hypercall
from stub.hypervisor import segments
from stub.hypervisor.hypercalls.mmu import (
    A_TIME,
    PAYLOAD_CAP,
    PREEMPTED,
    VCPU_WORD,
    begin_list,
    end_list,
    flush_if_stale,
    page_owner,
    settle,
)
from stub.hypervisor.pointers import handle_okay
from stub.hypervisor.refusals import refuse
from stub.hypervisor.registry import SubOps, hypercall
from stub.memory.frames import L4, WRITABLE
from stub.memory.guest import GuestFault
from stub.units import PAGE_SIZE

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

_EXT = {64: struct.Struct("<I4xQQ"), 32: struct.Struct("<III")}

MMUEXT_OPS: SubOps[[int, int]] = SubOps(Hypercall.mmuext_op)


@hypercall(Hypercall.mmuext_op)
def mmuext_op(xen: Hypervisor, operations: int, count: int, pdone: int, foreign: int, _: int) -> int:
    """A list of extended operations; stops at the first that fails."""
    count &= 0xFFFFFFFF
    foreign &= 0xFFFFFFFF
    if count == PREEMPTED and not operations:
        return foreign - ((foreign & 1 << 31) << 1)
    layout = _EXT[xen.domain.bits]
    size = layout.size
    count, before, rc = begin_list(xen, operations, count, size, pdone)
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
                return xen.continue_later(Hypercall.mmuext_op, operations + size * done, count - done | PREEMPTED)
            data = guest.read(operations + size * done, size)
            if len(payload) < PAYLOAD_CAP:
                payload += data
            command, arg1, arg2 = layout.unpack(data)
            handler = MMUEXT_OPS.handlers.get(command)
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
    if command + 1 > xen.types.root_level:  # a 32-bit guest has no such tables, and is not told
        return 0
    return xen.domain.types.pin(mfn, command + 1)


@MMUEXT_OPS(abi.MMUEXT_UNPIN_TABLE)
def _unpin(xen: Hypervisor, mfn: int, _: int) -> int:
    return xen.domain.types.unpin(mfn)


@MMUEXT_OPS(abi.MMUEXT_NEW_BASEPTR)
def _new_baseptr(xen: Hypervisor, mfn: int, _: int) -> int:
    return segments.new_base_pointer(xen, mfn)


@MMUEXT_OPS(abi.MMUEXT_NEW_USER_BASEPTR)
def _new_user_baseptr(xen: Hypervisor, mfn: int, _: int) -> int:
    vcpu, types = xen.vcpu, xen.domain.types
    if vcpu.compat:
        return refuse(xen, EINVAL, "a 32-bit guest has one root table for its kernel and its programs")
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


@MMUEXT_OPS(
    abi.MMUEXT_TLB_FLUSH_LOCAL,
    abi.MMUEXT_INVLPG_LOCAL,
    abi.MMUEXT_TLB_FLUSH_ALL,
    abi.MMUEXT_INVLPG_ALL,
)
def _flush(xen: Hypervisor, _: int, __: int) -> int:
    flush_if_stale(xen)
    return 0


@MMUEXT_OPS(abi.MMUEXT_TLB_FLUSH_MULTI, abi.MMUEXT_INVLPG_MULTI)
def _flush_multi(xen: Hypervisor, _: int, vcpus: int) -> int:
    try:
        xen.domain.guest.read(vcpus, VCPU_WORD)
    except GuestFault:
        return -EINVAL
    flush_if_stale(xen)
    return 0


@MMUEXT_OPS(abi.MMUEXT_FLUSH_CACHE)
def _flush_cache(_: Hypervisor, __: int, ___: int) -> int:
    return -EACCES


@MMUEXT_OPS(abi.MMUEXT_FLUSH_CACHE_GLOBAL)
def _flush_cache_global(_: Hypervisor, __: int, ___: int) -> int:
    return -EINVAL


@MMUEXT_OPS(abi.MMUEXT_SET_LDT)
def _set_ldt(xen: Hypervisor, address: int, entries: int) -> int:
    entries &= 0xFFFFFFFF
    address = address if entries else 0
    if address & (PAGE_SIZE - 1) or entries > 8192 or not handle_okay(address, 0, 1):
        xen.refusal = f"an LDT of {entries} entries at {address:#x} is not page-aligned, too long, or in Xen's part"
        return -EINVAL
    segments.set_ldt(xen, address, entries)
    return 0


@MMUEXT_OPS(abi.MMUEXT_CLEAR_PAGE)
def _clear_page(xen: Hypervisor, mfn: int, _: int) -> int:
    if xen.domain.types.get_page_and_type(mfn, WRITABLE):
        return -EINVAL
    xen.domain.ram.pages[mfn] = 0
    xen.domain.types.put_page_and_type(mfn)
    return 0


@MMUEXT_OPS(abi.MMUEXT_COPY_PAGE)
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


@MMUEXT_OPS(abi.MMUEXT_MARK_SUPER, abi.MMUEXT_UNMARK_SUPER)
def _superpage(_: Hypervisor, __: int, ___: int) -> int:
    return -EOPNOTSUPP
