"""Entering and leaving the guest kernel: bounce frames, the iret hypercall, mode switches (PV-ABI; entry.S).

A 64-bit guest's kernel and user code both run in ring 3; which of the two is running is ``vcpu.kernel_mode``, and
each has its own root table and GS base. What goes on the kernel's stack, low address first: rcx, r11, [error code],
rip, cs (with the event mask in byte 4), rflags, rsp, ss.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from stub.abi.arch_x86 import FLAT_KERNEL_CS, FLAT_KERNEL_SS
from stub.abi.x86_defns import (
    VECTORS,
    X86_EFLAGS_AC,
    X86_EFLAGS_DF,
    X86_EFLAGS_IF,
    X86_EFLAGS_IOPL,
    X86_EFLAGS_NT,
    X86_EFLAGS_RF,
    X86_EFLAGS_TF,
    X86_EFLAGS_VM,
)
from stub.engine.base import CR3, CS, DS, ES, FLUSH, FS, GS, GS_BASE, R11, RAX, RCX, RETIRED, RFLAGS, RIP, RSP, SS
from stub.hypervisor import segments
from stub.hypervisor.vcpu import VCPU_INFO_CR2, VCPU_INFO_MASK
from stub.memory.guest import GuestFault
from stub.units import U64, is_canonical

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

_FRAME = struct.Struct("<7Q")
_FRAME_WITH_CODE = struct.Struct("<8Q")
_IRET = struct.Struct("<9Q")
_FAILSAFE = struct.Struct("<11Q")
# rip, rflags, cs, ss stand together in the register file
_PLACE = 8 * RIP
_write_place = struct.Struct("<4Q").pack_into
# rcx, rsp, r11, rip, rflags, cs, ss of the register file in one go
_INTERRUPTED = struct.Struct("<8xQ16xQ48xQ32x4Q").unpack_from
_CLEARED_ON_ENTRY = ~(X86_EFLAGS_AC | X86_EFLAGS_VM | X86_EFLAGS_RF | X86_EFLAGS_NT | X86_EFLAGS_TF)
_ALWAYS = 0x202  # reserved bit 1, and IF: what masks events is in vcpu_info
VGCF_IN_SYSCALL = 0x100
_TRAPS_IN_A_ROW = 10_000  # a handler that faults itself; time stands still there, and no limit would end it
_USER_SETTABLE = 0x247FD7 & ~X86_EFLAGS_IOPL  # what iret may give the guest back

_HOLE_START, _HOLE_END = 0xFFFF_8000_0000_0000, 0xFFFF_8800_0000_0000


def switch_mode(xen: Hypervisor) -> bool:
    """toggle_guest_mode: the other root table and GS base; False where there is no user table."""
    vcpu, words = xen.vcpu, xen.words
    root = vcpu.user_root if vcpu.kernel_mode else vcpu.kernel_root
    if not root:
        return False
    vcpu.kernel_mode = not vcpu.kernel_mode
    words[GS_BASE], vcpu.gs_base_other = vcpu.gs_base_other, words[GS_BASE]
    words[CR3] = root << 12
    xen.domain.guest.use_root(root << 12)
    if xen.domain.types.stale:  # where both roots are one table the CPU would see no change
        xen.domain.types.stale = False
        words[FLUSH] = 1
    return True


def bounce(
    xen: Hypervisor, address: int, masks_events: bool, error_code: int | None = None, clear: int = 0
) -> tuple[int, int] | None:
    """create_bounce_frame: push a frame and run the guest's handler at ``address``.

    The interrupted rip and rsp; None when the domain was crashed instead.
    """
    words, vcpu = xen.words, xen.vcpu
    from_kernel = vcpu.kernel_mode
    rcx, stack, r11, rip, flags, cs, ss = _INTERRUPTED(words)
    if not address:
        xen.crash("unhandled trap: the guest has no handler")
        return None
    if from_kernel:
        saved_cs, top = cs & 0xFFFC, stack & ~0xF
    else:
        switch_mode(xen)
        saved_cs, top = cs | 3, vcpu.kernel_sp & ~0xF
    mask_at = vcpu.info_at + 1
    mask = xen.ram_bytes[mask_at] & 1
    flags &= ~(X86_EFLAGS_IF | X86_EFLAGS_IOPL)
    saved_flags = flags if mask else flags | X86_EFLAGS_IF
    if xen.architectural_iopl:
        saved_flags |= vcpu.iopl << 12
    if error_code is None:
        frame = _FRAME.pack(rcx, r11, rip, saved_cs | mask << 32, saved_flags, stack, ss)
        top -= 56
    else:
        frame = _FRAME_WITH_CODE.pack(rcx, r11, error_code, rip, saved_cs | mask << 32, saved_flags, stack, ss)
        top -= 64
    try:
        if _HOLE_START <= top < _HOLE_END:
            raise GuestFault(top, True, False)
        xen.domain.guest.write(top, frame)
    except GuestFault as fault:
        xen.crash(f"fault on the kernel stack at {fault.vaddr:#x} while an exception frame was pushed", fault.vaddr)
        return None
    if masks_events:
        xen.ram_bytes[mask_at] = 1
    if cs != FLAT_KERNEL_CS:
        segments.select_code_width(xen, cs, FLAT_KERNEL_CS)
    _write_place(words, _PLACE, address, flags & ~clear & _CLEARED_ON_ENTRY | _ALWAYS, FLAT_KERNEL_CS, FLAT_KERNEL_SS)
    words[RSP] = top
    return rip, stack


def inject(xen: Hypervisor, vector: int, error_code: int | None = None, cr2: int | None = None) -> None:
    """Hand an exception to the guest's handler (pv_inject_event)."""
    vcpu = xen.vcpu
    if cr2 is not None:
        vcpu.cr2 = cr2
        xen.domain.ram.words[(vcpu.info_at + VCPU_INFO_CR2) >> 3] = cr2
    trap = vcpu.traps[vector]
    if xen.words[RETIRED] != vcpu.trapped_at:
        vcpu.trapped_at, vcpu.traps_there = xen.words[RETIRED], 0
    vcpu.traps_there += 1
    if vcpu.traps_there > _TRAPS_IN_A_ROW:
        xen.crash(f"{_TRAPS_IN_A_ROW} traps in a row without an instruction between", cr2)
        return
    if trap is None:
        name = VECTORS.get(vector, f"vector {vector}").replace("X86_EXC_", "#")
        xen.crash(f"Unhandled: vec {vector}, {name}[{error_code or 0:04x}]: the guest has no handler for it", cr2)
        return
    user = not vcpu.kernel_mode
    came_from = bounce(xen, trap.address, trap.masks_events, error_code)
    if came_from is not None:
        rip, rsp = came_from
        code = -1 if error_code is None else error_code
        xen.log.exception(xen.clock.now, rip, vector, code, cr2 or 0, rsp, trap.address, user)


