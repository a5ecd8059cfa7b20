"""The engine counts every instruction once, however the code is cut into blocks and wherever it was stopped."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from stub.domain.config import DomainConfig
from stub.engine.base import RAX, RDX
from stub.engine.unicorn import _core
from stub.machine import Machine
from suites.boot.small_guest import UD2, kernel, shutdown

LOOPS = 1000
# mov $n, %ecx; 1: add %ecx, %eax; test $1, %cl; jz 2f; inc %rbx; 2: dec %ecx; jnz 1b
LOOP = b"\xb9" + struct.pack("<I", LOOPS) + b"\x01\xc8\xf6\xc1\x01\x74\x03\x48\xff\xc3\xff\xc9\x75\xf2"
LOOP_LENGTH = 1 + LOOPS * 5 + LOOPS // 2
REPEATED = b"\xb9\x40\x00\x00\x00\x48\x89\xe7\x48\x81\xef\x00\x02\x00\x00\x31\xc0\xf3\x48\xab"  # rep stosq, 64 times
RDTSC = b"\x0f\x31"
SHUTDOWN_LENGTH = 4  # three loads and the syscall, which retires
ENTRY = 1  # the iretq that enters the guest


def machine(folder: Path, code: bytes) -> Machine:
    """A small guest that runs ``code`` and powers off."""
    return Machine(DomainConfig(kernel=kernel(folder, code + shutdown(0)), memory=32))


@pytest.fixture(params=["inline", "call"], autouse=True)
def counted(request: pytest.FixtureRequest) -> Iterator[None]:
    """Both ways to count: in translated code, and by the hook that is left where libunicorn is another version."""
    _core.allow_inline(request.param == "inline")
    yield
    _core.allow_inline(True)


def test_a_loop_retires_what_it_has(tmp_path: Path) -> None:
    with machine(tmp_path, LOOP) as guest:
        assert guest.run() is not None
        assert guest.retired == ENTRY + LOOP_LENGTH + SHUTDOWN_LENGTH


def test_a_repeated_instruction_counts_each_time_round(tmp_path: Path) -> None:
    with machine(tmp_path, REPEATED) as guest:
        assert guest.run() is not None
        assert guest.retired == ENTRY + 4 + 64 + 1 + SHUTDOWN_LENGTH, "and once more to find that it is done"


@pytest.mark.parametrize("step", [1, 7, 100, 1009])
def test_stops_change_nothing(tmp_path: Path, step: int) -> None:
    """A run in many pieces retires and reads the time as a run in one."""
    code = LOOP + RDTSC + LOOP
    with machine(tmp_path, code) as whole, machine(tmp_path, code) as pieces:
        whole.run()
        stops = 0
        while pieces.run(deadline_ns=pieces.now_ns + step) is None:
            stops += 1
        assert stops > 1
        assert pieces.retired == whole.retired
        assert pieces.registers() == whole.registers()
        assert pieces.log.digest() == whole.log.digest()


def test_a_stop_is_at_the_first_taken_jump(tmp_path: Path) -> None:
    """At or after the deadline, at a place that the instructions alone decide."""
    with machine(tmp_path, LOOP) as guest:
        for deadline in range(10, 200, 13):
            guest.run(deadline_ns=deadline)
            assert deadline <= guest.retired <= deadline + 12, "two turns of the loop at most"


def test_rdtsc_reads_the_exact_count(tmp_path: Path) -> None:
    with machine(tmp_path, LOOP + b"\x90\x90\x90" + RDTSC + UD2) as guest:
        guest.run()
        assert guest.xen.words[RDX] << 32 | guest.xen.words[RAX] == ENTRY + LOOP_LENGTH + 3


def test_rdrand_is_undefined(tmp_path: Path) -> None:
    """It would give the host's random numbers, and a boot is a pure function."""
    with machine(tmp_path, b"\x90\x48\x0f\xc7\xf0") as guest:
        verdict = guest.run()
        assert verdict is not None
        assert verdict.reason.startswith("Unhandled: vec 6, #UD")
        assert guest.retired == ENTRY + 1


def test_an_exception_counts_what_lay_before_it(tmp_path: Path) -> None:
    with machine(tmp_path, b"\x90" * 5 + UD2) as guest:
        assert guest.run() is not None
        assert guest.retired == ENTRY + 5


def test_two_guests_in_turn_keep_their_counts(tmp_path: Path) -> None:
    with machine(tmp_path, LOOP) as first, machine(tmp_path, LOOP + LOOP) as second:
        while first.verdict is None or second.verdict is None:
            first.run(deadline_ns=first.now_ns + 100)
            second.run(deadline_ns=second.now_ns + 150)
        assert first.retired == ENTRY + LOOP_LENGTH + SHUTDOWN_LENGTH
        assert second.retired == ENTRY + 2 * LOOP_LENGTH + SHUTDOWN_LENGTH
