"""What follows when a domain has ended: the actions of its configuration, core files, restarts that are bounded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stub.domain.actions import ACTIONS, MAX_QUICK_RESTARTS, MINIMUM_RESTART_TIME, SETTINGS
from stub.errors import UsageError
from stub.hypervisor.clock import SECOND
from stub.hypervisor.dumpcore import dump_core
from stub.hypervisor.verdict import Verdict

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

CORE = "core"  # its name in the run's folder


class Deaths:
    """One run's. ``core``: where core files go, and that one is wanted at the run's end; else the run's folder."""

    def __init__(self, run_directory: Path | None, core: Path | None) -> None:
        self._at_the_end = core is not None
        self._path = core or (run_directory / CORE if run_directory is not None else None)
        self._quick = 0
        self.cores: list[Path] = []
        """The core files that were written."""

    def follow(self, xen: Hypervisor, verdict: Verdict, boot: int) -> Verdict | None:
        """Do what the configuration says of such an end: the run's verdict, or None if the domain starts again."""
        setting = SETTINGS.get(verdict.kind)
        action = ACTIONS[getattr(xen.domain.config, setting) if setting else "destroy"]
        if action.core:
            self._dump(xen, f".{boot}" if action.keep else "")
        elif self._at_the_end and not action.restart:
            self._dump(xen)
        if not action.restart:
            return verdict
        self._quick = self._quick + 1 if xen.clock.now < MINIMUM_RESTART_TIME * SECOND else 0
        if self._quick <= MAX_QUICK_RESTARTS:
            return None
        if self._at_the_end and not action.core:
            self._dump(xen)
        loop = f"restarted {MAX_QUICK_RESTARTS} times, and each time gone within {MINIMUM_RESTART_TIME} s"
        return Verdict("restart-limit", f"{verdict.reason}; {loop}", verdict.details)

    def _dump(self, xen: Hypervisor, suffix: str = "") -> None:
        if self._path is None:
            return
        path = self._path.with_name(self._path.name + suffix)
        write_core(xen, path)
        if path not in self.cores:
            self.cores.append(path)


def write_core(xen: Hypervisor, path: Path) -> None:
    """Write the guest as it is now to a core file, in Xen's format; UsageError when that cannot be."""
    try:
        dump_core(xen, path)
    except OSError as error:
        raise UsageError(f"{path}: cannot write the core: {error.strerror}; choose another file") from error
