"""The table of CPUID leaves is one, however it is asked: by Python or by the reflex that has it as rows."""

from __future__ import annotations

import struct

import pytest

from stub.hypervisor import cpuid

ROW = struct.Struct("<7I")
SUBLEAVES = 0, 1, 2, 3, 0xFFFF_FFFF


@pytest.mark.parametrize("leaf", [*cpuid.LEAVES, 0x2, 0x4, 0xD, 0x4000_0004, 0x8000_0007])
def test_a_row_says_what_python_answers(leaf: int) -> None:
    """Where no row fits, Python is asked."""
    rows = [ROW.unpack_from(cpuid.rows(), at) for at in range(0, len(cpuid.rows()), ROW.size)]
    for subleaf in SUBLEAVES:
        fitting = [row[3:] for row in rows if row[0] == leaf and (row[2] or row[1] == subleaf)]
        assert fitting in ([], [cpuid.answer(leaf, subleaf)])
        if not fitting:
            assert cpuid.answer(leaf, subleaf) == (0, 0, 0, 0)
