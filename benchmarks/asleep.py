"""What an hour costs in which a guest does nothing but sleep."""

from __future__ import annotations

import sys

from benchmarks.commands import CHILDREN, Setting
from benchmarks.process import printed_by
from benchmarks.samples import Sample, alternate
from benchmarks.table import Row, Section

IMAGE = "debian-cloud"
TARGET_S = 1.0


def run(setting: Setting) -> Section:
    """From the line before to the line after, log on."""

    def hour() -> Sample:
        wall, cpu = printed_by([sys.executable, str(CHILDREN / "asleep.py"), IMAGE]).split()
        return Sample(float(wall), float(cpu))

    (series,) = alternate(setting.rounds, hour)
    return Section(
        "Sleep",
        "`sleep 3600` in the guest: from the console line before it to the line after it, log on.",
        [Row(f"{IMAGE}, an hour asleep", series, target=TARGET_S)],
    )
