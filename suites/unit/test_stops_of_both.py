"""The guest's watched memory and an onlooker's, on an engine that has room for four."""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

import pytest

from stub.engine.base import WRITES, Engine, Watch
from stub.errors import UsageError
from stub.hypervisor.stops import Stops

ROOM = 4
MINE = tuple(Watch(at, at + 7, WRITES) for at in (0x1000, 0x2000, 0x3000))
GUESTS = tuple(Watch(at, at + 7, WRITES, second=True) for at in (0x4000, 0x5000))


class Small:
    """The part of an engine that watches."""

    stops_are_free = False

    def __init__(self) -> None:
        self.watched: tuple[Watch, ...] = ()

    def check_watches(self, ranges: Collection[Watch]) -> None:
        if len(ranges) > ROOM:
            raise UsageError("too many")

    def watch(self, ranges: Collection[Watch]) -> None:
        self.check_watches(ranges)
        self.watched = tuple(ranges)


@pytest.fixture
def engine() -> Small:
    return Small()


@pytest.fixture
def stops(engine: Small) -> Stops:
    return Stops(cast(Engine, engine))


def test_both_are_watched_where_there_is_room(stops: Stops, engine: Small) -> None:
    stops.for_onlooker((), MINE)
    stops.for_guest((), GUESTS[:1])
    assert engine.watched == MINE + GUESTS[:1]


def test_the_guests_come_first_and_the_onlookers_come_back(stops: Stops, engine: Small) -> None:
    """A guest that sets its debug registers does not see that somebody else had taken them."""
    stops.for_onlooker((), MINE)
    stops.for_guest((), GUESTS)
    assert engine.watched == GUESTS
    stops.for_guest((), ())
    assert engine.watched == MINE


def test_what_is_refused_can_be_asked_for_again(stops: Stops, engine: Small) -> None:
    for _ in range(2):
        with pytest.raises(UsageError):
            stops.for_onlooker((), MINE + GUESTS)
    stops.for_onlooker((), MINE)
    assert engine.watched == MINE
