"""A 32-bit loader's tables translated into a 64-bit kernel's (images/tests/loaders/translate), entry by entry.

The guest says where both tables lie; the walker reads both formats, first as the guest wrote them, then as Xen keeps
what the CPU runs on.
"""

from __future__ import annotations

import re

import pytest

from harness import small_guests
from harness.guests import Guest
from harness.small_guests import Variation
from stub.hypervisor.audit import audit
from stub.memory import entries as e

TESTS = {variation.name: variation for variation in small_guests.find("loaders")}
SPAN, TOP, PAGE = 16 << 20, 0xFFFF_FFFF_0000_0000, 4096


@pytest.mark.parametrize("variation", TESTS.values(), ids=lambda variation: variation.id)
def test_translation(variation: Variation, guest: Guest, subtests: pytest.Subtests) -> None:
    running = small_guests.prepare(variation, guest)
    outcome = small_guests.finish(variation, running)
    with subtests.test("the audit finds nothing"):
        assert audit(running.machine.xen) == []
    small_guests.judge(variation, outcome, subtests)


def test_every_entry_has_its_twins(guest: Guest) -> None:
    running = small_guests.prepare(TESTS["mirror"], guest)
    console, tables = running.console, running.pagetables
    console.expect(r"translated: two levels at (0x\w+), four at (0x\w+)")
    old, new = f"legacy:{console.match[1]}", f"raw:{console.match[2]}"
    before = tables.snapshot(old, new)
    assert tables.table_census(old, of=before) == {2: 1, 1: 4}
    assert tables.table_census(new, of=before) == {4: 1, 3: 2, 2: 2, 1: 16}
    assert tables.page_census(old, of=before) == {PAGE: SPAN // PAGE - 1}
    assert tables.page_census(new, of=before) == {PAGE: 2 * (SPAN // PAGE - 1)}
    check_translation(running, old, new, before)

    console.expect(r"entered: four at (0x\w+)")
    assert f"raw:{console.match[1]}" == new
    after = tables.snapshot(old)
    assert after.root().maddr == int(console.match[1], 16)
    check_translation(running, old, "", after)
    kernel = tables.space("", of=after)
    assert kernel.walk(TOP + PAGE).steps[0].slot == 511
    assert kernel.walk(TOP + PAGE).steps[-1].entry & e.GUEST_KERNEL, "Xen's mark, which no 32-bit entry has"


def check_translation(running: Guest, old: str, new: str, of: object) -> None:
    """Identity from 0x1000 on in both tables, page 0 in none, and frame and rights of all three alike."""
    tables = running.pagetables
    one, two = (tables.space(root, of=of) for root in (old, new))  # type: ignore[arg-type]
    for space in (one, two):
        tables.assert_unmapped(0, of=space)
        tables.assert_identity(PAGE, SPAN - PAGE, of=space)
    tables.assert_unmapped(SPAN, SPAN, of=one)
    tables.assert_unmapped(TOP, of=two)
    tables.assert_mirrored(0, TOP, SPAN, of=two)
    tables.assert_mirrored(0, 0, SPAN, of=one, other=two)
    tables.assert_mirrored(0, TOP, SPAN, of=one, other=two)
    read_only = sum(page.size for page in one.ranges() if re.search("r-", page.access)) // PAGE
    assert 21 <= read_only < 64, "all tables, and nothing else"


def test_a_wrong_twin_is_found(guest: Guest) -> None:
    """The same assertion, one entry spoilt behind the guest's back: it names the first address that differs."""
    running = small_guests.prepare(TESTS["mirror"], guest)
    running.console.expect(r"translated: two levels at (0x\w+), four at (0x\w+)")
    new = f"raw:{running.console.match[2]}"
    space = running.pagetables.space(new)
    step = space.walk(TOP + 0x123000).steps[-1]
    running.machine.xen.domain.ram.table[step.table, step.slot] ^= 1 << 12
    with pytest.raises(AssertionError, match="1 of 4096 pages differ from their twins; the first is 0x123000"):
        running.pagetables.assert_mirrored(0, TOP, SPAN, root=new)
