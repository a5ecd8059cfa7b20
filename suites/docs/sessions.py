"""A shown session with a debugger, carried out: guests in the background, a real gdb at its own prompt."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from suites.docs.blocks import PROMPT, Block, Command, Known, matches

PATIENCE = 180.0  # seconds for what is shown to be printed
SETTINGS = ("width 0", "height 0", "style enabled off", "debuginfod enabled off", "remotetimeout 60")


# The guest came out of the cache, and its sources were checked out since.
OLDER = re.compile(r"warning: Source file is more recent than executable\.\r?\n")


class Program:
    """A child process; ``text``: what it has printed and nobody has taken."""

    def __init__(self, words: list[str], folder: Path, environment: dict[str, str], name: str) -> None:
        self.name = name
        self.text = ""
        self.process = subprocess.Popen(
            words, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def type(self, line: str) -> None:
        """Give it a line, as from a keyboard."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def until(self, enough: Callable[[str], bool]) -> str:
        """Take what it prints once that is enough; or all of it, if it ends first. AssertionError if neither comes."""
        assert self.process.stdout is not None
        file, end = self.process.stdout.fileno(), time.monotonic() + PATIENCE
        poll = select.poll()
        poll.register(file, select.POLLIN)
        while not enough(self.text):
            ready = poll.poll(max(end - time.monotonic(), 0) * 1000)
            assert ready, f"waited in vain for {self.name}; it printed\n{self.text}"
            data = os.read(file, 1 << 16)
            if not data:
                break
            self.text += data.decode("utf-8", "replace")
        taken, self.text = self.text, ""
        return taken

    def end(self) -> None:
        """By SIGTERM, if it still runs; by SIGKILL at last."""
        patience = {signal.SIGTERM: 10.0, signal.SIGKILL: None}
        for number, seconds in patience.items():
            self.process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                self.process.communicate(timeout=seconds)
                return


class Session:
    """Carries a block out in an empty folder; ends all that it started."""

    def __init__(self, folder: Path, state: Path) -> None:
        self._folder = folder
        self._known = Known()
        self._programs: list[Program] = []
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "DEBUGINFOD_"))}
        self._environment = kept | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "XDG_STATE_HOME": str(state),
            "LC_ALL": "C.UTF-8",
            "TERM": "dumb",
        }

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._programs:
            self._programs.pop().end()

    def run(self, block: Block) -> None:
        """Each command in turn; AssertionError where something else is printed than shown."""
        for command in block.commands:
            if command.text.endswith("&"):
                self._in_background(command)
            elif command.words[0] == "gdb":
                self._gdb(command)
            else:
                done = self._start(command)
                self._compare(command, done.until(lambda _: False))

    def _start(self, command: Command) -> Program:
        text = self._known.typed(command.text).removesuffix("&")
        program = Program(["bash", "-c", f"exec {text}"], self._folder, self._environment, command.text)
        self._programs.append(program)
        return program

    def _in_background(self, command: Command) -> None:
        """Until it has printed as many lines as are shown."""
        lines = len(command.output)
        assert "…" not in {line.strip() for line in command.output}, "how many lines does it print?"
        self._compare(command, self._start(command).until(lambda text: text.count("\n") >= lines))

    def _gdb(self, command: Command) -> None:
        """What is typed into gdb, and what it prints up to each prompt."""
        first, *typed = command.typed
        assert shutil.which("gdb"), "gdb is not installed: apt install gdb"
        settings = " ".join(f"-iex 'set {setting}'" for setting in SETTINGS)
        gdb = self._start(Command(f"gdb -nx {settings} {first.text.removeprefix('gdb')}", ()))
        self._compare(first, self._answer(gdb))
        for line in typed:
            gdb.type(self._known.typed(line.text))
            self._compare(line, self._answer(gdb))
        gdb.type("quit")
        gdb.until(lambda _: False)

    @staticmethod
    def _answer(gdb: Program) -> str:
        answer = gdb.until(lambda text: text.endswith(PROMPT))
        assert answer.endswith(PROMPT), f"gdb ended; it printed\n{answer}"
        return OLDER.sub("", answer.removesuffix(PROMPT))

    def _compare(self, command: Command, printed: str) -> None:
        shown = "\n".join(command.output)
        fits = matches(command.output, printed, self._known)
        assert fits, f"{command.text}\n-- printed:\n{printed}\n-- shown:\n{shown}"
