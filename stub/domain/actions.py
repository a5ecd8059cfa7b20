"""What becomes of a domain that has ended: xl's on_… settings (xl.cfg(5), "EVENT ACTIONS")."""

from __future__ import annotations

from dataclasses import dataclass

MINIMUM_RESTART_TIME = 60  # virtual seconds, as xend's; a domain that lives shorter died quickly
MAX_QUICK_RESTARTS = 16  # in a row


@dataclass(frozen=True)
class Action:
    """``core``: a core file is written first, over the one before. ``keep``: so is one that no later one replaces."""

    name: str
    restart: bool = False
    core: bool = False
    keep: bool = False


ACTIONS = {
    action.name: action
    for action in (
        Action("destroy"),
        Action("restart", restart=True),
        Action("rename-restart", restart=True, core=True, keep=True),
        Action("preserve", core=True),
        Action("coredump-destroy", core=True),
        Action("coredump-restart", restart=True, core=True),
        Action("soft-reset"),
    )
}

# A verdict's kind → the setting that says what follows. Other ends (limits, a deadlock) are pvstub's own.
SETTINGS = {
    "poweroff": "on_poweroff",
    "reboot": "on_reboot",
    "crash": "on_crash",
    "watchdog": "on_watchdog",
    "soft-reset": "on_soft_reset",
}
XL_DEFAULTS = dict.fromkeys(SETTINGS.values(), "destroy") | {"on_reboot": "restart", "on_soft_reset": "soft-reset"}
