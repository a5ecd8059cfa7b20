"""A bisection's folder: its state after each boot, and the runs.

FOLDER/state.json   plan, search and boots; replaced in one go after each boot
FOLDER/bisect.log   of a git repository: what `git bisect replay` takes
FOLDER/runs/0001    a run of `pvstub boot` each
FOLDER/images       what was built, by digest
FOLDER/report.md, report.json
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from stub.errors import UsageError

from ..cache import write_atomically
from .search import Rules, Search

STATE: Final = "state.json"
_VERSION: Final = 1


@dataclass(frozen=True)
class BootNote:
    """One boot: its point, how it was judged and why, its run's number (0: none was made) and its command."""

    point: int
    word: str
    reason: str
    run: int = 0
    command: str = ""


@dataclass
class Journal:
    """What is kept of a bisection, in a folder that is ``locked``. ``plan``: what was asked for, as plain data."""

    folder: Path
    plan: Mapping[str, Any]
    search: Search
    boots: list[BootNote] = field(default_factory=list)

    @classmethod
    def opened(cls, folder: Path, plan: Mapping[str, Any], rules: Rules) -> Journal:
        """The journal in ``folder``, begun or gone on with. UsageError if it is another search's, or damaged."""
        path = folder / STATE
        if not path.exists():
            return cls(folder, plan, Search(rules))
        try:
            state = json.loads(path.read_text())
            if state["version"] != _VERSION or state["plan"] != json.loads(json.dumps(plan)):
                raise UsageError(f"{folder}: it holds another search; name another folder with --state, or remove it")
            boots = [BootNote(**boot) for boot in state["boots"]]
            search = Search.restored(state["search"])
            if not all(0 <= boot.point < rules.points for boot in boots):
                raise ValueError("a boot of no point")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(f"{path}: the saved search is damaged ({error}); remove the folder") from error
        return cls(folder, plan, search, boots)

    @staticmethod
    @contextmanager
    def locked(folder: Path) -> Iterator[None]:
        """Be the only one in a folder, which is made. UsageError if another process is there."""
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(f"{folder}: a bisection is at work there; wait for it, or name another") from None
            yield

    def save(self) -> None:
        """Write the state; whoever reads it finds the one before or this one, whole."""
        state = {
            "version": _VERSION,
            "plan": self.plan,
            "search": self.search.state(),
            "boots": [asdict(boot) for boot in self.boots],
        }
        self.write(STATE, json.dumps(state, indent=1))

    def write(self, name: str, text: str) -> None:
        """Replace a file of the folder."""
        write_atomically(self.folder / name, text.encode(errors="backslashreplace"))

    def new_run(self) -> int:
        """The number of a run that is not there yet; a killed search's runs are left alone."""
        runs = self.folder / "runs"
        runs.mkdir(exist_ok=True)
        return max((int(path.name) for path in runs.iterdir() if path.name.isdecimal()), default=0) + 1

    def run_folder(self, number: int) -> Path:
        """Where run ``number`` is kept."""
        return self.folder / "runs" / f"{number:04}"
