"""Where the time of a boot goes: a profile by ``perf`` where there is one, else what can be timed in the process."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from benchmarks.boot import TARGETS
from benchmarks.commands import Setting, child, pvstub
from benchmarks.process import clean_environment, to_end
from benchmarks.table import Section, table

HERTZ = 997
STARTUP, TRANSLATED, ENGINE = "start-up", "translated guest code", "engine (libunicorn and the C extension)"
HYPERVISOR, KERNEL = "hypervisor (Python and its C parts, the log's writer included)", "the host's kernel"
PARTS = (STARTUP, TRANSLATED, ENGINE, HYPERVISOR, KERNEL)
_OBJECTS = (  # the first that matches the name of a sample's object
    (re.compile(r"/perf-\d+\.map$|^//anon$|^\[anon|^anon_inode|^\[unknown\]$"), TRANSLATED),
    (re.compile(r"libunicorn|unicorn/_core"), ENGINE),
    (re.compile(r"^\[(kernel|guest\.kernel|vdso)|\.ko(\.\w+)?$"), KERNEL),
)
_SAMPLE = re.compile(r"^\s*([\d.]+):\s+[0-9a-f]+ \((.*)\)\s*$", re.MULTILINE)


def run(setting: Setting) -> Section:
    """One boot of each image, profiled from its start to power-off."""
    by_perf = perf_works(setting)
    rows: list[list[str]] = []
    for name in TARGETS:
        found = profile(setting, name) if by_perf else timed(setting, name)
        rows.append([name, *(f"{found[part]:.0%}" if part in found else "" for part in PARTS)])
    how = (
        f"By sampling ({HERTZ} Hz of CPU time, user and kernel) from the start of the command to power-off."
        if by_perf
        else "By timers in the process: without perf (Debian's linux-perf) translated code and the host's kernel "
        "cannot be told from the engine."
    )
    return Section(
        "Where the time goes",
        f"{how} What the log takes is measured under Trace.",
        after=[table(("image", *PARTS), rows)],
    )


def perf_works(setting: Setting) -> bool:
    """Whether this machine has perf and lets us use it."""
    if shutil.which("perf") is None:
        return False
    probe = _record(setting, ["true"])
    return subprocess.run(probe, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def _record(setting: Setting, command: list[str]) -> list[str]:
    return ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(HERTZ), "-o", str(_data(setting)), "--", *command]


def _data(setting: Setting) -> Path:
    return setting.scratch / "perf.data"


def profile(setting: Setting, name: str) -> dict[str, float]:
    """Each part's share of the samples."""
    to_end(_record(setting, pvstub(setting, name, "--quiet")))
    script = subprocess.run(
        ["perf", "script", "-i", str(_data(setting)), "-F", "time,ip,dso"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=clean_environment(),
        text=True,
        check=True,
    )
    return shares(samples(script.stdout))


def samples(script: str) -> list[tuple[float, str]]:
    """(time, object) of each sample in ``perf script``'s output, by time."""
    return sorted((float(time), name) for time, name in _SAMPLE.findall(script))


def shares(taken: Iterable[tuple[float, str]]) -> dict[str, float]:
    """Each part's share of samples ordered by time. Start-up is all before the first in translated code."""
    counts: Counter[str] = Counter()
    started = False
    for _, name in taken:
        part = part_of(name)
        started = started or part == TRANSLATED
        counts[part if started else STARTUP] += 1
    total = max(counts.total(), 1)
    return {part: counts[part] / total for part in PARTS}


def part_of(name: str) -> str:
    """Which part a sample's object belongs to."""
    return next((part for pattern, part in _OBJECTS if pattern.search(name)), HYPERVISOR)


def timed(setting: Setting, name: str) -> dict[str, float]:
    """Shares of wall time as the process itself sees them."""
    report = setting.scratch / "timed.json"
    to_end(child(setting, "timed", name, "--quiet", first=str(report)))
    found: dict[str, float] = json.loads(report.read_text())
    total = found["total"]
    rest = total - found["startup"] - found["engine"]
    return {STARTUP: found["startup"] / total, ENGINE: found["engine"] / total, HYPERVISOR: rest / total}
