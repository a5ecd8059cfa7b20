"""The search for the first bad point. No I/O: it says which points to boot, and is told how each boot ended.

The law of this file: a search is its :class:`Rules` and its list of :class:`Result`; all else is computed from them. So
what is saved is that list, and a search that goes on after a kill is the one that was killed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, get_args

import numpy as np

from stub.errors import UsageError

from .belief import Belief, Bools, odds_of_a_good_one

Word = Literal["good", "bad", "skip", "trouble"]
WORDS: Final = get_args(Word)

SPOTS: Final = "spots"
# How likely a history is taken to have several bad ranges before anything was booted.
_SEVERAL = 0.02
_SEVERAL_DOUBTED, _SEVERAL_LOOKED_AT, _SEVERAL_REFUSED = 0.15, 0.25, 0.995
_SURELY = 0.999
# Where bad points fail less often, one that passes says little of other ranges.
_TELLING_RATE = 0.9


@dataclass(frozen=True)
class Rules:
    """What a search goes by.

    ``confidence``: of the answer. ``rate``: how often a bad point fails, None to learn it; 1 for never by chance.
    ``false_bad``: how often a good point fails. ``repeats``: how many boots both neighbours have at least had at the
    end. ``spots``: looks at points far from the answer at the end, for other bad ranges; half as many where bad points
    pass so often that one among them that passes says little. ``troubles``: after so many failures of the surroundings
    a point is skipped. ``most``: boots, after which the search gives up.
    """

    points: int
    confidence: float = 0.99
    rate: float | None = None
    false_bad: float = 0.0
    repeats: int = 2
    spots: int = 2
    troubles: int = 3
    most: int = 1000

    def __post_init__(self) -> None:
        if self.points < 2:
            raise UsageError(f"{self.points} point to search: there must be a good one and a bad one")
        if not 0.5 <= self.confidence < 1:
            raise UsageError(f"a confidence of {self.confidence:g}: use 0.5 to 0.9999")
        if self.rate is not None and not 0 < self.rate <= 1:
            raise UsageError(f"a failure rate of {self.rate:g}: use more than 0, at most 1")
        if not 0 <= self.false_bad < 0.5:
            raise UsageError(f"good points that fail with {self.false_bad:g}: use 0 to less than 0.5")


@dataclass(frozen=True)
class Result:
    """How one boot of ``point`` ended, and why. ``skip``: it cannot be booted; ``trouble``: it says nothing of it.

    ``phase`` is that of the :class:`Boot` that asked for it.
    """

    point: int
    word: Word
    reason: str = ""
    phase: str = ""


@dataclass(frozen=True)
class Boot:
    """What to do next: boot these points, side by side if more than one. ``phase``: ends, search, check or spots."""

    points: tuple[int, ...]
    phase: str


@dataclass(frozen=True)
class Found:
    """The answer: the first bad point is among ``candidates`` (several if untestable ones lie before it)."""

    candidates: tuple[int, ...]
    last_good: int
    first_bad: int
    confidence: float
    failure_rate: float


@dataclass(frozen=True)
class Refused:
    """No answer, and why: ``word`` is one of good-end-fails, bad-end-passes, end-untestable, several-bad-ranges,
    contradiction, undecided."""

    word: str
    reason: str


Step = Boot | Found | Refused


@dataclass
class Search:
    """A search and all that it was told. ``digests``: what a point boots; points of one digest are one to it."""

    rules: Rules
    results: list[Result] = field(default_factory=list)
    digests: dict[int, str] = field(default_factory=dict)

    # -- told and saved

    def told(self, result: Result) -> None:
        """Take in how a boot ended."""
        if not 0 <= result.point < self.rules.points or result.word not in WORDS:
            raise UsageError(f"a result {result.word!r} of point {result.point}: there is no such thing here")
        self.results.append(result)

    def identified(self, point: int, digest: str) -> None:
        """Take in what a point boots, before or after its boots."""
        self.digests[point] = digest

    def state(self) -> dict[str, Any]:
        """The search as plain data, for JSON."""
        return {
            "rules": asdict(self.rules),
            "results": [asdict(result) for result in self.results],
            "digests": {str(point): digest for point, digest in self.digests.items()},
        }

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Search:
        """The search that :meth:`state` was asked of. UsageError when it is no such thing."""
        try:
            search = cls(Rules(**state["rules"]))
            for result in state["results"]:
                search.told(Result(**result))
            search.digests = {int(point): str(digest) for point, digest in state["digests"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"the saved search is damaged: {error}") from error
        return search

    # -- what is known

    def skipped(self) -> dict[int, str]:
        """The points that cannot be booted, with the reason."""
        found = {result.point: result.reason for result in self.results if result.word == "skip"}
        troubles = Counter(result.point for result in self.results if result.word == "trouble")
        for result in self.results:
            if result.word == "trouble" and troubles[result.point] >= self.rules.troubles:
                found[result.point] = f"trouble {troubles[result.point]} times, last: {result.reason}"
        return found

    def boots(self) -> int:
        """How many boots there were that said something."""
        return sum(result.word in ("good", "bad") for result in self.results)

    def outlook(self) -> tuple[int, float]:
        """How many points may still be the first bad one, but for one chance in a thousand; that of the likeliest."""
        first = np.sort(_Judgement(self).belief.first)[::-1]
        return int(np.searchsorted(np.cumsum(first), _SURELY)) + 1, float(first[0])

    def step(self, count: int = 1) -> Step:
        """What to do next, with at most ``count`` boots side by side."""
        return _Judgement(self).step(max(1, count))


class _Judgement:
    """All that follows from a search's results."""

    def __init__(self, search: Search) -> None:
        self.rules, self.search = search.rules, search
        self.last = self.rules.points - 1
        self.skipped = search.skipped()
        self.testable = np.ones(self.rules.points, dtype=bool)
        self.testable[list(self.skipped)] = False
        self.goods, self.bads = np.zeros(self.rules.points), np.zeros(self.rules.points)
        for result in search.results:
            if result.word in ("good", "bad"):
                (self.goods if result.word == "good" else self.bads)[result.point] += 1
        self.belief = Belief(self.goods, self.bads, self._excluded(), self.rules.rate, self.rules.false_bad)

    def _excluded(self) -> Bools:
        """What boots the same file as an earlier point cannot be the first bad one, nor can any between them."""
        excluded = np.zeros(self.rules.points + 1, dtype=bool)
        seen: dict[str, int] = {}
        for point, digest in sorted(self.search.digests.items()):
            excluded[seen.setdefault(digest, point) + 1 : point + 1] = True
        return excluded

    def step(self, count: int) -> Step:
        return self._refusal() or self._ends() or self._doubtful(_SEVERAL_LOOKED_AT) or self._narrow(count)

    # -- refusals and ends

    def _refusal(self) -> Refused | None:
        for end, name in ((0, "good"), (self.last, "bad")):
            if end in self.skipped:
                return Refused("end-untestable", f"the {name} end cannot be tested: {self.skipped[end]}")
        if self.belief.contradiction:
            return self._contradiction()
        if self.belief.first[0] >= self.rules.confidence:
            return Refused("good-end-fails", f"the good end fails: {self._counts(0)}")
        if self.belief.first[self.rules.points] >= self.rules.confidence:
            return Refused("bad-end-passes", f"the bad end passes: {self._counts(self.last)}")
        if self.search.boots() >= self.rules.most:
            return Refused("undecided", f"no answer after {self.search.boots()} boots")
        several = self._several()
        if several is not None and several[1] >= _SEVERAL_REFUSED:
            return self._ranges(several[0])
        return None

    def _contradiction(self) -> Refused:
        failed = np.flatnonzero(self.bads)
        later = np.flatnonzero(self.goods)
        if len(failed) and len(later) and later[-1] > failed[0]:
            return self._ranges(int(later[-1]))
        return Refused("contradiction", "what the points boot and how they ended does not fit together")

    def _ranges(self, passing: int) -> Refused:
        before = int(np.flatnonzero(self.bads)[0])
        return Refused(
            "several-bad-ranges",
            f"there is more than one bad range: point {before} fails ({self._counts(before)}), but point {passing} "
            f"after it passes ({self._counts(passing)}); search between two points with one change",
        )

    def _counts(self, point: int) -> str:
        failed, booted = int(self.bads[point]), int(self.bads[point] + self.goods[point])
        return f"{failed} of {booted} boot{'s' if booted != 1 else ''} failed"

    def _ends(self) -> Boot | None:
        """Both ends first; a bad end until it has failed, as only that shows that the failure is to be had here."""
        points = [] if self.bads[self.last] else [self.last]
        points += [] if self.goods[0] else [0]
        return Boot(tuple(points), "ends") if points else None

    # -- several bad ranges

    def _several(self) -> tuple[int, float] | None:
        """The point that most looks good though it lies beyond the first bad one, and how likely it is good."""
        first = int(np.argmax(self.belief.first))
        suspects = [
            int(point) for point in np.flatnonzero(self.goods) if point > first and not self.bads[point]
        ]  # fmt: skip
        if not suspects:
            return None
        goods, bads = self.goods[first:].sum(), self.bads[first:].sum()
        odds = {
            point: odds_of_a_good_one(self.goods[point], goods - self.goods[point], bads, self.rules.rate)
            for point in suspects
        }
        worst = max(odds, key=lambda point: odds[point])
        weight = _SEVERAL * odds[worst]
        return worst, weight / (weight + 1 - _SEVERAL)

    def _doubtful(self, limit: float) -> Boot | None:
        """A second look at a point that looks good where all should be bad, and at one that is surely bad."""
        several = self._several()
        if several is None or several[1] < limit:
            return None
        surely = int(np.argmax(self.bads))
        return Boot((several[0],) if self.goods[several[0]] < self.bads[surely] else (several[0], surely), "check")

    # -- the search and its end

    def _narrow(self, count: int) -> Step:
        """Points that untestable ones hide from each other are one answer: that of the next that can be booted."""
        leader = self._next_testable(int(np.argmax(self.belief.first[1 : self.rules.points])) + 1)
        before = self._last_testable(leader)
        confidence = float(self.belief.first[before + 1 : leader + 1].sum())
        if confidence < self.rules.confidence:
            return self._learn(count, before, leader, confidence)
        unchecked = [
            point for point in (before, leader) if self.goods[point] + self.bads[point] < self.rules.repeats
        ]  # fmt: skip
        if unchecked:
            return Boot(tuple(unchecked), "check")
        other = self._doubtful(_SEVERAL_DOUBTED) or self._spot(before, leader)
        if other is not None:
            return other
        excluded = self._excluded()
        candidates = tuple(point for point in range(before + 1, leader + 1) if not excluded[point])
        return Found(candidates, before, leader, confidence, self.belief.failure_rate)

    def _learn(self, count: int, before: int, leader: int, confidence: float) -> Boot:
        """Boot what tells most of the first bad point.

        That may be the last good one, for it to pass again and again. How often it must depends on how often bad points
        fail, and a few more boots of bad ones may say that sooner; some of these will be made anyway.
        """
        chosen = self.belief.choose(self.testable, count)
        if chosen[0] != before or confidence < 0.5 or not self.bads[leader]:
            return Boot(tuple(chosen), "search")
        repeats = max(0, self.rules.repeats - int(self.goods[leader] + self.bads[leader]))
        spot = self._spot(before, leader) if count == 1 else None
        beyond = spot if spot is not None and spot.points[0] > leader else None
        owed = repeats + (beyond is not None)
        if not self.belief.failures_to_confirm(before, leader, self.rules.confidence, owed):
            return Boot(tuple(chosen), "search")
        return beyond if beyond is not None and not repeats else Boot((leader, *chosen[:-1]), "search")

    def _next_testable(self, point: int) -> int:
        return int(point + np.argmax(self.testable[point:]))

    def _last_testable(self, point: int) -> int:
        return int(np.flatnonzero(self.testable[:point])[-1])

    def _spot(self, before: int, leader: int) -> Boot | None:
        """The middle of the widest stretch, on the side of the bad and of the good, that nobody has looked into."""
        tested = (self.goods + self.bads) > 0
        points = [r.point for r in self.search.results if r.phase == SPOTS and r.word in ("good", "bad")]
        beyond = sum(point > leader for point in points)
        sides = [(beyond, leader, self.last), (len(points) - beyond, 0, before)]
        if self.belief.failure_rate < _TELLING_RATE:
            del sides[0]
        if len(points) >= self.rules.spots * len(sides) / 2:
            return None
        for _, low, high in sorted(sides, key=lambda side: side[0]):
            middle = _middle_of_gap(tested[low : high + 1], self.testable[low : high + 1])
            if middle is not None:
                return Boot((low + middle,), SPOTS)
        return None


def _middle_of_gap(tested: Bools, testable: Bools) -> int | None:
    """The testable point nearest to the middle of the widest gap between tested ones."""
    known = np.flatnonzero(tested)
    if len(known) < 2:
        return None
    widths = np.diff(known)
    start = int(np.argmax(widths))
    inside = [point for point in range(known[start] + 1, known[start + 1]) if testable[point]]
    centre = (known[start] + known[start + 1]) / 2
    return min(inside, key=lambda point: abs(point - centre)) if inside else None


def fewest(points: int) -> int:
    """The boots that a search without chance needs, both ends included."""
    return 2 + math.ceil(math.log2(max(1, points - 1)))
