"""PV kernels of a few instructions: what they do is in the test that makes them."""

from __future__ import annotations

import struct
from pathlib import Path

from stub.abi.sched import SCHEDOP_shutdown
from stub.abi.xen import Hypercall
from suites.unit.elf_builder import PSTART, VIRT_BASE, Load, elf, xen_notes

CODE = VIRT_BASE + PSTART
DATA_OFFSET = 0x800
SPIN = b"\xeb\xfe"  # jmp to itself
UD2 = b"\x0f\x0b"


def call(number: Hypercall, *arguments: int) -> bytes:
    """A hypercall: ``syscall`` with the number in rax and at most three arguments in rdi, rsi and rdx."""
    loads = (
        opcode + struct.pack("<Q", value & (1 << 64) - 1) for opcode, value in zip(_LOADS, arguments, strict=False)
    )
    return b"\xb8" + struct.pack("<I", number) + b"".join(loads) + b"\x0f\x05"


_LOADS = (b"\x48\xbf", b"\x48\xbe", b"\x48\xba")  # mov $imm64 to rdi, rsi, rdx


def set_xcr0(states: int) -> bytes:
    """``mov $0x40660, %eax; mov %rax, %cr4``, which has OSXSAVE; ``xsetbv`` of these states, in 20 bytes."""
    return b"\xb8\x60\x06\x04\x00\x0f\x22\xe0\x31\xc9\x31\xd2\xb8" + struct.pack("<I", states) + b"\x0f\x01\xd1"


def shutdown(reason: int) -> bytes:
    """Ends the domain for ``reason``; its structure is the kernel's data, see :func:`kernel`."""
    assert reason < 8
    return call(Hypercall.sched_op, SCHEDOP_shutdown, CODE + DATA_OFFSET + 4 * reason)


def kernel(folder: Path, code: bytes) -> Path:
    """A kernel file that runs ``code``. Its data at DATA_OFFSET: the numbers 0 to 7, 32 bits each."""
    image = folder / "small"
    image.write_bytes(
        elf([Load(PSTART, code.ljust(DATA_OFFSET, b"\xcc") + struct.pack("<8I", *range(8)))], xen_notes())
    )
    return image
