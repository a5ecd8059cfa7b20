"""The hypercall log's writer: one call an event, a fraction of a microsecond, and a kill loses nothing.

Records go straight into a shared mapping of the file, so they belong to the kernel's page cache as soon as they are
written and outlive the process, whatever ends it. The mapping is a window that moves on through the file; the file's
blocks are allocated before they are mapped, so that a full disk is an error and never a bus error. Nothing of the
host gets into the content: no wall-clock time, no path, no process id.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from stub.errors import PvstubError, UsageError
from stub.trace import lock
from stub.trace._recorder import Recorder
from stub.trace.format import HEADER, MAGIC, RECORD_CAP, VERSION, WINDOW, Kind
from stub.trace.names import hypercall_name
from stub.units import U64

WIDE: Final = {Kind.HYPERCALL: Kind.WIDE, Kind.NESTED: Kind.NESTED_WIDE}

_MOST_WIDE = 64  # numbers too large for their field that are counted apart; the last takes all others


class HypercallLog(Recorder):
    """An append-only log of what the guest asked and was answered.

    ``path`` None keeps no file (the digest and the counts are the same). ``identity`` says which domain this is
    (``domain``: number, ``bits``: 64 or 32, and what else makes it that run); it is part of the digest.
    ``vcpu`` is stamped on each record: the run loop sets it when another vCPU runs. The calls that are made most
    often are the C part's (`_recorder.c`), with ``time_ns`` in virtual time and ``rip`` where the guest was:

    - ``hypercall(time_ns, rip, nr, a1, a2, a3, a4, a5, rc, payload, out)``, after the handler: a hypercall answered
      with ``rc``; ``payload``: its argument structures, ``out``: what they were after;
    - ``nested(…)``: the same for an entry of a multicall, before the multicall's own record;
    - ``exception(time_ns, rip, vector, error_code, cr2, rsp, to_rip, user)``: an exception handed to the guest's
      handler at ``to_rip``; ``error_code`` -1: the vector has none.
    """

    def __init__(self, path: Path | None, *, identity: Mapping[str, Any]) -> None:
        self.path = path
        self._hash = hashlib.sha256()
        self._wide_calls: Counter[int] = Counter()
        self._fd = -1 if path is None else _open(path)
        self._base = 0  # file offset of the window
        self._hashed = 0  # file offset up to which the digest has run
        self._closed = False
        text = json.dumps(dict(identity), sort_keys=True, separators=(",", ":")).encode()
        header = HEADER.pack(MAGIC, VERSION, 0, len(text)) + text
        self._map = self._window(0)
        self._map[: len(header)] = header
        self._first = len(header)  # where the window's records begin
        self._earlier = b""  # those of the window before
        self._attach(self._map, len(header), WINDOW - RECORD_CAP)

    def upcall(self, time_ns: int, rip: int, rsp: int, to_rip: int, user: bool) -> None:
        """An event upcall, from ``rip``:``rsp`` to the guest's event callback."""
        self._append(Kind.UPCALL, 0, time_ns, rip, (rsp, to_rip, user))

    def cpuid(
        self, time_ns: int, rip: int, forced: bool, leaf: int, subleaf: int, a: int, b: int, c: int, d: int
    ) -> None:
        """A ``cpuid`` answered from the policy; ``forced``: by the forced-emulation prefix.

        One that repeats the last record, and is not forced, is counted and not written.
        """
        self._cpuid(time_ns, rip, forced, leaf | subleaf << 32, a | b << 32, c | d << 32)

    def privileged(
        self, time_ns: int, rip: int, insn: bytes, before: tuple[int, int, int, int], after: tuple[int, int, int, int]
    ) -> None:
        """A privileged instruction emulated; ``before`` and ``after``: rax, rbx, rcx, rdx."""
        self._append(Kind.PRIVILEGED, 0, time_ns, rip, (*before, *after), insn)

    def port_io(self, time_ns: int, rip: int, port: int, size: int, value: int, write: bool) -> None:
        """An ``in`` or ``out`` of ``size`` bytes."""
        self._append(Kind.PORT_IO, write, time_ns, rip, (port, size, value))

    def pt_write(self, time_ns: int, rip: int, vaddr: int, maddr: int, value: int, size: int, rc: int) -> None:
        """A direct write to a page table, emulated; ``rc`` 0 when it was done."""
        self._append(Kind.PT_WRITE, 0, time_ns, rip, (vaddr, maddr, value, size, rc))

    def console(self, time_ns: int, rip: int, offset: int, length: int) -> None:
        """``length`` bytes taken from the console ring, after ``offset`` earlier ones."""
        self._append(Kind.CONSOLE, 0, time_ns, rip, (offset, length))

    def note(self, time_ns: int, rip: int, text: str) -> None:
        """One line on why something was refused; belongs to the hypercall record that follows."""
        self._append(Kind.NOTE, 0, time_ns, rip, (), text.encode(errors="backslashreplace"))

    def start(self, time_ns: int, rip: int, rsp: int, memory_pages: int) -> None:
        """The domain's first instruction."""
        self._append(Kind.START, 0, time_ns, rip, (rsp, memory_pages))

    def end(self, time_ns: int, rip: int, kind: str, reason: str, exit_status: int) -> None:
        """The verdict, the last record: a log without it was cut."""
        self._append(Kind.END, exit_status, time_ns, rip, (), kind.encode(), reason.encode(errors="backslashreplace"))

    @property
    def size(self) -> int:
        """Bytes of content so far."""
        return self._base + self._at

    def digest(self) -> str:
        """SHA-256 of the content so far, in hex; after `close` it is the file's."""
        if not self._closed:
            self._absorb()
        return self._hash.hexdigest()

    def recent(self) -> bytes:
        """The last records as they lie in the file: those of the window and of the one before it."""
        return self._earlier if self._closed else self._earlier + self._map[self._first : self._at]

    def counts(self) -> dict[str, Any]:
        """How often what happened: hypercalls (multicall entries included) by name, exceptions by vector, the rest."""
        calls = Counter({nr: count for nr, count in enumerate(self._calls) if count}) + self._wide_calls
        others = self._records
        return {
            "hypercalls": {hypercall_name(nr): calls[nr] for nr in sorted(calls)},
            "exceptions": {str(vector): count for vector, count in enumerate(self._exceptions) if count},
            "events": others[Kind.UPCALL],
            "privileged": others[Kind.PRIVILEGED],
            "cpuid": others[Kind.CPUID],
            "port_io": others[Kind.PORT_IO],
            "page_table_writes": others[Kind.PT_WRITE],
        }

    def close(self) -> None:
        """Cut the file to its content and let go of it."""
        if self._closed:
            return
        self._absorb()
        self._closed = True
        self._detach()
        self._map.close()
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                os.ftruncate(fd, self.size)
            finally:
                os.close(fd)

    def __del__(self) -> None:
        """A log that an exception kept from being closed: the file stays as it is, its lock goes."""
        if getattr(self, "_fd", -1) >= 0:
            os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def made(self) -> int:
        """How many hypercalls the log has, entries of multicalls included."""
        return sum(self._calls) + self._wide_calls.total()

    def _wide_call(
        self, kind: int, time_ns: int, rip: int, nr: int, args: tuple[int, ...], rc: int, payload: bytes, out: bytes
    ) -> None:
        """A hypercall with a number too large for its field."""
        known = nr & U64 in self._wide_calls or len(self._wide_calls) < _MOST_WIDE
        self._wide_calls[nr & U64 if known else U64] += 1
        self._append(WIDE[Kind(kind)], 0, time_ns, rip, (*args, rc, nr), payload, out)

    def _window(self, offset: int) -> mmap.mmap:
        """The file's bytes from ``offset`` (of a page) on, allocated and mapped."""
        if self._fd < 0:
            return mmap.mmap(-1, WINDOW)
        try:
            os.posix_fallocate(self._fd, offset, WINDOW)
            return mmap.mmap(self._fd, WINDOW, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=offset)
        except OSError as error:
            remedy = "free space or choose another run folder"
            raise PvstubError(f"{self.path}: cannot extend the hypercall log: {error.strerror}; {remedy}") from error

    def _advance(self) -> None:
        """Move the window on."""
        if self._closed:
            raise ValueError("the hypercall log is closed")
        self._absorb()
        at = self.size
        base = at - at % mmap.ALLOCATIONGRANULARITY
        following = self._window(base)
        self._earlier = self._map[self._first : self._at]
        self._attach(following, at - base, WINDOW - RECORD_CAP)
        self._map.close()
        self._map = following
        self._first = at - base
        self._base = base

    def _absorb(self) -> None:
        """Bring the digest up to date."""
        with memoryview(self._map) as view, view[self._hashed - self._base : self._at] as fresh:
            self._hash.update(fresh)
        self._hashed = self.size


def _open(path: Path) -> int:
    """The log's file, empty, locked until the process ends: a reader tells a live run by the lock."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UsageError(f"{path}: cannot create the hypercall log: {error.strerror}; choose another folder") from error
    if not lock.take(fd):
        os.close(fd)
        raise UsageError(f"{path}: another run is writing this hypercall log; choose another folder")
    os.ftruncate(fd, 0)
    return fd
