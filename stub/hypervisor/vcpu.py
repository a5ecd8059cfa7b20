"""A virtual CPU's state as Xen keeps it; what the CPU itself holds is in the engine's register file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from stub.abi.arch_x86 import FLAT_KERNEL_SS
from stub.abi.x86_defns import X86_EXC_PF
from stub.hypervisor import cpuid
from stub.hypervisor._entry import TRAPS_IN_A_ROW, Entry
from stub.memory.guest import GuestMemory
from stub.trace.writer import HypercallLog
from stub.units import PAGE_SHIFT

VCPU_INFO_MASK, VCPU_INFO_CR2, VCPU_INFO_TIME = 1, 16, 32  # byte offsets in vcpu_info

DR6_SINGLE_STEP = 1 << 14
"""The bit of a vCPU's ``debug[6]`` that says a single step (BS)."""


@dataclass(frozen=True)
class Gate:
    """An entry point that the guest registered: where, and whether events are masked on the way in.

    ``cs`` is a 32-bit guest's; a null one says that there is no entry point, as address 0 does for a 64-bit guest.
    """

    address: int = 0
    masks_events: bool = False
    cs: int = 0


@dataclass(frozen=True)
class TrapGate:
    """An entry of the trap table (struct trap_info). ``dpl`` is flags 1:0, ``masks_events`` flag 2."""

    cs: int
    address: int
    dpl: int
    masks_events: bool


class Vcpu(Entry):
    """One virtual CPU. What the guest's entries need of it is the C part's (``entry.c``):

    ``kernel_mode`` (else user code runs), ``kernel_root`` and ``user_root`` (MFNs, 0 for none), ``kernel_sp``,
    ``gs_base_other`` (of the mode that is not running), ``info_at`` (byte offset of vcpu_info in machine memory),
    ``iopl``, ``cr2``, ``nmi_masked``, ``watches_ports`` (a debug register does), and the assists
    ``writable_pagetables`` and ``architectural_iopl``.
    """

    kernel_rpl = 3
    """The ring that the guest's kernel runs in (GUEST_KERNEL_RPL)."""

    def __new__(cls, words: memoryview, memory: GuestMemory, log: HypercallLog, info_at: int) -> Self:
        return super().__new__(cls, words, memory, log)

    def __init__(self, words: memoryview, memory: GuestMemory, log: HypercallLog, info_at: int) -> None:
        self.cr4 = self.xcr0 = 0
        self.show_cpu(cpuid.Policy(self.compat))
        self.info_at = info_at
        self._memory = memory
        self.info_registered = False
        self.number = 0
        self.kernel_ss = FLAT_KERNEL_SS
        self.traps: list[TrapGate | None] = [None] * 256
        self.event = self.failsafe = self.syscall32 = self.sysenter = Gate()
        self._syscall = Gate()
        self.io_bitmap = self.io_bitmap_ports = 0
        self.task_switched = False
        self.debug = [0, 0, 0, 0, 0, 0, 0xFFFF0FF0, 0x400]
        self.ldt_base = self.ldt_entries = 0
        self.gdt_frames: list[int] = []
        self.gdt_entries = 0
        self.runstate_at = self.runstate = self.runstate_since = 0
        self.runstate_times = [0, 0, 0, 0]
        self.blocked = False
        self.was_pending = False
        """Whether an event was pending, masked, when the vCPU blocked: then that one does not wake it."""
        self.polling: frozenset[int] = frozenset()

    def show_cpu(self, policy: cpuid.Policy) -> None:
        """What CPUID says from now on."""
        self.policy = policy
        self._refresh_cpuid()

    def set_cr4(self, value: int) -> None:
        """CR4, as far as it is the guest's own; CPUID says what becomes of it."""
        self.cr4 = value
        self._refresh_cpuid()

    def set_xcr0(self, value: int) -> None:
        """The guest's XCR0, which CPUID says the same of; the engine is told by the caller."""
        self.xcr0 = value
        self._refresh_cpuid()

    def _refresh_cpuid(self) -> None:
        """Give the reflexes what CPUID says now."""
        self.policy.follow(self.cr4, self.xcr0)
        self._set_cpuid(self.policy.rows())

    @property
    def syscall(self) -> Gate:
        """The entry point for ``syscall`` by 64-bit user code."""
        return self._syscall

    @syscall.setter
    def syscall(self, gate: Gate) -> None:
        self._syscall = gate
        self._set_syscall(gate.address, gate.masks_events)

    @property
    def kernel_tables(self) -> int:
        """The machine address of the root table that the kernel runs on."""
        return self.kernel_root << PAGE_SHIFT

    def has(self, gate: Gate) -> bool:
        """Whether something was registered there."""
        return bool(gate.cs & ~3) if self.compat else gate.address != 0

    def fixed(self, selector: int) -> int:
        """A code or stack selector of the guest's kernel, with the kernel's RPL at least (fixup_guest_selector)."""
        return (selector if selector & 3 >= self.kernel_rpl else selector & ~3 | self.kernel_rpl) & 0xFFFF

    def enter(self, gate: Gate, masks_events: bool, extra: tuple[int, ...] = (), clear: int = 0) -> int:
        """Push a frame with ``extra`` below rip and go to ``gate``; an outcome of ``_entry``'s."""
        return self.bounce(gate.address, masks_events, extra, clear)

    def stands_still(self, retired: int) -> bool:
        """Count a trap; whether there were too many without an instruction between: no limit would end them."""
        if retired != self.trapped_at:
            self.trapped_at, self.traps_there = retired, 0
        self.traps_there += 1
        return self.traps_there > TRAPS_IN_A_ROW

    def set_cr2(self, cr2: int) -> None:
        """What the guest reads as CR2, in vcpu_info and by mov."""
        self.cr2 = cr2
        at = self.info_at + VCPU_INFO_CR2
        self._memory.ram_bytes[at : at + 8] = cr2.to_bytes(8, "little")

    def set_trap(self, vector: int, gate: TrapGate | None) -> None:
        """Register the handler of an exception, or none."""
        self.traps[vector] = gate
        if vector == X86_EXC_PF:
            self._set_page_fault(gate.address if gate else 0, gate.masks_events if gate else False)
