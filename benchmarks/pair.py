"""Two guests at once, beside one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from benchmarks.commands import INIT_REACHED, Setting, pvstub
from benchmarks.process import to_line
from benchmarks.samples import Sample, alternate
from benchmarks.table import Row, Section

IMAGE = "debian-cloud"
TARGET = 1.15


def run(setting: Setting) -> Section:
    """One and two by turns."""

    def one(name: str = "one") -> Sample:
        return to_line(pvstub(setting, IMAGE, name=name), INIT_REACHED)

    def two() -> Sample:
        with ThreadPoolExecutor(2) as pool:
            both = list(pool.map(one, ("one", "two")))
        return Sample(max(sample.wall for sample in both), sum(sample.cpu for sample in both) / 2)

    ours, peer = alternate(setting.rounds, two, one)
    return Section(
        "Two guests at once",
        "Two boots started together, to the line of the later one, beside one boot alone, on two idle cores. "
        "CPU time is that of one guest.",
        [Row(f"two of {IMAGE} against one", ours, peer, target=TARGET)],
    )
