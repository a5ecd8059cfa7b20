"""grant_table_op, from small guests of our own that grant pages to themselves, with the books audited at each call.

The tests are the folders of ``images/tests/grant-table``; each variation is a boot, each check of its own a subtest.
"""

from __future__ import annotations

import pytest

from harness import small_guests
from harness.guests import Guest
from harness.small_guests import Variation
from stub.trace.records import HypercallRecord

VARIATIONS = small_guests.find("grant-table")


@pytest.mark.parametrize("variation", VARIATIONS, ids=lambda variation: variation.id)
def test_grant_table(variation: Variation, guest: Guest, subtests: pytest.Subtests) -> None:
    """Each check of one boot, and the result line at its end; no invariant of the frame table breaks meanwhile."""
    outcome = small_guests.run(variation, guest(audit=1))
    for check in outcome.checks:
        with subtests.test(check.name):
            assert check.reason is None, f"{check.name}: {check.reason}"
    assert small_guests.verdict_of(variation, outcome) is None


def test_the_log_says_what_an_element_broke(guest: Guest) -> None:
    """The call's own result is 0: the first element that is refused is named in its note."""
    running = guest(small_guests.build(VARIATIONS[0].folder), memory=small_guests.MEMORY, cmdline="map_list")
    running.wait("poweroff")
    calls = [call for call in running.hypercalls.select("grant_table_op") if isinstance(call, HypercallRecord)]
    notes = [call.note for call in calls if call.note is not None]
    assert notes[0] == ("element 1, GNTST_general_error: grant 0x9 has flags 0x0 for domain 0: no access for domain 1")
    assert notes[1].startswith("element 1, GNTST_general_error: l1e 0x0 for 0x")
    assert notes[2].startswith("guest address 0x")
    assert all(call.note is not None for call in calls if call.failed)
