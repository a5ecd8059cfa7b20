"""What a bisection found, as Markdown for people and as JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from stub.trace import milestones

from .journal import BootNote, Journal
from .minimise import Needed, as_point
from .processes import compared
from .rounds import End
from .sample import Share
from .search import Found, Refused

_TAIL = 20
_MOST_LINES = 30  # of a divergence
_LOG = "hypercalls"
_POINT = re.compile(r"\bpoint (\d+)")
Name = Callable[[int], str]


def as_object(journal: Journal, end: End, name: Name) -> dict[str, Any]:
    """The report: the answer or the refusal, every boot, the last failing one and what sets it apart."""
    failing = next((boot for boot in reversed(journal.boots) if boot.word == "bad" and _wanted(boot, end)), None)
    passing = _passing(journal, end)
    return {
        **_outcome(end, name),
        "boots": [
            {"point": name(boot.point), "verdict": boot.word, "reason": boot.reason, "run": _run(journal, boot)}
            for boot in journal.boots
        ],
        "skipped": {name(point): reason for point, reason in journal.search.skipped().items()},
        "failing": None if failing is None else _shown(journal, failing, name),
        "passing": None if passing is None else _shown(journal, passing, name),
        "divergence": None if isinstance(end, Refused) else _divergence(journal, passing, failing),
    }


def _outcome(end: End, name: Name) -> dict[str, Any]:
    match end:
        case Refused(word, reason):
            named = _POINT.sub(lambda found: name(int(found[1])), reason)
            return {"result": "refused", "refusal": word, "reason": named}
        case Needed(words, _):
            return {"result": "needed", "needed": [name(1 << word) for word in words]}
        case Share():
            return {
                "result": "share",
                "failing_points": [name(point) for point in end.failing],
                "passing_points": [name(point) for point in end.passing],
                "between": [round(share, 5) for share in end.between],
                "confidence": end.confidence,
            }
        case Found():
            return {
                "result": "found",
                "first_bad": [name(point) for point in end.candidates],
                "last_good": name(end.last_good),
                "confidence": round(end.confidence, 5),
                "failure_rate": round(end.failure_rate, 3),
            }


def _wanted(boot: BootNote, end: End) -> bool:
    match end:
        case Found():
            return boot.point == end.first_bad
        case Needed(words, _):
            return boot.point == as_point(words)
        case Share():
            return boot.point == end.failing[0]
        case _:
            return True


def _passing(journal: Journal, end: End) -> BootNote | None:
    """The last boot that passed of the last good point; of sets of words, of one that lacks the fewest needed ones."""
    passed = [boot for boot in reversed(journal.boots) if boot.word == "good"]
    match end:
        case Found():
            return next((boot for boot in passed if boot.point == end.last_good), None)
        case Needed(words, _):
            needed = as_point(words)
            near = [boot for boot in passed if not boot.point & ~needed]
            return max(near, key=lambda boot: boot.point.bit_count(), default=None)
        case Share():
            return next((boot for boot in passed if boot.point == end.passing[0]), None)
        case Refused():
            return next(iter(passed), None)


def _divergence(journal: Journal, passing: BootNote | None, failing: BootNote | None) -> dict[str, Any] | None:
    """Where the hypercall logs of the two part, as ``pvstub diff --json`` has it; None where there are no two logs."""
    if passing is None or failing is None:
        return None
    good, bad = (journal.run_folder(boot.run) for boot in (passing, failing))
    if not all(boot.run and (folder / _LOG).is_file() for boot, folder in ((passing, good), (failing, bad))):
        return None
    return compared(good, bad)


def _run(journal: Journal, boot: BootNote) -> str | None:
    return str(journal.run_folder(boot.run)) if boot.run else None


def _shown(journal: Journal, boot: BootNote, name: Name) -> dict[str, Any]:
    folder = journal.run_folder(boot.run)
    console = folder / "console.log"
    passed = milestones.last(folder) if boot.run else None
    text = console.read_text(errors="replace").replace("\r", "") if boot.run and console.is_file() else ""
    return {
        "point": name(boot.point),
        "reason": boot.reason,
        "milestone": None if passed is None else str(passed),
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
    if report["result"] == "share":
        lines += [f"- failing: {', '.join(report['failing_points'])}", f"- confidence: {report['confidence']:.2%}"]
    lines += [f"- boots: {sum(boot['verdict'] in ('good', 'bad') for boot in report['boots'])}"]
    lines += [f"- skipped: `{point}`: {_cell(reason)}" for point, reason in report["skipped"].items()]
    for title, shown in (("The failing boot", report["failing"]), ("The last passing boot", report["passing"])):
        if shown is not None:
            lines += [
                "",
                f"## {title}",
                "",
                f"`{shown['point']}`: {_cell(shown['reason'])}",
                *([] if shown["milestone"] is None else ["", f"Last milestone: {shown['milestone']}"]),
                "",
                *_code(shown["console"]),
            ]
            lines += ["", "Again:", "", *_code([shown["rerun"]])]
    if report["divergence"] is not None:
        lines += ["", "## Where their hypercall logs part", "", *_parting(report)]
    lines += ["", "## All boots", "", "| point | verdict | why |", "| --- | --- | --- |"]
    lines += [f"| {_cell(boot['point'])} | {boot['verdict']} | {_cell(boot['reason'])} |" for boot in report["boots"]]
    return "\n".join(lines) + "\n"


def _parting(report: dict[str, Any]) -> list[str]:
    """A divergence, in the manner of diff: `-` is the passing boot's, `+` the failing one's."""
    compared, parting = report["divergence"], report["divergence"]["divergence"]
    again = ["", f"More: `pvstub diff {report['passing']['run']} {report['failing']['run']}`"]
    if parting is None:
        return [f"They do not: {compared['equal']:,} events are the same.", *again]
    shown = [f"  {line['good']}" for line in parting["before"]]
    for line in parting["after"]:
        if line["good"] is not None and line["bad"] is not None:
            shown.append(f"  {line['good']}")
            continue
        shown += [f"{mark} {line[side]}" for mark, side in (("-", "good"), ("+", "bad")) if line[side] is not None]
    places = [
        f"- {side} at {', from '.join(callers)}"
        for side in ("good", "bad")
        if parting[side] and (callers := _callers(parting[side]))
    ]
    words = [*places, *(f"- {difference}" for difference in parting["differences"])]
    first = [f"The same for {compared['equal']:,} events; then:", "", *_code(shown[:_MOST_LINES])]
    return [*first, *([""] if words else []), *words, *again]


def _callers(side: dict[str, Any]) -> list[str]:
    """The symbols at a divergence, innermost first; where there is no backtrace, that of the place alone."""
    frames = (side["backtrace"] or {}).get("frames", ())
    return [frame["symbol"] for frame in frames if frame["symbol"]] or [side["symbol"]] * bool(side["symbol"])


def headline(report: dict[str, Any]) -> str:
    """What came out, in a line."""
    if report["result"] == "refused":
        return f"No first bad point ({report['refusal']}): {report['reason']}"
    if report["result"] == "needed":
        return f"Needed for the failure: {' '.join(report['needed'])}"
    if report["result"] == "share":
        failing, booted = report["failing_points"], len(report["failing_points"]) + len(report["passing_points"])
        low, high = report["between"]
        return f"{len(failing)} of {booted} fail ({low:.1%} to {high:.1%} of all); the smallest: {failing[0]}"
    first: Sequence[str] = report["first_bad"]
    return (
        f"First bad: {first[0]}" if len(first) == 1 else f"First bad is one of these {len(first)}: {'; '.join(first)}"
    )


def _code(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