def deliver_upcall(xen: Hypervisor) -> None:
    """Run the guest's event callback; its gate always masks events."""
    vcpu = xen.vcpu
    if not vcpu.event.address:
        xen.crash("an event is pending and unmasked, and the guest has no event callback")
        return
    user = not vcpu.kernel_mode
    came_from = bounce(xen, vcpu.event.address, True)
    if came_from is not None:
        xen.log.upcall(xen.clock.now, *came_from, vcpu.event.address, user)


def deliver_nmi(xen: Hypervisor) -> None:
    """Run the guest's NMI handler, which masks further ones until it returns by iret."""
    vcpu = xen.vcpu
    trap = vcpu.traps[2]
    address = vcpu.nmi.address or (trap.address if trap else 0)
    if address and bounce(xen, address, bool(trap and trap.masks_events)) is not None:
        vcpu.nmi_masked = True


def system_call(xen: Hypervisor) -> None:
    """A ``syscall`` by user code: the kernel's entry point for the caller's width, or #UD."""
    words, vcpu = xen.words, xen.vcpu
    gate = vcpu.syscall if segments.is_64bit_code(xen, words[CS]) else vcpu.syscall32
    if gate.address == 0:
        words[RIP] = (words[RIP] - 2) & U64
        inject(xen, 6)
        return
    bounce(xen, gate.address, gate.masks_events, clear=X86_EFLAGS_DF)


