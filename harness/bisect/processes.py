"""The processes of a bisection: a shell's commands, git's, and boots, each of which has its own."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

from stub.errors import UsageError

_PVSTUB = (sys.executable, "-c", "import sys; from stub.cli import main; sys.exit(main())")
_WARM = (sys.executable, "-c", "from harness.bisect.warm import serve; serve()")
_COMPARED = (0, 1)
_PATIENCE_S = 600
_MOST_SAID = 1 << 16  # bytes
_SAID = "said"  # the file in a run's folder with what its process wrote


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit status (negative: by that signal), and the last that it said."""

    status: int
    said: str

    @property
    def last_line(self) -> str:
        """The last line that says something."""
        return next((line.strip() for line in reversed(self.said.splitlines()) if line.strip()), "no word")


def git(repository: Path, *words: str, told: str = "") -> str:
    """What git answers, stripped; ``told``: its standard input. UsageError with git's own words when it refuses.

    A subject may be in any encoding: what is not UTF-8 is replaced.
    """
    try:
        done = subprocess.run(
            ["git", "-C", str(repository), *words], input=told.encode(), capture_output=True, check=False
        )
    except FileNotFoundError:
        raise UsageError("git is not installed (package git)") from None
    output = done.stdout.decode(errors="replace")
    if done.returncode:
        said = done.stderr.decode(errors="replace") or output or f"exit status {done.returncode}"
        raise UsageError(f"git {words[0]}: {' '.join(said.split())}")
    return output.strip()


def shell(command: str, folder: Path, environment: Mapping[str, str]) -> Ended:
    """A shell's command run in ``folder`` to its end; when this is interrupted, so is all that it has begun."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            ["sh", "-c", command], cwd=folder, env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
            stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            return Ended(process.wait(), _tail(said))
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def compared(good: Path, bad: Path) -> dict[str, Any] | None:
    """What ``pvstub diff --json --backtrace`` says of two runs; None if it cannot compare them."""
    words = [*_PVSTUB, "diff", "--json", "--backtrace", str(good), str(bad)]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    if done.returncode not in _COMPARED:
        return None
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def boot_command(words: Sequence[str]) -> str:
    """The boot as a person types it."""
    return shlex.join(["pvstub", "boot", *words])


@dataclass(frozen=True)
class Work:
    """A process to run: its words, the run's folder, what is added to its environment. ``boots``: of `pvstub boot`."""

    words: Sequence[str]
    folder: Path
    environment: Mapping[str, str]
    boots: bool = False


@dataclass
class Workers:
    """Starts work, several side by side, all by a process that is warm already and ends with us (``warm.py``)."""

    _warm: subprocess.Popen[str] | None = None
    _number: int = 0
    _ended: dict[int, int] = field(default_factory=dict)

    @contextmanager
    def started(self, works: Sequence[Work]) -> Iterator[list[Callable[[], Ended]]]:
        """The work begun; what is given waits for its end. Whoever is left afterwards is ended."""
        begun: list[int] = []
        waits: list[Callable[[], Ended]] = []
        try:
            for work in works:
                work.folder.mkdir(parents=True, exist_ok=True)
                said = work.folder / _SAID
                begun.append(self._begin(work, said))
                waits.append(partial(self._wait, begun[-1], said))
            yield waits
        finally:
            if not self._ended.keys() >= set(begun):
                self.close()

    def close(self) -> None:
        """End the warm process, and what it still has."""
        warm, self._warm = self._warm, None
        if warm is not None:
            warm.communicate()

    def _begin(self, work: Work, said: Path) -> int:
        self._number += 1
        wanted = {
            "number": self._number,
            "words": list(work.words),
            "said": str(said),
            "environment": dict(work.environment),
            "boots": work.boots,
        }
        for last in (False, True):
            if self._warm is None:
                self._warm = subprocess.Popen(
                    _WARM, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
                )
            assert self._warm.stdin is not None
            try:
                self._warm.stdin.write(json.dumps(wanted) + "\n")
                break
            except BrokenPipeError:  # it was killed since the last boot
                self.close()
                if last:
                    raise
        return self._number

    def _wait(self, number: int, said: Path) -> Ended:
        while number not in self._ended and self._warm is not None:
            assert self._warm.stdout is not None
            line = self._warm.stdout.readline()
            if not line:  # it was killed, and with it all that it had begun
                self.close()
                break
            ended, status = line.split()
            self._ended[int(ended)] = int(status)
        return Ended(self._ended.setdefault(number, -signal.SIGKILL), _text(said))


def _text(said: Path) -> str:
    if not said.exists():
        return ""
    with said.open("rb") as file:
        return _tail(file)


def _tail(said: IO[bytes]) -> str:
    """The end of what a process wrote, however much it was."""
    said.seek(max(said.seek(0, os.SEEK_END) - _MOST_SAID, 0))
    return said.read().decode(errors="replace")


def boot_words(words: Sequence[str], folder: Path) -> list[str]:
    """How a guest is booted into ``folder``, quietly, and for ten minutes if ``words`` have no other limit."""
    image, *rest = words
    return ["boot", image, f"--wall-limit={_PATIENCE_S}", *rest, "--quiet", f"--run={folder}"]


def pytest_words(node: str) -> list[str]:
    """The process that runs one test."""
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", node]
