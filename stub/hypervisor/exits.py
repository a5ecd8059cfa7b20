"""What each way out of the guest leads to: one row in a table for each exit that is the guest's doing.

The exits at which the guest only stands still (deadlines, stop points) are the run loop's own, in ``xen.py``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from stub.abi.x86_defns import X86_EXC_UD
from stub.engine.base import EXIT_PORT, EXIT_SIZE, EXIT_VALUE, Exit
from stub.hypervisor import debugregs, faults, ports, privileged, traps
from stub.hypervisor.registry import HYPERCALLS

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

_FAULT = struct.Struct("<216xQ16xQQQ").unpack_from  # cr2, vector, error code, software
_SPIN = 1_000_000  # ns that pass at once for a guest that reads the time again and again


def on_syscall(xen: Hypervisor) -> None:
    """A hypercall from the kernel, or user code's system call."""
    call = xen.vcpu.call()
    if call is None:
        traps.system_call(xen)
        return
    nr, a1, a2, a3, a4, a5 = call
    xen.payload = xen.out = b""
    xen.refusal = xen.types.refusal = ""
    handler = HYPERCALLS.get(nr)
    rc: int | None = xen.not_there(nr) if handler is None else handler(xen, a1, a2, a3, a4, a5)
    if rc is not None and rc < 0 and (xen.types.refusal or xen.refusal):
        xen.log.note(xen.vcpu.call_time, xen.vcpu.call_rip, xen.types.refusal or xen.refusal)
    xen.vcpu.answer(rc, xen.payload, xen.out)


def on_exception(xen: Hypervisor) -> None:
    """A fault, a trap or a software interrupt."""
    words = xen.words
    address, vector, code, software = _FAULT(words)
    if software:
        traps.software_interrupt(xen, vector)
    elif vector == 14:
        faults.page_fault(xen, address, code)
    elif vector == 13:
        privileged.general_protection(xen, code)
    elif vector == 7:
        if xen.vcpu.task_switched:
            privileged.set_task_switched(xen, False)
        traps.inject(xen, 7)
    elif vector == 1:
        if not debugregs.debug_trap(xen):
            xen.pass_on(xen.engine.run())
    else:
        traps.inject(xen, vector, code if vector in (8, 10, 11, 12, 17) else None)


def on_invalid(xen: Hypervisor) -> None:
    """An undefined instruction: Xen's own way to cpuid, or #UD."""
    if not privileged.forced_cpuid(xen):
        traps.undefined(xen)


def on_in(xen: Hypervisor) -> None:
    """A port is read: a virtual device's answer, or #GP."""
    words = xen.words
    value = ports.port_in(xen, words[EXIT_PORT], words[EXIT_SIZE])
    if value is None:
        traps.inject(xen, 13, 0)
    else:
        words[EXIT_VALUE] = value


def on_out(xen: Hypervisor) -> None:
    """A port is written to: the same."""
    words = xen.words
    if not ports.port_out(xen, words[EXIT_PORT], words[EXIT_SIZE], words[EXIT_VALUE]):
        traps.inject(xen, 13, 0)


def on_cpuid(xen: Hypervisor) -> None:
    """cpuid, as Xen answers it; a guest that waits by it gets time in steps."""
    waits = xen.vcpu.spins()
    privileged.answer_cpuid(xen, False)
    if waits and not xen.realtime:
        xen.clock.skip(_SPIN)


def on_sysenter(xen: Hypervisor) -> None:
    """#UD, as an AMD processor does in long mode; Xen's callback is for Intel's."""
    traps.inject(xen, X86_EXC_UD)


def on_dead(xen: Hypervisor) -> None:
    """The engine cannot go on: the guest is blamed, with what the engine says."""
    xen.crash(f"the engine stopped ({xen.engine.name} error {xen.words[EXIT_VALUE]})")


def nothing(_: Hypervisor) -> None:
    """All is done: a reflex did it."""


EXITS: dict[Exit, Callable[[Hypervisor], None]] = {
    Exit.SYSCALL: on_syscall,
    Exit.EXCEPTION: on_exception,
    Exit.INVALID: on_invalid,
    Exit.IN: on_in,
    Exit.OUT: on_out,
    Exit.CPUID: on_cpuid,
    Exit.SYSENTER: on_sysenter,
    Exit.DEAD: on_dead,
    Exit.DONE: nothing,
}
