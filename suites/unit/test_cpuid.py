"""The table of CPUID leaves is one, however it is asked: by Python or by the reflex that has it as rows."""

from __future__ import annotations

import struct

import pytest

from stub.hypervisor import cpuid

ROW = struct.Struct("<7I")
SUBLEAVES = 0, 1, 2, 3, 0xFFFF_FFFF


@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("leaf", [*cpuid.LEAVES, 0x2, 0x4, 0xD, 0x4000_0004, 0x8000_0007])
def test_a_row_says_what_python_answers(leaf: int, compat: bool) -> None:
    """Where no row fits, Python is asked."""
    table = cpuid.rows(compat)
    rows = [ROW.unpack_from(table, at) for at in range(0, len(table), ROW.size)]
    for subleaf in SUBLEAVES:
        fitting = [row[3:] for row in rows if row[0] == leaf and (row[2] or row[1] == subleaf)]
        assert fitting in ([], [cpuid.answer(leaf, subleaf, compat)])
        if not fitting:
            assert cpuid.answer(leaf, subleaf, compat) == (0, 0, 0, 0)


def test_a_32_bit_guest_is_not_shown_long_mode() -> None:
    """Nor what there is in long mode alone: CX16 and LAHF."""
    for leaf, hidden in ((0x1, (0, 0, 1 << 13, 0)), (0x8000_0001, (0, 0, 1, 1 << 29))):
        wide, narrow = cpuid.answer(leaf, 0), cpuid.answer(leaf, 0, True)
        assert tuple(a ^ b for a, b in zip(wide, narrow, strict=True)) == hidden