def iret(xen: Hypervisor) -> None:
    """The iret hypercall: to the kernel, or to user mode (do_iret)."""
    words, vcpu = xen.words, xen.vcpu
    try:
        data = xen.domain.guest.read(words[RSP], _IRET.size)
    except GuestFault as fault:
        xen.crash(f"fault at {fault.vaddr:#x} while reading the iret frame", fault.vaddr)
        return
    xen.payload = data
    rax, r11, rcx, flags, rip, cs, rflags, rsp, ss = _IRET.unpack(data)
    if not is_canonical(rip):
        xen.crash(f"iret to the non-canonical address {rip:#x}")
        return
    old_cs = words[CS]
    if cs & 3 == 3:
        if vcpu.kernel_mode and not switch_mode(xen):
            xen.crash("iret to user mode without a user page table")
            return
    elif not vcpu.kernel_mode:
        switch_mode(xen)
    cs, ss = (cs | 3) & 0xFFFF, (ss | 3) & 0xFFFF
    xen.ram_bytes[vcpu.info_at + VCPU_INFO_MASK] = 0 if rflags & X86_EFLAGS_IF else 1
    words[RAX] = rax
    if flags & VGCF_IN_SYSCALL:
        words[RCX], words[R11] = rip, rflags
    else:
        words[RCX], words[R11] = rcx, r11
    if xen.architectural_iopl:
        vcpu.iopl = rflags >> 12 & 3
    _write_place(words, _PLACE, rip, rflags & _USER_SETTABLE | _ALWAYS, cs, ss)
    words[RSP] = rsp
    if rflags & X86_EFLAGS_RF:
        xen.resume_at = rip
    vcpu.nmi_masked = False
    if xen.nmi_pending:
        xen.pause = True  # the loop delivers it when it is entered
    if (cs, ss) not in xen.runnable and not segments.runnable(xen, cs, ss):
        failsafe(xen, (words[DS], words[ES], words[FS], words[GS]))
        return
    if old_cs != cs:
        segments.select_code_width(xen, old_cs, cs)


def failsafe(xen: Hypervisor, selectors: tuple[int, int, int, int]) -> None:
    """The callback for selectors (ds, es, fs, gs) that could not be reloaded."""
    vcpu, words = xen.vcpu, xen.words
    if vcpu.failsafe.address == 0:
        xen.crash("a segment selector cannot be loaded and the guest has no failsafe callback")
        return
    mask_at = vcpu.info_at + VCPU_INFO_MASK
    mask = xen.ram_bytes[mask_at] & 1
    from_kernel = vcpu.kernel_mode
    stack, ss, cs = words[RSP], words[SS], words[CS]
    if not from_kernel:
        switch_mode(xen)
    top = (stack if from_kernel else vcpu.kernel_sp) & ~0xF
    flags = words[RFLAGS] & ~(X86_EFLAGS_IF | X86_EFLAGS_IOPL)
    saved_cs = cs & 0xFFFC if from_kernel else cs | 3
    frame = _FAILSAFE.pack(
        words[RCX], words[R11], *selectors, words[RIP], saved_cs | mask << 32,
        flags | (0 if mask else X86_EFLAGS_IF), stack, ss,
    )  # fmt: skip
    try:
        xen.domain.guest.write(top - len(frame), frame)
    except GuestFault as fault:
        xen.crash(f"fault on the kernel stack at {fault.vaddr:#x} while a failsafe frame was pushed", fault.vaddr)
        return
    if vcpu.failsafe.masks_events:
        xen.ram_bytes[mask_at] = 1
    segments.select_code_width(xen, cs, FLAT_KERNEL_CS)
    _write_place(
        words, _PLACE, vcpu.failsafe.address, flags & _CLEARED_ON_ENTRY | _ALWAYS, FLAT_KERNEL_CS, FLAT_KERNEL_SS
    )
    words[RSP] = top - len(frame)
