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
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from stub.errors import UsageError
from stub.trace import lock
from stub.trace.format import (
    HEADER,
    HYPERCALLS,
    IDENTITY_CAP,
    MAGIC,
    NESTED,
    RECORD_CAP,
    STRUCTS,
    VERSION,
    WINDOW,
    WORDS,
    Kind,
)
from stub.trace.records import HypercallRecord, NoteRecord, Raw, Record, make

FILE_NAME: Final = "hypercalls"
CHUNK: Final = 1 << 20
POLL_S: Final = 0.05
"""How often a follower looks: writes through a mapping wake nobody up, so there is nothing to wait for."""

_KINDS: Final = {int(kind): (kind, STRUCTS[kind], len(WORDS[kind])) for kind in Kind}


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
        self._held: list[Raw] = []

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
        for raw in self._raw():
            yield from self._ordered(raw)

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
        held, self._held = self._held, []
        for raw in held:
            yield self._made(raw)
        if self.live():
            return
        rest = os.pread(self._fd, WINDOW + 1, self._at)
        clear = rest if self.complete else rest[RECORD_CAP:]  # a cut log's last record may be half there
        if len(rest) > WINDOW or clear.count(0) != len(clear):
            raise self._damaged(self._at)

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

    def _raw(self) -> Iterator[Raw]:
        """The raw records from the current place on; leaves the place behind the last of them."""
        while not self.complete:
            data = os.pread(self._fd, CHUNK + RECORD_CAP, self._at)
            last = len(data) < CHUNK + RECORD_CAP
            at = 0
            while at < len(data) and (at < CHUNK or last):
                if data[at] == 0:
                    return
                raw, end = self._one(data, at)
                self._at += end - at
                at = end
                yield raw
                if raw.kind is Kind.END:
                    self.complete = True
                    return
            if last:
                return

    def _one(self, data: bytes, at: int) -> tuple[Raw, int]:
        """The record at offset ``at`` of ``data``, and where it ends."""
        known = _KINDS.get(data[at])
        if known is None or at + known[1].size > len(data):
            raise self._damaged(self._at)
        kind, layout, words = known
        _, vcpu, code, count, payload, out, time_ns, rip, *values = layout.unpack_from(data, at)
        middle = at + layout.size + payload
        end = middle + out
        if count != words or end > len(data):
            raise self._damaged(self._at)
        return Raw(
            kind, vcpu, code, time_ns, rip, tuple(values), data[middle - payload : middle], data[middle:end]
        ), end

    def _ordered(self, raw: Raw) -> Iterator[Record]:
        """``raw`` and what waited for it, in reading order; nothing while it has to wait."""
        if raw.kind in NESTED or raw.kind is Kind.NOTE:
            self._held.append(raw)
            return
        held, self._held = self._held, []
        if raw.kind not in HYPERCALLS:
            for waiting in held:
                yield self._made(waiting)
            yield self._made(raw)
            return
        calls: list[tuple[Raw, str | None]] = []
        note: str | None = None
        for waiting in (*held, raw):
            if waiting.kind is Kind.NOTE:
                note = waiting.payload.decode(errors="backslashreplace")
            else:
                calls.append((waiting, note))
                note = None
        for call, why in (calls[-1], *calls[:-1]):
            record = self._made(call)
            yield replace(record, note=why) if why is not None and isinstance(record, HypercallRecord) else record

    def _made(self, raw: Raw) -> Record:
        if raw.kind is Kind.CONSOLE:
            self._console = sum(raw.words)
        seq = self._seq
        self._seq += 1
        return make(raw, seq=seq, domain=self.domain, bits=self.bits, console_offset=self._console)

    def _damaged(self, offset: int) -> UsageError:
        return self._fault(f"damaged hypercall log: no record at byte {offset}; run the boot again")

    def _fault(self, text: str) -> UsageError:
        return UsageError(f"{self.path}: {text}")


def read(path: Path) -> list[Record]:
    """All records of a log, or of a run's folder, to its end or to where it was cut."""
    with LogReader(path) as reader:
        return [*reader.records(), *reader.finish()]


def _number(value: Any, default: int) -> int:
    return value if isinstance(value, int) else default


__all__ = ["FILE_NAME", "LogReader", "NoteRecord", "Record", "read"]
