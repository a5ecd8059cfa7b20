"""Stop points, watched memory and single steps: exact, and never seen by the guest."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from stub.domain.config import DomainConfig
from stub.engine.base import (
    R8,
    RAX,
    RBX,
    RCX,
    READS,
    RETIRED,
    RFLAGS,
    RIP,
    STEP,
    WATCH_SIZE,
    WRITES,
    Watch,
)
from stub.hypervisor import debugregs
from stub.machine import Machine
from stub.units import PAGE_SIZE
from suites.boot.small_guest import CODE, DATA_OFFSET, SPIN, kernel, shutdown

DATA = CODE + DATA_OFFSET
TF = 0x100
NOP = b"\x90"
FLAGS = 0x202
WATCHES = pytest.mark.pv_needs("watches")


def mov(register: int, value: int) -> bytes:
    """``mov $value, %register``; one of the first eight."""
    return bytes([0x48, 0xB8 | register]) + struct.pack("<Q", value)


class Onlooker:
    """Stops everywhere it is asked, and keeps what it saw."""

    def __init__(self, made: Machine) -> None:
        self.made = made
        self.places: list[int] = []
        self.accesses: list[tuple[int, int, bool]] = []
        self.stops = True
        made.xen.stops.onlooker = self

    def at_stop_point(self) -> bool:
        self.places.append(self.made.xen.words[RIP])
        return self.stops

    def accessed(self, address: int, size: int, write: bool) -> bool:
        self.accesses.append((address, size, write))
        return self.stops

    def want(self, code: list[int], data: list[Watch]) -> None:
        """Tell the engine."""
        self.made.xen.stops.for_onlooker(code, data)


Boot = Callable[[bytes], Machine]


@pytest.fixture
def boot(tmp_path: Path) -> Iterator[Boot]:
    """Machines that run some code, and stand before their first instruction."""
    with ExitStack() as machines:

        def make(code: bytes) -> Machine:
            made = machines.enter_context(Machine(DomainConfig(kernel=kernel(tmp_path, code), memory=32)))
            looking = Onlooker(made)
            looking.want([CODE], [])
            made.turn()
            assert made.xen.words[RIP] == CODE
            looking.want([], [])
            return made

        yield make


def looking(made: Machine) -> Onlooker:
    """Its onlooker."""
    found = made.xen.stops.onlooker
    assert isinstance(found, Onlooker)
    found.places.clear()
    return found


# -- stop points


def test_stops_before_each_instruction_asked_for_in_the_middle_of_a_block(boot: Boot) -> None:
    made = boot(NOP * 40 + SPIN)
    eye = looking(made)
    eye.want([CODE + 7, CODE + 8, CODE + 31], [])
    for place in (7, 8, 31):
        made.turn()
        assert made.xen.words[RIP] == CODE + place
    assert eye.places == [CODE + 7, CODE + 8, CODE + 31]


def test_ten_thousand_stop_points_and_the_one_that_is_reached(boot: Boot) -> None:
    made = boot(NOP * 1000 + SPIN)
    eye = looking(made)
    eye.want([CODE + 999, *range(CODE + (1 << 20), CODE + (1 << 20) + 10_000)], [])
    made.turn()
    assert made.xen.words[RIP] == CODE + 999


def test_a_stop_point_set_where_code_was_run_already(boot: Boot) -> None:
    made = boot(NOP * 10 + b"\xeb\xf4")  # a loop
    eye = looking(made)
    made.turn(instructions=1000)
    eye.want([CODE + 5], [])
    before = made.retired
    made.turn()
    assert made.xen.words[RIP] == CODE + 5
    assert 0 < made.retired - before <= 11
    made.turn()  # once round
    assert made.xen.words[RIP] == CODE + 5
    eye.want([], [])
    eye.places.clear()
    made.turn(instructions=1000)
    assert eye.places == []


def test_each_iteration_of_a_repeated_instruction_is_a_stop(boot: Boot) -> None:
    made = boot(mov(1, 5) + mov(7, DATA + 64) + b"\xf3\xaa" + SPIN)  # mov $5, %rcx; rep stosb
    eye = looking(made)
    eye.want([CODE + 20], [])
    left = []
    while not left or left[-1] > 1:
        made.turn()
        left.append(made.xen.words[RCX])
    assert left == [5, 4, 3, 2, 1]


# -- steps


def test_a_step_is_one_instruction_and_one_count(boot: Boot) -> None:
    made = boot(NOP * 3 + mov(0, 7) + b"\xeb\x00" + b"\x0f\xa2" + b"\x0f\x31" + NOP + SPIN)  # jmp +0; cpuid; rdtsc
    at = []
    for _ in range(9):
        before = made.xen.words[RETIRED]
        assert made.xen.step()
        assert made.xen.words[RETIRED] == before + 1
        at.append(made.xen.words[RIP] - CODE)
    assert at == [1, 2, 3, 13, 15, 17, 19, 20, 20]


def test_the_guest_reads_and_loads_its_own_trap_flag(boot: Boot) -> None:
    # pushf; pop %rax; pushf; popf; pushf; pop %rbx
    made = boot(b"\x9c\x58\x9c\x9d\x9c\x5b" + SPIN)
    for _ in range(6):
        assert made.xen.step()
    words = made.xen.words
    assert words[RAX] & TF == words[RBX] & TF == words[RFLAGS] & TF == 0
    assert words[RIP] == CODE + 6


def test_steps_and_stops_change_nothing_of_a_run(boot: Boot) -> None:
    code = mov(1, 3000) + mov(7, DATA + 64) + b"\xf3\xaa" + b"\x9c\x58\x0f\xa2\x0f\x31" + shutdown(0)

    def plain() -> tuple[int, str]:
        made = boot(code)
        made.run()
        return made.retired, made.log.digest()

    def stepped() -> tuple[int, str]:
        made = boot(code)
        while made.verdict is None:
            made.turn(act=made.xen.step)
        return made.retired, made.log.digest()

    assert plain() == stepped()


# -- watched memory

# mov $data, %rdi; mov (%rdi), %r8; add %al, 5(%rdi); movq %rax, 0xff8-off(%rdi)…
LOADS = mov(7, DATA) + b"\x4c\x8b\x07" + b"\x00\x47\x05" + b"\x48\x89\x47\x08" + SPIN


@pytest.mark.parametrize(
    ("watch", "access", "after"),
    [
        pytest.param(Watch(DATA, DATA, READS), (DATA, 8, False), 13, marks=WATCHES),
        pytest.param(Watch(DATA + 7, DATA + 7, READS | WRITES), (DATA, 8, False), 13, marks=WATCHES),
        (Watch(DATA + 5, DATA + 5, WRITES), (DATA + 5, 1, True), 16),
        pytest.param(Watch(DATA + 5, DATA + 5, READS), (DATA, 8, False), 13, marks=WATCHES),
        pytest.param(Watch(DATA + 15, DATA + 4096, WRITES), (DATA + 8, 8, True), 20, marks=WATCHES),
    ],
)
def test_stops_behind_the_access(boot: Boot, watch: Watch, access: tuple[int, int, bool], after: int) -> None:
    made = boot(LOADS)
    eye = looking(made)
    eye.want([], [watch])
    made.turn()
    assert eye.accesses == [access]
    assert made.xen.words[RIP] == CODE + after
    assert [made.xen.words[at] for at in (WATCH_SIZE, STEP)] == [0, 0]


@WATCHES
def test_other_accesses_to_the_page_do_not_stop(boot: Boot) -> None:
    made = boot(LOADS)
    eye = looking(made)
    eye.want([], [Watch(DATA + 64, DATA + 4095, READS | WRITES)])
    made.turn(instructions=1000)
    assert eye.accesses == []
    assert made.xen.words[R8] == int.from_bytes(struct.pack("<II", 0, 1), "little")


@WATCHES
def test_machine_memory_is_watched_whatever_reaches_it(boot: Boot) -> None:
    made = boot(LOADS)
    eye = looking(made)
    at = made.xen.domain.guest.locate(DATA)
    assert at % PAGE_SIZE == DATA % PAGE_SIZE
    eye.want([], [Watch(at + 8, at + 8, WRITES, machine=True)])
    made.turn()
    assert eye.accesses == [(DATA + 8, 8, True)]


@WATCHES
def test_each_write_of_a_repeated_instruction_stops(boot: Boot) -> None:
    made = boot(mov(1, 100) + mov(7, DATA + 64) + b"\xf3\xaa" + SPIN)
    eye = looking(made)
    eye.want([], [Watch(DATA + 64 + 50, DATA + 64 + 51, WRITES)])
    for place in (50, 51):
        made.turn()
        assert eye.accesses[-1] == (DATA + 64 + place, 1, True)
        assert made.xen.words[RCX] == 99 - place
    made.turn(instructions=1000)
    assert len(eye.accesses) == 2


@WATCHES
def test_watching_costs_no_count(boot: Boot) -> None:
    code = mov(1, 3000) + mov(7, DATA + 64) + b"\xf3\xaa" + shutdown(0)
    counts = []
    for watches in ([], [Watch(DATA + 64, DATA + 4096, READS | WRITES)]):
        made = boot(code)
        eye = looking(made)
        eye.stops = False
        eye.want([], watches)
        made.run()
        counts.append((made.retired, made.log.digest()))
        assert len(eye.accesses) == (3000 if watches else 0)
    assert counts[0] == counts[1]


def test_what_was_written_over_code_runs(boot: Boot) -> None:
    made = boot(NOP * 10 + b"\xeb\xf4")
    made.turn(instructions=1000)
    at = made.xen.domain.guest.locate(CODE + 10)
    made.xen.ram_bytes[at : at + 2] = SPIN
    made.xen.engine.flush_code(at, 2)
    made.turn(instructions=1000)
    assert made.xen.words[RIP] == CODE + 10


def test_extended_registers_there_and_back(boot: Boot) -> None:
    # fld1; fldpi; mov $data, %rdi; movq (%rdi), %xmm3
    made = boot(b"\xd9\xe8\xd9\xeb" + mov(7, DATA) + b"\xf3\x0f\x7e\x1f" + SPIN)
    for _ in range(5):
        made.xen.step()
    engine = made.xen.engine
    area = engine.read_extended()
    assert area[4] == 0b11000000
    assert area[32:42] == bytes.fromhex("35c26821a2da0fc90040")  # pi
    assert area[48:58] == bytes.fromhex("0000000000000080ff3f")  # 1
    assert area[160 + 48 : 160 + 56] == struct.pack("<II", 0, 1)
    changed = bytearray(area)
    changed[160:176] = bytes(range(16))
    engine.write_extended(bytes(changed))
    assert engine.read_extended() == bytes(changed)


@WATCHES
def test_two_groups_each_get_an_access_of_one_instruction(boot: Boot) -> None:
    # mov $data, %rsi; lea 64(%rsi), %rdi; movsq
    made = boot(mov(6, DATA) + b"\x48\x8d\x7e\x40\x48\xa5" + SPIN)
    made.xen.vcpu.debug[0], made.xen.vcpu.debug[7] = DATA + 64, 0x000D0001  # writes of 8 bytes
    debugregs.arm(made.xen)
    eye = looking(made)
    eye.want([], [Watch(DATA, DATA + 7, READS)])
    made.turn()
    assert eye.accesses == [(DATA, 8, False)]
    assert made.xen.vcpu.debug[6] & 1


# -- branches


@pytest.mark.pv_needs("branches")
def test_branches_that_were_taken_and_where_from(boot: Boot) -> None:
    loop = NOP * 3 + b"\xff\xc9" + b"\x75\xf9"  # three times nop, dec %ecx, jnz to the first
    code = mov(1, 4) + loop + b"\xe8\x01\0\0\0" + NOP + b"\xc3"  # the call goes over the nop to the ret
    made = boot(code + SPIN)
    engine = made.xen.engine
    first, behind = CODE + 10, CODE + 10 + len(loop)
    engine.keep_branches(4)
    eye = looking(made)
    eye.want([behind + 5], [])
    made.turn()
    assert made.xen.words[RIP] == behind + 5
    assert engine.branches() == [
        (behind, first),
        (behind, first),
        (behind + 5, behind + 6),
        (behind + 7, behind + 5),
    ]
    engine.keep_branches(0)
    assert engine.branches() == []


@pytest.mark.pv_needs("branches")
def test_keeping_branches_changes_no_count(boot: Boot) -> None:
    code = mov(1, 3000) + b"\xff\xc9" + b"\x75\xfc" + shutdown(0)
    counts = []
    for kept in (0, 7):
        made = boot(code)
        made.xen.engine.keep_branches(kept)
        made.run()
        counts.append((made.retired, made.log.digest(), made.now_ns))
        assert len(made.xen.engine.branches()) == kept
    assert counts[0] == counts[1]
