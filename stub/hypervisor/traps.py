"""Entering and leaving the guest kernel: exceptions, event upcalls, system calls, the iret hypercall.

A 64-bit guest's kernel and user code both run in ring 3; which of the two is running is ``vcpu.kernel_mode``, and
each has its own root table and GS base. What goes on the kernel's stack, low address first: rcx, r11, [error code],
rip, cs (with the event mask in byte 4), rflags, rsp, ss. The C part pushes it (``_entry.c``); here stands what it is
told, and what becomes of a guest for which it cannot be done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stub.abi.arch_x86 import FLAT_KERNEL_CS, IretContext64
from stub.abi.x86_defns import VECTORS, X86_EFLAGS_DF, X86_EFLAGS_RF
from stub.engine.base import CS, DS, ES, FS, GS, RIP, SS
from stub.hypervisor import _entry, segments
from stub.units import U64

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

# What the domain is crashed with, by outcome; {at} is the address.
_CRASHES = {
    _entry.STACK_FAULT: "fault on the kernel stack at {at:#x} while an exception frame was pushed",
    _entry.TOO_MANY: f"{_entry.TRAPS_IN_A_ROW} traps in a row without an instruction between",
    _entry.FRAME_FAULT: "fault at {at:#x} while reading the iret frame",
    _entry.NOT_CANONICAL: "iret to the non-canonical address {at:#x}",
    _entry.NO_USER_TABLE: "iret to user mode without a user page table",
}
_AT_AN_ADDRESS = {_entry.STACK_FAULT, _entry.FRAME_FAULT}


def _crash(xen: Hypervisor, outcome: int, cr2: int | None = None) -> None:
    at = xen.vcpu.fault_at
    xen.crash(_CRASHES[outcome].format(at=at), at if outcome in _AT_AN_ADDRESS else cr2)


def bounce(xen: Hypervisor, address: int, masks_events: bool, extra: tuple[int, ...] = (), clear: int = 0) -> bool:
    """create_bounce_frame: push a frame and run the guest's handler at ``address``; False: the domain was crashed.

    ``extra`` goes below rip; the flags ``clear`` are cleared. ``vcpu.came_rip`` and ``came_rsp`` hold where it was.
    """
    cs = xen.words[CS]
    outcome = xen.vcpu.bounce(address, masks_events, extra, clear)
    if outcome:
        _crash(xen, outcome)
        return False
    if cs != FLAT_KERNEL_CS:
        segments.select_code_width(xen, cs, FLAT_KERNEL_CS)
    return True


def inject(xen: Hypervisor, vector: int, error_code: int | None = None, cr2: int | None = None) -> None:
    """Hand an exception to the guest's handler (pv_inject_event)."""
    gate = xen.vcpu.traps[vector]
    cs = xen.words[CS]
    outcome = xen.vcpu.trap(vector, gate.address if gate else 0, bool(gate and gate.masks_events), error_code, cr2)
    if outcome == _entry.NO_HANDLER:
        name = VECTORS.get(vector, f"vector {vector}").replace("X86_EXC_", "#")
        xen.crash(f"Unhandled: vec {vector}, {name}[{error_code or 0:04x}]: the guest has no handler for it", cr2)
    elif outcome:
        _crash(xen, outcome, cr2)
    elif cs != FLAT_KERNEL_CS:
        segments.select_code_width(xen, cs, FLAT_KERNEL_CS)


def deliver_upcall(xen: Hypervisor) -> None:
    """Run the guest's event callback; its gate always masks events."""
    vcpu = xen.vcpu
    if not vcpu.event.address:
        xen.crash("an event is pending and unmasked, and the guest has no event callback")
        return
    user = not vcpu.kernel_mode
    if bounce(xen, vcpu.event.address, True):
        xen.log.upcall(xen.clock.now, vcpu.came_rip, vcpu.came_rsp, vcpu.event.address, user)


def deliver_nmi(xen: Hypervisor) -> None:
    """Run the guest's NMI handler, which masks further ones until it returns by iret."""
    vcpu = xen.vcpu
    trap = vcpu.traps[2]
    address = vcpu.nmi.address or (trap.address if trap else 0)
    if address and bounce(xen, address, bool(trap and trap.masks_events)):
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
    old_cs, selectors = words[CS], tuple(words[at] for at in (DS, ES, FS, GS))
    outcome, xen.payload = vcpu.iret()
    if outcome not in (_entry.DONE, _entry.SELECTORS):
        _crash(xen, outcome)
        return
    if IretContext64.unpack_from(xen.payload).rflags & X86_EFLAGS_RF:
        xen.resume_at = words[RIP]
    if xen.nmi_pending:
        xen.pause = True  # the loop delivers it when it is entered
    if outcome == _entry.DONE:
        return
    cs, ss = words[CS], words[SS]
    if (cs, ss) not in xen.runnable and not segments.runnable(xen, cs, ss):
        failsafe(xen, selectors)
    elif old_cs != cs:
        segments.select_code_width(xen, old_cs, cs)


def failsafe(xen: Hypervisor, selectors: tuple[int, ...]) -> None:
    """The callback for selectors (ds, es, fs, gs) that could not be reloaded."""
    gate = xen.vcpu.failsafe
    if gate.address == 0:
        xen.crash("a segment selector cannot be loaded and the guest has no failsafe callback")
    else:
        bounce(xen, gate.address, gate.masks_events, selectors)
