"""What it costs to compare two runs, by hypercalls."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.commands import Setting, pvstub
from benchmarks.process import to_end
from benchmarks.samples import alternate
from benchmarks.table import Row, Section
from stub.trace import summary

IMAGE = "debian-amd64"
OTHERS: dict[str, tuple[str, tuple[str, ...], int]] = {
    "seed": ("of another seed, the same to the end", ("--seed", "7"), 0),
    "options": ("with another command line, aligned behind the first difference", ("--extra", "initcall_debug"), 1),
}
UNIT = 100_000
TARGET_S = 5.0


def run(setting: Setting) -> Section:
    """One boot against two others, the whole command each time."""
    to_end(pvstub(setting, IMAGE, "--quiet", name="good"))
    for name, (_, options, _) in OTHERS.items():
        to_end(pvstub(setting, IMAGE, "--quiet", *options, name=name))
    counts = summary.load(setting.scratch / "good")["counts"]
    calls = sum(counts["hypercalls"].values())
    command = [str(Path(sys.executable).with_name("pvstub")), "diff", str(setting.scratch / "good")]
    taken = alternate(
        setting.rounds,
        *(
            lambda name=name, status=status: to_end([*command, str(setting.scratch / name)], status)  # type: ignore[misc]
            for name, (_, _, status) in OTHERS.items()
        ),
    )
    return Section(
        "Two runs compared",
        f"`pvstub diff` of a boot of {IMAGE} with {calls:,} hypercalls and {counts['port_io']:,} port accesses, and of "
        f"another one: the whole command, for each {UNIT:,} hypercalls.",
        [
            Row(f"a boot {what}", series / (calls / UNIT), target=TARGET_S)
            for (what, _, _), series in zip(OTHERS.values(), taken, strict=True)
        ],
    )
