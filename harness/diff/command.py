"""``pvstub diff GOOD BAD``: where the hypercall logs of two runs part. Exit status as of diff(1)."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from harness import cache, catalogue, symbols
from harness.command_line import Parser, ended
from harness.diff import report
from harness.diff.compare import Rules, Run, compare
from harness.diff.places import Places
from stub.errors import UsageError
from stub.gdb.symbols import Symbols
from stub.trace import summary
from stub.trace.filters import compile_filter
from stub.trace.reader import LogReader, Packed

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
        made.add_argument(name, type=Path, metavar=name.upper(), help="a run's folder, or its file hypercalls")
    made.add_argument("--context", type=int, default=CONTEXT, metavar="N", help=f"equal events shown ({CONTEXT})")
    made.add_argument("--filter", action="append", default=[], metavar="EXPR", help="compare only what matches")
    made.add_argument(
        "--places", choices=("exact", "rough"),
        help="compare frames and addresses exactly, or whose they are only (default: exactly for one kernel and size)",
    )  # fmt: skip
    made.add_argument("--schedule", action="store_true", help="compare timer ticks and turns of threads, too")
    made.add_argument("--symbols", type=Path, metavar="FILE", help="symbols of both kernels (default: the image's)")
    made.add_argument("--symbols-bad", type=Path, metavar="FILE", help="symbols of BAD's kernel, if they are others")
    made.add_argument("--json", action="store_true", help="one JSON object")
    return made


def main(argv: Sequence[str]) -> int:
    """Run ``pvstub diff``; 0 the same, 1 different, 2 trouble."""
    return ended("pvstub diff", lambda: _run(parser().parse_args(argv)), unread=DIFFERENT)


def _run(options: argparse.Namespace) -> int:
    if options.context < 0:
        raise UsageError(f"--context {options.context}: give 0 or more")
    for file in (options.symbols, options.symbols_bad):
        if file is not None and not file.is_file():
            raise UsageError(f"{file}: no such file of symbols")
    filters = [compile_filter(expression) for expression in options.filter]
    with ExitStack() as open_logs:
        good, bad = (open_logs.enter_context(LogReader(path)) for path in (options.good, options.bad))
        runs = (
            Run(_packed(good), good.unpack, Places(good.identity, _symbols(good, options.symbols))),
            Run(_packed(bad), bad.unpack, Places(bad.identity, _symbols(bad, options.symbols_bad or options.symbols))),
        )
        alike = all(good.identity.get(name) == bad.identity.get(name) for name in ("kernel", "memory", "bits"))
        exact = alike if options.places is None else options.places == "exact"
        found = compare(*runs, Rules(exact, options.schedule, filters), options.context)
        if options.json:
            print(json.dumps({"places": "exact" if exact else "rough", **report.as_object(found, *runs)}, indent=2))
        else:
            for line in (*_heads(good, bad, exact), *report.lines(found, *runs)):
                print(line)
    return DIFFERENT if found.after else SAME


def _packed(reader: LogReader) -> Iterator[Packed]:
    yield from reader.packed()
    yield from reader.packed_rest()
    if not reader.complete:
        print(f"pvstub diff: {reader.path}: the log has no end yet; compared to its last record", file=sys.stderr)


def _heads(good: LogReader, bad: LogReader, exact: bool) -> Iterator[str]:
    for mark, reader in (("---", good), ("+++", bad)):
        yield f"{mark} {reader.path.parent}"
    names = sorted({*good.identity, *bad.identity})
    for name in names:
        one, other = good.identity.get(name), bad.identity.get(name)
        if one != other:
            yield f"{name}: GOOD {one}, BAD {other}"
    if not exact:
        yield "places compared roughly: whose a frame is, which region or symbol an address is in"


def _symbols(reader: LogReader, given: Path | None) -> Symbols:
    """The symbols of a run's kernel: those given, or those in the cache, or made from an image that is in the cache."""
    if given is not None:
        return Symbols(given)
    kernel = reader.identity.get("kernel")
    if not isinstance(kernel, str) or not kernel.isalnum():
        return Symbols(None)
    unit = cache.find(cache.cache_folder() / "symbols" / kernel, str(symbols.SYMBOLS_FORMAT))
    return Symbols(unit.path if unit is not None else _of_image(reader.path.parent, kernel))


def _of_image(run: Path, kernel: str) -> Path | None:
    try:
        name = summary.load(run)["image"].get("name")
    except UsageError:  # a run that was killed has none
        return None
    there = catalogue.cached(name) if name in catalogue.names() else None
    if there is None or cache.sha256_of(there.kernel) != kernel:  # another version by now
        return None
    return symbols.executable(there.kernel)
