"""GRUB, unmodified, as a 32-bit PAE guest: its prompt, and a 32-bit kernel that it starts in its own domain."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import disks, small_guests
from harness.guests import Guest
from stub.trace.text import line

PROMPT = "\rgrub> "
MENU = """
set timeout=0
menuentry "a small guest" {
	linux /boot/small version
}
"""

pytestmark = pytest.mark.guest(image="grub-xen32")


def test_its_prompt(guest: Guest) -> None:
    """Its memory disk is in its image; no other device is there. It runs in ring 1 on Xen's flat segments for ever."""
    guest.console.expect_exact("error: no such device: /boot/xen/pvboot-i386.elf.", timeout=1)
    guest.console.expect_exact(PROMPT, timeout=1)
    assert guest.machine.xen.domain.bits == 32
    assert guest.machine.xen.vcpu.kernel_mode
    guest.console.sendline("ls")
    guest.console.expect_exact("(memdisk) (proc)")
    guest.console.expect_exact(PROMPT)
    guest.console.sendline("halt")
    guest.wait("poweroff", timeout=1)
    calls = guest.hypercalls
    assert (calls.count("set_trap_table"), calls.count("set_gdt"), calls.count("error")) == (0, 0, 0)
    assert calls.count("vm_assist") == 1, "the extended form of CR3"
    assert calls.count("mmuext_op:NEW_BASEPTR") == 1


def test_it_waits_as_its_64_bit_twin_does(guest: Guest) -> None:
    """By reading the time, a cpuid each time: time passes in steps."""
    guest.console.expect_exact(PROMPT, timeout=1)
    before, retired = guest.now, guest.machine.retired
    guest.console.sendline("sleep 10")
    guest.console.expect_exact(PROMPT, timeout=12)
    assert 10 <= guest.now - before < 10.1
    assert guest.machine.retired - retired < 300_000_000


@pytest.mark.pv_limits(virtual=20, wall=120)
def test_it_starts_a_kernel_of_its_width(guest: Guest, tmp_path: Path) -> None:
    """GRUB makes a PAE guest's tables itself, an L3 and what it leads to; it has them pinned, and runs on them.

    The kernel, read off a disk, finds the start of day that Xen's builder would have made.
    """
    small = small_guests.build(small_guests.TESTS / "families" / "answers", 32)
    files: dict[str, str | bytes | Path] = {"/boot/grub/grub.cfg": MENU, "/boot/small": small}
    image = disks.ext4(tmp_path / "disk.img", files, megabytes=16, partition_at=2048)
    boot = guest(disks=[f"{image},xvda"], memory=128, audit=1000)
    boot.wait("poweroff")
    assert [result for result, _ in small_guests.parse(boot.console.text).results] == ["SUCCESS"]
    assert boot.machine.boots == 1
    handover = boot.hypercalls.assert_order(["grant_table_op", "mmuext_op:NEW_BASEPTR", "xen_version"])[1]
    assert [entry for entry in ("PIN_L3_TABLE", "NEW_BASEPTR", "UNPIN_TABLE") if entry not in line(handover)] == []
