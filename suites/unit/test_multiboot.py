"""A ramdisk of multiboot modules is what GNU Mach walks: a table with an end, each entry's string and content."""

from __future__ import annotations

import struct

import pytest

from harness import multiboot


@pytest.mark.parametrize(
    "modules", [{}, {"one": b""}, {"a $(task-create)": b"A" * 4096, "b": b"B" * 5000, "c" * 5000: b"C"}]
)
def test_what_is_packed_is_found(modules: dict[str, bytes]) -> None:
    data = multiboot.ramdisk(modules)
    found = {}
    for start, end, string, reserved in struct.iter_unpack("<4I", data[: len(data) & ~15]):
        if not start:
            break
        assert (start % 4096, reserved) == (0, 0)
        found[data[string : data.index(b"\0", string)].decode()] = data[start:end]
    assert found == modules
    assert len(data) % 4096 == 0
