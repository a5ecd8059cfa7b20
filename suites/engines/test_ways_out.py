"""Each instruction that may leave the guest does so alike on both engines: verdict, registers, instructions, time.

The guest handles nothing, so that what traps is its end, and says at which instruction that was.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from stub.abi.cpufeatureset import FEATURES
from stub.abi.physdev import PHYSDEVOP_set_iopl
from stub.abi.xen import UVMF_INVLPG, Hypercall
from stub.domain.config import DomainConfig
from stub.machine import Machine
from stub.units import PAGE_SIZE
from suites.boot.small_guest import CODE, SPIN, call, kernel, shutdown

LIMIT_NS = 10**7
NOPS = b"\x90\x90"
INSTRUCTIONS = {
    "in imm": "e480",
    "in dx": "ec",
    "in ax": "66ed",
    "in eax": "ed",
    "out imm": "e680",
    "out dx": "ee",
    "insb": "6c",
    "rep insb": "f36c",
    "outsb": "6e",
    "outsd": "6f",
    "hlt": "f4",
    "cli": "fa",
    "sti": "fb",
    "lgdt": "0f0110",
    "lidt": "0f0118",
    "sgdt": "0f0100",
    "sidt": "0f0108",
    "smsw": "0f01e0",
    "lmsw": "0f01f0",
    "lldt": "0f00d0",
    "ltr": "0f00d8",
    "sldt": "0f00c0",
    "str": "0f00c8",
    "verr": "0f00e0",
    "mov cr0": "0f20c0",
    "mov to cr0": "0f22c0",
    "mov cr2": "0f20d0",
    "mov cr3": "0f20d8",
    "mov to cr3 junk": "0f22d8",
    "mov cr4": "0f20e0",
    "mov to cr4": "0f22e0",
    "mov cr8": "440f20c0",
    "mov to cr8": "440f22c0",
    "mov cr1": "0f20c8",
    "mov dr7": "0f21f8",
    "mov to dr7": "0f23f8",
    "mov dr4": "0f21e0",
    "rdmsr": "0f32",
    "wrmsr": "0f30",
    "rdpmc": "0f33",
    "rdtsc": "0f31",
    "rdtscp": "0f01f9",
    "invlpg": "0f0138",
    "clts": "0f06",
    "swapgs": "0f01f8",
    "prefix syscall": "31c0490f05b8f1f1f1f1",
    "prefixes syscall": "31c06664490f05b8f1f1f1f1",
    "sysenter": "0f34",
    "sysexit": "0f35",
    "sysret": "0f07",
    "int3": "cc",
    "int 80": "cd80",
    "int 0": "cd00",
    "int 14": "cd0e",
    "int1": "f1",
    "prefix int 6": "66cd06",
    "prefix int1": "6448f1",
    "prefix rdpmc": "f30f33",
    "lock int 6": "f0cd06",
    "lock int1": "f0f1",
    "lock rdpmc": "f00f33",
    "lock wbinvd": "f00f09",
    "lock cli": "f0fa",
    "lock rdmsr": "f00f32",
    "lock mov cr0": "f00f20c0",
    "lock rdfsbase": "f0f3480faec0",
    "prefix ud2": "67480f0b",
    "ud2": "0f0b",
    "ud0": "0fff00",
    "ud1": "0fb900",
    "into": "ce",
    "cpuid forced": "0f0b78656e0fa2",
    "div0": "31c9f7f1",
    "idiv0": "31c948f7f9",
    "read fault": "488b042500100000",
    "write fault": "4889042500100000",
    "jump fault": "31c0ffe0",
    "call fault": "31c0ffd0",
    "store to no address": "48b80000000000008000488900",
    "jump to no address": "48b80000000000008000ffe0",
    "push to no address": "48bc000000000000800050",
    "push fault": "bc0010000050",
    "monitor": "0f01c8",
    "mwait": "0f01c9",
    "vmcall": "0f01c1",
    "vmmcall": "0f01d9",
    "rdrand": "0fc7f0",
    "rdseed": "0fc7f8",
    "xgetbv": "0f01d0",
    "xsetbv": "0f01d1",
    "prefix xsetbv": "67480f01d1",
    "lock xsetbv": "f00f01d1",
    "wbinvd": "0f09",
    "invd": "0f08",
    "iret": "48cf",
    "iretd": "cf",
    "retf": "cb",
    "popf": "9d",
    "pause": "f390",
    "rep movs fault": "b90a000000bf00100000be00100000f3a4",
    "rep stos fault": "b90a000000bf00100000f3aa",
    "clflush fault": "0fae3c2500100000",
    "fld fault": "d9042500100000",
    "mov ss null": "31c08ed0",
    "mov ds bad": "b8342100008ed8",
    "mov fs bad": "b8342100008ee0",
    "lock nop": "f090",
    "long nop": "0f1f00",
    "wrfsbase": "f3480faed0",
    "rdfsbase": "f3480faec0",
    "stac": "0f01cb",
    "clac": "0f01ca",
    "cmpxchg16b fault": "480fc70c2500100000",
    "ldmxcsr bad": "b8ffffffff500fae1424",
    "movaps misaligned": "488d6424f10f280424",
    "fwait": "9b",
    "invpcid": "660f388200",
    "lsl": "0f03c0",
    "lar": "0f02c0",
    "far jmp": "ff2c2500100000",
    "bound": "62",
    "arpl movsxd": "63c0",
    "prefetch": "0f1808",
    "vzeroupper": "c5f877",
    "xsave": "0fae20",
    "emms": "0f77",
    "getsec": "0f37",
    "rsm": "0faa",
    "skinit": "0f01de",
    "invlpga": "0f01df",
    "clgi": "0f01dd",
    "vmrun": "0f01d8",
    "enter fault": "bc00100000c8100000",
    "leave fault": "bd00100000c9",
    "ret fault": "bc00100000c3",
    "pushf fault": "bc001000009c",
    "2 in row": "e480e480",
    "cmov fault": "480f44042500100000",
    "xlat fault": "bb00100000d7",
    "lods": "be00100000ac",
    "cmpsb rep": "be00100000bf00100000b905000000f3a6",
    "store into the block behind": "c605030000009090909090",
    "store into the block before": "9090c605f6ffffff90909090",
    "c6 /2": "c61290",
    "16-bit call": "66e80079",
    "16-bit jmp": "66e90079",
    "vex jg": "c5f88f00000000",
    "store into itself": "c605ffffffff9090909090",
}
DIFFERENT = {
    "lock int 6": "TCG takes no notice of the lock; Unicorn's takes int 6 for undefined, as with the lock it is",
    "movaps misaligned": "Unicorn checks no alignment",
    "vzeroupper": "Unicorn runs it as emms, though its CPU has no AVX",
    "vex jg": "Unicorn runs it as jg",
    "c6 /2": "QEMU takes it for the mov that /0 is",
    "16-bit call": "QEMU keeps the upper bits of RIP",
    "16-bit jmp": "QEMU keeps the upper bits of RIP",
}


def end(folder: Path, code: bytes, engine: str) -> tuple[object, int, int, dict[str, int]]:
    """How a guest that runs ``code`` ends, its count of instructions, its time, its registers."""
    image = kernel(folder, NOPS + code + shutdown(0))
    with Machine(DomainConfig(kernel=image, memory=32, engine=engine, without=tuple(FEATURES))) as machine:
        verdict = machine.run(deadline_ns=LIMIT_NS)
        return verdict, machine.retired, machine.now_ns, machine.registers()


def _marked(name: str) -> Any:
    reason = DIFFERENT.get(name)
    return pytest.param(name, marks=pytest.mark.xfail(strict=True, reason=reason) if reason else ())


@pytest.mark.parametrize("name", [_marked(name) for name in INSTRUCTIONS])
def test_it_leaves_the_guest_alike(name: str, tmp_path: Path) -> None:
    code = bytes.fromhex(INSTRUCTIONS[name])
    one, other = (end(tmp_path, code, engine) for engine in ("unicorn", "qemu"))
    assert one[0] is not None
    assert one == other


def _string_io(instruction: str, place: int, count: int, prologue: bytes = b"") -> bytes:
    """``movabs $place, %rdi; movabs $place, %rsi; mov $count, %ecx; mov $0x80, %edx``, and the instruction."""
    loads = struct.pack("<2sQ2sQBIBI", b"\x48\xbf", place, b"\x48\xbe", place, 0xB9, count, 0xBA, 0x80)
    return prologue + loads + bytes.fromhex(instruction)


@pytest.mark.parametrize("place", ["data", "two pages", "nowhere", "itself", "before itself"])
@pytest.mark.parametrize(
    "instruction", ["f36c", "f36d", "f366 6d", "f36648 6d", "f34866 6d", "f36e", "f36f", "fdf36c", "fdf36f", "67f36c"]
)
def test_repeated_port_io(instruction: str, place: str, tmp_path: Path) -> None:
    """Time round by time round: over the end of a page, to where nothing is mapped, over its own code."""
    rights = struct.pack("<BBBBBBI", 0x6A, 3, 0x48, 0x89, 0xE6, 0xBF, PHYSDEVOP_set_iopl)  # push $3; mov %rsp,%rsi
    rights += struct.pack("<BI2s", 0xB8, Hypercall.physdev_op, b"\x0f\x05")
    own = CODE + len(NOPS) + len(_string_io("", 0, 0, rights))
    unmap = call(Hypercall.update_va_mapping, CODE + 2 * PAGE_SIZE, 0, UVMF_INVLPG)
    places = {
        "data": CODE + 0x900,
        "two pages": CODE + PAGE_SIZE - 7,
        "nowhere": CODE + 2 * PAGE_SIZE - 7,
        "itself": own + len(unmap),
        "before itself": own + len(unmap) - 7,
    }
    code = _string_io(instruction, places[place], 30, rights + unmap) + shutdown(0)
    one, other = (end(tmp_path, code, engine) for engine in ("unicorn", "qemu"))
    assert one == other


@pytest.mark.parametrize("before", [0, 3, 8])
def test_a_block_faults_where_it_runs_into_what_is_not_there(before: int, tmp_path: Path) -> None:
    behind = CODE + PAGE_SIZE
    unmap = call(Hypercall.update_va_mapping, behind, 0, UVMF_INVLPG)
    # movabs $nops,%rax; movabs %rax,there; movabs $there,%rax; jmp *%rax
    nops = struct.pack("<2sQ2sQ", b"\x48\xb8", 0x9090909090909090, b"\x48\xa3", behind - 8)
    jump = struct.pack("<2sQ2s", b"\x48\xb8", behind - before, b"\xff\xe0")
    one, other = (end(tmp_path, unmap + nops + jump, engine) for engine in ("unicorn", "qemu"))
    assert one[3]["rip"] == behind
    assert one == other


def test_a_deadline_comes_before_the_fault_of_what_was_jumped_to(tmp_path: Path) -> None:
    """It lies between two instructions, and the second is not fetched yet."""
    behind = CODE + PAGE_SIZE
    jump = struct.pack("<2sQ2s", b"\x48\xb8", behind, b"\xff\xe0")  # movabs $behind,%rax; jmp *%rax
    image = kernel(tmp_path, call(Hypercall.update_va_mapping, behind, 0, UVMF_INVLPG) + NOPS + jump)
    seen = []
    for engine in ("unicorn", "qemu"):
        with Machine(DomainConfig(kernel=image, memory=32, engine=engine)) as machine:
            stops = [(machine.run(deadline_ns=at), machine.retired, machine.registers()) for at in range(12)]
            seen.append([(verdict is None, retired, where["rip"]) for verdict, retired, where in stops])
    one, other = seen
    assert (True, one[-1][1], behind) in one
    assert not one[-1][0]
    assert one == other


@pytest.mark.parametrize(
    "code",
    [
        "9c58 489c58 f39c58 2e9c58 489d",
        "31c0 66480f8500000000",
        "31c0 660f850000",
        "50 669d 669c 58",
        "31c0 7400",
        "b903000000 e200",
        "8cd0 8ed0 9c58",
        "b905000000 488d7c2480 f3aa 9c58",
        "0fa2 0f31 0f01f9 9c58",
    ],
)
def test_a_deadline_in_code_without_a_jump(code: str, tmp_path: Path) -> None:
    """From it on the QEMU engine steps, which nobody is to see, not in what was pushed and not in where it ends."""
    stack = b"\x48\x83\xec\x40"  # sub $64,%rsp
    image = kernel(tmp_path, stack + bytes.fromhex(code) + NOPS + SPIN)
    seen = []
    for engine in ("unicorn", "qemu"):
        with Machine(DomainConfig(kernel=image, memory=32, engine=engine, without=tuple(FEATURES))) as machine:
            seen.append([(machine.run(deadline_ns=at), machine.retired, machine.registers()) for at in range(1, 40)])
    one, other = seen
    assert one == other


def test_a_deadline_at_a_jump_behind_a_load_of_the_stack_segment(tmp_path: Path) -> None:
    """The load holds the timer back, and yet the guest stops at that jump."""
    loop = bytes.fromhex("8ed0 eb01 90 9090 8ed0 8ed0 eb00 8ed0 8ed0 ebed")
    image = kernel(tmp_path, b"\x8c\xd0" + loop)  # mov %ss,%eax
    seen = []
    for engine in ("unicorn", "qemu"):
        with Machine(DomainConfig(kernel=image, memory=32, engine=engine)) as machine:
            stops = [(machine.run(deadline_ns=at), machine.retired, machine.registers()) for at in range(100, 2000, 37)]
            seen.append([(verdict is None, retired, where["rip"]) for verdict, retired, where in stops])
    one, other = seen
    assert all(went_on for went_on, _, _ in one)
    assert one == other
