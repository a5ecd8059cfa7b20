"""When a run is stopped from outside: by virtual time, by instructions, by the wall clock."""

from __future__ import annotations

from dataclasses import dataclass

from stub.errors import UsageError
from stub.hypervisor.clock import SECOND


@dataclass(frozen=True)
class Limits:
    """Virtual nanoseconds, retired instructions, wall seconds; UsageError for one below 0."""

    virtual_ns: int | None = None
    instructions: int | None = None
    wall_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("virtual_ns", "instructions", "wall_s"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise UsageError(f"a limit of {value} ({name}): use 0 or more")

    def passed(self, virtual_ns: int, instructions: int, wall_s: float) -> tuple[str, str] | None:
        """The verdict's kind and reason if a run that has come so far is to be stopped."""
        if self.virtual_ns is not None and virtual_ns >= self.virtual_ns:
            return "virtual-deadline", f"virtual time reached {self.virtual_ns / SECOND:g} s"
        if self.instructions is not None and instructions >= self.instructions:
            return "instruction-budget", f"the guest retired {self.instructions} instructions"
        if self.wall_s is not None and wall_s >= self.wall_s:
            return "wall-limit", f"{self.wall_s:g} s of wall time passed"
        return None
