"""Simulated histories, the search run over them, and what plain ``git bisect run`` would do with the same."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from harness.bisect.search import Boot, Found, Refused, Result, Rules, Search, Word

# Seeds. The search's numbers were chosen by histories of the first, and are judged by those of the second.
TUNED = range(20_000, 80_000)
HELD_OUT = range(900_000, 950_000)


@dataclass
class History:
    """``ranges``: the bad points, as (first, last); ``pass_rate``: how often a bad one passes by chance."""

    size: int
    ranges: list[tuple[int, int]]
    pass_rate: float
    untestable: set[int]
    chance: random.Random
    boots: int = field(default=0, init=False)

    @property
    def first_bad(self) -> int:
        return self.ranges[0][0]

    def is_bad(self, point: int) -> bool:
        return any(low <= point <= high for low, high in self.ranges)

    def boot(self, point: int) -> Word:
        if point in self.untestable:
            return "skip"
        self.boots += 1
        return "bad" if self.is_bad(point) and self.chance.random() >= self.pass_rate else "good"

    def answer(self) -> set[int]:
        """The first bad point, and the untestable ones just before it, or it with those up to the next testable."""
        low = high = self.first_bad
        while low - 1 in self.untestable:
            low -= 1
        while high in self.untestable:
            high += 1
        return set(range(low, high + 1))


def made(seed: int, pass_rate: float | None = None, several: bool = False, size: int | None = None) -> History:
    """A history of 2 to 4,096 points, all sizes of two as likely as each other; 0 to 15 % cannot be tested."""
    chance = random.Random(seed)
    size = size or max(2, round(2 ** chance.uniform(1, 12)))
    if pass_rate is None:
        pass_rate = chance.choice((0.0, 0.1, 0.2, 0.3))
    first = chance.randrange(1, size)
    ranges = [(first, size - 1)]
    if several:
        size = max(size, 16)
        cuts = (
            sorted(chance.sample(range(1, size - 1), 3))
            if chance.random() < 0.5
            else [size // 4, size // 2, 3 * size // 4]
        )
        ranges = [(cuts[0], cuts[1] - 1), (cuts[2], size - 1)]
    share = chance.choice((0.0, 0.0, 0.05, 0.15))
    untestable = {point for point in range(1, size - 1) if chance.random() < share}
    return History(size, ranges, pass_rate, untestable, chance)


def searched(history: History, count: int = 1, **rules: float) -> tuple[Found | Refused, Search]:
    search = Search(Rules(history.size, **rules))  # type: ignore[arg-type]
    while isinstance(step := search.step(count), Boot):
        for point in step.points:
            search.told(Result(point, history.boot(point), phase=step.phase))
    return step, search


def plain(history: History, retries: int) -> set[int]:
    """What ``git bisect run`` finds: a point is bad at the first of ``retries`` boots that fails.

    A point that cannot be tested is skipped for its nearest neighbour. git takes the ends as they are given.
    """
    good, bad = 0, history.size - 1
    skipped: set[int] = set()
    while left := [point for point in range(good + 1, bad) if point not in skipped]:
        middle = min(left, key=lambda point: abs(point - (good + bad) / 2))
        words = {history.boot(middle)} if middle in history.untestable else set()
        if words:
            skipped.add(middle)
        elif any(history.boot(middle) == "bad" for _ in range(retries)):
            bad = middle
        else:
            good = middle
    return set(range(good + 1, bad + 1))
