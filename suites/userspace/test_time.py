"""Virtual time as a guest's user space sees it: sleeping costs nothing, and the day is the one that was asked for."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness import catalogue
from harness.guests import Guest

pytestmark = pytest.mark.guest("debian-cloud", extra="pvstub=exec loglevel=4")

HOUR = 3600
# Less than one second on an idle machine is the aim, which the benchmark measures. CPU time, as others may be busy.
MOST_CPU_SECONDS = 5
# How late a line of the guest may reach us on a busy machine.
LATE = 10


DATE = 'echo "date=$(date +%s)"'


def shell(*commands: str) -> dict[str, bytes]:
    """A /pvstub/main of these shell commands."""
    return {"/pvstub/main": "\n".join(("#!/bin/sh", *commands, "")).encode()}


def number(line: str) -> float:
    """The number in a line of the form ``name=number``."""
    match = re.search(r"=([\d.]+)", line)
    assert match, line
    return float(match[1])


def test_an_hour_asleep(guest: Guest) -> None:
    """All clocks of the guest moved on by an hour; the host's hardly did."""
    read = 'read -r up rest </proc/uptime; echo "up=$up"; echo "date=$(date +%s)"'
    sleeper = guest(files=shell(read, f"sleep {HOUR}", read))
    before = [number(sleeper.console.expect_line(f"^{name}=")) for name in ("up", "date")]
    virtual, cpu = sleeper.now, time.process_time()
    after = [number(sleeper.console.expect_line(f"^{name}=", timeout=HOUR + 60)) for name in ("up", "date")]
    assert time.process_time() - cpu < MOST_CPU_SECONDS
    assert HOUR <= sleeper.now - virtual < HOUR + 2
    for name, first, second in zip(("uptime", "date"), before, after, strict=True):
        assert HOUR - 1 <= second - first <= HOUR + 2, f"{name} moved by {second - first} s"
    sleeper.wait("poweroff", timeout=10)


@pytest.mark.parametrize("epoch", [1_000_000_000, 4_102_444_800])
def test_the_day_is_the_epoch(guest: Guest, epoch: int) -> None:
    """Time of day is the epoch plus the virtual time since the start."""
    dated = guest(epoch=epoch, files=shell(DATE))
    date = number(dated.console.expect_line("^date="))
    assert abs(date - (epoch + dated.now)) <= 1, f"date is {date}, {dated.now} s after {epoch}"
    dated.wait("poweroff", timeout=10)


def test_realtime_is_the_hosts(tmp_path: Path) -> None:
    """With --realtime the guest has the host's time of day, and a sleep of three seconds takes three seconds."""
    image = catalogue.load("debian-cloud")
    assert image.ramdisk
    ramdisk = tmp_path / "ramdisk"
    ramdisk.write_bytes(catalogue.ramdisk_with(image.ramdisk, shell(DATE, "sleep 3", DATE)))
    pvstub = Path(sys.executable).with_name("pvstub")
    options = ["--realtime", "--extra=pvstub=exec quiet", f"--ramdisk={ramdisk}", f"--run={tmp_path}/run"]
    seen: list[tuple[float, float]] = []
    with subprocess.Popen([pvstub, "boot", "debian-cloud", *options], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        seen.extend((time.time(), number(line)) for line in process.stdout if line.startswith("date="))
    assert process.returncode == 0
    assert len(seen) == 2
    for host, guest in seen:
        assert -1 <= host - guest <= LATE, f"the guest's time of day is {guest}, the host's {host}"
    (first_host, first), (last_host, last) = seen
    assert last - first >= 3
    assert last_host - first_host >= 2.5
