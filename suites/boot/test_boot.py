"""Debian's unmodified kernels come up as PV domains, in many configurations, run their first program and power off."""

from __future__ import annotations

import re
from typing import Any

import pytest

from harness.guests import Guest

IMAGES = ("debian-amd64", "debian-cloud")
MIB = 1 << 20
PADDING = "/mnt/padding"
END_OF_PADDING = b"the end of the padding\n"
SHOW_PADDING = f"#!/bin/sh\nwc -c <{PADDING}\ntail -n 1 {PADDING}\n"
# What a kernel says when something is wrong with it.
SPLATS = re.compile(
    r"^.*(?:WARNING:|BUG:|Oops|Call Trace|Kernel panic|rcu_sched self-detected|\(XEN\)).*$", re.MULTILINE
)


def padding(size: int) -> bytes:
    """``size`` bytes that end in END_OF_PADDING; each page its own, so one that is lost or doubled moves the end."""
    pages = b"".join(page.to_bytes(4096, "big") for page in range(size // 4096))
    return pages[: size - len(END_OF_PADDING) - 1] + b"\n" + END_OF_PADDING


CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "memory-96": {"memory": 96},
    "memory-256": {"memory": 256},
    "memory-1024": {"memory": 1024},
    "nokaslr": {"extra": "nokaslr"},
    "quiet": {"extra": "quiet"},
    "no-debug-console": {"cmdline": "console=hvc0 loglevel=3 mitigations=off"},
    "early-console": {"extra": "earlyprintk=xen loglevel=8"},
    "identity": {"p2m": "identity"},
    "seed": {"seed": 0xFEED},
    "epoch": {"epoch": 1_000_000_000},
}
NEEDS = {"identity": [pytest.mark.pv_needs("identity")]}
RAMDISKS = {8: 128, 64: 512}  # MiB of padding: MiB of memory


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize(
    "configuration", [pytest.param(name, marks=NEEDS.get(name, ())) for name in sorted(CONFIGURATIONS)]
)
def test_boots_and_powers_off(guest: Guest, image: str, configuration: str) -> None:
    booted = guest(image, **CONFIGURATIONS[configuration])
    booted.console.expect_line("^pvstub: init reached$")
    booted.console.expect_line(r"^Linux .* x86_64")
    total = re.search(r"\d+", booted.console.expect_line(r"^memory: \d+ kB$"))
    assert total is not None
    assert (booted.memory << 9) - (16 << 10) < int(total[0]) < booted.memory << 10, "most of its memory is there"
    powers_off_in_good_order(booted)


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("size", sorted(RAMDISKS))
def test_a_large_ramdisk_comes_through(guest: Guest, image: str, size: int) -> None:
    files = {PADDING: padding(size * MIB), "/pvstub/main": SHOW_PADDING}
    booted = guest(image, memory=RAMDISKS[size], extra="pvstub=exec", files=files)
    booted.console.expect_line("^pvstub: init reached$")
    assert booted.console.expect_line(r"^\d+$") == str(size * MIB)
    booted.console.expect_line(f"^{END_OF_PADDING.decode().strip()}$")
    booted.console.expect_line("^pvstub: exit status 0$")
    powers_off_in_good_order(booted)


def powers_off_in_good_order(booted: Guest) -> None:
    assert booted.wait("poweroff").exit_status == 0
    assert not SPLATS.search(booted.console.text)
    booted.hypercalls.assert_never("mmu_update,mmuext_op,update_va_mapping,memory_op rc<0")


@pytest.mark.guest("debian-cloud", extra="loglevel=7")
def test_the_kernel_knows_where_it_is(guest: Guest) -> None:
    """It takes itself for a PV domain, has the memory that it was given, and finds the console by itself."""
    console = guest.console
    console.expect_line(r"Command line: console=hvc0 loglevel=7$")
    console.expect_line(r"Hypervisor detected: Xen PV$")
    console.expect_line(r"Booting kernel on Xen$")
    memory = re.search(r"Memory: \d+K/(\d+)K available", console.expect_line("Memory: "))
    assert memory is not None
    assert 0 <= (guest.memory << 10) - int(memory[1]) < 2048
    console.expect_line("printk: console .hvc0. enabled")
    guest.wait("poweroff")
    guest.hypercalls.assert_order(
        ["set_trap_table", "callback_op", "event_channel_op:EVTCHNOP_bind_virq", "sched_op:SCHEDOP_shutdown"]
    )


@pytest.mark.guest("debian-cloud", extra="pvstub=shell loglevel=4")
def test_a_shell_takes_what_is_typed(guest: Guest) -> None:
    console = guest.console
    console.expect_exact("/ # ")
    console.sendline("echo $((6 * 7))")
    assert console.expect_line(r"^\d+$") == "42"
    console.expect_exact("/ # ")
    console.sendline("cat >/tmp/text")
    guest.run(0.1)  # what is typed before cat reads would still be taken by the shell's line editor
    console.sendline("typed in a shell")
    console.sendcontrol("d")
    console.expect_exact("/ # ")
    console.sendline("sleep 1000")
    guest.run(1)
    console.sendcontrol("c")
    console.expect_exact("/ # ", timeout=1)
    console.sendline("cat /tmp/text; exit")
    console.expect_line("^typed in a shell$")
    guest.wait("poweroff")
