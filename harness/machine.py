"""What the harness asks of a machine. ``stub.machine.Machine`` is one; a test of the harness brings its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

NS_PER_SECOND = 1_000_000_000


class ConsoleEnd(Protocol):
    """The host's end of the guest's console."""

    @property
    def output(self) -> bytes | bytearray:
        """All that the guest has written since the start; it only grows."""

    def send(self, data: bytes) -> object:
        """Queue ``data`` as input; the guest sees it when it next runs."""


class VerdictLike(Protocol):
    """How a run ended."""

    @property
    def kind(self) -> str:
        """``poweroff``, ``reboot``, ``crash``, ``deadlock``, ``virtual-deadline``, ``wall-limit``…"""

    @property
    def reason(self) -> str:
        """One line for a person."""

    @property
    def details(self) -> Sequence[str]:
        """More lines: page walk, stack, what was being waited for."""


class MachineLike(Protocol):
    """A guest that runs only while ``run`` is being called."""

    @property
    def console(self) -> ConsoleEnd: ...

    @property
    def now_ns(self) -> int:
        """Virtual time in nanoseconds since the start."""

    @property
    def verdict(self) -> VerdictLike | None:
        """Set once the run is over. Final, but for a deadlock that console input can resolve."""

    def registers(self) -> dict[str, int]: ...

    def run(self, *, deadline_ns: int | None = None, until: Callable[[], bool] | None = None) -> VerdictLike | None:
        """Run to a verdict, to the virtual time ``deadline_ns`` or until ``until()`` (asked after each output)."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class RunLimits:
    """When a run is stopped from outside: ``virtual`` and ``wall`` in seconds, None for never."""

    virtual: float | None = None
    wall: float | None = None
    instructions: int | None = None


class Launch(Protocol):
    """A guest whose files are found and whose size is known, but which does not exist yet."""

    @property
    def memory(self) -> int:
        """The guest's memory in MiB."""

    def command(self, run_directory: Path) -> list[str]:
        """The ``pvstub`` command line that boots the same guest."""

    def start(self, run_directory: Path, limits: RunLimits) -> MachineLike:
        """Make the machine; its first instruction has not run."""
