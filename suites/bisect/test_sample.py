"""Points without an order: all are booted once, and what is said of those that were not."""

from __future__ import annotations

import pytest

from harness.bisect.environment import seeds
from harness.bisect.sample import Share, interval, step
from harness.bisect.search import Boot, Refused, Result, Rules, Search
from stub.errors import UsageError


def sampled(failing: set[int], points: int = 20, count: int = 3, untestable: frozenset[int] = frozenset()) -> object:
    search = Search(Rules(points))
    while isinstance(wanted := step(search, count), Boot):
        assert 1 <= len(wanted.points) <= count
        for point in wanted.points:
            word = "skip" if point in untestable else "bad" if point in failing else "good"
            search.told(Result(point, word, "why"))  # type: ignore[arg-type]
    return wanted


def test_all_are_booted_and_the_share_is_that_of_those_that_can_be() -> None:
    share = sampled({3, 7, 11}, untestable=frozenset({0, 7}))
    assert isinstance(share, Share)
    assert share.failing == (3, 11)
    assert len(share.passing) == 16
    assert share.between == interval(2, 18, 0.99)


def test_none_fails() -> None:
    assert sampled(set()) == Refused(
        "bad-end-passes", "none of 20 fails; of all there are, at most 24.9% do (confidence 0.99)"
    )


def test_none_can_be_booted() -> None:
    refused = sampled({1}, points=2, untestable=frozenset({0, 1}))
    assert refused == Refused("end-untestable", "none of them can be tested: why")


def test_trouble_is_tried_again() -> None:
    search = Search(Rules(2), [Result(0, "trouble"), Result(1, "bad")])
    assert step(search, 2) == Boot((0,), "sample")


@pytest.mark.parametrize(
    ("failed", "booted", "low", "high"), [(0, 10, 0.0, 0.278), (5, 10, 0.237, 0.763), (10, 10, 0.722, 1.0)]
)
def test_wilsons_interval(failed: int, booted: int, low: float, high: float) -> None:
    """The figures are those of any table for 95 %."""
    assert interval(failed, booted, 0.95) == pytest.approx((low, high), abs=0.001)


def test_seeds_are_read() -> None:
    assert seeds(["17", "3..5", "4"]) == [3, 4, 5, 17]


@pytest.mark.parametrize("text", ["x", "5..3", "0..100000", "-1", "1..", ""])
def test_what_is_no_seed(text: str) -> None:
    with pytest.raises(UsageError):
        seeds([text])
