"""What the boots so far say of the first bad point: a distribution over it and over how often a bad point fails.

Points are numbered 0 to n-1 in order. The hypothesis ``first`` (0 to n) is that exactly the points from it on are bad;
0 and n say that an end is not what it was said to be. A bad point fails with probability q, one of ``RATES`` or a given
one; a good one with the small probability ``false_bad``. All arrays are (hypothesis, rate) or (point,).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# How often a bad point fails, and how much each is believed before the first boot. More regressions fail always than
# any other share of boots; but whoever believes so too firmly takes a point for good that has passed by chance.
RATES: Final = (1.0, 0.97, 0.93, 0.87, 0.8, 0.72, 0.64, 0.5, 0.35, 0.2, 0.1)
_PRIORS: Final = (0.26, 0.09, 0.12, 0.12, 0.11, 0.09, 0.07, 0.06, 0.05, 0.02, 0.01)
# An end that is not what it was said to be.
WRONG_END: Final = 0.02
_NEVER: Final = -1e9
_MOST_OUTCOMES: Final = 8
_MOST_PLANNED: Final = 10  # failures


class Belief:
    """The distribution after ``goods`` passes and ``bads`` failures of each point.

    ``excluded``: hypotheses that cannot be, by number. ``rate``: the failure rate, None to learn it.
    """

    def __init__(self, goods: Floats, bads: Floats, excluded: Bools, rate: float | None, false_bad: float) -> None:
        self.false_bad = false_bad
        self.rates = np.array(RATES if rate is None else (rate,))
        self.rate_priors = np.log(np.array(_PRIORS if rate is None else (1.0,)))
        late_goods, late_bads = _from_each_on(goods), _from_each_on(bads)
        log_odds = (
            np.multiply.outer(late_bads, _log(self.rates))
            + np.multiply.outer(late_goods, _log(1 - self.rates))
            + ((bads.sum() - late_bads) * _log(false_bad) + (goods.sum() - late_goods) * _log(1 - false_bad))[:, None]
            + self.rate_priors
            + np.where(excluded, _NEVER, _prior(len(goods)))[:, None]
        )
        best = log_odds.max()
        self.contradiction = bool(best < _NEVER / 2)
        joint = np.exp(log_odds - best)
        self.joint: Floats = joint / joint.sum()
        self.first: Floats = self.joint.sum(axis=1)

    @property
    def failure_rate(self) -> float:
        """How often a bad point is expected to fail."""
        return float(self.joint.sum(axis=0) @ self.rates)

    def choose(self, testable: Bools, count: int) -> list[int]:
        """The points whose next boots, side by side, say most about the first bad one; one may come up twice."""
        outcomes = [self.joint]
        chosen: list[int] = []
        for _ in range(count):
            gain = sum((self._gain(outcome) for outcome in outcomes), np.zeros(len(testable)))
            point = int(np.argmax(np.where(testable, gain, -1.0)))
            chosen.append(point)
            if len(chosen) < count:
                outcomes = self._split(outcomes, point)
        return chosen

    def failures_to_confirm(self, before: int, leader: int, confidence: float, owed: int) -> int:
        """How many failures of bad points shorten the way to ``confidence`` in ``leader``; else ``before`` just passes.

        ``owed``: boots of bad points that will be made anyway, and so cost nothing. All boots are taken to end as they
        will if ``leader`` is the first bad point.
        """
        early, right, late = (
            part.sum(axis=0) for part in np.split(self.joint, (before + 1, leader + 1))
        )  # (rate,) each
        failures = np.arange(_MOST_PLANNED)[:, None, None]
        passes = np.arange(4 * _MOST_PLANNED)[None, :, None]
        failed = self.rates**failures
        kept = (right * failed).sum(axis=2)
        doubt = (early * failed * (1 - self.rates) ** passes).sum(axis=2) + late.sum()
        boots = np.maximum(0, failures[..., 0] * right.sum() / (right @ self.rates) - owed) + passes[..., 0]
        boots = np.where(kept / (kept + doubt) >= confidence, boots, np.inf)
        return int(np.argmin(boots.min(axis=1)))

    def _gain(self, joint: Floats) -> Floats:
        """The bits that one boot of each point would tell of the first bad one, times the weight of ``joint``."""
        weight = joint.sum()
        first = joint.sum(axis=1) / weight
        failing = joint @ self.rates / weight  # P(first, and a boot of a point beyond it fails)
        rate = np.divide(failing, first, out=np.zeros_like(first), where=first > 0)
        bad = np.cumsum(first)[:-1]
        noise = np.cumsum(first * _entropy(rate))[:-1]
        fails = np.cumsum(failing)[:-1] + (1 - bad) * self.false_bad
        gain: Floats = weight * (_entropy(fails) - noise - (1 - bad) * _entropy(np.array(self.false_bad)))
        return gain

    def _split(self, outcomes: Sequence[Floats], point: int) -> list[Floats]:
        """Each outcome, split by how a boot of ``point`` may end; the likeliest only."""
        fails = np.full_like(self.joint, self.false_bad)
        fails[: point + 1] = self.rates
        parts = [part for outcome in outcomes for part in (outcome * fails, outcome * (1 - fails))]
        parts.sort(key=lambda part: -float(part.sum()))
        return [part for part in parts[:_MOST_OUTCOMES] if part.sum() > 1e-9]


def odds_of_a_good_one(passes: float, others_passed: float, others_failed: float, rate: float | None) -> float:
    """How much likelier ``passes`` in a row are of a good point than of one as bad as the others beyond the first."""
    rates = np.array(RATES if rate is None else (rate,))
    priors = np.log(np.array(_PRIORS if rate is None else (1.0,)))
    weights = priors + others_failed * _log(rates) + others_passed * _log(1 - rates)
    seen = np.exp(weights - weights.max())
    as_bad = float(seen @ np.exp(passes * _log(1 - rates)) / seen.sum())
    return 1 / max(as_bad, 1e-12)


def _prior(points: int) -> Floats:
    prior = np.full(points + 1, (1 - 2 * WRONG_END) / (points - 1))
    prior[0] = prior[points] = WRONG_END
    log: Floats = np.log(prior)
    return log


def _from_each_on(counts: Floats) -> Floats:
    """For each hypothesis the sum over the points that it calls bad."""
    return np.append(np.cumsum(counts[::-1])[::-1], 0.0)


def _log(value: Floats | float) -> Floats:
    array = np.asarray(value, dtype=float)
    result: Floats = np.where(array > 0, np.log(np.where(array > 0, array, 1.0)), _NEVER)
    return result


def _entropy(chance: Floats) -> Floats:
    """In bits, of something that is so with ``chance``."""
    kept = np.clip(chance, 0.0, 1.0)
    result: Floats = -(kept * np.log2(np.maximum(kept, 1e-300)) + (1 - kept) * np.log2(np.maximum(1 - kept, 1e-300)))
    return result
