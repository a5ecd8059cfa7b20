"""A whole test run as KTAP and as a Markdown summary, out of the reports that pytest has at its end.

KTAP: Linux Documentation/dev-tools/ktap.rst. Works in xdist's controller too: what is needed of a guest travels with
its test's report, as properties.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

SKIPPED, FAILED, PASSED = "skipped", "failed", "passed"
_ORDER: Final = {FAILED: 0, SKIPPED: 1, PASSED: 2}
_SHOWN: Final = ("pv run", "pv artefact", "pv digest console", "pv digest hypercalls", "pv verdict")
_MOST_LINES: Final = 30


class Row(NamedTuple):
    """A test: the worst of its phases and subtests, why, its seconds, and its guests' properties."""

    name: str
    outcome: str
    reason: str
    seconds: float
    facts: tuple[tuple[str, str], ...]


def rows(stats: Mapping[str, Sequence[Any]]) -> list[Row]:
    """The tests of a run, by name, out of the terminal reporter's ``stats``."""
    found: dict[str, Row] = {}
    for report in (report for reports in stats.values() for report in reports if hasattr(report, "nodeid")):
        outcome = getattr(report, "outcome", None)
        if outcome not in _ORDER:
            continue
        facts = tuple(
            (name, str(value)) for name, value in getattr(report, "user_properties", ()) if name.startswith("pv ")
        )
        row = Row(report.nodeid, outcome, _reason(report), getattr(report, "duration", 0.0), facts)
        found[row.name] = _worse(found[row.name], row) if row.name in found else row
    return [found[name] for name in sorted(found)]


def _worse(one: Row, other: Row) -> Row:
    first, second = sorted((one, other), key=lambda row: _ORDER[row.outcome])
    facts = max((one.facts, other.facts), key=len)  # they only grow from phase to phase
    return first._replace(seconds=one.seconds + other.seconds, facts=facts, reason=first.reason or second.reason)


def _reason(report: Any) -> str:
    """One line of why: a skip's reason, a failure's own message."""
    if report.outcome == PASSED:
        return ""
    if isinstance(report.longrepr, tuple):
        return _line(str(report.longrepr[2]).removeprefix("Skipped: "))
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr or "")
    return _line(next((line for line in text.splitlines() if line.strip()), ""))


def _line(text: str) -> str:
    return " ".join(text.split())[:200]


def ktap(tests: Iterable[Row]) -> str:
    """All of them as KTAP."""
    tests = list(tests)
    lines = ["KTAP version 1", f"1..{len(tests)}"]
    for number, test in enumerate(tests, 1):
        if test.outcome != PASSED and test.reason:
            lines.append(f"# {test.reason}")
        lines += [f"# {name}: {value}" for name, value in test.facts if name in _SHOWN]
        word = "not ok" if test.outcome == FAILED else "ok"
        skip = f" # SKIP {test.reason}" if test.outcome == SKIPPED else ""
        lines.append(f"{word} {number} {test.name.replace('#', '')}{skip}")
    return "\n".join(lines) + "\n"


def markdown(tests: Iterable[Row]) -> str:
    """A summary for the page of a CI job: counts, and each failure with its console's tail and how to see it again."""
    tests = list(tests)
    counts = {outcome: sum(test.outcome == outcome for test in tests) for outcome in _ORDER}
    lines = [
        f"## pvstub: {counts[FAILED]} failed, {counts[PASSED]} passed, {counts[SKIPPED]} skipped",
        "",
    ]
    failed = [test for test in tests if test.outcome == FAILED]
    if failed:
        lines += ["| test | why | seconds |", "| --- | --- | --- |"]
        lines += [f"| {_cell(test.name)} | {_cell(test.reason)} | {test.seconds:.1f} |" for test in failed]
    for test in failed:
        lines += ["", f"### {_cell(test.name)}", ""]
        lines += [f"* {name.removeprefix('pv ')}: {_code(value)}" for name, value in test.facts if name in _SHOWN]
        for name, value in test.facts:
            if name.startswith(("pv guest console", "pv rerun")):
                lines += ["", f"{name.removeprefix('pv ')}:", "", *_block(value)]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Text that cannot end its cell, nor be taken for HTML or an emphasis."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", _line(text))


def _code(text: str) -> str:
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return f"{fence} {text} {fence}"


def _block(text: str) -> list[str]:
    fence = "`" * max(3, max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return [f"{fence}text", *text.splitlines()[-_MOST_LINES:], fence]
