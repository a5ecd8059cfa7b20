"""Guests that mean harm: hypercalls and machine code made from a seed, and an audit of what they left behind.

Each guest is a table of calls, or a row of small pieces of code, under one loop. Whatever trap comes of one, the
handler takes the next. PFNs are MFNs (``p2m="identity"``), so that a guest knows frames worth asking for;
else it guesses.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from stub.abi import callback, sched
from stub.abi import xen as abi
from stub.abi.event_channel import EVTCHNOP_bind_virq
from stub.abi.physdev import PHYSDEVOP_set_iopl
from stub.abi.xen import Hypercall
from stub.domain.config import DomainConfig
from stub.machine import Limits, Machine
from suites.unit.elf_builder import PSTART, VIRT_BASE, Load, elf, xen_notes

CODE = VIRT_BASE + PSTART
KERNEL_PAGES = 64
CURSOR, TRAPS, CALLBACK, ZERO, FRAME, USER_ROOT, THREE = (
    0x400,
    0x1000,
    0x2800,
    0x2900,
    0x2A00,
    0x2B00,
    0x2B40,
)  # offsets from CODE
TABLE, BLOBS = 0x4000, 0x14000
ROW = 64  # bytes of a call, and of a piece of code
BLOBS_END = 0x28000
ROWS = (BLOBS - TABLE) // ROW
CALLBACKS = (callback.CALLBACKTYPE_failsafe, callback.CALLBACKTYPE_event, callback.CALLBACKTYPE_syscall)
STACK = CODE + 0x4000 - 0x100
MASK = (1 << 64) - 1
CS = 0xE033
SS = 0xE02B

# With 32 MiB and a kernel of KERNEL_PAGES at 16 MiB: what lies behind it (stub.domain.layout).
_FIRST = (PSTART >> 12) + KERNEL_PAGES
P2M, START_INFO, STORE, CONSOLE, TABLES = _FIRST, _FIRST + 16, _FIRST + 17, _FIRST + 18, _FIRST + 19
N_TABLES = 13
SCRATCH = range((PSTART >> 12) + 40, (PSTART >> 12) + KERNEL_PAGES)  # writable pages that hold nothing


def va(mfn: int) -> int:
    """Where a frame of the initial region is mapped."""
    return VIRT_BASE + (mfn << 12)


def mov(register: int, value: int) -> bytes:
    """``mov $value, %register`` (registers in the x86 encoding's order)."""
    return bytes([0x48 | register >> 3, 0xB8 | register & 7]) + struct.pack("<Q", value & MASK)


RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10 = range(11)
_ARGUMENTS = (RDI, RSI, RDX, R10, R8)


def call(number: int, *arguments: int) -> bytes:
    """A hypercall with up to five arguments."""
    return b"".join(mov(r, v) for r, v in zip(_ARGUMENTS, arguments, strict=False)) + mov(RAX, number) + b"\x0f\x05"


POWER_OFF = call(Hypercall.sched_op_compat, sched.SCHEDOP_shutdown, 0)
_LOAD_ROW = b"".join(
    [
        b"\x48\x8b\x03",  # mov (%rbx), %rax
        b"\x48\x8b\x7b\x08",  # rdi
        b"\x48\x8b\x73\x10",  # rsi
        b"\x48\x8b\x53\x18",  # rdx
        b"\x4c\x8b\x53\x20",  # r10
        b"\x4c\x8b\x43\x28",  # r8
    ]
)


def image(
    folder: Path,
    rows: Sequence[bytes],
    blobs: bytes = b"",
    *,
    code: bool = False,
    user: bool = False,
    prologue: bytes = b"",
    frame: bytes = b"",
    scratch: bytes = b"",
) -> Path:
    """A kernel that works through ``rows``: hypercalls, or ``code`` to run. ``prologue`` goes first.

    Between two pieces of code events are unmasked and the segments made good again, by iret: to ``user`` mode if
    asked. ``frame`` is what an iret among the rows finds on the stack; by default one that goes on with the next
    row. ``scratch`` is what the SCRATCH pages hold.
    """
    assert len(rows) <= ROWS
    assert BLOBS + len(blobs) <= BLOBS_END
    start = prologue + mov(RSP, STACK) + mov(RBX, CODE + TABLE)
    turn = mov(RCX, CODE + CURSOR) + b"\x48\x89\x19"  # mov %rbx, (%rcx)
    turn += b"\xff\xe3" if code else _LOAD_ROW + b"\x0f\x05"  # jmp *%rbx, or syscall
    loop_at = len(start)
    next_at = loop_at + len(turn)
    text = start + turn + mov(RSP, STACK) + mov(RCX, CODE + CURSOR) + b"\x48\x8b\x19"  # mov (%rcx), %rbx
    text += b"\x48\x83\xc3" + bytes([ROW])  # add $ROW, %rbx
    text += mov(RAX, CODE + TABLE + ROW * len(rows)) + b"\x48\x39\xc3"  # cmp %rax, %rbx
    again = mov(RSP, CODE + FRAME) + mov(RAX, Hypercall.iret) + b"\x0f\x05" if code else b""
    again += b"\xe9" + struct.pack("<i", loop_at - (len(text) + 6 + len(again) + 5))
    text += b"\x0f\x83" + struct.pack("<i", len(again)) + again + POWER_OFF + b"\xeb\xfe"  # jae past the end
    assert len(text) <= CURSOR
    memory = bytearray(KERNEL_PAGES << 12)
    memory[: len(text)] = text
    struct.pack_into("<Q", memory, CURSOR, CODE + TABLE)
    gates = b"".join(struct.pack("<BBHxxxxQ", vector, 3, CS, CODE + next_at) for vector in range(256))
    memory[TRAPS : TRAPS + len(gates)] = gates
    for i, kind in enumerate(CALLBACKS):
        struct.pack_into("<HHIQ", memory, CALLBACK + 16 * i, kind, 0, 0, CODE + next_at)
    struct.pack_into("<9Q", memory, FRAME, 0, 0, 0, 0, CODE + loop_at, CS if user else CS & ~3, 0x202, STACK, SS)
    struct.pack_into("<I", memory, THREE, 3)
    struct.pack_into("<IIQQ", memory, USER_ROOT, abi.MMUEXT_NEW_USER_BASEPTR, 0, 0, 0)
    good = struct.pack("<9Q", 0, 0, 0, 0, CODE + next_at, CS & ~3, 0x202, STACK, SS)
    memory[STACK - CODE : STACK - CODE + len(good)] = (frame or good)[: len(good)]
    for i, row in enumerate(rows):
        at = TABLE + ROW * i
        tail = b"\xe9" + struct.pack("<i", next_at - (at + ROW)) if code else b""
        assert len(row) + len(tail) <= ROW
        memory[at : at + ROW] = row.ljust(ROW - len(tail), b"\x90" if code else b"\0") + tail
    memory[BLOBS : BLOBS + len(blobs)] = blobs
    memory[BLOBS_END : BLOBS_END + len(scratch)] = scratch
    path = folder / "hostile"
    path.write_bytes(elf([Load(PSTART, bytes(memory))], xen_notes()))
    return path


def handlers() -> bytes:
    """Registers the trap table and the callbacks, and binds VIRQ_TIMER."""
    register = callback.CALLBACKOP_register
    return (
        call(Hypercall.set_trap_table, CODE + TRAPS)
        + b"".join(call(Hypercall.callback_op, register, CODE + CALLBACK + 16 * i) for i in range(len(CALLBACKS)))
        + call(Hypercall.event_channel_op, EVTCHNOP_bind_virq, CODE + ZERO)
    )


def user_mode() -> bytes:
    """The kernel's own tables for user mode, and a stack for coming back."""
    root = mov(RAX, va(P2M) + 8 * TABLES) + b"\x48\x8b\x00"  # mov (%rax), %rax
    root += mov(RCX, CODE + USER_ROOT + 8) + b"\x48\x89\x01"  # mov %rax, (%rcx)
    switch = call(Hypercall.mmuext_op, CODE + USER_ROOT, 1, 0, abi.DOMID_SELF)
    return call(Hypercall.stack_switch, SS, STACK) + root + switch


def io_rights() -> bytes:
    """All I/O ports, for the kernel and its user."""
    return call(Hypercall.physdev_op, PHYSDEVOP_set_iopl, CODE + THREE)


def machine(kernel: Path, instructions: int = 200_000, memory: int = 32, p2m: str = "identity") -> Machine:
    """A machine for it, with nothing kept on disk."""
    config = DomainConfig(kernel=kernel, memory=memory, p2m=p2m)
    return Machine(config, None, Limits(instructions=instructions, virtual_ns=10_000_000_000, wall_s=20))
