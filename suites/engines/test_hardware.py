"""Where a TCG CPU could differ from hardware, by a few instructions of a guest without handlers: what ends it, where.

What an engine is known to lack (docs/engines.md) is an expected failure, by name; one that begins to work must be taken
off. Rows that take a whole kernel are in suites/userspace.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

import pytest

from stub.abi.xen import Hypercall
from stub.domain.config import ENGINES, DomainConfig
from stub.engine.base import RBX, RIP
from stub.machine import Machine
from stub.units import PAGE_SIZE
from suites.boot.small_guest import CODE, DATA_OFFSET, UD2, call, kernel, set_xcr0

NOT_CANONICAL = struct.pack("<Q", 1 << 63)
CR4_FSGSBASE = b"\x0f\x20\xe0\x0d\x00\x00\x01\x00\x0f\x22\xe0"  # mov %cr4, %rax; or $1<<16, %eax; mov %rax, %cr4
RAX_NOT_CANONICAL = b"\x48\xb8" + NOT_CANONICAL
CODE_SELECTOR = 0xE033


def _rdi(offset: int) -> bytes:
    return b"\x48\xbf" + struct.pack("<Q", CODE + offset)


# A guest's data breakpoint on the selector that SS is loaded from: what it stands for is held back by one instruction.
WATCHED = DATA_OFFSET + 0x40
READS_2_BYTES = 1 | 3 << 16 | 1 << 18  # DR7
WATCHED_MOV_SS = (
    _rdi(WATCHED)
    + b"\x66\xc7\x07\x2b\xe0"  # movw $0xe02b, (%rdi)
    + call(Hypercall.set_debugreg, 0, CODE + WATCHED)
    + call(Hypercall.set_debugreg, 7, READS_2_BYTES)
    + _rdi(WATCHED)
    + b"\x8e\x17\x90"  # mov (%rdi), %ss; nop
)


AVX = set_xcr0(7)
TASK_SWITCHED = call(Hypercall.fpu_taskswitch, 1)
XSAVE_RDI = b"\x48\x0f\xae\x27"


class Row(NamedTuple):
    """``code``, the trap that ends it on hardware, at which of its bytes; ``without``: what the CPU does not have."""

    code: bytes
    trap: str
    at: int
    without: tuple[str, ...] = ()


ROWS = {
    "push to a non-canonical stack": Row(b"\x48\xbc" + NOT_CANONICAL + b"\x50", "#SS[0000]", 10),
    "a non-canonical address by rbp": Row(b"\x48\xbd" + NOT_CANONICAL + b"\x48\x8b\x45\x00", "#SS[0000]", 10),
    "a non-canonical address": Row(RAX_NOT_CANONICAL + b"\x48\x8b\x00", "#GP[0000]", 10),
    "wrfsbase of what is not canonical": Row(
        CR4_FSGSBASE + RAX_NOT_CANONICAL + b"\xf3\x48\x0f\xae\xd0", "#GP[0000]", 21
    ),
    "wrgsbase of what is not canonical": Row(
        CR4_FSGSBASE + RAX_NOT_CANONICAL + b"\xf3\x48\x0f\xae\xd8", "#GP[0000]", 21
    ),
    "movaps of a misaligned address": Row(_rdi(DATA_OFFSET + 1) + b"\x0f\x28\x07", "#GP[0000]", 10),
    "int n through a closed gate": Row(b"\xcd\x41", "#GP[020a]", 0),
    "int1": Row(b"\xf1", "#DB[0000]", 1),
    "a data breakpoint of mov ss": Row(WATCHED_MOV_SS + b"\x90", "#DB[0000]", len(WATCHED_MOV_SS)),
    "rdrand that is not offered": Row(b"\x48\x0f\xc7\xf0", "#UD[0000]", 0),
    "xgetbv without XSAVE": Row(b"\x31\xc9\x0f\x01\xd0", "#UD[0000]", 2, ("xsave",)),
    "vaddps without XSAVE": Row(b"\xc5\xf8\x58\xc0", "#UD[0000]", 0, ("xsave",)),
    "x87 division by zero, unmasked": Row(
        b"\xdb\xe3\x68\x40\x03\x00\x00\xd9\x2c\x24\xd9\xe8\xd9\xee\xde\xf9\x9b", "#MF[0000]", 16
    ),
    # An AMD processor takes 32 bits of offset whatever REX.W says, so that the selector is the upper half of this one.
    "a far call with REX.W, on AMD": Row(
        (_rdi(0x100) + b"\x48\xff\x1f").ljust(0x100, b"\xcc") + struct.pack("<QH", CODE + 10, CODE_SELECTOR),
        "#GP[fffc]",
        10,
    ),
}

# The same where the CPU has AVX.
AVX_ROWS = {
    "vaddps without XCR0's bit": Row(set_xcr0(3) + b"\xc5\xfc\x58\xc0", "#UD[0000]", 20),
    "vaddps with CR0.TS": Row(AVX + TASK_SWITCHED + b"\xc5\xfc\x58\xc0", "#NM[0000]", len(AVX + TASK_SWITCHED)),
    "xsave with CR0.TS": Row(
        _rdi(DATA_OFFSET) + AVX + TASK_SWITCHED + _rdi(DATA_OFFSET) + XSAVE_RDI, "#NM[0000]", 40 + len(TASK_SWITCHED)
    ),
    "xsave of a misaligned address": Row(_rdi(DATA_OFFSET + 8) + AVX + XSAVE_RDI, "#GP[0000]", 30),
    "vmovaps of a misaligned address": Row(_rdi(DATA_OFFSET + 16) + AVX + b"\xc5\xfc\x28\x07", "#GP[0000]", 30),
    "vmovups of a misaligned address": Row(_rdi(DATA_OFFSET + 1) + AVX + b"\xc5\xfc\x10\x07\xf4", "#GP[0000]", 34),
    "a VEX prefix behind 66": Row(AVX + b"\x66\xc5\xfc\x58\xc0", "#UD[0000]", 20),
    "vsqrtps with a third operand": Row(AVX + b"\xc5\xf4\x51\xc0", "#UD[0000]", 20),
    "xsaves, which is not offered": Row(_rdi(DATA_OFFSET) + AVX + b"\x48\x0f\xc7\x2f", "#UD[0000]", 30),
    "xsavec, which is not offered": Row(_rdi(DATA_OFFSET) + AVX + b"\x48\x0f\xc7\x27", "#UD[0000]", 30),
    "rdpkru, which is not offered": Row(AVX + b"\x0f\x01\xee", "#UD[0000]", 20),
}
LACKS = {
    "unicorn": {
        "wrfsbase of what is not canonical": "TCG does not look",
        "wrgsbase of what is not canonical": "TCG does not look",
        "movaps of a misaligned address": "TCG 5.0 does not look",
        "vaddps without XSAVE": "TCG 5.0 runs it as addps",
        "a far call with REX.W, on AMD": "TCG does as Intel's",
    },
    "qemu": {
        "xsave with CR0.TS": "TCG does not look",
        "a data breakpoint of mov ss": "TCG does not hold it back",
        "wrfsbase of what is not canonical": "TCG does not look",
        "wrgsbase of what is not canonical": "TCG does not look",
        "a far call with REX.W, on AMD": "TCG does as Intel's",
    },
}


def expect(name: str, engine: str, right: bool) -> None:
    """It is as on hardware, or known not to be."""
    why = LACKS[engine].get(name)
    if why is None:
        assert right
        return
    assert not right, f"{name} works on {engine} now: take it off the list of what that engine lacks"
    pytest.xfail(why)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ROWS)
def test_it_traps_as_on_hardware(name: str, engine: str, tmp_path: Path) -> None:
    _check(name, ROWS[name], engine, tmp_path)


@pytest.mark.parametrize("name", AVX_ROWS)
def test_it_traps_as_on_hardware_with_avx(name: str, tmp_path: Path) -> None:
    _check(name, AVX_ROWS[name], "qemu", tmp_path)


def _check(name: str, row: Row, engine: str, folder: Path) -> None:
    image = kernel(folder, row.code + UD2)
    with Machine(DomainConfig(kernel=image, memory=32, engine=engine, without=row.without)) as guest:
        verdict = guest.run(deadline_ns=1_000_000)
        assert verdict is not None
        expect(name, engine, row.trap in verdict.reason and guest.xen.words[RIP] == CODE + row.at)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_block_into_a_page_that_is_not_there(engine: str, tmp_path: Path) -> None:
    """An instruction that ends where the mapping does is run before the fault comes."""
    with Machine(DomainConfig(kernel=kernel(tmp_path, UD2), memory=32)) as guest:
        end = next(
            at for at in range(CODE, CODE + (8 << 20), PAGE_SIZE) if not guest.xen.domain.guest.read_available(at, 1)
        )
    # xor %ebx, %ebx; inc %rbx is put before the end: movw, movb; jmp there
    code = b"\x31\xdb\x48\xbf" + struct.pack("<Q", end - 3) + b"\x66\xc7\x07\x48\xff\xc6\x47\x02\xc3\xff\xe7"
    with Machine(DomainConfig(kernel=kernel(tmp_path, code), memory=32, engine=engine)) as guest:
        verdict = guest.run(deadline_ns=1_000_000)
        assert verdict is not None
        assert "#PF[0010]" in verdict.reason
        right = guest.xen.words[RIP] == end and guest.xen.words[RBX] == 1
        expect("a block into a page that is not there", engine, right)
