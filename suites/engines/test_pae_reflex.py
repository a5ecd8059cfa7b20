"""What a 32-bit guest's reflex does is what Python does: the same instructions, the same log (compat.c, compat.py)."""

from __future__ import annotations

import pytest

from harness import small_guests
from harness.small_guests import Variation
from stub.domain.config import DomainConfig
from stub.machine import Machine

CHOSEN = {
    "frames-from_user-32", "frames-alignment-32", "iret-ring1-32", "iret-dropped-32", "iret-selectors-32",
    "entries-syscall32-32", "failsafe-base-32", "halves-refused-32", "hidden-m2p-32",
}  # fmt: skip
VARIATIONS = [variation for variation in small_guests.find("pae", [32]) if variation.id in CHOSEN]


def run(variation: Variation, *, reflex: bool) -> tuple[str, int, str]:
    """How a variation ends, its instructions, its log."""
    kernel = small_guests.build(variation.folder, 32)
    with Machine(DomainConfig(kernel=kernel, memory=small_guests.MEMORY, cmdline=variation.name)) as made:
        made.xen.onlookers.see_all("this test", not reflex)
        return made.run().kind, made.retired, made.log.digest()


@pytest.mark.parametrize("variation", VARIATIONS, ids=lambda variation: variation.id)
def test_python_does_the_same(variation: Variation) -> None:
    """Traps, returns and faults, with the reflex and without."""
    assert len(VARIATIONS) == len(CHOSEN)
    assert run(variation, reflex=True) == run(variation, reflex=False)
