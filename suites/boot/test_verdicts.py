"""How runs end: each verdict comes within a virtual second of its cause, and never by waiting out a limit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from small_guest import SPIN, UD2, call, kernel, shutdown

from harness.guests import Guest
from stub.abi.sched import (
    SCHEDOP_block,
    SHUTDOWN_crash,
    SHUTDOWN_poweroff,
    SHUTDOWN_reboot,
    SHUTDOWN_suspend,
    SHUTDOWN_watchdog,
)
from stub.abi.xen import Hypercall

REASONS = {
    "poweroff": SHUTDOWN_poweroff,
    "reboot": SHUTDOWN_reboot,
    "suspend": SHUTDOWN_suspend,
    "crash": SHUTDOWN_crash,
    "watchdog": SHUTDOWN_watchdog,
}
EXIT_STATUS = {"poweroff": 0, "crash": 3, "watchdog": 3, "deadlock": 5}


@pytest.mark.parametrize("kind", sorted(REASONS))
def test_the_domain_says_why_it_ends(guest: Guest, tmp_path: Path, kind: str) -> None:
    """SCHEDOP_shutdown carries the reason (xen/sched.h)."""
    ended = guest(kernel(tmp_path, shutdown(REASONS[kind])))
    verdict = ended.wait(kind)
    assert ended.now < 0.001
    assert verdict.exit_status == EXIT_STATUS.get(kind, 0)
    assert ended.hypercalls.count("sched_op:SCHEDOP_shutdown") == 1


def test_a_trap_that_nobody_takes_is_a_crash(guest: Guest, tmp_path: Path) -> None:
    """A kernel's #UD with no handler registered: the report has Xen's words, the place and the registers."""
    crashed = guest(kernel(tmp_path, UD2))
    verdict = crashed.wait("crash")
    report = "\n".join((verdict.reason, *verdict.details))
    assert re.search(r"(?i)unhandled.*\bvec(?:tor)? 6\b", report)
    assert f"{crashed.machine.registers()['rip']:016x}" in report
    assert verdict.exit_status == 3


def test_blocked_with_nothing_due_is_a_deadlock(guest: Guest, tmp_path: Path) -> None:
    """SCHEDOP_block with no timer set and no event bound: nothing can wake it."""
    stuck = guest(kernel(tmp_path, call(Hypercall.sched_op, SCHEDOP_block, 0) + SPIN))
    verdict = stuck.wait("deadlock")
    assert stuck.now < 1
    assert verdict.exit_status == 5


@pytest.mark.pv_limits(virtual=0.25)
def test_the_virtual_deadline(guest: Guest, tmp_path: Path) -> None:
    busy = guest(kernel(tmp_path, SPIN))
    assert busy.run(0.1) is None
    assert busy.now == pytest.approx(0.1, abs=0.001)
    assert busy.wait("virtual-deadline").exit_status == 4
    assert busy.now == pytest.approx(0.25, abs=0.001)


@pytest.mark.pv_limits(instructions=1_000_000)
def test_the_instruction_budget_is_exact(guest: Guest, tmp_path: Path) -> None:
    busy = guest(kernel(tmp_path, SPIN))
    assert busy.wait("instruction-budget").exit_status == 4
    assert busy.machine.retired == 1_000_000


@pytest.mark.pv_limits(instructions=40)
def test_a_reboot_may_boot_again(guest: Guest, tmp_path: Path) -> None:
    """The new boot is part of the same run: its time and its instructions go on."""
    again = guest(kernel(tmp_path, shutdown(SHUTDOWN_reboot)), on_reboot="restart")
    again.wait("instruction-budget")
    assert again.machine.boots > 2
    assert again.hypercalls.count("sched_op:SCHEDOP_shutdown") >= again.machine.boots - 1


@pytest.mark.pv_limits(wall=0.2)
def test_the_wall_limit(guest: Guest, tmp_path: Path) -> None:
    assert guest(kernel(tmp_path, SPIN)).wait("wall-limit").exit_status == 4


@pytest.mark.guest("debian-cloud", extra="pvstub=reboot")
def test_linux_reboots(guest: Guest) -> None:
    guest.console.expect_line("^pvstub: init reached$")
    asked = guest.now
    guest.wait("reboot")
    assert guest.now - asked < 1


@pytest.mark.guest("debian-cloud", extra="pvstub=crash")
@pytest.mark.pv_splats("panic", "oops", "bug")
def test_linux_panics(guest: Guest) -> None:
    guest.console.expect("Kernel panic - not syncing")
    panicked = guest.now
    verdict = guest.wait("crash")
    assert guest.now - panicked < 1
    assert verdict.exit_status == 3


@pytest.mark.guest("debian-cloud", extra="pvstub=hang")
@pytest.mark.pv_limits(virtual=600)
def test_ten_minutes_of_nothing(guest: Guest) -> None:
    """It sleeps; the kernel's own timers, a few a second, are all that runs."""
    guest.console.expect_line("^pvstub: init reached$")
    guest.wait("virtual-deadline")
    assert guest.now == pytest.approx(600, abs=0.001)
