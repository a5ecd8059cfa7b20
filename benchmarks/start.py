"""From the start of the command to the guest's first instruction, for a kernel seen before."""

from __future__ import annotations

from benchmarks.boot import TARGETS
from benchmarks.commands import Setting, child
from benchmarks.process import to_end, to_line
from benchmarks.samples import alternate
from benchmarks.table import Row, Section

MARK = b"benchmark: first instruction"
TARGET_S = 0.4


def run(setting: Setting) -> Section:
    """Both kernels, after a start that fills the caches."""
    rows = []
    for name in TARGETS:
        command = child(setting, "first_instruction", name)
        to_end(command)
        (series,) = alternate(setting.rounds, lambda command=command: to_line(command, MARK))  # type: ignore[misc]
        rows.append(Row(name, series, unit="ms", target=TARGET_S))
    return Section(
        "Start",
        "The whole process, from its start to the moment the engine is first told to run: Python, imports, "
        "the kernel from the cache, the domain laid out.",
        rows,
    )
