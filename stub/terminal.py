"""A person at the guest's console: the terminal in raw mode, Ctrl-] to leave, restored whatever happens."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Callable

from stub.machine import Machine

ESCAPE = b"\x1d"  # Ctrl-]
_TURN_NS = 20_000_000


def attach(
    machine: Machine, turn: Callable[[], bool] | None = None, no_more: Callable[[], None] = lambda: None
) -> None:
    """Run the guest with standard input and output as its console, until it ends or the escape is typed.

    ``turn`` runs it for a moment, and answers whether all is over; by default the machine does.
    ``no_more`` is called at the end of the input.
    """
    turn = turn or (lambda: machine.run(deadline_ns=machine.now_ns + _TURN_NS) is not None)
    source, target = sys.stdin.fileno(), sys.stdout.fileno()
    saved = termios.tcgetattr(source) if os.isatty(source) else None
    shown = 0
    try:
        if saved is not None:
            os.write(2, b"pvstub: Ctrl-] leaves\r\n")
            tty.setraw(source)
        reading = True
        while not turn():
            shown = _show(machine, target, shown)
            if reading and select.select([source], [], [], 0)[0]:
                typed = os.read(source, 256)
                reading = bool(typed)
                if not reading:
                    no_more()
                before, escape, _ = typed.partition(ESCAPE)
                if before:
                    machine.console.send(before)
                if escape:
                    machine.leave()
                    break
        _show(machine, target, shown)
    finally:
        if saved is not None:
            termios.tcsetattr(source, termios.TCSADRAIN, saved)


def _show(machine: Machine, target: int, shown: int) -> int:
    """Write what is new; how much has been shown in all."""
    output = machine.console.output
    data = bytes(output[shown:])
    while data:
        data = data[os.write(target, data) :]
    return len(output)
