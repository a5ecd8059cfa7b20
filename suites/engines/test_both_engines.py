"""The same small guests on both engines: the same console and the same log, each byte and each time in them.

Every variation of ``images/tests`` that the suites use runs here, but for those that ask for what QEMU lacks.
"""

from __future__ import annotations

import re

import pytest

from harness import small_guests
from harness.guests import Guest
from harness.small_guests import Variation
from stub.abi.memory import XENMEM_current_reservation, XENMEM_maximum_ram_page
from stub.engine.base import RDI, Exit
from stub.engine.choice import lacks
from suites.engines.both import COMMON, first_difference, runs_the_same
from suites.needs import need_of

pytestmark = pytest.mark.pv_limits(memory=512)

GROUPS = ("event-channels", "families", "grant-table", "hostile", "loaders", "pae", "refusals", "traps", "xenstore")
WIDTHS = {"loaders": [64], "pae": [32]}
ENDLESS = "rounds"  # of the hostile guest, of whose seeds suites/robustness has hundreds


def variations() -> list[Variation]:
    """What runs on both."""
    found = [v for group in GROUPS for v in small_guests.find(group, WIDTHS.get(group, small_guests.BOTH))]
    return [v for v in found if v.folder.name != ENDLESS and need_of(v) not in lacks("qemu") | lacks("unicorn")]


def finished(variation: Variation, guest: Guest) -> Guest:
    """A guest that ran a variation to its end."""
    made = small_guests.prepare(variation, guest(cpuid=COMMON))
    small_guests.finish(variation, made)
    return made


@pytest.mark.parametrize("variation", variations(), ids=lambda v: f"{v.folder.parent.name}-{v.id}")
def test_a_small_guest_runs_the_same(variation: Variation, guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    runs_the_same(lambda: finished(variation, guest), monkeypatch)


def test_a_difference_is_told_with_all_that_leads_to_it(guest: Guest) -> None:
    """The number of the hypercall, its arguments on either side, and the guest's function: made up, by a hypervisor
    that sees another argument in one hypercall of the second guest."""
    (variation,) = (found for found in variations() if found.id == "multicall-order")
    ran = [small_guests.prepare(variation, guest(cpuid=COMMON)) for _ in range(2)]
    onlookers, words = ran[1].machine.xen.onlookers, ran[1].machine.xen.words
    seen = 0

    def falsify() -> None:
        nonlocal seen
        seen += 1
        if seen == 2:
            assert words[RDI] == XENMEM_maximum_ram_page
            words[RDI] = XENMEM_current_reservation
        onlookers.act(Exit.SYSCALL)

    onlookers.see_all(onlookers, True)
    onlookers.stand_in_front(Exit.SYSCALL, falsify)
    for made in ran:
        made.machine.run(deadline_ns=100_000_000)
        made.close()
    heading, *told = first_difference(ran).splitlines()
    assert heading == "the engines part behind 2 equal events:"
    assert re.fullmatch(
        r"unicorn: hypercall 2: memory_op:XENMEM_maximum_ram_page \[NULL\] = 0x\w+ at 0x\w+ kit_start\+0x\w+", told[0]
    )
    assert re.fullmatch(
        r"qemu: hypercall 2: memory_op:XENMEM_current_reservation .*= \S+ at 0x\w+ kit_start\+0x\w+", told[1]
    )
