"""What the log that is always on costs: the same boot with a log that keeps nothing."""

from __future__ import annotations

from benchmarks.commands import INIT_REACHED, Setting, child
from benchmarks.process import to_line
from benchmarks.samples import alternate
from benchmarks.table import Row, Section

IMAGE = "debian-cloud"
TARGET = 1.10


def run(setting: Setting) -> Section:
    """With and without, by turns."""
    ours, peer = alternate(
        setting.rounds,
        lambda: to_line(child(setting, "without_log", IMAGE, first="log"), INIT_REACHED),
        lambda: to_line(child(setting, "without_log", IMAGE), INIT_REACHED),
    )
    return Section(
        "Trace",
        "The boot with the hypercall log as it is, beside the same boot whose log throws every record away.",
        [Row(f"{IMAGE}, log on against off", ours, peer, target=TARGET)],
    )
