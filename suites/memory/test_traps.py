"""Traps to the letter: small guests of our own take them, and look at the frame, the flags, the codes, the masks.

The tests are the folders of ``images/tests/traps``; each variation is a boot, and each check that it makes a subtest.
Where Xen ends the domain instead, the reason is compared.
"""

from __future__ import annotations

import pytest

from harness import small_guests
from harness.guests import Guest
from harness.small_guests import Variation
from suites.needs import each

VARIATIONS = small_guests.find("traps", small_guests.BOTH)


@each(VARIATIONS)
def test_traps(variation: Variation, guest: Guest, subtests: pytest.Subtests) -> None:
    """Each check of one boot, and the result line or the crash at its end."""
    outcome = small_guests.run(variation, guest)
    small_guests.judge(variation, outcome, subtests)
