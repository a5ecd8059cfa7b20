"""The last records of a log that is being written, with a file or without one: for who looks while the guest stands."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from stub.trace.format import NESTED, RECORD_CAP, Kind
from stub.trace.reader import CHUNK, LogReader, Packed
from stub.trace.records import NoteRecord, Record
from stub.trace.writer import HypercallLog


class _RecentReader(LogReader):
    """Reads the bytes that the writer still holds, as if they were a file that begins there."""

    def __init__(self, data: bytes, domain: int, bits: int) -> None:
        self.path = Path("(in memory)")
        self.domain, self.bits = domain, bits
        self._fd = -1
        self._data = data
        self._at = self._seq = self._console = 0
        self._held: list[bytes] = []
        self.complete = False

    def slices(self) -> Iterator[bytes]:
        """Every record as it lies there."""
        return self._slices()

    def _bytes(self, start: int) -> bytes:
        return self._data[start : start + CHUNK + RECORD_CAP]

    def ordered(self, data: bytes) -> Iterator[Packed]:
        """A record and what waited for it."""
        return self._ordered(data)


_WAITING = NESTED | {Kind.NOTE}
"""What stands before the hypercall that it belongs to."""


def recent(log: HypercallLog, count: int, kinds: Collection[Kind], *, domain: int, bits: int) -> list[Record]:
    """The last ``count`` records of some kinds that the writer still holds (some thousands), in reading order.

    What a call that is being made has left already, entries of a multicall and notes, counts, too.
    """
    reader = _RecentReader(log.recent(), domain, bits)
    slices = list(reader.slices())
    start, found = len(slices), 0
    while start and found < count:
        start -= 1
        found += slices[start][0] in kinds and slices[start][0] != Kind.NOTE
    while start and slices[start - 1][0] in _WAITING:
        start -= 1
    wanted = [data for data in slices[start:] if data[0] in kinds or data[0] == Kind.NOTE]
    packed = [one for data in wanted for one in reader.ordered(data)]
    records = [reader.unpack(one) for one in (*packed, *reader.left())]
    if Kind.NOTE not in kinds:
        records = [record for record in records if not isinstance(record, NoteRecord)]
    return records[-count:] if count else []
