"""``python -m benchmarks [-n ROUNDS] [MEASURE…]``: all measures are kept in RESULTS.md, single ones only printed."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks import asleep, boot, debug, diff, machine, memory, pair, shares, start, tables, trace, traps
from benchmarks.commands import Setting
from benchmarks.process import Unexpected
from benchmarks.table import Section, table
from harness.catalogue import load
from stub.errors import PvstubError

MEASURES: Mapping[str, Callable[[Setting], Section]] = {
    "boot": boot.run,
    "shares": shares.run,
    "traps": traps.run,
    "tables": tables.run,
    "sleep": asleep.run,
    "start": start.run,
    "memory": memory.run,
    "pair": pair.run,
    "trace": trace.run,
    "diff": diff.run,
    "debug": debug.run,
}
RESULTS = Path(__file__).with_name("RESULTS.md")
TITLE = "# Measured, side by side"
PREFACE = """\
Made by `make bench`. Everything in a row was measured in one run, by turns; the median of {rounds} with the least and
the most. Ratios are the median of the rounds' own; a target is for wall time. CPU time is user and system time of the
whole process. `python -m benchmarks {measures}` does one alone."""


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print each section as it is done, and keep the whole."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure pvstub against its peers.")
    parser.add_argument("measures", nargs="*", metavar="MEASURE", help=f"{', '.join(MEASURES)} (default: all, kept)")
    parser.add_argument("-n", dest="rounds", type=int, default=5, help="rounds of each (default 5)")
    options = parser.parse_args(words)
    unknown = [name for name in options.measures if name not in MEASURES]
    if unknown or options.rounds < 1:
        parser.error(f"no measure {unknown[0]}; there are {', '.join(MEASURES)}" if unknown else "-n takes 1 or more")
    try:
        for name in boot.TARGETS:
            load(name)  # fetched here, not inside a measurement
        text = report(options.measures or list(MEASURES), options.rounds)
    except (Unexpected, PvstubError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    if not options.measures:
        RESULTS.write_text(text)
        print(f"kept in benchmarks/{RESULTS.name}")
    return 0


def report(names: Sequence[str], rounds: int) -> str:
    """The sections of ``names`` as one page, each printed when it is done."""
    facts = table(("machine", ""), machine.describe().items())
    preface = PREFACE.format(rounds=rounds, measures="|".join(MEASURES))
    parts = [TITLE, preface, facts]
    print(facts, flush=True)
    with tempfile.TemporaryDirectory(prefix="pvstub-bench-") as scratch:
        for name in names:
            began = time.monotonic()
            parts.append(MEASURES[name](Setting(rounds, Path(scratch))).markdown())
            print(f"\n{parts[-1]}\n\n({name}: {time.monotonic() - began:.0f} s)", flush=True)
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())
