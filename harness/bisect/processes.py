"""The processes of a bisection: a shell's commands, git's, and boots, each of which has its own."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from stub.errors import UsageError

_PVSTUB = (sys.executable, "-c", "import sys; from stub.cli import main; sys.exit(main())")
_WARM = (sys.executable, "-c", "from harness.bisect.warm import serve; serve()")
_COMPARED = (0, 1)
_PATIENCE_S = 600
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


def git(repository: Path, *words: str) -> str:
    """What git answers, stripped. UsageError with git's own words when it refuses."""
    try:
        done = subprocess.run(["git", "-C", str(repository), *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UsageError("git is not installed (package git)") from None
    if done.returncode:
        raise UsageError(f"git {words[0]}: {' '.join((done.stderr or done.stdout).split())}")
    return done.stdout.strip()


def shell(command: str, folder: Path, environment: Mapping[str, str]) -> Ended:
    """A shell's command run in ``folder`` to its end."""
    done = subprocess.run(
        ["sh", "-c", command], cwd=folder, env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    return Ended(done.returncode, done.stdout.decode(errors="replace"))


def compared(good: Path, bad: Path) -> dict[str, Any] | None:
    """What ``pvstub diff --json --backtrace`` says of two runs; None if it cannot compare them."""
    words = [*_PVSTUB, "diff", "--json", "--backtrace", str(good), str(bad)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
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
    """Starts work, several side by side; boots in a process that is warm already (``warm.py``)."""

    _warm: subprocess.Popen[str] | None = None
    _number: int = 0
    _ended: dict[int, int] = field(default_factory=dict)

    @contextmanager
    def started(self, works: Sequence[Work]) -> Iterator[list[Callable[[], Ended]]]:
        """The work begun; what is given waits for its end. Whoever is left afterwards is ended."""
        processes: list[subprocess.Popen[bytes]] = []
        boots: list[int] = []
        waits: list[Callable[[], Ended]] = []
        try:
            for work in works:
                work.folder.mkdir(parents=True, exist_ok=True)
                said = work.folder / _SAID
                if work.boots:
                    boots.append(self._boot(work.words, said))
                    waits.append(partial(self._booted, boots[-1], said))
                else:
                    processes.append(_begun(work, said))
                    waits.append(partial(_ended, processes[-1], said))
            yield waits
        finally:
            if not self._ended.keys() >= set(boots):
                self.close()
            for process in processes:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()

    def close(self) -> None:
        """End the warm process, and the boots that it still has."""
        warm, self._warm = self._warm, None
        if warm is not None:
            warm.communicate()

    def _boot(self, words: Sequence[str], said: Path) -> int:
        if self._warm is None:
            self._warm = subprocess.Popen(_WARM, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        assert self._warm.stdin is not None
        self._number += 1
        self._warm.stdin.write(json.dumps({"number": self._number, "words": list(words), "said": str(said)}) + "\n")
        return self._number

    def _booted(self, number: int, said: Path) -> Ended:
        while number not in self._ended and self._warm is not None:
            assert self._warm.stdout is not None
            line = self._warm.stdout.readline()
            if not line:  # it was killed, and with it all that it had begun
                self.close()
                break
            ended, status = line.split()
            self._ended[int(ended)] = int(status)
        return Ended(self._ended.setdefault(number, -signal.SIGKILL), _text(said))


def _begun(work: Work, said: Path) -> subprocess.Popen[bytes]:
    with said.open("wb") as file:
        return subprocess.Popen(
            list(work.words), env={**os.environ, **work.environment}, stdin=subprocess.DEVNULL, stdout=file,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def _ended(process: subprocess.Popen[bytes], said: Path) -> Ended:
    return Ended(process.wait(), _text(said))


def _text(said: Path) -> str:
    return said.read_text(errors="replace") if said.exists() else ""


def boot_words(words: Sequence[str], folder: Path) -> list[str]:
    """How a guest is booted into ``folder``, quietly, and for ten minutes if ``words`` have no other limit."""
    image, *rest = words
    return ["boot", image, f"--wall-limit={_PATIENCE_S}", *rest, "--quiet", f"--run={folder}"]


def pytest_words(node: str) -> list[str]:
    """The process that runs one test."""
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", node]
