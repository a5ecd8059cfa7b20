"""A real gdb, driven over its machine interface (GDB manual, chapter 27 "GDB/MI").

pygdbmi reads the records; what is waited for is said in them: the result with a command's own token, and ``*stopped``.
Nothing of the user's settings is loaded, nothing is asked, nothing is fetched. ::

    with Gdb(symbols=vmlinux) as gdb:
        gdb.connect("127.0.0.1:1234")
        gdb.execute("break start_kernel")
        stop = gdb.cont()
        assert stop["reason"] == "breakpoint-hit"
        print(gdb.execute("backtrace"))
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import time
import weakref
from collections import deque
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from pygdbmi import gdbmiparser

SETTINGS = (
    "confirm off",
    "pagination off",
    "width 0",
    "height 0",
    "style enabled off",
    "debuginfod enabled off",
    "mi-async on",  # commands are heard while the guest runs, -exec-interrupt among them
    "remotetimeout 60",
)
GOODBYE_S = 2.0  # for gdb to end by itself
TAIL = 30  # lines of the conversation in an error
READ_SIZE = 1 << 16


class GdbError(Exception):
    """gdb answered with an error, which is the text, or has ended."""


class GdbMissing(GdbError):
    """There is no gdb on this machine."""


class GdbTimeout(GdbError):
    """What was waited for did not come in time; the text has the end of the conversation."""


class Gdb:
    """A gdb process, from its start to :meth:`close`. Times are in seconds of the clock on the wall."""

    def __init__(self, *, symbols: Path | None = None, timeout: float = 60.0, program: str = "gdb") -> None:
        """``symbols``: a file for gdb to read as it starts. ``program``: which gdb."""
        found = shutil.which(program)
        if found is None:
            raise GdbMissing(f"{program} is not installed: apt install gdb")
        self.timeout = timeout
        self.running = False
        """gdb's own view of whether the guest runs."""
        self.lines: deque[str] = deque(maxlen=1000)
        """The end of the conversation, as it was written: ``>`` stands before what we said."""
        self._foreground = False  # the guest runs by a console command, and gdb listens to signals only
        self._stops: deque[dict[str, Any]] = deque()
        self._text: list[str] = []
        self._token = 0
        self._rest = b""
        arguments = [found, "-nx", "-q", "--interpreter=mi3"]
        arguments += [part for setting in SETTINGS for part in ("-iex", f"set {setting}")]
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            [*arguments, *([str(symbols)] if symbols else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment(),
            start_new_session=True,  # a Ctrl-C for pytest is not for gdb
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._input: IO[bytes] = self.process.stdin
        self._output = self.process.stdout.fileno()
        self._finalizer = weakref.finalize(self, _end, self.process)
        try:
            self.command("-environment-pwd")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Gdb:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End gdb: it detaches from the guest if it listens, else it vanishes. Nothing of it stays."""
        if self.process.poll() is None and not (self.running and self._foreground):
            with suppress(GdbError, OSError, subprocess.TimeoutExpired):
                self._say("-gdb-exit")
                self._input.close()
                self.process.wait(GOODBYE_S)
        self._finalizer()

    # Commands

    def command(self, text: str, timeout: float | None = None) -> dict[str, Any]:
        """Send an MI command and return its result's payload; GdbError if that is an error."""
        return self._ask(text, text, timeout)

    def _ask(self, text: str, shown: str, timeout: float | None) -> dict[str, Any]:
        self._token += 1
        token = self._token
        self._text.clear()
        self._say(f"{token}{text}")
        deadline = self._deadline(timeout)
        while True:
            record = self._record(f"the result of {shown}", deadline)
            if record["type"] == "result" and record["token"] in (token, None):
                payload: dict[str, Any] = record["payload"] or {}
                if record["message"] == "running":
                    self._foreground = text.startswith("-interpreter-exec") and not shown.rstrip().endswith("&")
                if record["message"] == "error":
                    raise GdbError(f"{shown}: {payload.get('msg', 'error')}")
                return payload

    def execute(self, text: str, timeout: float | None = None) -> str:
        """Run a command as a person types it; return what it prints, ``monitor``'s answers included.

        A command that has the guest run returns at once; :meth:`wait_stop` waits. Until then gdb hears no other command
        but Ctrl-C, which :meth:`interrupt` is; ``-exec-continue`` and a ``&`` leave it listening.
        """
        quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        self._ask(f'-interpreter-exec console "{quoted}"', text, timeout)
        return "".join(self._text)

    def evaluate(self, expression: str, timeout: float | None = None) -> str:
        """The value of an expression, as gdb prints it."""
        quoted = expression.replace("\\", "\\\\").replace('"', '\\"')
        return str(self._ask(f'-data-evaluate-expression "{quoted}"', expression, timeout)["value"])

    # The guest

    def connect(self, address: str, *, extended: bool = False, timeout: float | None = None) -> None:
        """Attach to a stub at ``HOST:PORT``, ``:PORT``, a unix socket's path or ``| COMMAND``."""
        kind = "extended-remote" if extended else "remote"
        self.command(f"-target-select {kind} {address}", timeout)
        self._stops.clear()

    def wait_stop(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait for the guest's next stop; the payload of ``*stopped``. What is printed at it is in :attr:`text`."""
        deadline = self._deadline(timeout)
        while not self._stops:
            self._record("the guest to stop", deadline)
        return self._stops.popleft()

    def cont(self, timeout: float | None = None) -> dict[str, Any]:
        """Continue and wait for the next stop."""
        self.command("-exec-continue")
        return self.wait_stop(timeout)

    def interrupt(self, timeout: float | None = None) -> dict[str, Any]:
        """Stop a guest that runs."""
        if self._foreground:
            self.process.send_signal(signal.SIGINT)
        else:
            self.command("-exec-interrupt", timeout)
        return self.wait_stop(timeout)

    @property
    def text(self) -> str:
        """What was printed since the last command was sent."""
        return "".join(self._text)

    # Records

    def _say(self, text: str) -> None:
        self.lines.append(f"> {text}")
        try:
            self._input.write(text.encode() + b"\n")
            self._input.flush()
        except (OSError, ValueError) as error:
            raise GdbError(f"gdb has ended, and cannot be told {text}{self._tail()}") from error

    def _record(self, what: str, deadline: float) -> dict[str, Any]:
        """The next record; what it says of the guest and what it prints is noted."""
        record: dict[str, Any] = gdbmiparser.parse_response(self._line(what, deadline))
        match record["type"], record["message"]:
            case "console" | "target" | "output", _:
                self._text.append(str(record["payload"]))
            case "result" | "notify", "running":
                self.running = True
                self._stops.clear()
            case "notify", "stopped":
                self.running = False
                self._stops.append(record["payload"] or {})
        return record

    def _line(self, what: str, deadline: float) -> str:
        poll = select.poll()
        poll.register(self._output, select.POLLIN)
        while b"\n" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise GdbTimeout(f"waited in vain for {what}{self._tail()}")
            data = os.read(self._output, READ_SIZE)
            if not data:
                raise GdbError(f"gdb ended while {what} was waited for{self._tail()}")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        text = line.decode("utf-8", "replace").rstrip("\r")
        self.lines.append(text)
        return text

    def _tail(self) -> str:
        return "; the end of the conversation:\n" + "\n".join(list(self.lines)[-TAIL:])

    def _deadline(self, timeout: float | None) -> float:
        return time.monotonic() + (self.timeout if timeout is None else timeout)


def _environment() -> dict[str, str]:
    """The caller's, without what changes gdb's language or sends it to the network."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DEBUGINFOD_", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C.UTF-8", "TERM": "dumb"}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End gdb and what it started, whatever it does; also when the last reference goes, and at exit."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


__all__ = ["Gdb", "GdbError", "GdbMissing", "GdbTimeout"]
