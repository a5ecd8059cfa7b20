"""How commands read their words and end: what went wrong is one line on standard error, and an exit status."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Final, NoReturn

from stub.errors import PvstubError, UsageError

TROUBLE: Final = 2
INTERRUPTED: Final = 130
_LONGEST: Final = 1000  # characters of an error: what a file says of itself may be any length


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error of pvstub's."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def ended(command: str, act: Callable[[], int], *, trouble: int | None = None, unread: int = 0) -> int:
    """The exit status of ``act``, or of what went wrong in it, which one line on standard error tells.

    ``trouble`` is the status of every fault, for a command whose 1 is an answer; None leaves each its own. ``unread``
    is the status when nobody reads the output any more.
    """
    try:
        with tidy():
            status = act()
            sys.stdout.flush()
            return status
    except PvstubError as error:
        fault, status = str(error), error.status
    except BrokenPipeError:
        # Whoever read has read enough; the interpreter's own flush at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return unread
    except OSError as error:
        fault, status = f"{error.filename or 'standard output'}: {error.strerror}", PvstubError.status
    except KeyboardInterrupt:
        return INTERRUPTED
    print(f"{command}: {line(fault)}", file=sys.stderr)
    return status if trouble is None else trouble


def line(text: str) -> str:
    """A text in one line that does nothing to a terminal: a file's name, or what a file says, may hold anything."""
    shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    half = _LONGEST // 2  # what is quoted may be long; what is said of it stands behind it
    return shown if len(shown) <= _LONGEST else f"{shown[:half]}…{shown[-half:]}"


@contextlib.contextmanager
def tidy() -> Iterator[None]:
    """SIGTERM and SIGHUP end what is done within as Ctrl-C does: what was only for it is put away. Then they end us."""

    def end(number: int, _: object) -> None:
        for other in before:  # putting away is not disturbed
            signal.signal(other, signal.SIG_IGN)
        raise SystemExit(128 + number)

    heard = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) == signal.SIG_DFL]
    before = {number: signal.signal(number, end) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Signalled(SystemExit):
    """A signal came that ends the process."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number)


@contextlib.contextmanager
def ended_in_order() -> Iterator[Callable[[], contextlib.AbstractContextManager[None]]]:
    """A signal that ends the process acts within what is yielded, else waits: a run begins and ends whole."""
    came: list[int] = []
    waits = True

    def end(number: int, _: object) -> None:
        came.append(number)
        if not waits:
            act()

    def act() -> None:
        if came:
            number = came.pop()
            raise KeyboardInterrupt if number == signal.SIGINT else Signalled(number)

    @contextlib.contextmanager
    def let_in() -> Iterator[None]:
        nonlocal waits
        try:
            waits = False
            act()
            yield
        finally:
            waits = True

    ending = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    heard = [number for number in ending if signal.getsignal(number) is not signal.SIG_IGN]  # nohup's is not
    before = {number: signal.signal(number, end) for number in heard}
    try:
        yield let_in
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    act()
