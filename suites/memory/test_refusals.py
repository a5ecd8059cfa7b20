"""What Xen refuses, refused: small guests of our own commit it, and look at the error, the count, and what changed.

The tests are the folders of ``images/tests/refusals``, one a family of hypercalls; each variation is a boot, and each
check that it makes is a subtest.
"""

from __future__ import annotations

import pytest

from harness import small_guests
from harness.guests import Guest
from harness.small_guests import Variation
from stub.hypervisor.audit import audit

VARIATIONS = small_guests.find("refusals", small_guests.BOTH)


@pytest.mark.parametrize("variation", VARIATIONS, ids=lambda variation: variation.id)
def test_refusals(variation: Variation, guest: Guest, subtests: pytest.Subtests) -> None:
    """Each check of one boot, the result line at its end, and what must always hold of its memory."""
    running = small_guests.prepare(variation, guest)
    outcome = small_guests.finish(variation, running)
    with subtests.test("the audit finds nothing"):
        assert audit(running.machine.xen) == []
    small_guests.judge(variation, outcome, subtests)


def test_every_variation_has_a_name_of_its_own() -> None:
    """They are told apart by it."""
    assert len({variation.id for variation in VARIATIONS}) == len(VARIATIONS)
