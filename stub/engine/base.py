"""The engine contract: what runs a guest's instructions, and nothing more.

An engine knows no hypercall. It runs one virtual CPU until something leaves the guest, and says what in an exit
kind and the words of a register file that both sides see; the caller changes that file and runs on.

The register file is a flat array of 64-bit words, indexed by the constants below: general registers in the x86
encoding's order, then the rest of the CPU, then what the exit says, then the clock. At an exit:

======== ======================================= =========================================================
exit     ``RIP``                                 completed by
======== ======================================= =========================================================
SYSCALL  the next instruction; RCX and R11 hold   nothing to do
         RIP and RFLAGS, as the CPU does it
EXCEPTION the faulting instruction; the next one  setting RIP
         for ``int n`` (``EXIT_SOFTWARE``) and #DB,
         whose ``EXIT_ERROR_CODE`` is 1 if the
         guest itself steps
INVALID  the undefined instruction                setting RIP
IN, OUT, the instruction itself                   leaving RIP alone (``EXIT_VALUE`` is what ``in`` reads;
CPUID                                             CPUID's results are written to RAX…RDX); or setting RIP
DEADLINE the instruction that would run next      nothing to do
STOP_POINT the same                              nothing to do
DONE     wherever                                nothing to do: a reflex did it, and asks for a look
WAITED   where it was                            nothing to do: nothing ran, as ``PATIENCE`` was over
======== ======================================= =========================================================

``PATIENCE`` is a time of the host's monotonic clock, in ns: after it ``run`` comes back at once, and a reflex asks for
a look. So a caller has the guest back soon whatever it does, within some 4 ms; 0 is for ever.

``CODE_SWITCH`` says that the code segment in ``CS`` is of another kind or base than the one before; 4 that ``CS`` and
``SS`` are to be loaded from ``CS_DESCRIPTOR`` and ``SS_DESCRIPTOR`` (8 bytes each, good for that) at the privilege
level that ``CS`` has.

The CPU sees the page tables as they are after a new ``CR3``, and after the caller set ``FLUSH``; other changes to them
it may see late.

Time: ``RETIRED`` counts instructions (each iteration of a repeated string instruction is one); ``rdtsc`` reads
``RETIRED + TIME_SKEW``. ``DEADLINE`` is in retired instructions; the engine stops at the first taken control
transfer at or after it, which depends on nothing but the instructions.

Steps: with ``STEP`` set #DB (an EXCEPTION, vector 1) comes after one instruction, unless that leaves the guest
otherwise; after an IN, OUT or CPUID exit that left RIP alone it is still to come. The guest does not see the trap flag
that does it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import IntEnum
from typing import NamedTuple, Protocol

RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 = range(16)
RIP, RFLAGS, CS, SS, DS, ES, FS, GS, FS_BASE, GS_BASE, CR0, CR2, CR3, CR4 = range(16, 30)
N_REGISTERS = 30
EXIT_VECTOR, EXIT_ERROR_CODE, EXIT_SOFTWARE, EXIT_PORT, EXIT_SIZE, EXIT_VALUE = range(30, 36)
RETIRED, TIME_SKEW, DEADLINE, FLUSH = range(36, 40)
LEARN_SLOT, LEARN_START, LEARN_END, LEARN_SIZE = range(40, 44)
TSC_AUX, CODE_SWITCH, RDTSCS, FLUSHES, WATCH_ADDRESS, WATCH_SIZE, WATCH_WRITE = range(44, 51)
WATCH2_ADDRESS, WATCH2_SIZE, WATCH2_WRITE, STEP, PATIENCE = range(51, 56)
CS_DESCRIPTOR, SS_DESCRIPTOR = 56, 57
N_WORDS = 58

NAMES = tuple(
    "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15 rip rflags".split()  # noqa: SIM905
    + "cs ss ds es fs gs fs_base gs_base cr0 cr2 cr3 cr4".split()  # noqa: SIM905
)

NEVER = (1 << 64) - 1
READS, WRITES = 1, 2


class Exit(IntEnum):
    """Why the guest stopped running."""

    SYSCALL = 0
    EXCEPTION = 1
    INVALID = 2
    IN = 3
    OUT = 4
    CPUID = 5
    DEADLINE = 6
    SYSENTER = 8
    STOP_POINT = 9
    DEAD = 10
    DONE = 11
    WAITED = 12


class Watch(NamedTuple):
    """A range of memory to watch: ``first`` to ``last``, both in it; ``access``: READS, WRITES or both.

    ``machine``: the addresses are machine addresses, not virtual ones. ``second``: of the second group, so that of one
    instruction an access is kept for each group.
    """

    first: int
    last: int
    access: int
    machine: bool = False
    second: bool = False


class Engine(Protocol):
    """One virtual CPU on guest memory that the caller shares with it.

    What runs the CPU may come to its end by itself; then EngineError says how, whatever is called.
    """

    name: str
    words: memoryview
    stops_are_free: bool  # a stop point costs nothing while the guest does not come to it, however many there are

    def start(self, trampoline: int, stack: int, gdt: int, gdt_limit: int, empty_root: int) -> None:
        """Prepare to enter the guest.

        ``trampoline`` is the virtual address of a supervisor page that holds ``iretq``; ``stack`` that of its
        frame; ``gdt`` and ``gdt_limit`` the descriptor table; ``empty_root`` the machine address of a page table
        with no entry. CR0, CR3, CR4 and the general registers are taken from the register file.
        """

    @property
    def run(self) -> Callable[[], int]:
        """Call it to run until something leaves the guest; the answer is an :class:`Exit`."""

    def stop_at(self, addresses: Collection[int]) -> None:
        """Exit with STOP_POINT before each instruction at these virtual addresses, in any address space.

        Replaces the ones before. An instruction whose exit was reported is not reported again until it was begun.
        """

    def watch(self, ranges: Collection[Watch]) -> None:
        """#DB after each instruction that accesses these ranges of memory; replaces the ones before.

        The access (the first; a write before a read) is then in ``WATCH_ADDRESS`` (virtual), ``WATCH_SIZE``,
        ``WATCH_WRITE`` (``WATCH2_…``, of the second group); the caller clears the size. UsageError, and nothing
        is changed, for what :meth:`check_watches` refuses.
        """

    def check_watches(self, ranges: Collection[Watch]) -> None:
        """UsageError for ranges that this engine cannot watch."""

    def keep_branches(self, count: int) -> None:
        """Keep the last ``count`` branches taken, and forget those before; 0: none. It costs speed.

        UsageError from an engine that can keep none.
        """

    def branches(self) -> list[tuple[int, int]]:
        """Those kept, the last one last: where the instruction that branched ends, and where it went.

        The first is 0 where no instruction of the guest did: the hypervisor brought it there.
        """

    def flush_code(self, maddr: int, size: int) -> None:
        """The caller wrote to this machine memory: if it holds code, the guest is to run what is there now."""

    def read_extended(self) -> bytes:
        """The x87 and SSE registers, as FXSAVE stores them in 64-bit mode: 512 bytes (x86 manual, vol. 1, 10.5.1).

        Where the CPU has AVX what XSAVE stores in its standard form, with the AVX registers: 832 bytes (13.4).
        """

    def write_extended(self, area: bytes) -> None:
        """Load them from such an area; EngineError, if the engine notices, for what no CPU takes: its caller checks."""

    def use_reflex(self, reflex: object) -> None:
        """Let a capsule of the caller's (``engine.h``) finish exits before the caller sees them; None: nothing."""

    def cpuid(self, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """What its CPUID says that the CPU has beyond every engine's (EAX to EDX), once it is started; zeroes: nothing.

        Only the leaves of stub/abi/cpufeatureset.py are asked for, and the states of XSAVE (leaf 0xd).
        """

    def load_xcr0(self, value: int) -> None:
        """Set XCR0 to a value that the CPU takes; CR4.OSXSAVE is set. Only where the CPU has XSAVE."""

    def load_ldt(self, base: int, limit: int) -> None:
        """Set the LDT register: the table's virtual address and its last byte's offset; 0, 0 for none."""

    def close(self) -> None:
        """Release the CPU. The register file stays readable."""
