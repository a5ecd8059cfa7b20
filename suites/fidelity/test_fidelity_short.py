"""GRUB and GNU Mach: short boots, compared with their recordings whole."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from suites.fidelity.allowed import SHORT, unexplained, unused
from suites.fidelity.compare import compare_whole
from suites.fidelity.events import Event
from suites.fidelity.recording import GNUMACH, GRUB, Recording

PAGE = Path(__file__).parents[2] / "docs" / "fidelity.md"


@pytest.mark.parametrize(("recorded", "events"), [(GRUB, 222), (GNUMACH, 679)], ids=lambda value: str(value)[:24])
def test_every_event_is_the_recorded_one(
    recorded: Recording, events: int, boot: Callable[[Recording], list[Event]]
) -> None:
    ours = boot(recorded)
    differences = compare_whole(recorded.read(), ours)
    assert unexplained(differences, SHORT[recorded.image]) == []
    assert unused(differences, SHORT[recorded.image]) == []
    assert len(ours) == events


def test_the_page_lists_exactly_these_differences() -> None:
    table = re.search(r"\| GRUB's difference \| reason \|\n\| --- \| --- \|\n((?:\|.*\|\n)+)", PAGE.read_text())
    assert table is not None
    rows = [tuple(cell.strip() for cell in line.strip("|\n").split(" | ")) for line in table[1].splitlines()]
    assert rows == [(row.what, row.why) for row in SHORT[GRUB.image]]
    assert not SHORT[GNUMACH.image]


def _changed(event: Event, **changes: tuple[str, ...]) -> Callable[[list[Event]], None]:
    def change(events: list[Event]) -> None:
        events[events.index(event)] = event._replace(**changes)

    return change


def test_each_change_shows() -> None:
    """The comparison finds what it is there to find, in the last event, too, and behind it."""
    recorded = GNUMACH.read()
    shutdown, fault = recorded[-1], recorded[-2]
    assert (shutdown.name, fault.name) == ("sched_op_compat:SCHEDOP_shutdown", "exception:14")
    changes: dict[str, Callable[[list[Event]], None]] = {
        "exception:14 0x3 0x4000524c: 0x0, Xen 0x400069ec": _changed(fault, answer=("0x0",)),
        "place: exception:14: 0x4012d000": _changed(fault, places=("0x0",)),
        "only here, behind the end: last": lambda events: events.append(Event(("last",), (), (), 0)),
        "only Xen: set_gdt entries=0xc": lambda events: events.remove(
            next(event for event in events if event.name == "set_gdt")
        ),
    }
    assert compare_whole(recorded, list(recorded)) == Counter()
    for difference, change in changes.items():
        ours = list(recorded)
        change(ours)
        assert list(compare_whole(recorded, ours)) == [difference]
