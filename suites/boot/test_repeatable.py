"""Two boots with the same inputs are the same boot: console and hypercall log, byte for byte."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from harness.guests import Guest
from stub.trace import summary

pytestmark = pytest.mark.usefixtures("pv_engine")

LOGS = ("console.log", "xenstore.log", "hypercalls")


def digests(run: Path) -> dict[str, str]:
    """SHA-256 of a finished run's logs."""
    return {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in LOGS}


def booted(guest: Guest) -> dict[str, str]:
    """The digests of a guest's boot, from start to power-off."""
    guest.wait("poweroff")
    guest.close()
    return digests(guest.run_directory)


@pytest.mark.guest("debian-cloud", memory=128, seed=11)
def test_in_another_process_and_folder_at_the_same_time(guest: Guest, tmp_path: Path) -> None:
    """The fixture's boot and the command's, while the two slow each other down; the summary says the same."""
    other = tmp_path / "another folder"
    command = [Path(sys.executable).with_name("pvstub"), *guest.launch.command(other)[1:], f"--run={other}", "--quiet"]
    with subprocess.Popen(command) as process:
        here = booted(guest)
        assert process.wait() == 0
    assert digests(other) == here
    for run in (other, guest.run_directory):
        said = summary.load(run / summary.FILE_NAME)["digests"]
        assert {"console.log": said["console"], "hypercalls": said["hypercalls"]}.items() <= here.items()


@pytest.mark.guest("debian-cloud", memory=128, seed=11)
@pytest.mark.parametrize("step_ns", [37_000, 1_000_000])
def test_how_the_caller_cuts_the_run_does_not_matter(guest: Guest, step_ns: int) -> None:
    """Stopped at every step of virtual time, from where the console comes up, the boot is the same boot."""
    stepped = guest()
    stepped.run(1.4)
    while stepped.verdict is None:
        stepped.run(step_ns / 1e9)
    assert booted(stepped) == booted(guest)


@pytest.mark.guest("debian-cloud", memory=128, seed=11)
@pytest.mark.pv_needs("identity")
def test_what_the_log_depends_on(guest: Guest) -> None:
    first = booted(guest)
    assert booted(guest(seed=12))["hypercalls"] != first["hypercalls"], "frame numbers follow the seed"
    assert booted(guest(p2m="identity"))["hypercalls"] != first["hypercalls"]
    assert booted(guest()) == first, "and not on what was booted in between"


@pytest.mark.guest("debian-cloud", extra="pvstub=shell", seed=3)
def test_what_a_test_does_is_part_of_the_inputs(guest: Guest) -> None:
    """The same expects and the same typing: the guest is stopped and typed to at the same instructions."""

    def session(talker: Guest) -> dict[str, str]:
        talker.console.expect_exact("/ # ")
        talker.console.sendline("cat /proc/uptime /proc/sys/kernel/random/uuid; date +%s")
        talker.console.expect_line(r"^\d+$")
        talker.run(0.25)
        talker.console.sendline("exit")
        return booted(talker)

    assert session(guest) == session(guest())
