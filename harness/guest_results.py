"""Results that a guest prints, KTAP's and those of small test guests, as one list.

KTAP: Linux Documentation/dev-tools/ktap.rst. Small guests print ``ok name``, ``not ok name: reason`` and at their end
``Test result: SUCCESS``, ``SKIP``, ``ERROR`` or ``FAILURE``; without that line such a guest did not get to its end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from .console_text import console_lines

_LOG_PREFIX: Final = re.compile(r"(?:<\d+>)?\[ *\d+\.\d{6}\] ?(?:\[ *[CT]\d+\] ?)?")
_VERSION: Final = re.compile(r" *(?:KTAP|TAP) version (\d+)")
_PLAN: Final = re.compile(r" *1\.\.(\d+)(?: *# *(?P<skip>[Ss][Kk][Ii][Pp])\b *(?P<why>.*))?")
_RESULT: Final = re.compile(
    r"(?P<indent> *)(?P<not>not )?ok(?: (?P<number>\d+))?(?:(?: -)? (?P<name>[^#]*?))?"
    r"(?: *# *(?P<directive>SKIP|TODO|XFAIL|TIMEOUT|ERROR)\b:? *(?P<why>.*)|\s*# *(?P<data>.*))?",
    re.IGNORECASE,
)
_LAST: Final = re.compile(r"Test result: (?P<word>SUCCESS|SKIP|ERROR|FAILURE)(?:: (?P<why>.*))?")
_MOST: Final = 100_000
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


class Result(NamedTuple):
    """One result: its name (those of nested KTAP joined by slashes), ``passed``, ``failed`` or ``skipped``, and why."""

    name: str
    outcome: str
    reason: str


@dataclass
class _Level:
    """The results of one indentation that no parent has claimed yet; ``plan``: how many there should be."""

    indent: int
    results: list[Result] = field(default_factory=list)
    own: int = 0
    plan: int | None = None


class Results(NamedTuple):
    """``results`` in the order in which they end, ``wrong`` what is wrong with the output as a whole."""

    results: tuple[Result, ...]
    wrong: tuple[str, ...]


def parse(output: bytes | bytearray | str) -> Results:
    """The results on a console; other lines, and a kernel log's stamps, are passed over."""
    levels = [_Level(0)]
    wrong: list[str] = []
    endings: list[re.Match[str]] = []
    ktap = False
    for raw in console_lines(output):
        line = _LOG_PREFIX.sub("", raw, count=1)
        if _VERSION.fullmatch(line):
            ktap = True
        elif plan := _PLAN.fullmatch(line):
            _plan(levels, len(line) - len(line.lstrip(" ")), plan)
        elif last := _LAST.fullmatch(line):
            endings.append(last)
        elif found := _RESULT.fullmatch(line):
            if len(levels[0].results) > _MOST:
                return Results(tuple(levels[0].results), (f"more than {_MOST:,} results",))
            _result(levels, found, wrong)
    while len(levels) > 1:  # a nested test whose parent has no line of its own: the guest did not get so far
        level = levels.pop()
        wrong.append(f"{level.own} results whose own test has none: the guest did not get to its end")
        levels[-1].results += level.results
    _check_plan(levels[0], "the guest", wrong)
    results = levels[0].results
    _judge_endings(endings, results, ktap, wrong)
    return Results(tuple(results), tuple(wrong))


def _level(levels: list[_Level], indent: int) -> _Level:
    if indent > levels[-1].indent:
        levels.append(_Level(indent))
    return levels[-1]


def _plan(levels: list[_Level], indent: int, plan: re.Match[str]) -> None:
    level = _level(levels, indent)
    level.plan = int(plan[1][:9])
    if plan["skip"] and not level.plan:
        level.results.append(Result("all", SKIPPED, plan["why"] or "no reason given"))


def _result(levels: list[_Level], found: re.Match[str], wrong: list[str]) -> None:
    indent = len(found["indent"])
    name, colon, reason = (found["name"] or "").strip().partition(": ")
    if found["number"] is not None:
        name, reason = f"{name}{colon}{reason}", ""  # KTAP's descriptions may have colons
    name = name or found["number"] or "unnamed"
    children: list[Result] = []
    while len(levels) > 1 and levels[-1].indent > indent:
        level = levels.pop()
        _check_plan(level, name, wrong)
        children = [*level.results, *children]
    level = _level(levels, indent)
    level.own += 1
    level.results += [child._replace(name=f"{name}/{child.name}") for child in children]
    level.results.append(Result(name, *_outcome(found, reason)))


def _outcome(found: re.Match[str], reason: str) -> tuple[str, str]:
    directive, why = (found["directive"] or "").upper(), found["why"] or ""
    if directive == "SKIP":
        return SKIPPED, why or "no reason given"
    if directive in ("TODO", "XFAIL"):  # a failure that is expected; passing is no fault
        return PASSED, why
    if found["not"] or directive in ("TIMEOUT", "ERROR"):
        return FAILED, reason or " ".join(filter(None, (directive, why or found["data"]))) or "no reason given"
    return PASSED, ""


def _check_plan(level: _Level, name: str, wrong: list[str]) -> None:
    if level.plan is not None and level.own != level.plan:
        wrong.append(f"{name}: {level.own} results, but {level.plan} were planned")


def _judge_endings(endings: list[re.Match[str]], results: list[Result], ktap: bool, wrong: list[str]) -> None:
    if not endings:
        if not ktap:
            wrong.append("no last line (Test result: …): the guest did not get to its end")
        return
    if len(endings) > 1:
        wrong.append(f"{len(endings)} last lines (Test result: …) instead of one")
    word, why = endings[-1]["word"], endings[-1]["why"] or "no reason given"
    if word == "SKIP":
        results.append(Result("result", SKIPPED, why))
    elif word != "SUCCESS":
        results.append(Result("result", FAILED, f"{word}: {why}"))
    else:
        results.append(Result("result", PASSED, ""))


def failed(results: Iterable[Result]) -> list[Result]:
    """Those that failed."""
    return [result for result in results if result.outcome == FAILED]
