"""``pvstub boot --gdb``: the guest served to debuggers until it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stub.gdb.listener import Listener
from stub.gdb.model import Ended, Stop
from stub.gdb.server import Server
from stub.gdb.session import OnDetach
from stub.gdb.target import MachineTarget
from stub.machine import Machine


@dataclass(frozen=True)
class Options:
    """What was asked for: ``address`` as in ``server.Address``; ``wait`` at the guest's first instruction.

    With ``on_crash`` there is a server only if the guest crashes, and then the guest stands as it was at the crash.
    ``executable`` gives the file with the guest's symbols; it is called once a debugger may come.
    """

    address: str = ""
    wait: bool = False
    on_detach: OnDetach = "continue"
    on_crash: bool = False
    executable: Callable[[], Path | None] = lambda: None


def check(options: Options) -> None:
    """Refuse an address that cannot be listened on before anything is made. UsageError."""
    Listener(options.address).close()


def serve(
    machine: Machine,
    options: Options,
    say: Callable[[str], None],
    console: Callable[[Callable[[], bool], Callable[[], None]], None] | None = None,
    typed: int = 0,
) -> None:
    """Run the machine to its verdict, for whoever attaches. ``say`` prints a line for the person.

    ``console(turn, no_more)`` calls ``turn`` until it answers that all is over, and ``no_more`` when nobody types
    any more; ``typed`` is the file descriptor it reads.
    """
    if options.on_crash:
        target = MachineTarget(machine, stop_on_crash=True)
        if isinstance(_to_stop(target), Ended):
            return
        say(target.last_stop().note)
        target.use(options.executable())
    else:
        target = MachineTarget(machine, options.executable())
    with Server(target, options.address, on_detach=options.on_detach) as server:
        say(f"debug it with   {server.paste_line}")
        if not (options.wait or options.on_crash):
            target.go()
        if console is None:
            server.serve_until()
        else:
            server.watch(typed, lambda: None)
            console(lambda: _turn(server, machine), lambda: server.unwatch(typed))
    machine.let_end()


def _turn(server: Server, machine: Machine) -> bool:
    server.turn()
    return machine.verdict is not None and not server.attached


def _to_stop(target: MachineTarget) -> Stop | Ended:
    target.go()
    while True:
        stop = target.advance()
        if stop is not None:
            return stop
