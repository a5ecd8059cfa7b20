"""The same guests on both engines: the same console but for the times in it, and the same hypercalls in the same order.

A small guest asks for nothing that depends on where an interrupt came, so that its log is the same event for event. A
Linux kernel does (docs/engines.md), from the first interrupt on.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness import small_guests
from harness.diff.command import main as diff
from harness.guests import Guest
from harness.small_guests import Variation
from suites.needs import each

pytestmark = pytest.mark.pv_limits(memory=512)
ENGINES = ("unicorn", "qemu")

# Families of images/tests, and which variations of them.
CHOSEN = {
    "families": (small_guests.BOTH, r"multicall-|answers-|entry-points-|interrupts-"),
    "refusals": (small_guests.BOTH, r"mmu-update-|mmuext-|pin-"),
    "traps": (small_guests.BOTH, r"bad-stack-|cpuid-|frames-|hidden-|iret-|int-n-|msr-|ports-|privileged-|selectors-|syscall-"),
    "pae": ([32], r"callgates-(?!ldt)|entries-|frames-|iret-"),
}
VARIATIONS = [
    variation
    for family, (widths, pattern) in CHOSEN.items()
    for variation in small_guests.find(family, widths)
    if re.match(pattern, variation.id)
]
_TIME = re.compile(
    rb"\[ *\d+\.\d+\] |\b\d+(\.\d+)? (s|ms|us|ns|MHz|BogoMIPS)\b|\(lpj=\d+\)|\b\d+ns\b|Marking stable .*"
)


def on_each(guest: Guest, variation: Variation | None, monkeypatch: pytest.MonkeyPatch) -> list[Guest]:
    """A guest on each engine, each to its end."""
    ran = []
    for engine in ENGINES:
        monkeypatch.setenv("PVSTUB_ENGINE", engine)
        if variation is None:
            made = guest()
            made.wait("poweroff")
        else:
            made = small_guests.prepare(variation, guest)
            small_guests.finish(variation, made)
        ran.append(made)
    return ran


def text(guest: Guest) -> bytes:
    """A console without its times."""
    return _TIME.sub(b"", bytes(guest.machine.console.output))


def same_log(ran: list[Guest], capsys: pytest.CaptureFixture[str]) -> str:
    """What ``pvstub diff`` says of the logs; empty if they are the same."""
    for made in ran:
        made.close()
    status = diff([str(made.run_directory) for made in ran])
    said = capsys.readouterr().out
    return said if status else ""


@each(VARIATIONS)
def test_a_small_guest_runs_the_same(
    variation: Variation, guest: Guest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = on_each(guest, variation, monkeypatch)
    assert text(ran[0]) == text(ran[1])
    assert not same_log(ran, capsys)


@pytest.mark.guest("debian-cloud", memory=128)
def test_a_linux_kernel_says_the_same(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (text(made).splitlines() for made in on_each(guest, None, monkeypatch))
    assert one == other


@pytest.mark.parametrize("name", ["multicall-order", "cpuid-both_ways", "hidden-kernel", "ports-strings"])
def test_instructions_are_counted_alike(name: str, guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    (variation,) = (found for found in VARIATIONS if found.id == name)
    one, other = on_each(guest, variation, monkeypatch)
    assert one.machine.retired == other.machine.retired
    assert Path(one.run_directory, "console.log").read_bytes() == Path(other.run_directory, "console.log").read_bytes()
