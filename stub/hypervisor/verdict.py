"""How a guest's life ended, and the exit status that says so."""

from __future__ import annotations

from dataclasses import dataclass, field

EXIT_STATUS = {
    "poweroff": 0,
    "reboot": 0,
    "suspend": 0,
    "soft-reset": 0,
    "crash": 3,
    "watchdog": 3,
    "virtual-deadline": 4,
    "instruction-budget": 4,
    "wall-limit": 4,
    "restart-limit": 4,
    "deadlock": 5,
    "audit": 1,  # a fault of pvstub's own
    "interrupted": 130,
}


@dataclass(frozen=True)
class Verdict:
    """``kind`` is a key of :data:`EXIT_STATUS`; ``details`` are lines for people, most telling first."""

    kind: str
    reason: str
    details: tuple[str, ...] = field(default=())

    @property
    def exit_status(self) -> int:
        """The command's exit status for it."""
        return EXIT_STATUS[self.kind]
