"""Entering and leaving the guest kernel: exceptions, event upcalls, system calls, the iret hypercall.

A 32-bit guest's entries are in ``compat.py``; what both have in common is here.

A 64-bit guest's kernel and user code both run in ring 3; which of the two is running is ``vcpu.kernel_mode``, and
each has its own root table and GS base. What goes on the kernel's stack, low address first: rcx, r11, [error code],
rip, cs (with the event mask in byte 4), rflags, rsp, ss. The C part pushes it (``_entry.c``); here stands what it is
told, and what becomes of a guest for which it cannot be done. Xen's part of it: arch/x86/x86_64/entry.S.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stub.abi.arch_x86 import FLAT_KERNEL_CS, FLAT_RING3_CS, FLAT_RING3_SS, FLAT_USER_CS32, FLAT_USER_SS
from stub.abi.x86_defns import (
    VECTORS,
    X86_EFLAGS_DF,
    X86_EFLAGS_TF,
    X86_EXC_BP,
    X86_EXC_DB,
    X86_EXC_DF,
    X86_EXC_GP,
    X86_EXC_NMI,
    X86_EXC_OF,
    X86_EXC_UD,
)
from stub.engine.base import CS, DS, ES, FS, FS_BASE, GS, GS_BASE, RFLAGS, RIP, SS, Exit
from stub.hypervisor import _entry, segments
from stub.hypervisor.compat import HYPERCALL_VECTOR, RING_0
from stub.hypervisor.vcpu import DR6_SINGLE_STEP, Gate
from stub.units import U64, is_canonical

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

_TRAPS = frozenset({X86_EXC_DB, X86_EXC_NMI, X86_EXC_BP, X86_EXC_OF, X86_EXC_DF})  # exceptions that are no faults
_INT80 = 0x80
_LONGEST = 15  # bytes of an instruction
_PREFIXES = b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf2\xf3"  # but for lock, with which they are undefined
_REX = frozenset(bytes([byte]) for byte in range(0x40, 0x50))

# What the domain is crashed with, by outcome; {at} is the address.
_CRASHES = {
    _entry.STACK_FAULT: "fault on the kernel stack at {at:#x} while an exception frame was pushed",
    _entry.TOO_MANY: f"{_entry.TRAPS_IN_A_ROW} traps in a row without an instruction between",
    _entry.FRAME_FAULT: "fault at {at:#x} while reading the iret frame",
    _entry.NO_USER_TABLE: "iret to user mode without a user page table",
    _entry.NO_HANDLER: "the handler's code segment is the null one",
    RING_0: "iret to ring 0",
}
_AT_AN_ADDRESS = {_entry.STACK_FAULT, _entry.FRAME_FAULT}


def _crash(xen: Hypervisor, outcome: int, cr2: int | None = None) -> None:
    at = xen.vcpu.fault_at
    xen.crash(_CRASHES[outcome].format(at=at), at if outcome in _AT_AN_ADDRESS else cr2)


def crash_in_a_row(xen: Hypervisor) -> None:
    """Crash the domain for traps in a row without an instruction between."""
    _crash(xen, _entry.TOO_MANY)


def bounce(xen: Hypervisor, gate: Gate, masks_events: bool, extra: tuple[int, ...] = (), clear: int = 0) -> bool:
    """create_bounce_frame: push a frame and run the guest's handler at ``gate``; False: the domain was crashed.

    ``extra`` goes below rip; the flags ``clear`` are cleared. ``vcpu.came_rip`` and ``came_rsp`` hold where it was.
    """
    cs = xen.words[CS]
    outcome = xen.vcpu.enter(gate, masks_events, extra, clear)
    if outcome:
        _crash(xen, outcome)
        return False
    return _in_kernel(xen, cs)


def _in_kernel(xen: Hypervisor, old_cs: int) -> bool:
    """Have the CPU's segments follow where a frame was pushed; False: they cannot, and the domain was crashed."""
    if not xen.vcpu.compat:
        if old_cs != FLAT_KERNEL_CS:
            segments.select_code_width(xen, old_cs, FLAT_KERNEL_CS)
        return True
    if segments.load_code_and_stack(xen):
        return True
    xen.crash(f"the guest's handler cannot run with cs {xen.words[CS]:#06x} and ss {xen.words[SS]:#06x}")
    return False


