"""The last records of a log that is being written, with a file or without one: for who looks while the guest stands."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from stub.trace.format import NESTED, Kind
from stub.trace.reader import LogReader
from stub.trace.records import NoteRecord, Raw, Record
from stub.trace.writer import HypercallLog


class _RecentReader(LogReader):
    """Reads the bytes that the writer still holds, as if they were a file that begins there."""

    def __init__(self, data: bytes, domain: int, bits: int) -> None:
        self.path = Path("(in memory)")
        self.domain, self.bits = domain, bits
        self._fd = -1
        self._data = data
        self._at = self._seq = self._console = 0
        self._held: list[Raw] = []

    def raws(self) -> Iterator[Raw]:
        """Every record as it lies there."""
        at = 0
        while at < len(self._data):
            raw, at = self._one(self._data, at)
            yield raw

    def ordered(self, raw: Raw) -> Iterator[Record]:
        """``raw`` and what waited for it."""
        return self._ordered(raw)

    def left(self) -> Iterator[Record]:
        """What still waits."""
        return (self._made(raw) for raw in self._held)


_WAITING = NESTED | {Kind.NOTE}
"""What stands before the hypercall that it belongs to."""


def recent(log: HypercallLog, count: int, kinds: Collection[Kind], *, domain: int, bits: int) -> list[Record]:
    """The last ``count`` records of some kinds that the writer still holds (some thousands), in reading order.

    What a call that is being made has left already, entries of a multicall and notes, counts, too.
    """
    reader = _RecentReader(log.recent(), domain, bits)
    raws = list(reader.raws())
    start, found = len(raws), 0
    while start and found < count:
        start -= 1
        found += raws[start].kind in kinds and raws[start].kind is not Kind.NOTE
    while start and raws[start - 1].kind in _WAITING:
        start -= 1
    wanted = [raw for raw in raws[start:] if raw.kind in kinds or raw.kind is Kind.NOTE]
    records = [record for raw in wanted for record in reader.ordered(raw)]
    records += reader.left()
    if Kind.NOTE not in kinds:
        records = [record for record in records if not isinstance(record, NoteRecord)]
    return records[-count:] if count else []
