"""Memory that a run takes beyond what its guest has touched of its own."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.boot import TARGETS
from benchmarks.commands import INIT_REACHED, Setting, pvstub
from benchmarks.process import to_line
from benchmarks.table import Section, table, verdict
from harness.catalogue import load

TARGET_MIB = 200
_MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) ", re.MULTILINE)


def run(setting: Setting) -> Section:
    """One boot of each image: the figures do not vary."""
    rows = []
    for name in TARGETS:
        found: list[tuple[int, int]] = []

        def look(process: int, name: str = name, found: list[tuple[int, int]] = found) -> None:
            folder = Path("/proc", str(process))
            guest = guest_rss((folder / "smaps").read_text(), load(name).memory)
            found.append((peak_rss((folder / "status").read_text()), guest))

        to_line(pvstub(setting, name), INIT_REACHED, look)
        peak, guest = found[0]
        more = (peak - guest) / 1024
        cells = [f"{peak / 1024:.0f} MiB", f"{guest / 1024:.0f} MiB", f"{more:.0f} MiB", f"≤ {TARGET_MIB} MiB"]
        rows.append([name, *cells, verdict(more, TARGET_MIB)])
    return Section(
        "Memory",
        "At the initramfs's first line: the highest resident size so far, what of the guest's memory is resident, "
        "and the rest.",
        after=[table(("image", "peak", "the guest's own", "beyond that", "target", ""), rows)],
    )


def peak_rss(status: str) -> int:
    """VmHWM of /proc/PID/status, KiB."""
    found = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
    if found is None:
        raise ValueError("no VmHWM")
    return int(found[1])


def guest_rss(smaps: str, memory: int) -> int:
    """KiB resident of the guest's memory: the smallest mapping that could hold ``memory`` MiB and is not executable."""
    parts = _MAPPING.split(smaps)[1:]
    sizes = []
    for start, end, rights, body in zip(*[iter(parts)] * 4, strict=True):
        size = int(end, 16) - int(start, 16)
        if size >= memory << 20 and rights.startswith("rw-"):
            sizes.append((size, int(re.findall(r"^Rss:\s*(\d+) kB$", body, re.MULTILINE)[0])))
    if not sizes:
        raise ValueError(f"no mapping of {memory} MiB")
    return min(sizes)[1]
