"""The hypercall log's reader: a file, finished, growing or cut short, as records in the order in which things began.

In the file the entries of a multicall and the notes of a refusal stand before the hypercall that they belong to,
because that is when they are known. Read back, a multicall comes first and its entries follow; a note is a member of
its hypercall. Every fault of a file is a ``UsageError`` of one line.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from stub.errors import UsageError
from stub.trace import lock
from stub.trace.format import (
    HEADER,
    HYPERCALLS,
    IDENTITY_CAP,
    LENGTHS,
    MAGIC,
    NESTED,
    RECORD_CAP,
    STRUCTS,
    TIME,
    VERSION,
    WINDOW,
    WORDS,
    Kind,
)
from stub.trace.records import NoteRecord, Raw, Record, make

FILE_NAME: Final = "hypercalls"
CHUNK: Final = 1 << 20
POLL_S: Final = 0.05
"""How often a follower looks: writes through a mapping wake nobody up, so there is nothing to wait for."""

_KINDS: Final = {int(kind): (STRUCTS[kind].size, len(WORDS[kind])) for kind in Kind}
_LAYOUTS: Final = {int(kind): (kind, STRUCTS[kind]) for kind in Kind}
_NONE: Final = (RECORD_CAP + CHUNK, -1)
_WAITING: Final = frozenset(NESTED | {Kind.NOTE})
_SPECIAL: Final = _WAITING | {Kind.CONSOLE}


class Packed(NamedTuple):
    """A record that has not been taken apart: its bytes in the file, and what `Record` has besides them."""

    data: bytes
    seq: int
    console_offset: int
    note: str | None = None


class Place(NamedTuple):
    """Where a record is: the offset in the file at which it begins, or what belongs to it and stands before it, notes
    and a multicall's entries; the number of its boot; virtual time of the boots before that, in ns, as far as it was
    logged (each boot's times are its own)."""

    offset: int
    boot: int
    earlier_ns: int


class LogReader:
    """A log opened for reading: its ``identity``, ``domain`` and ``bits``, then its records, once.

    ``complete`` is true once the verdict has been read; a log that ends without one was cut, or is still growing.
    """

    def __init__(self, path: Path) -> None:
        """``path``: the file, or the run's folder."""
        self.path = path / FILE_NAME if os.path.isdir(path) else path
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe is no log
        except OSError as error:
            raise self._fault(f"cannot read the hypercall log: {error.strerror}; name a run's folder") from error
        try:
            self.identity, self._at = self._header()
        except BaseException:
            os.close(self._fd)
            raise
        self.complete = False
        self.domain = _number(self.identity.get("domain"), 1)
        self.bits = 32 if self.identity.get("bits") == 32 else 64
        self._seq = 0
        self._console = 0
        self._held: list[bytes] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def live(self) -> bool:
        """Whether a run is writing the log: its writer holds a lock on it as long as it lives."""
        return lock.taken(self._fd)

    def records(self) -> Iterator[Record]:
        """The records that are there now, from where the last call stopped."""
        return map(self.unpack, self.packed())

    def packed(self) -> Iterator[Packed]:
        """The same, not taken apart: for whoever only compares most of them."""
        for data in self._slices():
            if self._held or data[0] in _SPECIAL:
                yield from self._ordered(data)
            else:
                self._seq += 1
                yield Packed(data, self._seq - 1, self._console)

    def place(self, seq: int) -> Place:
        """Where a record is. To be asked of a reader that has read nothing; UsageError where there is no such one."""
        start, boots, earlier, now = self._at, 0, 0, 0
        for data in self._slices():
            if data[0] == Kind.START:
                boots, earlier = boots + 1, earlier + now
            now = int.from_bytes(data[TIME], "little")
            if any(packed.seq >= seq for packed in self._ordered(data)):
                return Place(start, boots, earlier)
            if not self._held:
                start = self._at
        raise self._fault(f"no record {seq}")

    def unpack(self, packed: Packed) -> Record:
        """The record itself."""
        return make(
            raw(packed.data, packed.note),
            seq=packed.seq, domain=self.domain, bits=self.bits, console_offset=packed.console_offset,
        )  # fmt: skip

    def follow(self) -> Iterator[Record]:
        """The records until the run ends, each as soon as a look at the file finds it."""
        while not self.complete:
            live = self.live()  # before the look: what its writer wrote last is there once it has gone
            yield from self.records()
            if not live:
                return
            if not self.complete:
                time.sleep(POLL_S)

    def finish(self) -> Iterator[Record]:
        """What a cut log has left over: entries of a multicall that never ended, notes. To be called last.

        Raises ``UsageError`` where the log goes on behind its end: the end is damage, not an end.
        """
        yield from map(self.unpack, self.packed_rest())

    def packed_rest(self) -> Iterator[Packed]:
        """The same, not taken apart."""
        yield from self.left()
        if self.live():
            return
        rest = os.pread(self._fd, WINDOW + 1, self._at)
        clear = rest if self.complete else rest[RECORD_CAP:]  # a cut log's last record may be half there
        if len(rest) > WINDOW or clear.count(0) != len(clear):
            raise self._damaged(self._at)

    def left(self) -> Iterator[Packed]:
        """What still waits for its hypercall; to be called last."""
        held, self._held = self._held, []
        return map(self._numbered, held)

    def _header(self) -> tuple[dict[str, Any], int]:
        try:
            start = os.pread(self._fd, HEADER.size + IDENTITY_CAP, 0)
        except OSError as error:
            raise self._fault(f"cannot read the hypercall log: {error.strerror}; name a run's folder") from error
        if not start.startswith(MAGIC):
            raise self._fault("not a hypercall log; name a run's folder or its file hypercalls")
        if len(start) < HEADER.size:
            raise self._damaged(len(start))
        _, version, _, length = HEADER.unpack_from(start)
        if version != VERSION:
            raise self._fault(f"a hypercall log of format {version}, not {VERSION}; use the pvstub that wrote it")
        end = HEADER.size + length
        try:
            identity = json.loads(start[HEADER.size : end])
        except (ValueError, RecursionError) as error:
            raise self._damaged(HEADER.size) from error
        if len(start) < end or not isinstance(identity, dict):
            raise self._damaged(HEADER.size)
        return identity, end

    def _slices(self) -> Iterator[bytes]:
        """The records' bytes from the current place on; leaves the place behind the last of them."""
        known, lengths = _KINDS, LENGTHS.unpack_from
        while not self.complete:
            start = self._at
            data = self._bytes(start)
            length = len(data)
            last = length < CHUNK + RECORD_CAP
            stop = length if last else CHUNK
            at = 0
            while at < stop:
                kind = data[at]
                if not kind:
                    return
                size, words = known.get(kind, _NONE)
                end = at + size
                if end > length:
                    raise self._damaged(self._at)
                count, payload, out = lengths(data, at)
                end += payload + out
                if count != words or end > length:
                    raise self._damaged(self._at)
                self._at = start + end
                self.complete = kind == Kind.END
                yield data[at:end]
                if self.complete:
                    return
                at = end
            if last:
                return

    def _bytes(self, start: int) -> bytes:
        return os.pread(self._fd, CHUNK + RECORD_CAP, start)

    def _ordered(self, data: bytes) -> Iterator[Packed]:
        """A record and what waited for it, in reading order; nothing while it has to wait."""
        kind = data[0]
        if kind in _WAITING:
            self._held.append(data)
            return
        if not self._held:
            yield self._numbered(data)
            return
        held, self._held = self._held, []
        if kind not in HYPERCALLS:
            yield from map(self._numbered, (*held, data))
            return
        calls: list[tuple[bytes, str | None]] = []
        note: str | None = None
        for waiting in (*held, data):
            if waiting[0] == Kind.NOTE:
                note = raw(waiting).payload.decode(errors="backslashreplace")
            else:
                calls.append((waiting, note))
                note = None
        for call, why in (calls[-1], *calls[:-1]):
            yield self._numbered(call, why)

    def _numbered(self, data: bytes, note: str | None = None) -> Packed:
        if data[0] == Kind.CONSOLE:
            self._console = sum(raw(data).words)
        self._seq += 1
        return Packed(data, self._seq - 1, self._console, note)

    def _damaged(self, offset: int) -> UsageError:
        return self._fault(f"damaged hypercall log: no record at byte {offset}; run the boot again")

    def _fault(self, text: str) -> UsageError:
        return UsageError(f"{self.path}: {text}")


def raw(data: bytes, note: str | None = None) -> Raw:
    """A record's bytes taken apart."""
    kind, layout = _LAYOUTS[data[0]]
    _, vcpu, code, _, payload, _, time_ns, rip, *words = layout.unpack_from(data)
    middle = layout.size + payload
    return Raw(kind, vcpu, code, time_ns, rip, tuple(words), data[layout.size : middle], data[middle:], note)


def read(path: Path) -> list[Record]:
    """All records of a log, or of a run's folder, to its end or to where it was cut."""
    with LogReader(path) as reader:
        return [*reader.records(), *reader.finish()]


def _number(value: Any, default: int) -> int:
    return value if isinstance(value, int) else default


__all__ = ["FILE_NAME", "LogReader", "NoteRecord", "Record", "read"]
