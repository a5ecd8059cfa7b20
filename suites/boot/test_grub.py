"""GRUB, unmodified, as a PV guest without a disk: it comes to its prompt and does there what it can."""

from __future__ import annotations

import re

import pytest
from pexpect import TIMEOUT

from harness.guests import Guest

PROMPT = "\rgrub> "
CURSOR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

pytestmark = pytest.mark.parametrize(
    "image", [pytest.param(image, marks=pytest.mark.guest(image=image)) for image in ("grub-xen64", "grub-xen32")]
)


@pytest.fixture(autouse=True)
def image(request: pytest.FixtureRequest) -> str:
    """Each test is for GRUB in 64 bits and in 32."""
    return str(request.param)


def typed(guest: Guest, line: str) -> list[str]:
    """What GRUB prints for a line typed at its prompt: lines without their ends and without cursor movements."""
    guest.console.sendline(line)
    guest.console.expect_exact(PROMPT)
    assert guest.console.before is not None
    return [CURSOR.sub("", printed).rstrip() for printed in guest.console.before.split("\n\r")[1:]]


@pytest.fixture
def at_prompt(guest: Guest) -> Guest:
    """GRUB as it waits for a line."""
    guest.console.expect_exact("GNU GRUB  version 2.", timeout=1)
    guest.console.expect_exact(PROMPT)
    return guest


def test_it_looks_for_its_files_first(guest: Guest, image: str) -> None:
    """The configuration that the image carries is run: it tries two other loaders, then two configuration files."""
    loader = {"grub-xen64": "pvboot-x86_64.elf", "grub-xen32": "pvboot-i386.elf"}[image]
    missing = (f"/boot/xen/{loader}", f"/xen/{loader}", "/boot/grub/grub.cfg", "/grub/grub.cfg")
    for path in missing:
        guest.console.expect_exact(f"error: no such device: {path}.", timeout=1)
    guest.console.expect_exact(PROMPT)


def test_commands(at_prompt: Guest) -> None:
    """Its memory disk is in its image; no other device is there."""
    assert typed(at_prompt, "ls") == ["(memdisk) (proc)"]
    assert typed(at_prompt, "ls (memdisk)/") == ["grub.cfg"]
    configuration = typed(at_prompt, "cat (memdisk)/grub.cfg")
    assert configuration[0] == "# First search for a suitable grub to chainload"
    assert typed(at_prompt, "cat (memdisk)/nothing") == ["error: file `/nothing' not found."]
    modules = {line.split("\t")[0].split()[0] for line in typed(at_prompt, "lsmod")[1:] if line}
    assert {"ls", "cat", "halt", "normal", "linux"} <= modules
    assert typed(at_prompt, "help halt")[0] == "Usage: halt"
    commands = " ".join(typed(at_prompt, "help"))
    assert "halt" in commands
    assert "Halts the computer." not in commands


def test_the_time_of_day_is_the_guests(guest: Guest) -> None:
    """GRUB reads the wall clock of its shared_info."""
    old = guest(epoch=1_000_000_000)
    old.console.expect_exact(PROMPT)
    assert "2001-09-09 01:46:" in " ".join(typed(old, "date"))


@pytest.mark.parametrize(("command", "kind"), [("halt", "poweroff"), ("reboot", "reboot")])
def test_it_ends_the_domain(at_prompt: Guest, command: str, kind: str) -> None:
    at_prompt.console.sendline(command)
    at_prompt.wait(kind, timeout=1)
    assert at_prompt.hypercalls.count("sched_op:SCHEDOP_shutdown") == 1


def test_it_asks_for_little(at_prompt: Guest, image: str) -> None:
    """No trap table, no callback, no GDT: it runs on Xen's, events masked for ever; and it changes its root table.

    In 32 bits it asks for one assist, that its root table may lie above 4 GiB.
    """
    at_prompt.console.sendline("halt")
    at_prompt.wait("poweroff", timeout=1)
    calls = at_prompt.hypercalls
    for name in ("set_trap_table", "set_callbacks", "callback_op", "set_gdt", "xen_version"):
        assert calls.count(name) == 0
    assert calls.count("vm_assist") == (image == "grub-xen32")
    assert calls.count("grant_table_op") == 2
    assert calls.count("mmuext_op:NEW_BASEPTR") == 1
    assert calls.count("upcall") == 0
    assert calls.count("error") == 0


def test_a_wait_costs_little(at_prompt: Guest) -> None:
    """It waits by reading the time, with a cpuid each time. Then time passes in steps, and the log has one of many."""
    before, retired = at_prompt.now, at_prompt.machine.retired
    typed(at_prompt, "sleep 10")
    assert 10 <= at_prompt.now - before < 10.1
    assert at_prompt.machine.retired - retired < 300_000_000
    at_prompt.console.sendline("halt")
    at_prompt.wait("poweroff", timeout=1)
    assert at_prompt.hypercalls.count("cpuid") < 15_000


def test_a_wait_is_the_same_however_often_one_looks(guest: Guest) -> None:
    """No deadline of a test's, and no debugger's, changes when time goes in steps."""
    at_once, in_parts = guest(), guest()
    for waiting in (at_once, in_parts):
        waiting.console.send("sleep 1; halt\n")
    at_once.wait("poweroff", timeout=2)
    while in_parts.verdict is None:
        in_parts.run(0.0137)
    logs = []
    for ended in (at_once, in_parts):
        ended.close()
        logs.append((ended.run_directory / "hypercalls").read_bytes())
    assert logs[0] == logs[1]
    assert len(logs[0]) > 10_000


def test_it_hears_a_kibibyte(at_prompt: Guest) -> None:
    """Its reader does not wrap: behind the ring's 1024 bytes it reads what it has itself printed, as on Xen."""
    word = "a" * 58
    for _ in range(1024 // len(f"echo {word}\n")):
        assert typed(at_prompt, f"echo {word}") == [word]
    at_prompt.console.sendline(f"echo {word}")
    at_prompt.console.expect(TIMEOUT, timeout=1)
    assert word not in CURSOR.sub("", at_prompt.console.before or "")
