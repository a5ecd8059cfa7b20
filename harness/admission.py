"""How much guest memory may be in use at once, over all processes of one test run.

A ledger folder holds one file per process, locked by that process for its life: what it holds, what it waits for,
since when. A dead process is one whose file can be locked; its memory is free again. Every change is made under one
lock, and wakes who waits through a FIFO of theirs, so nobody polls. Granted in order of arrival, but those that
already hold memory come first, or two of them could wait for a third in the queue. When all holders wait, none can
ever go on: the first of them is told so.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from stub.domain.hostmemory import DEFAULT_SHARE, host_memory
from stub.errors import UsageError

# A process that dies without a word wakes nobody; those that wait look around this often, in seconds.
_LOOK_AROUND = 1.0


def capacity(setting: str) -> int:
    """A budget in MiB from its setting: ``4096`` (MiB), ``55%`` of the host's RAM, or empty for the default share."""
    number = setting.removesuffix("%").strip()
    if not setting:
        return int(host_memory() * DEFAULT_SHARE)
    if not number.isdigit() or not int(number):
        raise UsageError(f"memory budget {setting!r}: give MiB, as in 4096, or a share of RAM, as in 55%")
    return host_memory() * int(number) // 100 if setting.endswith("%") else int(number)


@dataclass(frozen=True)
class Member:
    """One process's line in the ledger; memory in MiB."""

    held: int = 0
    wanted: int = 0
    since: int = 0  # CLOCK_MONOTONIC, one clock for all processes of a host
    who: str = ""


class Lease:
    """Memory that has been granted; given back once."""

    def __init__(self, budget: MemoryBudget, memory: int) -> None:
        self._budget: MemoryBudget | None = budget
        self.memory = memory

    def release(self) -> None:
        """Give the memory back; a second call does nothing."""
        if self._budget is not None:
            self._budget._give_back(self.memory)
            self._budget = None


class MemoryBudget:
    """This process's account in the ledger at ``folder``, shared by all who are given the same ``folder``."""

    def __init__(self, folder: Path, capacity: int) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.capacity = capacity
        self._folder = folder
        self._path = folder / f"{os.getpid()}-{os.urandom(4).hex()}.json"
        self._me = Member()
        self._file: int | None = None  # opened, and locked for life, at the first acquire

    def acquire(self, memory: int, who: str) -> Lease:
        """Wait until ``memory`` MiB fit and take them for ``who``. UsageError when they never can."""
        if memory > self.capacity:
            raise UsageError(
                f"{who}: a guest of {memory} MiB never fits the memory budget of {self.capacity} MiB: give it less "
                "memory, or the run more with --pv-memory-budget"
            )
        self._record(replace(self._me, wanted=memory, since=time.monotonic_ns(), who=who))
        wake = self._path.with_suffix(".wake")
        os.mkfifo(wake, 0o600)
        bell = os.open(wake, os.O_RDWR | os.O_NONBLOCK)
        try:
            while not self._try_take():
                if select.select([bell], [], [], _LOOK_AROUND)[0]:
                    os.read(bell, 4096)
        finally:
            os.close(bell)
            wake.unlink()
            self._record(replace(self._me, wanted=0))
        return Lease(self, memory)

    def _try_take(self) -> bool:
        with self._ledger():
            members = self._members()
            held = sum(member.held for member in members)
            queue = sorted((m for m in members if m.wanted), key=lambda m: (not m.held, m.since))
            head = queue[0]
            if head == self._me and held + head.wanted <= self.capacity:
                self._write(replace(self._me, held=self._me.held + self._me.wanted, wanted=0))
                return True
            if head == self._me and held and all(member.wanted for member in members if member.held):
                raise UsageError(
                    f"{self._me.who}: all {held} MiB of guest memory are held by tests that wait for more: let a test "
                    "reserve what all its guests need with @pytest.mark.pv_limits(memory=MiB)"
                )
            return False

    def _give_back(self, memory: int) -> None:
        self._record(replace(self._me, held=self._me.held - memory))

    def _record(self, member: Member) -> None:
        with self._ledger():
            self._write(member)

    @contextmanager
    def _ledger(self) -> Iterator[None]:
        with (self._folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write(self, member: Member) -> None:
        """Under the lock: put our own line, and ring for everyone who waits."""
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX)
        self._me = member
        data = json.dumps(asdict(member)).encode()
        os.pwrite(self._file, data, 0)
        os.ftruncate(self._file, len(data))
        for wake in self._folder.glob("*.wake"):
            self._ring(wake)

    @staticmethod
    def _ring(wake: Path) -> None:
        try:
            bell = os.open(wake, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # ENXIO, ENOENT: its owner has stopped waiting, or died
            return
        try:
            os.write(bell, b"!")
        except (BlockingIOError, BrokenPipeError):
            pass  # full: it has been rung for already; broken: it has just stopped waiting
        finally:
            os.close(bell)

    def _members(self) -> list[Member]:
        """Under the lock: the lines of all that live, ours included."""
        members = [self._me]
        for path in self._folder.glob("*.json"):
            if path == self._path:
                continue
            with path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    members.append(Member(**json.loads(file.read())))
                else:
                    path.unlink()
        return members

    def close(self) -> None:
        """Leave the ledger, with all that is held."""
        if self._file is not None:
            with self._ledger():  # to the end: who reads the ledger must not find half of us
                self._write(Member())
                self._path.unlink()
                os.close(self._file)
                self._file = None
