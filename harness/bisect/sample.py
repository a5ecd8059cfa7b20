"""How many of some points fail, which have no order and are each booted once: no search, and no I/O.

The law of this file: like the search, it is computed anew from all results each time; nothing else is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

from .search import Boot, Refused, Search


@dataclass(frozen=True)
class Share:
    """The points that fail and those that pass, in order. ``between``: the share that fails of all there might be."""

    failing: tuple[int, ...]
    passing: tuple[int, ...]
    between: tuple[float, float]
    confidence: float


def step(search: Search, count: int) -> Boot | Share | Refused:
    """What to do next, with at most ``count`` boots side by side. All points in order, whatever comes of them."""
    skipped = search.skipped()
    words = {result.point: result.word for result in search.results if result.word in ("good", "bad")}
    left = [point for point in range(search.rules.points) if point not in words and point not in skipped]
    if left and search.boots() < search.rules.most:
        return Boot(tuple(left[:count]), "sample")
    failing = tuple(sorted(point for point, word in words.items() if word == "bad"))
    passing = tuple(sorted(point for point, word in words.items() if word == "good"))
    if not words:
        return Refused("end-untestable", "none of them can be tested: " + next(iter(skipped.values()), "no boots"))
    confidence = search.rules.confidence
    between = interval(len(failing), len(words), confidence)
    if not failing:
        return Refused(
            "bad-end-passes",
            f"none of {len(passing)} fails; of all there are, at most {between[1]:.1%} do (confidence {confidence:g})",
        )
    return Share(failing, passing, between, confidence)


def interval(failed: int, booted: int, confidence: float) -> tuple[float, float]:
    """Between which shares the true one is, by Wilson's score interval."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = failed / booted, z * z / booted
    centre = (share + spread / 2) / (1 + spread)
    half = z * (share * (1 - share) / booted + spread / booted / 4) ** 0.5 / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)
