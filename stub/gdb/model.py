"""What the protocol side of the debugger asks of a guest, and what it is told: the two sides meet here only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

SIGINT, SIGTRAP, SIGABRT, SIGKILL = 2, 5, 6, 9  # gdb's numbers (gdb/signals.def)


class TargetError(Exception):
    """The guest, as it is, cannot do what was asked; the text says why, for the person at the debugger."""


class Space(Enum):
    """What an address counts: the guest's virtual memory under its current tables, or bytes of machine memory."""

    VIRTUAL = "virtual"
    MACHINE = "machine"


class Kind(Enum):
    """Stop points by the number in Z packets (GDB manual, E.2 "Packets")."""

    SOFTWARE = 0
    HARDWARE = 1
    WRITE = 2
    READ = 3
    ACCESS = 4


@dataclass(frozen=True)
class StopPoint:
    """A place to stop at. ``length``: bytes that a watchpoint covers; of a breakpoint, only part of its name.

    ``conditions``: stop only if one of them gives something other than 0 (or cannot be evaluated); none: always.
    """

    kind: Kind
    address: int
    length: int
    conditions: tuple[Callable[[], int], ...] = ()


@dataclass(frozen=True)
class Stop:
    """The guest stands still. ``kind`` and ``address`` (of the access, exactly) say which stop point did it, if any.

    ``note`` is a line for the person. ``vcpu`` counts from 0.
    """

    signal: int = SIGTRAP
    kind: Kind | None = None
    address: int = 0
    note: str = ""
    vcpu: int = 0


@dataclass(frozen=True)
class Ended:
    """The guest is no more. ``status``: pvstub's exit status for the verdict."""

    status: int
    note: str


class Target(Protocol):
    """A guest under a debugger. It runs only inside :meth:`advance`."""

    bits: int
    """64 or 32, for good."""
    has_avx: bool
    """Whether its CPU has AVX registers, for good."""
    words: memoryview
    """The engine's register file (``stub.engine.base``); a new one after :meth:`restart`."""
    running: bool
    """Between :meth:`go` or :meth:`step` and the stop that answers it."""
    executable: Path | None
    """A file with the guest's symbols."""

    steps_into_events: bool
    """Whether a step may end in the guest's event callback, where one is due, and not behind it."""

    def vcpus(self) -> int:
        """How many vCPUs there are."""

    def describe_vcpu(self, vcpu: int) -> str:
        """A line on its state: running kernel or user code, blocked, what it waits for."""

    def read_register(self, name: str) -> int:
        """A register by the name that ``features`` gives it (``rax``, ``st0``, ``xmm3``, ``cr3``, ``retired``…)."""

    def write_register(self, name: str, value: int) -> None:
        """Change it; TargetError where that cannot be."""

    def read_memory(self, address: int, size: int, space: Space = Space.VIRTUAL) -> bytes:
        """Up to ``size`` bytes; fewer where memory ends."""

    def write_memory(self, address: int, data: bytes, space: Space = Space.VIRTUAL) -> None:
        """Write it all, code and read-only pages too; TargetError where there is no memory."""

    def insert(self, point: StopPoint) -> None:
        """Set a stop point; one of the same kind, address and length is replaced."""

    def remove(self, kind: Kind, address: int, length: int) -> None:
        """Take it away; nothing happens where there is none."""

    def remove_all(self) -> None:
        """Take away every stop point that the client set."""

    def go(self) -> None:
        """Continue. Nothing runs yet."""

    def step(self, start: int = 0, end: int = 0) -> None:
        """One instruction, or as many as begin in [start, end). Nothing runs yet."""

    def interrupt(self) -> None:
        """Have the next :meth:`advance` stop with SIGINT."""

    def advance(self) -> Stop | Ended | None:
        """Run for some milliseconds at most; None: still running. The caller looks at its socket in between."""

    def last_stop(self) -> Stop | Ended:
        """Why the guest stands still now (at first: it has not begun)."""

    def restart(self) -> None:
        """Boot the guest again; it stands at its first instruction. Stop points stay."""

    def kill(self) -> None:
        """End the guest's run."""

    def monitor(self, command: str) -> str:
        """Answer a ``monitor`` command with text; what is wrong with the command is said in that text."""


__all__: Sequence[str] = [
    "SIGABRT",
    "SIGINT",
    "SIGKILL",
    "SIGTRAP",
    "Ended",
    "Kind",
    "Space",
    "Stop",
    "StopPoint",
    "Target",
    "TargetError",
]
