"""How a guest's life ended, and the exit status that says so."""

from __future__ import annotations

from dataclasses import dataclass, field

from stub.abi import sched

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


_SHUTDOWN_KINDS = {
    sched.SHUTDOWN_poweroff: ("poweroff", "the guest powered off"),
    sched.SHUTDOWN_reboot: ("reboot", "the guest asked for a reboot"),
    sched.SHUTDOWN_suspend: ("suspend", "the guest suspended itself"),
    sched.SHUTDOWN_crash: ("crash", "the guest reported its own crash (SHUTDOWN_crash)"),
    sched.SHUTDOWN_watchdog: ("watchdog", "the guest's watchdog fired"),
    sched.SHUTDOWN_soft_reset: ("soft-reset", "the guest asked for a soft reset"),
}


def of_shutdown(reason: int) -> Verdict:
    """What SCHEDOP_shutdown says with a reason of Xen's, or another number that the guest made up."""
    kind, text = _SHUTDOWN_KINDS.get(reason, ("poweroff", f"the guest shut down with the odd reason {reason}"))
    return Verdict(kind, text)