def inject(
    xen: Hypervisor,
    vector: int,
    error_code: int | None = None,
    cr2: int | None = None,
    is_fault: bool | None = None,
) -> None:
    """Hand an exception to the guest's handler (pv_inject_event).

    ``is_fault``: the CPU reported a fault, so that RF is set in the frame; None for what the vector says.
    """
    gate = xen.vcpu.traps[vector]
    cs = xen.words[CS]
    if is_fault is None:
        is_fault = vector < 32 and vector not in _TRAPS
    masks = bool(gate and gate.masks_events)
    outcome = xen.vcpu.trap(vector, gate.address if gate else 0, masks, is_fault, error_code, cr2)
    if outcome == _entry.NO_HANDLER:
        name = VECTORS.get(vector, f"vector {vector}").replace("X86_EXC_", "#")
        xen.crash(f"Unhandled: vec {vector}, {name}[{error_code or 0:04x}]: the guest has no handler for it", cr2)
    elif outcome:
        _crash(xen, outcome, cr2)
    else:
        _in_kernel(xen, cs)


def software_interrupt(xen: Hypervisor, vector: int) -> None:
    """``int n``, with RIP behind it: to the handler if its DPL allows it, else #GP (do_general_protection).

    A 32-bit guest's hypercalls come this way.

    Xen's own gates let anybody in for int3, into and ``int $0x80``; the others' #GP is where it looks at the DPL.
    """
    words, gate = xen.words, xen.vcpu.traps[vector]
    if vector == HYPERCALL_VECTOR and xen.vcpu.compat and xen.vcpu.kernel_mode:
        xen.exits[Exit.SYSCALL]()
    elif vector in (X86_EXC_BP, X86_EXC_OF) or (vector == _INT80 and gate is not None):
        inject(xen, vector, is_fault=False)
    elif gate is not None and gate.dpl >= (1 if xen.vcpu.kernel_mode else 3):
        inject(xen, vector, is_fault=True)
    else:
        words[RIP] = (words[RIP] - 2) & U64
        inject(xen, X86_EXC_GP, vector << 3 | 2)


def undefined(xen: Hypervisor) -> None:
    """An undefined instruction at RIP; or int1, ``int $6`` or rdpmc, which the engine takes for one."""
    words = xen.words
    whole = xen.domain.guest.read_available(words[RIP], _LONGEST)
    code = whole.lstrip(_PREFIXES)
    if segments.is_64bit_code(xen, words[CS]) and code[:1] in _REX:
        code = code[1:]
    before = len(whole) - len(code)
    if code[:1] == b"\xf1":
        words[RIP] = (words[RIP] + before + 1) & U64
        inject(xen, X86_EXC_DB)
    elif code[:2] == b"\xcd\x06":
        words[RIP] = (words[RIP] + before + 2) & U64
        software_interrupt(xen, X86_EXC_UD)
    elif code[:2] == b"\x0f\x33":
        inject(xen, X86_EXC_GP, 0)
    else:
        inject(xen, X86_EXC_UD)


def step_over(xen: Hypervisor, rip: int) -> None:
    """Go on at ``rip``, behind an instruction that was emulated; with TF set that is a #DB."""
    words = xen.words
    words[RIP] = rip & U64
    if words[RFLAGS] & X86_EFLAGS_TF:
        xen.vcpu.debug[6] |= DR6_SINGLE_STEP
        inject(xen, X86_EXC_DB)


def deliver_upcall(xen: Hypervisor) -> None:
    """Run the guest's event callback; its gate always masks events."""
    vcpu = xen.vcpu
    if not vcpu.has(vcpu.event):
        xen.crash("an event is pending and unmasked, and the guest has no event callback")
        return
    user = not vcpu.kernel_mode
    if bounce(xen, vcpu.event, True):
        xen.log.upcall(xen.clock.now, vcpu.came_rip, vcpu.came_rsp, vcpu.event.address, user)


def deliver_nmi(xen: Hypervisor) -> None:
    """Run the guest's NMI handler, which masks further ones until an iret; without one the NMI is lost."""
    if xen.vcpu.traps[X86_EXC_NMI] is not None:
        inject(xen, X86_EXC_NMI)
        xen.vcpu.nmi_masked = True


