"""``pvstub trace``: a run's hypercall log as lines to read, as JSON lines, or counted."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from stub.command_line import Parser, ended
from stub.errors import UsageError
from stub.trace import jsonlines, perfetto, text
from stub.trace.filters import Predicate, compile_filter
from stub.trace.reader import LogReader
from stub.trace.records import Record
from stub.trace.stats import Stats


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = Parser(prog="pvstub trace", description="Show what a guest asked of its hypervisor, call by call.")
    made.add_argument("run", type=Path, metavar="RUN", help="a run's folder, or its file hypercalls")
    made.add_argument("--json", action="store_true", help="one JSON object a line (with --stats: one object)")
    examples = "mmu_update,mmuext_op · event_channel_op:send · error · rc<0 · time=1s..2s · !iret"
    made.add_argument(
        "--filter", action="append", default=[], metavar="EXPR", help=f"show only what matches: {examples}"
    )
    made.add_argument("--stats", action="store_true", help="count by hypercall and sub-operation instead")
    made.add_argument("--perfetto", type=Path, metavar="FILE", help="write a trace for ui.perfetto.dev instead")
    made.add_argument("--follow", action="store_true", help="keep printing until the run ends")
    return made


def main(argv: Sequence[str]) -> int:
    """Run ``pvstub trace``; the exit status. Faults of files and options are one line on stderr and status 2."""
    return ended("pvstub trace", lambda: _run(parser().parse_args(argv), sys.stdout))


def _run(options: argparse.Namespace, out: TextIO) -> int:
    predicates = [compile_filter(expression) for expression in options.filter]
    with LogReader(options.run) as reader:
        found = _selected(_events(reader, options.follow), predicates)
        if options.perfetto is not None:
            _write_perfetto(found, options.perfetto)
        elif options.stats:
            _print_stats(found, options.json, out)
        else:
            _print_lines(found, options, out)
        out.flush()
        if not reader.complete:
            state = "is still being written" if reader.live() else "was cut before its end, as by a kill"
            print(f"pvstub trace: {reader.path}: the log {state}; shown to its last record", file=sys.stderr)
    return 0


def _events(reader: LogReader, follow: bool) -> Iterator[Record]:
    yield from reader.follow() if follow else reader.records()
    yield from reader.finish()


def _selected(records: Iterable[Record], predicates: Sequence[Predicate]) -> Iterator[Record]:
    return (record for record in records if all(predicate(record) for predicate in predicates))


def _print_lines(records: Iterable[Record], options: argparse.Namespace, out: TextIO) -> None:
    line = jsonlines.line if options.json else text.line
    for record in records:
        out.write(line(record) + "\n")
        if options.follow:
            out.flush()


def _write_perfetto(records: Iterable[Record], path: Path) -> None:
    try:
        with path.open("w", encoding="utf-8") as file:
            perfetto.write(records, file)
    except OSError as error:
        raise UsageError(f"{path}: cannot write the trace: {error.strerror}; name another file") from error


def _print_stats(records: Iterable[Record], as_json: bool, out: TextIO) -> None:
    stats = Stats()
    for record in records:
        stats.add(record)
    if as_json:
        out.write(json.dumps(stats.as_object(), indent=2) + "\n")
    else:
        out.writelines(line + "\n" for line in stats.lines())
