"""A 32-bit guest's entries (arch/x86/x86_64/compat/entry.S, compat_create_bounce_frame; x86_64/compat/traps.c).

Its kernel runs in ring 1 and its programs in ring 3, on one set of page tables, in the CPU's compatibility mode; CS
says which of the two is running. What goes on the kernel's stack, low address first: [error code], eip, cs (with the
event mask in byte 2), eflags, and from ring 3 esp, ss. The commonest entries never come here: ``compat.c`` is a reflex
that does them, and leaves no other trace.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from stub.abi.arch_x86 import FLAT_RING1_SS
from stub.abi.x86_defns import (
    X86_EFLAGS_IF,
    X86_EFLAGS_IOPL,
    X86_EFLAGS_NT,
    X86_EFLAGS_RF,
    X86_EFLAGS_TF,
    X86_EFLAGS_VM,
    X86_EXC_GP,
)
from stub.abi.xen import VcpuInfo32
from stub.engine.base import CS, DS, ES, FS, GS, RAX, RETIRED, RFLAGS, RIP, RSP, SS
from stub.hypervisor import _entry
from stub.hypervisor.vcpu import VCPU_INFO_MASK, Gate, TrapGate, Vcpu
from stub.memory.guest import GuestFault, GuestMemory
from stub.trace.writer import HypercallLog

if TYPE_CHECKING:
    from stub.hypervisor.clock import Clock

HYPERCALL_VECTOR = 0x82
RING_0 = 100
"""An outcome beside those of ``_entry``: the guest asked to return to ring 0."""

_M32 = 0xFFFFFFFF
_NO_CODE = (1 << 64) - 1  # an exception without an error code, in the log
_ALWAYS_SET = 2 | X86_EFLAGS_IF
_CLEARED_ON_ENTRY = X86_EFLAGS_VM | X86_EFLAGS_RF | X86_EFLAGS_NT | X86_EFLAGS_TF
_FROM_IRET = 0x247FD7 & ~X86_EFLAGS_IOPL  # what iret may give back
_VM86_FRAME = 9  # words: eip, cs, eflags, esp, ss, es, ds, fs, gs
_DPL_SHIFT = 45


def _base(descriptor: int) -> int:
    return descriptor >> 16 & 0xFFFFFF | descriptor >> 32 & 0xFF000000


class CompatVcpu(Vcpu):
    """A 32-bit guest's vCPU. ``descriptor`` gives the 8 bytes that a selector names; ``clock`` dates the records.

    ``kernel_root`` is the MFN of the L3 that it runs on; there is no ``user_root``.
    """

    kernel_rpl = 1

    def __new__(
        cls,
        words: memoryview,
        memory: GuestMemory,
        log: HypercallLog,
        info_at: int,
        clock: Clock,
        descriptor: Callable[[int], int],
    ) -> Self:
        made = super().__new__(cls, words, memory, log, info_at)
        made.compat = True
        return made

    def __init__(
        self,
        words: memoryview,
        memory: GuestMemory,
        log: HypercallLog,
        info_at: int,
        clock: Clock,
        descriptor: Callable[[int], int],
    ) -> None:
        super().__init__(words, memory, log, info_at)
        self.kernel_ss = FLAT_RING1_SS
        self.descriptor = descriptor
        self._words, self._memory, self._log, self._clock = words, memory, log, clock

    # -- what is another thing than for a 64-bit guest

    @property
    def kernel_mode(self) -> bool:  # type: ignore[override]
        """Whether the kernel runs: ring 1, and no virtual-8086 mode, in which CS has no ring."""
        return self._words[CS] & 3 == 1 and not self._words[RFLAGS] & X86_EFLAGS_VM

    @property
    def kernel_tables(self) -> int:
        """The machine address of the four-level root that the kernel runs on, which is Xen's own."""
        return self._memory.root

    def set_trap(self, vector: int, gate: TrapGate | None) -> None:
        """Register the handler of an exception, or none; the C part (``compat.c``) is told of those that it enters."""
        self.traps[vector] = gate
        if gate is not None and gate.cs & ~3:
            self._set_gate(vector, gate.cs, gate.address, gate.masks_events)
        else:
            self._set_gate(vector, 0, 0, False)

    # -- entries

    def enter(self, gate: Gate, masks_events: bool, extra: tuple[int, ...] = (), clear: int = 0) -> int:
        """Push a frame with ``extra`` below eip and go to ``gate``; an outcome of ``_entry``'s."""
        return self._bounce(gate.cs, gate.address, masks_events, extra, 0, clear)

    def trap(
        self, vector: int, address: int, masks_events: bool, is_fault: bool, code: int | None, cr2: int | None
    ) -> int:
        """An exception for the handler in the trap table, with its record (pv_inject_event)."""
        words, gate = self._words, self.traps[vector]
        if cr2 is not None:
            self.set_cr2(cr2)
        if gate is None or not gate.cs & ~3:
            return _entry.NO_HANDLER
        if self.stands_still(words[RETIRED]):
            return _entry.TOO_MANY
        user = not self.kernel_mode
        extra = () if code is None else (code,)
        outcome = self._bounce(gate.cs, address, masks_events, extra, X86_EFLAGS_RF if is_fault else 0, 0)
        if outcome == _entry.DONE:
            told = _NO_CODE if code is None else code
            self._log.exception(
                self._clock.now, self.came_rip, vector, told, cr2 or 0, self.came_rsp, address & _M32, user
            )
        return outcome

    def set_cr2(self, cr2: int) -> None:
        """What the guest reads as CR2, in vcpu_info and by mov."""
        self.cr2 = cr2
        at = self.info_at + VcpuInfo32.offset("arch_cr2")
        self._memory.ram_bytes[at : at + 4] = (cr2 & _M32).to_bytes(4, "little")

    def _bounce(
        self, cs: int, address: int, masks_events: bool, extra: tuple[int, ...], pushed: int, cleared: int
    ) -> int:
        words, memory = self._words, self._memory
        ram, mask_at = memory.ram_bytes, self.info_at + VCPU_INFO_MASK
        flags = words[RFLAGS] & ~(X86_EFLAGS_IF | X86_EFLAGS_IOPL)
        mask = ram[mask_at]
        stored = flags | pushed | (0 if mask else X86_EFLAGS_IF)
        if self.architectural_iopl:
            stored |= self.iopl << 12
        if self.resumed_when == words[RETIRED]:
            stored |= X86_EFLAGS_RF
        frame = [*extra, words[RIP], words[CS] | mask << 16, stored]
        if words[CS] & 2:
            ss, top = self.kernel_ss, self.kernel_sp
            frame += [words[RSP], words[SS]]
        else:
            ss, top = words[SS], words[RSP]
        data = struct.pack(f"<{len(frame)}I", *(word & _M32 for word in frame))
        bottom = (top - len(data)) & _M32
        try:
            memory.write(_base(self.descriptor(ss)) + bottom & _M32, data)
        except GuestFault as fault:
            self.fault_at = fault.vaddr
            return _entry.STACK_FAULT
        if not cs & ~3:
            return _entry.NO_HANDLER
        self.came_rip, self.came_rsp = words[RIP], words[RSP]
        if masks_events:
            ram[mask_at] |= 1
        words[RIP], words[CS] = address & _M32, cs
        words[SS], words[RSP] = ss, bottom
        words[RFLAGS] = flags & ~(cleared | _CLEARED_ON_ENTRY) | _ALWAYS_SET
        return _entry.DONE

    # -- back

    def iret(self) -> tuple[int, bytes]:
        """The iret hypercall (compat_iret): the outcome, and the frame's bytes; one for ring 1 has no stack."""
        words, memory = self._words, self._memory
        at = words[RSP] & _M32
        try:
            payload = memory.read(at, 16)
            eax, eip, cs, eflags = struct.unpack("<4I", payload)
            if eflags & X86_EFLAGS_VM:
                return self._refuse_vm86(at, eax, eflags), payload
            if not cs & 3:
                return RING_0, payload
            esp, ss = (at + 16) & _M32, words[SS]
            if cs & 3 != 1:
                payload += memory.read(at + 16, 8)
                esp, ss = struct.unpack_from("<2I", payload, 16)
        except GuestFault as fault:
            self.fault_at = fault.vaddr
            return _entry.FRAME_FAULT, b""
        self._return(eax, eflags)
        words[RIP], words[CS] = eip, cs & 0xFFFF
        words[SS], words[RSP] = ss & 0xFFFF, esp
        if cs & 3 != 1:
            self._drop_selectors(cs & 3)
        return _entry.LOOK, payload

    def _return(self, eax: int, eflags: int) -> None:
        """The part of iret that does not depend on where it leads."""
        words = self._words
        if self.architectural_iopl:
            self.iopl = eflags >> 12 & 3
        if eflags & X86_EFLAGS_RF:
            self.resumed_when = words[RETIRED]
        words[RAX] = eax
        words[RFLAGS] = eflags & _FROM_IRET | _ALWAYS_SET
        self._memory.ram_bytes[self.info_at + VCPU_INFO_MASK] = 0 if eflags & X86_EFLAGS_IF else 1
        self.nmi_masked = False

    def _refuse_vm86(self, at: int, eax: int, eflags: int) -> int:
        """Virtual-8086 mode cannot be had: the #GP of its first instruction instead, on the kernel's stack."""
        words, memory, gate = self._words, self._memory, self.traps[X86_EXC_GP]
        bottom = (self.kernel_sp - 4 * (_VM86_FRAME + 1)) & _M32
        memory.write(bottom, bytes(4) + memory.read(at + 4, 4 * _VM86_FRAME))
        if gate is None or not gate.cs & ~3:
            return _entry.NO_HANDLER
        self._return(eax, eflags & ~X86_EFLAGS_IF if gate.masks_events else eflags)
        words[RIP], words[CS] = gate.address & _M32, gate.cs
        words[SS], words[RSP] = self.kernel_ss, bottom
        words[RFLAGS] &= ~_CLEARED_ON_ENTRY
        return _entry.LOOK

    def _drop_selectors(self, ring: int) -> None:
        """What the CPU's iret does with data segments that the new ring may not have: they become null."""
        words = self._words
        for at in (DS, ES, FS, GS):
            selector = words[at]
            if selector & ~3:
                found = self.descriptor(selector)
                conforming = found >> 42 & 3 == 3
                if not conforming and found >> _DPL_SHIFT & 3 < ring:
                    words[at] = 0
