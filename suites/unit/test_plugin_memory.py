"""The budget of guest memory that all workers of a run share. Two accounts in one process behave as two processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.admission import Lease, MemoryBudget, capacity, host_memory
from stub.domain.hostmemory import DEFAULT_SHARE
from stub.errors import UsageError

PATIENCE = 10.0


class Later:
    """Something that waits, in a thread: its result, or its error."""

    def __init__(self, what: Callable[[], Lease]) -> None:
        self.lease: Lease | None = None
        self.error: UsageError | None = None
        self._what = what
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.lease = self._what()
        except UsageError as error:
            self.error = error

    def done(self) -> bool:
        return not self._thread.is_alive()

    def result(self) -> Lease | None:
        self._thread.join(PATIENCE)
        assert self.done()
        return self.lease


def waiting(folder: Path, count: int) -> None:
    """Return once ``count`` accounts wait."""
    end = time.monotonic() + PATIENCE
    while len(list(folder.glob("*.wake"))) != count:
        assert time.monotonic() < end
        os.sched_yield()


def test_who_does_not_fit_waits_in_turn(tmp_path: Path) -> None:
    one, two, three = (MemoryBudget(tmp_path, 1000) for _ in range(3))
    first, small = one.acquire(600, "first"), two.acquire(300, "small")
    big = Later(lambda: two.acquire(700, "big"))
    waiting(tmp_path, 1)
    late = Later(lambda: three.acquire(100, "late"))
    waiting(tmp_path, 2)
    small.release()
    assert not big.done()
    assert not late.done(), "it would fit, but it is not its turn"
    first.release()
    assert big.result() is not None
    assert late.result() is not None
    for budget in (one, two, three):
        budget.close()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_twenty_guests_of_a_gib_on_a_host_of_eight(tmp_path: Path) -> None:
    """55 % of 8 GiB hold four: never are there more, and four there are."""
    share = int(8192 * DEFAULT_SHARE)
    at_once, most, turn = 0, 0, threading.Condition()

    def live(number: int) -> Lease:
        nonlocal at_once, most
        budget = MemoryBudget(tmp_path, share)
        lease = budget.acquire(1024, f"guest {number}")
        with turn:
            at_once += 1
            most = max(most, at_once)
            turn.notify_all()
            turn.wait_for(lambda: most == 4, PATIENCE)
            at_once -= 1
        lease.release()
        budget.close()
        return lease

    guests = [Later(lambda number=number: live(number)) for number in range(20)]  # type: ignore[misc]
    for guest in guests:
        assert guest.result() is not None
    assert most == 4


def test_who_never_fits_is_told_at_once(tmp_path: Path) -> None:
    budget = MemoryBudget(tmp_path, 1000)
    with pytest.raises(UsageError, match=r"^me: a guest of 1001 MiB never fits the memory budget of 1000 MiB: "):
        budget.acquire(1001, "me")


def test_holders_that_wait_for_each_other_are_not_left_waiting(tmp_path: Path) -> None:
    one, two = (MemoryBudget(tmp_path, 1000) for _ in range(2))
    one.acquire(500, "one")
    held = two.acquire(400, "two")
    more = Later(lambda: one.acquire(300, "one"))
    waiting(tmp_path, 1)
    last = Later(lambda: two.acquire(200, "two"))
    assert more.result() is None
    assert "one: all 900 MiB of guest memory are held by tests that wait for more" in str(more.error)
    assert not last.done()
    one.close()
    assert last.result() is not None
    held.release()
    two.close()


def test_a_dead_workers_memory_is_free_again(tmp_path: Path) -> None:
    doomed = f"""
import os, pathlib
from harness.admission import MemoryBudget
MemoryBudget(pathlib.Path({str(tmp_path)!r}), 1000).acquire(900, "doomed")
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", doomed], check=False, timeout=PATIENCE)
    assert '"held": 900' in next(tmp_path.glob("*.json")).read_text()
    budget = MemoryBudget(tmp_path, 1000)
    assert budget.acquire(1000, "heir").memory == 1000
    budget.close()


def test_settings(tmp_path: Path) -> None:
    meminfo, cgroup = tmp_path / "meminfo", tmp_path / "memory.max"
    meminfo.write_text("MemTotal:        8388608 kB\nMemFree: 1 kB\n")
    assert host_memory(meminfo, cgroup) == 8192
    cgroup.write_text("max\n")
    assert host_memory(meminfo, cgroup) == 8192
    cgroup.write_text(f"{4 << 30}\n")
    assert host_memory(meminfo, cgroup) == 4096
    assert capacity("4096") == 4096
    assert capacity("") == int(host_memory() * 0.55)
    assert capacity("50%") == host_memory() // 2
    for wrong in ("0", "lots", "-3", "1.5"):
        with pytest.raises(UsageError, match=r"give MiB, as in 4096, or a share of RAM, as in 55%"):
            capacity(wrong)
