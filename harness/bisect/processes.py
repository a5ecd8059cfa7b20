"""The processes of a bisection: a shell's commands, git's, and boots, each of which has its own."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stub.errors import UsageError

_PVSTUB = (sys.executable, "-c", "import sys; from stub.cli import main; sys.exit(main())")
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


def boot_command(words: Sequence[str]) -> str:
    """The boot as a person types it."""
    return shlex.join(["pvstub", "boot", *words])


@contextmanager
def started(
    commands: Sequence[tuple[Sequence[str], Path, Mapping[str, str]]],
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes side by side, as (words, run's folder, environment); whoever is left at the end is ended."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for words, folder, environment in commands:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / _SAID).open("wb") as said:
                processes.append(
                    subprocess.Popen(
                        list(words), env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=said,
                        stderr=subprocess.STDOUT, start_new_session=True,
                    )
                )  # fmt: skip
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def boot_words(words: Sequence[str], folder: Path) -> list[str]:
    """The process that boots a guest into ``folder``, quietly, and for ten minutes if ``words`` have no other limit."""
    image, *rest = words
    return [*_PVSTUB, "boot", image, f"--wall-limit={_PATIENCE_S}", *rest, "--quiet", f"--run={folder}"]


def pytest_words(node: str) -> list[str]:
    """The process that runs one test."""
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", node]


def ended(process: subprocess.Popen[bytes], folder: Path) -> Ended:
    """Wait for a process of :func:`started`."""
    status = process.wait()
    return Ended(status, (folder / _SAID).read_text(errors="replace"))
