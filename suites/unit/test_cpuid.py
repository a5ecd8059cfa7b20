"""The table of CPUID leaves is one, however it is asked: by Python or by the reflex that has it as rows. What an
engine's CPU has besides is offered with all that it needs, and follows the guest's CR4 and XCR0."""

from __future__ import annotations

import struct

import pytest

from stub.abi.cpufeatureset import FEATURES, remaining
from stub.abi.x86_defns import X86_CR4_OSXSAVE
from stub.engine.qemu.process import MORE_FEATURES
from stub.hypervisor.cpuid import LEAVES, Leaf, Policy

ROW = struct.Struct("<7I")
SUBLEAVES = 0, 1, 2, 3, 0xFFFF_FFFF
OSXSAVE = 1 << 27


def has_all(leaf: int, subleaf: int) -> Leaf:
    """A CPU with each feature that there is."""
    if (leaf, subleaf) == (0xD, 2):
        return 256, 576, 0, 0
    return 0xFFFF_FFFF, 0xFFFF_FFFF, 0xFFFF_FFFF, 0xFFFF_FFFF


@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("leaf", [*LEAVES, 0x2, 0x4, 0xD, 0x4000_0004, 0x8000_0007])
def test_a_row_says_what_python_answers(leaf: int, compat: bool, more: bool) -> None:
    """Where no row fits, Python is asked."""
    policy = Policy(compat, has_all) if more else Policy(compat)
    table = policy.rows()
    rows = [ROW.unpack_from(table, at) for at in range(0, len(table), ROW.size)]
    for subleaf in SUBLEAVES:
        fitting = [row[3:] for row in rows if row[0] == leaf and (row[2] or row[1] == subleaf)]
        assert fitting in ([], [policy.answer(leaf, subleaf)])
        if not fitting:
            assert policy.answer(leaf, subleaf) == (0, 0, 0, 0)


def test_a_32_bit_guest_is_not_shown_long_mode() -> None:
    """Nor what there is in long mode alone: CX16 and LAHF."""
    for leaf, hidden in ((0x1, (0, 0, 1 << 13, 0)), (0x8000_0001, (0, 0, 1, 1 << 29))):
        wide, narrow = Policy().answer(leaf, 0), Policy(True).answer(leaf, 0)
        assert tuple(a ^ b for a, b in zip(wide, narrow, strict=True)) == hidden


def test_a_feature_goes_with_what_it_needs() -> None:
    assert remaining(()) == tuple(FEATURES)
    assert remaining(FEATURES) == ()
    assert set(FEATURES) - set(remaining(("avx",))) == {"avx", "avx2", "fma", "f16c", "vaes"}
    assert set(remaining(("xsave",))) == {"clwb", "3dnow", "3dnowext"}
    assert "3dnowext" not in remaining(("3dnow",))


def test_the_qemu_engine_asks_for_features_that_there_are() -> None:
    assert set(MORE_FEATURES) == set(FEATURES)


@pytest.mark.parametrize("name", FEATURES)
def test_what_the_domain_is_to_be_without_is_not_shown(name: str) -> None:
    row = FEATURES[name]
    assert Policy(False, has_all).answer(row.leaf, row.subleaf)[row.register] >> row.bit & 1
    assert not Policy(False, has_all, (name,)).answer(row.leaf, row.subleaf)[row.register] >> row.bit & 1
    assert not Policy().answer(row.leaf, row.subleaf)[row.register] >> row.bit & 1


def test_without_xsave_there_is_no_xcr0() -> None:
    for policy in (Policy(), Policy(False, has_all, ("xsave",))):
        policy.follow(X86_CR4_OSXSAVE, 7)
        assert policy.xcr0_max == 0
        assert not policy.answer(1, 0)[2] & OSXSAVE
        assert policy.answer_to_kernel(1, 0) == policy.answer(1, 0)
        assert policy.answer(0xD, 0) == (0, 0, 0, 0)


def test_cpuid_follows_cr4_and_xcr0() -> None:
    policy = Policy(False, has_all)
    assert policy.xcr0_max == 7
    policy.follow(0, 3)
    assert not policy.answer(1, 0)[2] & OSXSAVE
    assert policy.answer_to_kernel(1, 0)[2] & OSXSAVE, "Xen's own, by the prefix"
    assert policy.answer(0xD, 0) == (7, 576, 832, 0)
    policy.follow(X86_CR4_OSXSAVE, 7)
    assert policy.answer(1, 0)[2] & OSXSAVE
    assert policy.answer(0xD, 0) == (7, 832, 832, 0)
    assert policy.answer(0xD, 1) == (0b101, 0, 0, 0), "XSAVEOPT and XGETBV with ECX 1, but no compacted form"
    assert policy.answer(0xD, 2) == (256, 576, 0, 0)
    assert policy.answer(0xD, 3) == (0, 0, 0, 0)
    less = Policy(False, has_all, ("avx",))
    less.follow(X86_CR4_OSXSAVE, 3)
    assert less.xcr0_max == 3
    assert less.answer(0xD, 0) == (3, 576, 576, 0)
    assert less.answer(0xD, 2) == (0, 0, 0, 0)
