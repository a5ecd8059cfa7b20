"""A virtual CPU's state as Xen keeps it; what the CPU itself holds is in the engine's register file."""

from __future__ import annotations

from dataclasses import dataclass, field

from stub.abi.arch_x86 import FLAT_KERNEL_SS

VCPU_INFO_MASK, VCPU_INFO_SELECTOR, VCPU_INFO_CR2, VCPU_INFO_TIME = 1, 8, 16, 32  # byte offsets in vcpu_info


@dataclass
class Gate:
    """An entry point that the guest registered: where, and whether events are masked on the way in."""

    address: int = 0
    masks_events: bool = False


@dataclass(frozen=True)
class TrapGate:
    """An entry of the trap table (struct trap_info). ``dpl`` is flags 1:0, ``masks_events`` flag 2."""

    cs: int
    address: int
    dpl: int
    masks_events: bool


@dataclass
class Vcpu:
    """``info_at`` is the byte offset of vcpu_info in machine memory; roots are MFNs, 0 for none."""

    number: int = 0
    kernel_mode: bool = True
    kernel_root: int = 0
    user_root: int = 0
    kernel_ss: int = FLAT_KERNEL_SS
    kernel_sp: int = 0
    gs_base_other: int = 0  # of the mode that is not running
    traps: list[TrapGate | None] = field(default_factory=lambda: [None] * 256)
    event: Gate = field(default_factory=Gate)
    failsafe: Gate = field(default_factory=Gate)
    syscall: Gate = field(default_factory=Gate)
    syscall32: Gate = field(default_factory=Gate)
    sysenter: Gate = field(default_factory=Gate)
    nmi: Gate = field(default_factory=Gate)
    nmi_masked: bool = False
    info_at: int = 0
    info_registered: bool = False
    iopl: int = 0
    io_bitmap: int = 0
    io_bitmap_ports: int = 0
    task_switched: bool = False
    cr2: int = 0
    cr4: int = 0
    debug: list[int] = field(default_factory=lambda: [0, 0, 0, 0, 0, 0, 0xFFFF0FF0, 0x400])
    ldt_base: int = 0
    ldt_entries: int = 0
    gdt_frames: list[int] = field(default_factory=list)
    runstate_at: int = 0
    runstate: int = 0
    runstate_since: int = 0
    runstate_times: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    trapped_at: int = -1  # instructions retired at the last trap, and how many traps came there
    traps_there: int = 0
    blocked: bool = False
    polling: frozenset[int] = frozenset()
    fs_selector_base: int = 0
