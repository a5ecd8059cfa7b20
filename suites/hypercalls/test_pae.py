"""The core of a 32-bit PAE guest as small guests of our own see it: frames, iret, ways in, halves of an entry.

The tests are the folders of ``images/tests/pae``, built for 32 bits only; each variation is a boot, each check of its
own a subtest.
"""

from __future__ import annotations

import pytest

from harness import small_guests
from harness.guests import Guest
from harness.small_guests import Variation
from suites.needs import each

VARIATIONS = small_guests.find("pae", [32])


@each(VARIATIONS)
def test_pae(variation: Variation, guest: Guest, subtests: pytest.Subtests) -> None:
    """Each check of one boot, and how it ends; no invariant of the frame table breaks meanwhile."""
    outcome = small_guests.run(variation, guest(audit=1))
    small_guests.judge(variation, outcome, subtests)
