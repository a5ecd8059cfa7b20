"""Which words matter: every failure is minimised to a set of which no word can be left out."""

from __future__ import annotations

import random

import pytest

from harness.bisect.minimise import Needed, as_point, as_words, step
from harness.bisect.search import Boot, Refused, Result


def minimised(words: int, needed: set[int], unbootable: int = -1) -> tuple[Needed | Refused, int]:
    results: list[Result] = []
    while isinstance(wanted := step(words, results), Boot):
        for point in wanted.points:
            chosen = set(as_words(point))
            bad = needed <= chosen
            results.append(Result(point, "skip" if unbootable in chosen and not bad else "bad" if bad else "good"))
    return wanted, len(results)


@pytest.mark.parametrize("seed", range(30))
def test_any_set_is_found(seed: int) -> None:
    chance = random.Random(seed)
    words = chance.randint(1, 24)
    needed = set(chance.sample(range(words), chance.randint(1, min(words, 4))))
    found, boots = minimised(words, needed, unbootable=chance.randrange(words))
    assert isinstance(found, Needed)
    assert set(found.words) == needed
    assert boots <= 2 + words * words


def test_what_fails_with_none_of_the_words_or_passes_with_all() -> None:
    assert minimised(4, set())[0] == Refused("good-end-fails", "the failure is there without any of the words")
    assert minimised(4, {9})[0] == Refused("bad-end-passes", "with all the words the failure is not there")


def test_trouble_ends() -> None:
    results = [Result(7, "trouble")] * 3 + [Result(0, "good")]
    assert isinstance(step(3, results), Refused)


def test_numbers_are_sets() -> None:
    assert as_words(as_point((0, 3, 70))) == (0, 3, 70)
