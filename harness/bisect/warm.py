"""A process that has loaded all that a boot needs, and forks for each: a small guest's boot is mostly loading.

It is asked in lines of JSON, ``{"number": N, "words": [...], "said": PATH}``, and says ``N STATUS`` when that boot has
ended (negative: by that signal). When nobody asks any more, because he was killed or has enough, it ends its boots.

The law of this file: the process has one thread and does nothing but fork, so that a boot finds it as new each time.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NoReturn

from stub import cli

_LOADED: Final = (
    "capstone", "harness.catalogue", "stub.asked", "stub.domain.hostmemory", "stub.engine.unicorn", "stub.machine",
)  # fmt: skip


def serve() -> None:
    """Fork boots until standard input ends."""
    for name in _LOADED:
        importlib.import_module(name)
    ended, tells = os.pipe2(os.O_NONBLOCK)
    signal.set_wakeup_fd(tells)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asks has heard it, too, and ends us
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
                boots[_forked(wanted["words"], wanted["said"], (ended, tells))] = wanted["number"]
        if ended in ready:
            os.read(ended, 4096)
            _reap(boots)
    for process in boots:  # those that have ended by now are still there to be waited for
        os.kill(process, signal.SIGKILL)


def _reap(boots: dict[int, int]) -> None:
    while boots:
        process, status = os.waitpid(-1, os.WNOHANG)
        if not process:
            return
        with suppress(BrokenPipeError):  # nobody is there any more, and standard input is at its end
            os.write(1, f"{boots.pop(process)} {os.waitstatus_to_exitcode(status)}\n".encode())


def _forked(words: Sequence[str], said: str, ours: Sequence[int]) -> int:
    process = os.fork()
    if not process:
        signal.set_wakeup_fd(-1)
        for descriptor in ours:
            os.close(descriptor)
        _boot(words, said)
    return process


def _boot(words: Sequence[str], said: str) -> NoReturn:
    """In the new process, which keeps nothing of the old one but what is loaded."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 1)
    os.dup2(1, 2)
    sys.exit(cli.main(words))
