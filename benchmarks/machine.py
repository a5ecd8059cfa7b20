"""What the results were measured on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path


def describe() -> Mapping[str, str]:
    """CPU, memory, kernel and the versions of what runs guests. No names of hosts or folders."""
    return {
        "CPU": cpu_model(Path("/proc/cpuinfo").read_text()),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory_gib(Path('/proc/meminfo').read_text()):.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "unicorn": metadata.version("unicorn"),
        "QEMU": qemu_version(
            subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True).stdout
        ),
        "load before": "{:.2f} {:.2f} {:.2f} (1, 5, 15 minutes)".format(*os.getloadavg()),
    }


def cpu_model(cpuinfo: str) -> str:
    """The first "model name" of /proc/cpuinfo."""
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found[1] if found else platform.machine()


def memory_gib(meminfo: str) -> float:
    """MemTotal of /proc/meminfo, which is in KiB."""
    found = re.search(r"^MemTotal:\s*(\d+) kB$", meminfo, re.MULTILINE)
    return int(found[1]) / (1 << 20) if found else float("nan")


def qemu_version(text: str) -> str:
    """The version in what ``--version`` prints."""
    found = re.search(r"version (\S+)", text)
    return found[1] if found else "unknown"
