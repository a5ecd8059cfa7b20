"""What a kernel prints when something is wrong with it, found on a console and told by name; the known ones by a file.

Sources of the words: Linux kernel/panic.c (``panic``, ``__warn``), arch/x86/kernel/dumpstack.c (``__die_header``),
arch/x86/mm/fault.c (``show_fault_oops``), lib/bug.c, mm/kasan/report.c, kernel/locking/lockdep.c,
kernel/rcu/tree_stall.h, kernel/watchdog.c, kernel/hung_task.c.
"""

from __future__ import annotations

import datetime
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from stub.errors import UsageError

from .console_text import console_lines

PATTERNS: Final[tuple[tuple[str, str], ...]] = (
    # A line counts once, for the first of these that it matches.
    ("panic", r"Kernel panic - not syncing"),
    ("kasan", r"BUG: KASAN: "),
    ("kfence", r"BUG: KFENCE: "),
    ("ubsan", r"UBSAN: "),
    ("kcsan", r"BUG: KCSAN: "),
    ("soft-lockup", r"BUG: soft lockup - "),
    ("hard-lockup", r"Watchdog detected hard LOCKUP|hard LOCKUP on cpu"),
    ("workqueue-lockup", r"BUG: workqueue lockup - "),
    ("rcu-stall", r"rcu.*: INFO: .*detected (?:stalls|expedited stalls)|rcu.*self-detected stall|detected stalls on"),
    ("hung-task", r"INFO: task .* blocked for more than \d+ seconds"),
    ("lockdep", r"WARNING: (?:possible (?:circular|recursive) locking|inconsistent lock state|suspicious RCU usage"
     r"|bad unlock balance|.*lock order inversion|.*held lock freed)|INFO: possible .*lock"
     r"|INFO: trying to register non-static key"),
    ("oops", r"\bOops(?:: |\b.*\[#\d+\])|general protection fault\b.*\[#\d+\]|BUG: unable to handle "
     r"|unable to handle kernel (?:NULL pointer|paging request)"),
    ("bug", r"kernel BUG at |\bBUG: "),
    ("warning", r"WARNING: "),
)  # fmt: skip
NAMES: Final = tuple(name for name, _ in PATTERNS)
_COMPILED: Final = [(name, re.compile(pattern)) for name, pattern in PATTERNS]
_ANY: Final = re.compile(rb"panic|BUG|UBSAN|LOCKUP|stall|INFO: |WARNING|Oops|general protection|unable to handle")
"""What each pattern has one of: most consoles have none, and are looked through once."""


class Splat(NamedTuple):
    """A line that tells of a fault in the guest's kernel, and by which name."""

    name: str
    line: str


def find(output: bytes | bytearray) -> list[Splat]:
    """The splats on a console, in order."""
    if not _ANY.search(output):
        return []
    found = []
    for line in console_lines(bytes(output).decode(errors="replace")):
        name = next((name for name, pattern in _COMPILED if pattern.search(line)), None)
        if name is not None:
            found.append(Splat(name, line))
    return found


@dataclass(frozen=True)
class Known:
    """A splat that is known: ``pattern`` as it is met in a line, why it may be there, and the last day it may."""

    pattern: re.Pattern[str]
    reason: str
    expires: datetime.date


def read_known(path: Path) -> tuple[Known, ...]:
    """The known splats of a file: ``[[known]]`` tables of ``pattern``, ``reason`` and ``expires``. UsageError."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot read the known splats: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: no TOML: {error}") from error
    rows = tables.pop("known", [])
    if tables or not isinstance(rows, list):
        raise UsageError(f"{path}: it holds [[known]] tables, and nothing else")
    return tuple(_known(row, f"{path}: [[known]] number {number}") for number, row in enumerate(rows, 1))


def _known(row: Any, place: str) -> Known:
    if not isinstance(row, dict) or set(row) != {"pattern", "reason", "expires"}:
        raise UsageError(f"{place}: it takes pattern, reason and expires, all three")
    pattern, reason, expires = row["pattern"], row["reason"], row["expires"]
    if not isinstance(reason, str) or not reason.strip():
        raise UsageError(f"{place}: the reason is empty; say why it is let through")
    if type(expires) is not datetime.date:
        raise UsageError(f"{place}: expires is a date, as in expires = 2027-01-31")
    try:
        return Known(re.compile(pattern), reason, expires)
    except (re.error, TypeError) as error:
        raise UsageError(f"{place}: pattern {pattern!r}: {error}") from error


class Judgement(NamedTuple):
    """``bad``: a line each for what fails a test. ``let_through``: what is known, with its reason."""

    bad: list[str]
    let_through: list[str]


def judge(splats: Iterable[Splat], known: Sequence[Known], allowed: Iterable[str], today: datetime.date) -> Judgement:
    """Which splats fail a test: those whose name is not ``allowed``, and that are not ``known``, or no longer."""
    allowed = set(allowed)
    bad: list[str] = []
    let_through: list[str] = []
    for splat in splats:
        if splat.name in allowed:
            continue
        rows = [row for row in known if row.pattern.search(splat.line)]
        alive = [row for row in rows if today <= row.expires]
        if alive:
            let_through.append(f"{splat.name}: {splat.line} ({alive[0].reason}; until {alive[0].expires})")
        elif rows:
            bad.append(f"{splat.name}: {splat.line} (known, but expired {rows[0].expires}: {rows[0].reason})")
        else:
            bad.append(f"{splat.name}: {splat.line}")
    return Judgement(bad, let_through)
