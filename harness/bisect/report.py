"""What a bisection found, as Markdown for people and as JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from .journal import BootNote, Journal
from .minimise import Needed
from .search import Found, Refused

_TAIL = 20
_POINT = re.compile(r"\bpoint (\d+)")
Name = Callable[[int], str]


def as_object(journal: Journal, end: Found | Refused | Needed, name: Name) -> dict[str, Any]:
    """The report: the answer or the refusal, every boot, and the last failing boot's console and command."""
    failing = next((boot for boot in reversed(journal.boots) if boot.word == "bad" and _wanted(boot, end)), None)
    passing = next((boot for boot in reversed(journal.boots) if boot.word == "good" and _last_good(boot, end)), None)
    return {
        **_outcome(end, name),
        "boots": [
            {"point": name(boot.point), "verdict": boot.word, "reason": boot.reason, "run": _run(journal, boot)}
            for boot in journal.boots
        ],
        "skipped": {name(point): reason for point, reason in journal.search.skipped().items()},
        "failing": None if failing is None else _shown(journal, failing, name),
        "passing": None if passing is None else _shown(journal, passing, name),
    }


def _outcome(end: Found | Refused | Needed, name: Name) -> dict[str, Any]:
    match end:
        case Refused(word, reason):
            named = _POINT.sub(lambda found: name(int(found[1])), reason)
            return {"result": "refused", "refusal": word, "reason": named}
        case Needed(words, _):
            return {"result": "needed", "needed": [name(1 << word) for word in words]}
        case Found():
            return {
                "result": "found",
                "first_bad": [name(point) for point in end.candidates],
                "last_good": name(end.last_good),
                "confidence": round(end.confidence, 5),
                "failure_rate": round(end.failure_rate, 3),
            }


def _wanted(boot: BootNote, end: Found | Refused | Needed) -> bool:
    match end:
        case Found():
            return boot.point == end.first_bad
        case Needed(words, _):
            return boot.point == sum(1 << word for word in words)
        case _:
            return True


def _last_good(boot: BootNote, end: Found | Refused | Needed) -> bool:
    return not isinstance(end, Found) or boot.point == end.last_good


def _run(journal: Journal, boot: BootNote) -> str | None:
    return str(journal.run_folder(boot.run)) if boot.run else None


def _shown(journal: Journal, boot: BootNote, name: Name) -> dict[str, Any]:
    console = journal.run_folder(boot.run) / "console.log"
    text = console.read_text(errors="replace").replace("\r", "") if boot.run and console.is_file() else ""
    return {
        "point": name(boot.point),
        "reason": boot.reason,
        "rerun": boot.command,
        "run": _run(journal, boot),
        "console": text.splitlines()[-_TAIL:],
    }


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    lines = [f"# {headline(report)}", ""]
    if report["result"] == "found":
        lines += [
            f"- last good: `{report['last_good']}`",
            f"- confidence: {report['confidence']:.2%}",
            f"- a bad point fails in about {report['failure_rate']:.0%} of its boots",
        ]
    lines += [f"- boots: {sum(boot['verdict'] in ('good', 'bad') for boot in report['boots'])}"]
    lines += [f"- skipped: `{point}`: {_cell(reason)}" for point, reason in report["skipped"].items()]
    for title, shown in (("The failing boot", report["failing"]), ("The last passing boot", report["passing"])):
        if shown is not None:
            lines += [
                "",
                f"## {title}",
                "",
                f"`{shown['point']}`: {_cell(shown['reason'])}",
                "",
                *_code(shown["console"]),
            ]
            lines += ["", "Again:", "", *_code([shown["rerun"]])]
    lines += ["", "## All boots", "", "| point | verdict | why |", "| --- | --- | --- |"]
    lines += [f"| {_cell(boot['point'])} | {boot['verdict']} | {_cell(boot['reason'])} |" for boot in report["boots"]]
    return "\n".join(lines) + "\n"


def headline(report: dict[str, Any]) -> str:
    """What came out, in a line."""
    if report["result"] == "refused":
        return f"No first bad point ({report['refusal']}): {report['reason']}"
    if report["result"] == "needed":
        return f"Needed for the failure: {' '.join(report['needed'])}"
    first: Sequence[str] = report["first_bad"]
    return (
        f"First bad: {first[0]}" if len(first) == 1 else f"First bad is one of these {len(first)}: {'; '.join(first)}"
    )


def _code(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
