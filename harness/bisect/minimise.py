"""Which of many words matter to a failure: delta debugging, with no I/O.

The law of this file: like the search, it is computed anew from all results each time; nothing else is kept. A set of
words fails if one of its boots does; it passes after ``repeats`` boots that pass. One that cannot be booted counts as
passing, as Zeller's ddmin has it for what is unresolved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .search import Boot, Refused, Result

Words = tuple[int, ...]


@dataclass(frozen=True)
class Needed:
    """The words, by number, that are all needed for the failure: without any one of them it is gone."""

    words: Words
    boots: int


class _Unknown(Exception):
    def __init__(self, words: Words) -> None:
        super().__init__(words)
        self.words = words


def as_point(words: Words) -> int:
    """A set of words as one number, a bit a word."""
    return sum(1 << word for word in words)


def as_words(point: int) -> Words:
    """The set of words that a number stands for."""
    return tuple(word for word in range(point.bit_length()) if point >> word & 1)


def step(words: int, results: Sequence[Result], repeats: int = 1, troubles: int = 3) -> Boot | Needed | Refused:
    """What to do next for ``words`` words; the points are :func:`as_point`'s numbers. Both ends come first."""
    known = _known(results, repeats, troubles)
    everything, nothing = (1 << words) - 1, 0
    for point, phase in ((everything, "ends"), (nothing, "ends")):
        if point not in known:
            return Boot((point,), phase)
    if not known[everything]:
        return Refused("bad-end-passes", "with all the words the failure is not there")
    if known[nothing]:
        return Refused("good-end-fails", "the failure is there without any of the words")
    try:
        kept = _ddmin(as_words(everything), known)
    except _Unknown as unknown:
        return Boot((as_point(unknown.words),), "search")
    return Needed(kept, sum(result.word in ("good", "bad") for result in results))


def _known(results: Sequence[Result], repeats: int, troubles: int) -> Mapping[int, bool]:
    """Of each set that is settled, whether it fails."""
    passed: dict[int, float] = {}
    known: dict[int, bool] = {}
    weight = {"good": 1.0, "skip": float(repeats), "trouble": repeats / troubles + 1e-9}
    for result in results:
        if result.word == "bad":
            known[result.point] = True
        else:
            passed[result.point] = passed.get(result.point, 0) + weight[result.word]
            if passed[result.point] >= repeats:
                known.setdefault(result.point, False)
    return known


def _ddmin(words: Words, known: Mapping[int, bool]) -> Words:
    parts = 2
    while len(words) > 1:
        chunks = [words[len(words) * n // parts : len(words) * (n + 1) // parts] for n in range(parts)]
        failing = next((chunk for chunk in chunks if chunk and _fails(chunk, known)), None)
        if failing is not None:
            words, parts = failing, 2
            continue
        rests = (tuple(word for word in words if word not in chunk) for chunk in chunks) if parts > 2 else iter(())
        rest = next((rest for rest in rests if _fails(rest, known)), None)
        if rest is not None:
            words, parts = rest, max(parts - 1, 2)
        elif parts >= len(words):
            break
        else:
            parts = min(2 * parts, len(words))
    return words


def _fails(words: Words, known: Mapping[int, bool]) -> bool:
    point = as_point(words)
    if point not in known:
        raise _Unknown(words)
    return known[point]
