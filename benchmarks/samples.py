"""Samples and what is made of them. Nothing here measures."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """One measurement, in seconds: by the clock on the wall, and of CPU time (user and system)."""

    wall: float
    cpu: float

    def __sub__(self, other: Sample) -> Sample:
        return Sample(self.wall - other.wall, self.cpu - other.cpu)

    def __truediv__(self, by: float) -> Sample:
        return Sample(self.wall / by, self.cpu / by)


@dataclass(frozen=True)
class Series:
    """The samples of one thing, a round each."""

    samples: tuple[Sample, ...]

    @property
    def wall(self) -> tuple[float, ...]:
        return tuple(sample.wall for sample in self.samples)

    @property
    def cpu(self) -> tuple[float, ...]:
        return tuple(sample.cpu for sample in self.samples)

    def __sub__(self, other: Series) -> Series:
        return Series(tuple(a - b for a, b in zip(self.samples, other.samples, strict=True)))

    def __truediv__(self, by: float) -> Series:
        return Series(tuple(sample / by for sample in self.samples))


def ratio(ours: Sequence[float], peers: Sequence[float]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(ours, peers, strict=True))


def orders(things: int, rounds: int) -> Iterator[Sequence[int]]:
    """In which order to take ``things`` in each round: forwards and backwards by turns, so that drift cancels out."""
    for number in range(rounds):
        yield range(things) if number % 2 == 0 else range(things - 1, -1, -1)


def alternate(rounds: int, *actions: Callable[[], Sample]) -> list[Series]:
    """Each action's samples, taken in turn."""
    taken: list[list[Sample]] = [[] for _ in actions]
    for order in orders(len(actions), rounds):
        for index in order:
            taken[index].append(actions[index]())
    return [Series(tuple(samples)) for samples in taken]