def system_call(xen: Hypervisor) -> None:
    """A ``syscall`` by user code: the kernel's entry point for the caller's width, or #UD (switch_to_kernel).

    The instruction does not keep the caller's segments: the frame has the flat ones of its width.
    """
    words, vcpu = xen.words, xen.vcpu
    if vcpu.compat:
        _compat_system_call(xen)
        return
    is_wide = segments.is_64bit_code(xen, words[CS])
    gate = vcpu.syscall if is_wide else vcpu.syscall32
    words[CS] = FLAT_KERNEL_CS if is_wide else FLAT_USER_CS32
    words[SS] = FLAT_USER_SS
    if gate.address == 0:
        words[RIP] = (words[RIP] - 2) & U64
        inject(xen, X86_EXC_UD, is_fault=False)
        return
    bounce(xen, gate, gate.masks_events, clear=X86_EFLAGS_DF)


def _compat_system_call(xen: Hypervisor) -> None:
    """A ``syscall`` in a 32-bit guest, whoever made it: Xen takes it for user code's (cstar_enter)."""
    words, gate = xen.words, xen.vcpu.syscall32
    words[CS], words[SS] = FLAT_RING3_CS, FLAT_RING3_SS
    if xen.vcpu.has(gate):
        bounce(xen, gate, gate.masks_events, clear=X86_EFLAGS_DF)
    else:
        words[RIP] = (words[RIP] - 2) & U64
        inject(xen, X86_EXC_GP, 0, is_fault=False)


def iret(xen: Hypervisor) -> None:
    """The iret hypercall: to the kernel, or to user mode (do_iret).

    Where the CPU cannot go, the exception that Xen's own iretq meets is the guest's, at its destination.
    """
    words = xen.words
    old_cs = words[CS]
    outcome, xen.payload = xen.vcpu.iret()
    if outcome not in (_entry.DONE, _entry.LOOK):
        _crash(xen, outcome)
        return
    if xen.nmi_pending:
        xen.pause = True  # the loop delivers it when it is entered
    if outcome == _entry.LOOK:
        arrive(xen, old_cs)


def arrive(xen: Hypervisor, old_cs: int) -> None:
    """Go on in the guest with CS, SS and RIP as they are now, or with what Xen's own iretq to there meets."""
    words = xen.words
    cs, ss = words[CS], words[SS]
    refused = None if (cs, ss) in xen.runnable else segments.return_fault(xen, cs, ss)
    if refused is None and not _is_reachable(xen, cs, words[RIP]):
        refused = X86_EXC_GP, 0
    if refused is not None:
        vector, code = refused
        inject(xen, vector, code, is_fault=False)
        if not xen.vcpu.compat:
            segments.select_code_width(xen, old_cs, FLAT_KERNEL_CS)
    elif xen.vcpu.compat:
        segments.load_code_and_stack(xen)
    elif old_cs != cs:
        segments.select_code_width(xen, old_cs, cs)


def _is_reachable(xen: Hypervisor, cs: int, rip: int) -> bool:
    """Whether an iretq may lead there: in 64-bit code it must be canonical, in other code below 4 GiB."""
    return is_canonical(rip) if segments.is_64bit_code(xen, cs) else rip < 1 << 32


def reload_selectors(xen: Hypervisor) -> None:
    """What the CPU loads when the vCPU runs again after others did: DS, ES, FS, GS, or the failsafe callback.

    A selector that cannot be loaded becomes 0; without a callback the guest goes on at address 0 (load_segments).
    """
    if xen.in_multicall:
        xen.reload_due = True
        return
    words = xen.words
    selectors = tuple(words[at] for at in (DS, ES, FS, GS))
    bad = [at for at in (DS, ES, FS, GS) if not segments.is_loadable(xen, words[at])]
    if not bad:
        return
    bases = words[FS_BASE], words[GS_BASE]
    for at in bad:
        words[at] = 0
    words[FS_BASE], words[GS_BASE] = bases
    gate = xen.vcpu.failsafe
    bounce(xen, gate, gate.masks_events, selectors)
