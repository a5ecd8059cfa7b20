"""Watched memory, as the CPU's debug registers can have it: aligned pieces of 1, 2, 4 or 8 bytes, four in all."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from stub.engine.base import READS, Watch
from stub.errors import UsageError

COUNT = 4
_WRITE, _ACCESS = 1, 3  # DR7's R/W field
_LONGEST = 8

Slot = tuple[int, int, int, bool]
"""Address, size, kind (DR7's R/W field), whether of the second group."""


def slots(ranges: Collection[Watch]) -> list[Slot]:
    """The registers that these ranges take; UsageError for more than there are, and for machine addresses."""
    taken = [piece for row in ranges for piece in pieces(row)]
    if len(taken) > COUNT:
        raise UsageError(f"the qemu engine can watch {COUNT} aligned pieces of {_LONGEST} bytes at most")
    return taken


def pieces(watch: Watch) -> Iterator[Slot]:
    """The registers that a range takes; UsageError for machine addresses, which they do not know."""
    if watch.machine:
        raise UsageError("the qemu engine watches virtual addresses only")
    kind = _ACCESS if watch.access & READS else _WRITE
    at = watch.first
    while at <= watch.last:
        size = _LONGEST
        while at % size or at + size - 1 > watch.last:
            size //= 2
        yield at, size, kind, watch.second
        if at - watch.first >= _LONGEST * COUNT:
            return
        at += size
