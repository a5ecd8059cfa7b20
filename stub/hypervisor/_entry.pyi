"""Into the guest's kernel and out of it (``_entry.c``), as type checkers see it."""

from typing import Self

from stub.memory.guest import GuestMemory
from stub.trace.writer import HypercallLog

DONE: int
NO_HANDLER: int
STACK_FAULT: int
TOO_MANY: int
FRAME_FAULT: int
NO_USER_TABLE: int
LOOK: int
TRAPS_IN_A_ROW: int

class Entry:
    """What of a virtual CPU its entries need; outcomes are the constants above."""

    kernel_mode: bool
    compat: bool
    nmi_masked: bool
    writable_pagetables: bool
    architectural_iopl: bool
    watches_ports: bool
    iopl: int
    kernel_root: int
    user_root: int
    kernel_sp: int
    gs_base_other: int
    info_at: int
    cr2: int
    kernel_ss: int
    fault_at: int
    came_rip: int
    came_rsp: int
    resumed_when: int
    """``RETIRED`` at the last iret with RF set, which holds for one instruction."""
    trapped_at: int
    """``RETIRED`` at the last exception, and how many there were without an instruction between."""
    traps_there: int
    def __new__(cls, words: memoryview, memory: GuestMemory, log: HypercallLog, /) -> Self: ...
    def bounce(self, address: int, masks_events: bool, extra: tuple[int, ...] = ..., clear: int = ..., /) -> int: ...
    def trap(
        self,
        vector: int,
        address: int,
        masks_events: bool,
        is_fault: bool,
        error_code: int | None,
        cr2: int | None,
        /,
    ) -> int: ...
    @property
    def call_time(self) -> int:
        """Virtual time of the last ``call()``; ``call_rip``: where it was made."""
    @property
    def call_rip(self) -> int: ...
    def call(self) -> tuple[int, int, int, int, int, int] | None: ...
    def answer(self, rc: int | None, payload: bytes, out: bytes, /) -> None: ...
    def iret(self) -> tuple[int, bytes]: ...
    def switch_mode(self) -> bool: ...
    def _set_page_fault(self, address: int, masks_events: bool, /) -> None: ...
    def _set_syscall(self, address: int, masks_events: bool, /) -> None: ...
    def spins(self) -> bool:
        """Count the cpuid at hand; whether the guest executes it again and again, and nothing else."""
    def _set_cpuid(self, leaves: bytes, /) -> None:
        """What ``cpuid.rows()`` has."""
    def add_runnable(self, cs: int, ss: int, /) -> None: ...
    def add_pair(self, cs: int, ss: int, cs_descriptor: int, ss_descriptor: int, /) -> None: ...
    def _set_gate(self, vector: int, cs: int, address: int, masks_events: bool, /) -> None: ...
    def clear_runnable(self) -> None: ...
    def reflex(self) -> object: ...
