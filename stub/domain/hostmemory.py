"""How much memory this machine has, and how much of it guests may have at once."""

from __future__ import annotations

from pathlib import Path

MIB = 1 << 20
DEFAULT_SHARE = 0.55


def host_memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """RAM that this process may use, in MiB: the machine's, or its control group's when that is less."""
    total = next(int(line.split()[1]) // 1024 for line in meminfo.read_text().splitlines() if line[:9] == "MemTotal:")
    limit = cgroup.read_text().strip() if cgroup.exists() else "max"
    return min(total, int(limit) // MIB) if limit.isdigit() else total


def too_much(memory: int) -> str:
    """A warning if guests with so many MiB together take more than their share of this machine; empty if not."""
    host = host_memory()
    share = int(host * DEFAULT_SHARE)
    if memory <= share:
        return ""
    return (
        f"memory of {memory} MiB is {memory / host:.0%} of this machine's {host} MiB: keep the guests that run at once "
        f"under {DEFAULT_SHARE:.0%}, {share} MiB"
    )
