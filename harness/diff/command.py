"""``pvstub diff GOOD BAD``: where the hypercall logs of two runs part. Exit status as of diff(1)."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from harness.diff import report
from harness.diff.compare import Rules, compare
from harness.diff.sides import Side
from stub.command_line import TROUBLE, Parser, ended
from stub.errors import UsageError
from stub.trace.filters import compile_filter

SAME: Final = 0
DIFFERENT: Final = 1
CONTEXT: Final = 5


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = Parser(
        prog="pvstub diff",
        description="Show where the hypercall logs of two runs part: the first event that differs, with its context.",
        epilog="Exit status: 0 the same, 1 different, 2 trouble.",
    )
    for name in ("good", "bad"):
        made.add_argument(name, type=Path, metavar=name.upper(), help="a run's folder, or an artefact")
    made.add_argument("--context", type=int, default=CONTEXT, metavar="N", help=f"equal events shown ({CONTEXT})")
    made.add_argument("--filter", action="append", default=[], metavar="EXPR", help="compare only what matches")
    made.add_argument(
        "--places", choices=("exact", "rough"),
        help="compare frames and addresses exactly, or whose they are only (default: exactly for one kernel and size)",
    )  # fmt: skip
    made.add_argument("--schedule", action="store_true", help="compare timer ticks and turns of threads, too")
    made.add_argument(
        "--backtrace", action="store_true", help="boot both again, up to the difference, and say who called there"
    )
    made.add_argument("--symbols", type=Path, metavar="FILE", help="symbols of both kernels (default: the image's)")
    made.add_argument("--symbols-bad", type=Path, metavar="FILE", help="symbols of BAD's kernel, if they are others")
    made.add_argument("--json", action="store_true", help="one JSON object")
    return made


def main(argv: Sequence[str]) -> int:
    """Run ``pvstub diff``; 0 the same, 1 different, 2 trouble."""
    return ended("pvstub diff", lambda: _run(parser().parse_args(argv)), trouble=TROUBLE, unread=DIFFERENT)


def _run(options: argparse.Namespace) -> int:
    if options.context < 0:
        raise UsageError(f"--context {options.context}: give 0 or more")
    for file in (options.symbols, options.symbols_bad):
        if file is not None and not file.is_file():
            raise UsageError(f"{file}: no such file of symbols")
    filters = [compile_filter(expression) for expression in options.filter]
    with ExitStack() as opened:
        good = Side(options.good, options.symbols, opened)
        bad = Side(options.bad, options.symbols_bad or options.symbols, opened)
        alike = all(good.identity.get(name) == bad.identity.get(name) for name in ("kernel", "memory", "bits"))
        exact = alike if options.places is None else options.places == "exact"
        runs = good.run, bad.run
        found = compare(*runs, Rules(exact, options.schedule, filters), options.context)
        one, other = found.first
        callers = (good.backtrace(one), bad.backtrace(other)) if options.backtrace else None
        if options.json:
            shown = report.as_object(found, *runs, callers)
            print(json.dumps({"places": "exact" if exact else "rough", **shown}, indent=2))
        else:
            for line in (*_heads(good, bad, exact), *report.lines(found, *runs, callers)):
                print(line)
    return DIFFERENT if found.after else SAME


def _heads(good: Side, bad: Side, exact: bool) -> Iterator[str]:
    for mark, side in (("---", good), ("+++", bad)):
        yield f"{mark} {side.name}"
    names = sorted({*good.identity, *bad.identity})
    for name in names:
        one, other = good.identity.get(name), bad.identity.get(name)
        if one != other:
            yield f"{name}: GOOD {one}, BAD {other}"
    if not exact:
        yield "places compared roughly: whose a frame is, which region or symbol an address is in"
