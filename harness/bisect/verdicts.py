"""What a boot says of its point: good, bad by the failure that is looked for, or nothing.

The law of this file: only the signature makes a point bad. A boot that fails in another way, or that cannot be made, is
skipped with its reason; trouble of the surroundings (a full disk, a killed process) is trouble, and tried again.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stub.errors import UsageError
from stub.hypervisor.verdict import EXIT_STATUS
from stub.trace.filters import Predicate, compile_filter
from stub.trace.reader import LogReader

from .processes import Ended
from .search import Word

SKIP_STATUS: Final = 125  # as git bisect run has it
_TROUBLE_FROM: Final = 126
_IMAGE_STATUS: Final = 2
_TROUBLED: Final = frozenset({"wall-limit", "interrupted", "audit"})
_PYTEST: Final[dict[int, Word]] = {0: "good", 1: "bad", 5: "skip"}

Judged = tuple[Word, str]


@dataclass(frozen=True)
class Signature:
    """The failure that is looked for. All that is given must hold of a bad boot.

    ``fail``: what its console has; ``ends``: how it ends, as KIND or KIND:REGEX of the reason; ``hypercall``: what its
    log has, in the language of ``pvstub trace --filter``. ``passes``: what a good boot's console has; alone, a boot
    without it is bad.
    """

    fail: str | None = None
    passes: str | None = None
    ends: str | None = None
    hypercall: str | None = None

    def __post_init__(self) -> None:
        for pattern in (self.fail, self.passes, (self.ends or "").partition(":")[2]):
            try:
                re.compile(pattern or "")
            except re.error as error:
                raise UsageError(f"{pattern!r} is no regular expression: {error}") from error
        kind = (self.ends or "").partition(":")[0]
        if self.ends is not None and kind not in EXIT_STATUS:
            raise UsageError(f"--ends {kind}: a boot ends as {', '.join(EXIT_STATUS)}")
        if self.hypercall is not None:
            _filter(self.hypercall)

    @property
    def given(self) -> bool:
        """Whether anything is looked for."""
        return self != Signature()

    def judge(self, folder: Path, ended: Ended) -> Judged:
        """What the run in ``folder`` says, whose process ended so."""
        if ended.status == _IMAGE_STATUS:
            return "skip", f"cannot be booted: {ended.last_line}"
        try:
            summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
            kind, reason = str(summary["verdict"]["kind"]), str(summary["verdict"]["reason"])
            console = (folder / "console.log").read_text(errors="replace").replace("\r", "")
        except (OSError, ValueError, KeyError, TypeError):
            return "trouble", f"the boot left no summary (exit status {ended.status}): {ended.last_line}"
        if kind in _TROUBLED:
            return "trouble", f"{kind}: {reason}"
        missing = self._missing(folder, console, kind, reason)
        if self._looked_for and not missing:
            return "bad", self._words(console, kind, reason)
        if self.passes is not None:
            return self._by_passing(console, kind, reason)
        if ended.status == 0:
            return "good", f"{kind}: {missing}"
        return "skip", f"it ends in another way ({kind}: {reason}), {missing}; --pass says what a good one prints"

    @property
    def _looked_for(self) -> bool:
        return any(part is not None for part in (self.fail, self.ends, self.hypercall))

    def _by_passing(self, console: str, kind: str, reason: str) -> Judged:
        assert self.passes is not None
        found = re.search(self.passes, console, re.MULTILINE)
        if found:
            return "good", f"console: {_line_of(console, found)}"
        if self._looked_for:
            return "skip", f"neither the failure nor {self.passes!r} on the console; {kind}: {reason}"
        return "bad", f"{self.passes!r} is not on the console; {kind}: {reason}"

    def _missing(self, folder: Path, console: str, kind: str, reason: str) -> str:
        """What of the failure is not there; empty if all is."""
        if self.fail is not None and not re.search(self.fail, console, re.MULTILINE):
            return f"no {self.fail!r} on the console"
        if self.ends is not None:
            wanted, _, pattern = self.ends.partition(":")
            if kind != wanted or not re.search(pattern, reason):
                return f"not {self.ends}"
        if self.hypercall is not None and not _is_logged(folder, _filter(self.hypercall)):
            return f"no {self.hypercall!r} in the log"
        return ""

    def _words(self, console: str, kind: str, reason: str) -> str:
        found = re.search(self.fail, console, re.MULTILINE) if self.fail is not None else None
        if found is not None:
            return f"console: {_line_of(console, found)}"
        return f"{kind}: {reason}" if self.ends is not None else f"hypercall log: {self.hypercall}"


def by_status(ended: Ended, what: str = "exit status", other: Word = "bad") -> Judged:
    """What a script's exit status says: 0 good, 125 skip, 126 and more or a signal trouble, all else ``other``."""
    if ended.status == 0:
        return "good", f"{what} 0"
    if ended.status == SKIP_STATUS:
        return "skip", ended.last_line
    word: Word = "trouble" if ended.status < 0 or ended.status >= _TROUBLE_FROM else other
    return word, f"{what} {ended.status}: {ended.last_line}"


def by_pytest(ended: Ended) -> Judged:
    """What pytest's exit status says: 0 good, 1 bad, 5 (nothing was run) skip, all else trouble."""
    if re.search(r"^1 skipped\b", ended.last_line):
        return "skip", ended.last_line
    return _PYTEST.get(ended.status, "trouble"), ended.last_line


def _filter(expression: str) -> Predicate:
    try:
        return compile_filter(expression)
    except UsageError as error:
        raise UsageError(str(error).replace("--filter", "--hypercall", 1)) from None


def _is_logged(folder: Path, wanted: Predicate) -> bool:
    with LogReader(folder) as reader:
        return any(wanted(record) for record in reader.records())


def _line_of(console: str, found: re.Match[str]) -> str:
    """The console's line in which a match begins."""
    start = console.rfind("\n", 0, found.start()) + 1
    return console[start:].partition("\n")[0].strip() or found[0]
