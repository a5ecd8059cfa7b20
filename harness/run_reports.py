"""A whole test run as KTAP and as a Markdown summary, out of the reports that pytest has at its end.

KTAP: Linux Documentation/dev-tools/ktap.rst. Works in xdist's controller too: what is needed of a guest travels with
its test's report, as properties.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

SKIPPED, FAILED, PASSED, EXPECTED = "skipped", "failed", "passed", "expected to fail"
_ORDER: Final = {FAILED: 0, EXPECTED: 1, SKIPPED: 2, PASSED: 3}
_DIRECTIVES: Final = {SKIPPED: "SKIP", EXPECTED: "XFAIL"}
_SHOWN: Final = ("pv run", "pv artefact", "pv digest console", "pv digest hypercalls", "pv verdict", "pv milestone")
_MOST_LINES: Final = 30


class Part(NamedTuple):
    """A subtest, such as a result that a guest printed."""

    name: str
    outcome: str
    reason: str


class Row(NamedTuple):
    """A test: the worst of its phases and subtests, why, its seconds, its guests' properties, and the subtests."""

    name: str
    outcome: str
    reason: str
    seconds: float
    facts: tuple[tuple[str, str], ...]
    parts: tuple[Part, ...] = ()


def write(path: Path, form: str, mode: str, stats: Mapping[str, Sequence[Any]]) -> None:
    """Write a run's results into a file, as ``ktap`` or ``markdown``; OSError if that cannot be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open(mode, encoding="utf-8") as file:
        file.write(_FORMS[form](rows(stats)))


def rows(stats: Mapping[str, Sequence[Any]]) -> list[Row]:
    """The tests of a run, by name, out of the terminal reporter's ``stats``."""
    found: dict[str, Row] = {}
    for report in (report for reports in stats.values() for report in reports if hasattr(report, "nodeid")):
        outcome = getattr(report, "outcome", None)
        if outcome not in _ORDER:
            continue
        if outcome == SKIPPED and hasattr(report, "wasxfail"):
            outcome = EXPECTED
        facts = tuple(
            (name, str(value)) for name, value in getattr(report, "user_properties", ()) if name.startswith("pv ")
        )
        row = Row(report.nodeid, outcome, _reason(report, outcome), getattr(report, "duration", 0.0), facts)
        context = getattr(report, "context", None)
        if context is not None:  # a subtest's
            name = _line(str(context.msg or "unnamed"))
            part = Part(name, outcome, row.reason.removeprefix("Failed: ").removeprefix(f"{name}: "))
            row = row._replace(seconds=0.0, parts=(part,))  # its test's seconds have those of its own
        found[row.name] = _worse(found[row.name], row) if row.name in found else row
    return [found[name] for name in sorted(found)]


def _worse(one: Row, other: Row) -> Row:
    first, second = sorted((one, other), key=lambda row: _ORDER[row.outcome])
    facts = max((one.facts, other.facts), key=len)  # they only grow from phase to phase
    parts = one.parts + other.parts
    failed = [f"{part.name}: {part.reason}" for part in parts if part.outcome == FAILED]
    if failed:  # the test itself says no more than how many
        first = first._replace(reason="; ".join(failed))
    return first._replace(
        seconds=one.seconds + other.seconds,
        facts=facts,
        parts=parts,
        reason=_line(first.reason or second.reason),
    )


def _reason(report: Any, outcome: str) -> str:
    """One line of why: a skip's reason, a failure's own message."""
    if outcome == PASSED:
        return ""
    if outcome == EXPECTED:
        return _line(report.wasxfail.removeprefix("reason: "))
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
        if test.outcome == FAILED and test.reason:
            lines.append(f"# {test.reason}")
        lines += [f"# {name}: {value}" for name, value in test.facts if name in _SHOWN]
        if test.parts:
            lines += ["    KTAP version 1", f"    1..{len(test.parts)}"]
            lines += [f"    {_result(at, part)}" for at, part in enumerate(test.parts, 1)]
        lines.append(_result(number, test))
    return "\n".join(lines) + "\n"


def _result(number: int, test: Row | Part) -> str:
    """KTAP's line of a result; of a subtest with the reason, which has no line of its own."""
    word = "not ok" if test.outcome in (FAILED, EXPECTED) else "ok"
    directive = _DIRECTIVES.get(test.outcome, "")
    if directive or (isinstance(test, Part) and test.reason):
        directive = f" # {directive} {test.reason}".replace("  ", " ")
    return f"{word} {number} {test.name.replace('#', '')}{directive}"


def markdown(tests: Iterable[Row]) -> str:
    """A summary for the page of a CI job: counts, and each failure with its console's tail and how to see it again."""
    tests = list(tests)
    counts = {outcome: sum(test.outcome == outcome for test in tests) for outcome in _ORDER}
    lines = [
        f"## pvstub: {counts[FAILED]} failed, {counts[PASSED]} passed, {counts[SKIPPED]} skipped"
        + (f", {counts[EXPECTED]} failed as expected" if counts[EXPECTED] else ""),
        "",
    ]
    failed = [test for test in tests if test.outcome == FAILED]
    if failed:
        lines += ["| test | why | seconds |", "| --- | --- | --- |"]
        lines += [f"| {_cell(test.name)} | {_cell(test.reason)} | {test.seconds:.1f} |" for test in failed]
    for test in (test for test in failed if test.facts or test.parts):
        lines += ["", f"### {_cell(test.name)}", ""]
        lines += [f"* {part.outcome}: {_code(part.name)}: {_cell(part.reason)}" for part in test.parts if part.reason]
        lines += [_fact(name, value) for name, value in test.facts if name in _SHOWN]
        for name, value in test.facts:
            if name.startswith(("pv guest console", "pv rerun")):
                lines += ["", f"{name.removeprefix('pv ')}:", "", *_block(value)]
    return "\n".join(lines) + "\n"


def _fact(name: str, value: str) -> str:
    if name == "pv artefact" and not value.startswith("none"):
        return f"* on another machine: {_code('pvstub replay ' + value.rpartition('/')[2])}, of the artefacts"
    return f"* {name.removeprefix('pv ')}: {_code(value)}"


def _cell(text: str) -> str:
    """Text that cannot end its cell, nor be taken for HTML or an emphasis."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", _line(text))


def _code(text: str) -> str:
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return f"{fence} {text} {fence}"


def _block(text: str) -> list[str]:
    fence = "`" * max(3, max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return [f"{fence}text", *text.splitlines()[-_MOST_LINES:], fence]


_FORMS: Final[Mapping[str, Callable[[Iterable[Row]], str]]] = {"ktap": ktap, "markdown": markdown}
