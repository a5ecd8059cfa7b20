"""What hypercalls do, family by family, as small guests of our own see it; what they refuse is in suites/memory.

The tests are the folders of ``images/tests/families``; each variation is a boot, each check of its own a subtest.
"""

from __future__ import annotations

import pytest

from harness import small_guests
from harness.guests import Guest
from harness.small_guests import Variation
from stub.trace.records import HypercallRecord

VARIATIONS = small_guests.find("families", small_guests.BOTH)


@pytest.mark.parametrize("variation", VARIATIONS, ids=lambda variation: variation.id)
def test_families(variation: Variation, guest: Guest, subtests: pytest.Subtests) -> None:
    """Each check of one boot, and the result line at its end; no invariant of the frame table breaks meanwhile."""
    outcome = small_guests.run(variation, guest(audit=1))
    small_guests.judge(variation, outcome, subtests)


@pytest.mark.parametrize(
    ("test", "variation", "call", "note"),
    [
        ("multicall", "order", "update_va_mapping", "there is no l1 table for 0x"),
        ("answers", "features", "xen_version", "there is no submap 1 of features"),
        ("answers", "hvm_op", "hvm_op", "guest address 0x0 is not mapped"),
        ("interrupts", "eoi_page", "physdev_op", "is in use as a page table (l4)"),
        ("entry-points", "long_table", "set_trap_table", "is not canonical"),
        ("time", "periodic", "vcpu_op", "a period of 999999 ns is shorter than 1000000 or too long"),
    ],
)
def test_the_log_says_what_a_call_broke(test: str, variation: str, call: str, note: str, guest: Guest) -> None:
    """Each call that was refused has a note in plain words, in a multicall as well."""
    folder = next(known.folder for known in VARIATIONS if known.folder.name == test)
    running = guest(small_guests.build(folder), memory=small_guests.MEMORY, cmdline=variation)
    running.wait("poweroff")
    refused = [found for found in running.hypercalls.select(f"{call} rc<0") if isinstance(found, HypercallRecord)]
    assert refused
    assert all(found.note for found in refused)
    assert note in str(refused[0].note)
