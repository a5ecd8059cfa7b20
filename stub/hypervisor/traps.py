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
    X86_EFLAGS_AC,
    X86_EFLAGS_DF,
    X86_EFLAGS_IF,
    X86_EFLAGS_IOPL,
    X86_EFLAGS_NT,
    X86_EFLAGS_RF,
    X86_EFLAGS_TF,
    X86_EFLAGS_VM,
)
from stub.engine.base import CR3, CS, GS_BASE, R11, RAX, RCX, RFLAGS, RIP, RSP, SS
from stub.hypervisor.vcpu import VCPU_INFO_CR2, VCPU_INFO_MASK, Gate
from stub.memory.guest import GuestFault
from stub.units import U64, is_canonical

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

_FRAME = struct.Struct("<7Q")
_FRAME_WITH_CODE = struct.Struct("<8Q")
_IRET = struct.Struct("<9Q")
_FAILSAFE = struct.Struct("<11Q")
_CLEARED_ON_ENTRY = ~(X86_EFLAGS_AC | X86_EFLAGS_VM | X86_EFLAGS_RF | X86_EFLAGS_NT | X86_EFLAGS_TF)
_ALWAYS = 0x202  # reserved bit 1, and IF: what masks events is in vcpu_info
VGCF_IN_SYSCALL = 0x100
_USER_SETTABLE = 0x247FD7 & ~X86_EFLAGS_IOPL  # what iret may give the guest back
TO_64, TO_32 = 1, 2
HOLE = range(0xFFFF_8000_0000_0000, 0xFFFF_8800_0000_0000)


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
    xen.domain.types.stale = False
    return True


def bounce(xen: Hypervisor, gate: Gate, error_code: int | None = None, clear: int = 0) -> bool:
    """create_bounce_frame: push a frame and run the guest's handler. False when the domain was crashed instead."""
    words, vcpu = xen.words, xen.vcpu
    from_kernel = vcpu.kernel_mode
    cs, rip, ss = words[CS], words[RIP], words[SS]
    stack = words[RSP]
    if gate.address == 0:
        xen.crash("unhandled trap: the guest has no handler")
        return False
    if not from_kernel:
        switch_mode(xen)
        saved_cs, top = cs | 3, vcpu.kernel_sp
    else:
        saved_cs, top = cs & 0xFFFC, stack
    mask_at = vcpu.info_at + VCPU_INFO_MASK
    mask = xen.ram_bytes[mask_at] & 1
    flags = words[RFLAGS] & ~(X86_EFLAGS_IF | X86_EFLAGS_IOPL)
    saved_flags = flags | (0 if mask else X86_EFLAGS_IF)
    if xen.architectural_iopl:
        saved_flags |= vcpu.iopl << 12
    top &= ~0xF
    if error_code is None:
        frame = _FRAME.pack(words[RCX], words[R11], rip, saved_cs | mask << 32, saved_flags, stack, ss)
    else:
        frame = _FRAME_WITH_CODE.pack(
            words[RCX], words[R11], error_code, rip, saved_cs | mask << 32, saved_flags, stack, ss
        )
    top -= len(frame)
    try:
        if top in HOLE:
            raise GuestFault(top, True, False)
        xen.domain.guest.write(top, frame)
    except GuestFault as fault:
        xen.crash(f"fault on the kernel stack at {fault.vaddr:#x} while an exception frame was pushed", fault.vaddr)
        return False
    if gate.masks_events:
        xen.ram_bytes[mask_at] = 1
    enter_kernel_at(xen, gate.address, top, flags & ~clear)
    return True


def enter_kernel_at(xen: Hypervisor, rip: int, rsp: int, flags: int) -> None:
    """Put the CPU at a kernel entry point."""
    words = xen.words
    xen.select_code_width(words[CS], FLAT_KERNEL_CS)
    words[RIP], words[RSP] = rip, rsp
    words[CS], words[SS] = FLAT_KERNEL_CS, FLAT_KERNEL_SS
    words[RFLAGS] = flags & _CLEARED_ON_ENTRY | _ALWAYS


def inject(xen: Hypervisor, vector: int, error_code: int | None = None, cr2: int | None = None) -> None:
    """Hand an exception to the guest's handler (pv_inject_event)."""
    words, vcpu = xen.words, xen.vcpu
    if cr2 is not None:
        vcpu.cr2 = cr2
        at = (vcpu.info_at + VCPU_INFO_CR2) >> 3
        xen.domain.ram.words[at] = cr2
    trap = vcpu.traps[vector]
    if trap is None or trap.address == 0:
        xen.crash(f"unhandled exception: vector {vector}, error code {error_code or 0:#x}", cr2)
        return
    rip, rsp, user = words[RIP], words[RSP], not vcpu.kernel_mode
    if bounce(xen, Gate(trap.address, trap.masks_events), error_code):
        xen.log.exception(
            xen.clock.now, rip, vector, -1 if error_code is None else error_code, cr2 or 0, rsp, trap.address, user
        )


def deliver_upcall(xen: Hypervisor) -> None:
    """Run the guest's event callback; its gate always masks events."""
    words, vcpu = xen.words, xen.vcpu
    rip, rsp, user = words[RIP], words[RSP], not vcpu.kernel_mode
    if vcpu.event.address == 0:
        return
    if bounce(xen, Gate(vcpu.event.address, True)):
        xen.log.upcall(xen.clock.now, rip, rsp, vcpu.event.address, user)


def system_call(xen: Hypervisor) -> None:
    """A ``syscall`` by user code: the kernel's entry point for the caller's width, or #UD."""
    words, vcpu = xen.words, xen.vcpu
    gate = vcpu.syscall if xen.is_64bit_code(words[CS]) else vcpu.syscall32
    if gate.address == 0:
        words[RIP] = (words[RIP] - 2) & U64
        inject(xen, 6)
        return
    bounce(xen, gate, clear=X86_EFLAGS_DF)


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
    words[RIP], words[RSP], words[CS], words[SS] = rip, rsp, cs, ss
    words[RFLAGS] = rflags & _USER_SETTABLE | _ALWAYS
    if rflags & X86_EFLAGS_RF:
        xen.resume_at = rip
    if old_cs != cs:
        xen.select_code_width(old_cs, cs)


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
    enter_kernel_at(xen, vcpu.failsafe.address, top - len(frame), flags)
