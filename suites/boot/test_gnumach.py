"""GNU Mach, unmodified: how it dies on today's Xen, and how far it comes with the rules that it was written for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness import multiboot, programs
from harness.guests import Guest

SOURCES = Path(__file__).parents[2] / "images" / "gnumach"
BOOT_SCRIPT = "hello $(task-create) $(task-resume)"

both_widths = pytest.mark.parametrize(
    "width", [pytest.param(width, marks=pytest.mark.guest(image=f"gnumach{width}")) for width in (64, 32)]
)
xen_3 = pytest.mark.guest(compat="xen-3")
MACHINES = {64: "xen-3.0-x86_64", 32: "xen-3.0-x86_32p"}


def hello() -> bytes:
    """The program of a first task."""
    command = ["gcc", "-m32", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", str(SOURCES / "hello.S")]
    return programs.compiled("mach-hello", command, [SOURCES]).read_bytes()


@both_widths
def test_todays_xen_kills_it(guest: Guest, width: int) -> None:
    """It writes to a page table without having asked for the assist, as every 4.17 answers: docs/fidelity.md."""
    verdict = guest.wait("poweroff", timeout=1)
    assert re.fullmatch(r"the guest shut down with the odd reason \d+", verdict.reason)
    assert guest.console.text == ""
    assert guest.hypercalls.count("exception:#PF") == 1
    assert guest.hypercalls.count("page_table_write") == 0


@xen_3
@both_widths
def test_with_the_old_rules_it_wants_a_module(guest: Guest, width: int) -> None:
    for line in (
        r"^GNU Mach 1\.8",
        rf"^Running on {re.escape(MACHINES[width])}\.$",
        r"^biosmem: 0+:000000000004000000, available$",
        r"^hd: No block device",
        r"^panic .*bootstrap_create: No bootstrap code loaded with the kernel!$",
    ):
        guest.console.expect_line(line, timeout=1)
    verdict = guest.wait("poweroff", timeout=1)
    assert "odd reason" in verdict.reason
    assert guest.hypercalls.count("page_table_write") == 64 // width, "an entry, in words"
    assert guest.hypercalls.count("event_channel_op_compat") > 0
    assert guest.hypercalls.count("sched_op_compat:shutdown") == 1


@xen_3
@both_widths
@pytest.mark.parametrize("audit", [None, 50])
def test_with_a_module_its_first_task_prints(guest: Guest, audit: int | None, width: int) -> None:
    """The task is a 32-bit program, run from the LDT that Mach keeps; its trap prints on Mach's console.

    The trap comes by a call gate, which for a 32-bit Mach is Xen's to emulate.
    """
    booted = guest(ramdisk=multiboot.ramdisk({BOOT_SCRIPT: hello()}), audit=audit)
    booted.console.expect_sequence(
        [r"module 0: hello \$\(task-create\)", "1 multiboot modules", "task loaded: hello", "start hello: "], timeout=1
    )
    booted.console.expect_line(r"Hello from a task of Mach's\.$", timeout=1)
    assert booted.hypercalls.count("privileged:lcall") == (1 if width == 32 else 0)
    assert booted.verdict is None


@xen_3
@both_widths
def test_a_module_that_is_no_program(guest: Guest, width: int) -> None:
    booted = guest(ramdisk=multiboot.ramdisk({BOOT_SCRIPT: b"no program"}))
    booted.console.expect_line(r"^panic .*Cannot load user executable module .*: hello$", timeout=1)
    booted.wait("poweroff", timeout=1)
