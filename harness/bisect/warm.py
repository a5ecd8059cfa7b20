"""A process that has loaded all that a boot needs, and forks for each: a small guest's boot is mostly loading.

It is asked in lines of JSON, ``{"number": N, "words": [...], "said": PATH, "environment": {...}, "boots": true}``, and
says ``N STATUS`` when that boot has ended (negative: by that signal). Without ``boots`` it is another program.
When nobody asks any more, because he was killed or has enough, it ends its boots; when it is killed, they are, too.

The law of this file: the process has one thread and does nothing but fork, so that a boot finds it as new each time.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import select
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NoReturn

from stub import cli

_LOADED: Final = (
    "capstone", "harness.catalogue", "stub.asked", "stub.domain.hostmemory", "stub.engine.unicorn", "stub.machine",
)  # fmt: skip
_HEARD: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # whoever asks hears them, too, and ends us
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)


def serve() -> None:
    """Fork boots until standard input ends."""
    before: dict[int, Any] = {number: signal.signal(number, signal.SIG_IGN) for number in _HEARD}
    for name in _LOADED:
        importlib.import_module(name)
    ended, tells = os.pipe2(os.O_NONBLOCK)
    signal.set_wakeup_fd(tells)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    before[signal.SIGINT] = signal.default_int_handler
    library = ctypes.CDLL(None)
    boots: dict[int, int] = {}  # process: number
    asked = b""
    while True:
        ready, _, _ = select.select([0, ended], [], [])
        if 0 in ready:
            data = os.read(0, 1 << 16)
            if not data:
                break
            *lines, asked = (asked + data).split(b"\n")
            for line in lines:
                wanted = json.loads(line)
                process = os.fork()
                if not process:
                    library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                    _new(before, (ended, tells))
                    _begin(wanted)
                boots[process] = wanted["number"]
        if ended in ready:
            os.read(ended, 4096)
            _reap(boots)
    for process in boots:  # those that have ended by now are still there to be waited for
        os.kill(process, signal.SIGKILL)
        with suppress(ProcessLookupError):  # it has not begun, or is alone
            os.killpg(process, signal.SIGKILL)


def _reap(boots: dict[int, int]) -> None:
    while boots:
        process, status = os.waitpid(-1, os.WNOHANG)
        if not process:
            return
        with suppress(BrokenPipeError):  # nobody is there any more, and standard input is at its end
            os.write(1, f"{boots.pop(process)} {os.waitstatus_to_exitcode(status)}\n".encode())


def _new(handlers: Mapping[int, Any], ours: Sequence[int]) -> None:
    """A process that keeps nothing of this one but what is loaded."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    for descriptor in ours:
        os.close(descriptor)
    for number, handler in {**handlers, signal.SIGCHLD: signal.SIG_DFL}.items():
        signal.signal(number, handler)


def _begin(wanted: Mapping[str, Any]) -> NoReturn:
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(wanted["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 1)
    except OSError as error:  # the disk is full
        os._exit(error.errno or 1)
    os.dup2(1, 2)
    words = wanted["words"]
    if wanted["boots"]:
        sys.exit(cli.main(words))
    os.execvpe(words[0], words, {**os.environ, **wanted["environment"]})
