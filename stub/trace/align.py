"""Two sequences laid side by side: the shortest edit script (E. Myers, "An O(ND) Difference Algorithm", 1986).

The second sequence may go on behind the end of the first: what is there costs nothing and is not part of the answer.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple


class TooDifferent(Exception):
    """More differences than were allowed for; ``reached`` elements of the first sequence were laid out by then."""

    def __init__(self, reached: int) -> None:
        super().__init__(f"too many differences, after {reached} elements")
        self.reached = reached


class Side(NamedTuple):
    """Places in the two sequences; None where one of them has nothing to match."""

    first: int | None
    second: int | None


def align(first: Sequence[Hashable], second: Sequence[Hashable], limit: int) -> list[Side]:
    """All of ``first``, and ``second`` as far as it is needed for that, with at most ``limit`` differences."""
    furthest = {1: 0}
    trail = []
    reached = 0
    for differences in range(limit + 1):
        trail.append(furthest.copy())
        for diagonal in range(-differences, differences + 1, 2):
            down = diagonal == -differences or (
                diagonal != differences and furthest.get(diagonal - 1, -1) < furthest.get(diagonal + 1, -1)
            )
            x = furthest[diagonal + 1] if down else furthest[diagonal - 1] + 1
            y = x - diagonal
            while x < len(first) and y < len(second) and first[x] == second[y]:
                x += 1
                y += 1
            furthest[diagonal] = x
            reached = max(reached, min(x, len(first)))
            if x >= len(first):
                return _walk_back(trail, len(first), len(first) - diagonal)
    raise TooDifferent(reached)


def _walk_back(trail: list[dict[int, int]], x: int, y: int) -> list[Side]:
    sides: list[Side] = []
    for differences in range(len(trail) - 1, -1, -1):
        furthest = trail[differences]
        diagonal = x - y
        down = diagonal == -differences or (
            diagonal != differences and furthest.get(diagonal - 1, -1) < furthest.get(diagonal + 1, -1)
        )
        before = diagonal + 1 if down else diagonal - 1
        before_x = furthest[before]
        before_y = before_x - before
        while x > max(before_x, 0) and y > max(before_y, 0):
            x -= 1
            y -= 1
            sides.append(Side(x, y))
        if differences:
            if down:
                y -= 1
                sides.append(Side(None, y))
            else:
                x -= 1
                sides.append(Side(x, None))
    return sides[::-1]
