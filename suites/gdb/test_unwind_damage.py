"""An unwind table that is damaged ends a backtrace; it never ends in an exception, nor goes on for ever."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from own_guest import build, symbols

from harness.unwind import MOST_FRAMES, Unwinder
from stub.image.elf import parse_elf, read_sections

STACK = 0x1000
NAMES = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{n}" for n in range(8, 16)), "rip")

Reader = Callable[[int, int], bytes]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged") / "kernel"


def stack_of(word: int) -> Reader:
    """Memory that holds the same word everywhere."""
    return lambda address, size: word.to_bytes(8, "little")[:size]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_bytes(place: Path, data: st.DataObject) -> None:
    content = bytearray(build().read_bytes())
    table = next(part for part in read_sections(parse_elf(memoryview(bytes(content)))) if part.name == ".debug_frame")
    for _ in range(data.draw(st.integers(0, 12))):
        content[table.offset + data.draw(st.integers(0, table.size - 1))] = data.draw(st.integers(0, 255))
    place.write_bytes(content)
    known = symbols()
    start = known[data.draw(st.sampled_from(["start", "power_off", "say", "run_sections"]))]
    registers = dict.fromkeys(NAMES, STACK) | {"rip": start + data.draw(st.integers(0, 64))}
    found = list(Unwinder(place).frames(registers, stack_of(data.draw(st.sampled_from([0, start, 1 << 63])))))
    assert 1 <= len(found) <= MOST_FRAMES
    assert found[0].place == registers["rip"]
