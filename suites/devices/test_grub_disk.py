"""GRUB from a disk of its own: its menu, Debian's kernel loaded off ext4 and started in the same domain, to a shell."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from harness import catalogue, disks
from harness.guests import Guest
from stub.abi import xenbus
from stub.trace.text import line

pytestmark = [
    pytest.mark.guest("grub-xen64", memory=256),
    pytest.mark.pv_limits(virtual=60, wall=280),
]

MENU = """
set timeout=3
menuentry "not this one" {
	halt
}
menuentry "Debian from the disk" {
	linux /boot/vmlinuz root=/dev/xvda1 console=hvc0 loglevel=4
	initrd /boot/initrd.img
}
"""
INIT = """
mount -t sysfs sysfs /sys
echo "on $(grep ' / ' /proc/mounts)"
setsid cttyhack sh
poweroff -f
"""
DOWN = b"\x1b[B"
SHELL = "/ # "


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk as an installed system has it: a partition with ext4, GRUB's menu, a kernel and its ramdisk."""
    image = catalogue.load("debian-disk")
    assert image.ramdisk is not None
    boot = {"/boot/grub/grub.cfg": MENU, "/boot/vmlinuz": image.kernel, "/boot/initrd.img": image.ramdisk}
    return disks.busybox_root(tmp_path / "disk.img", INIT, boot, megabytes=64, partition_at=2048)


@pytest.mark.parametrize(
    ("image", "protocol"),
    [("grub-xen64", xenbus.XEN_IO_PROTO_ABI_X86_64), ("grub-xen32", xenbus.XEN_IO_PROTO_ABI_X86_32)],
)
def test_grub_reads_a_disk_in_either_width(guest: Guest, tmp_path: Path, image: str, protocol: bytes) -> None:
    """Requests as a 64-bit and as a 32-bit guest lay them out, one segment each, polled; the bytes are right."""
    data = b"".join(hashlib.sha256(bytes([i & 255, i >> 8])).digest() for i in range(4000))
    files = {"/boot/grub/grub.cfg": "sha256sum /data\nhalt\n", "/data": data}
    disk = disks.ext4(tmp_path / "disk.img", files, megabytes=8, partition_at=2048)
    boot = guest(image, memory=64, disks=[f"{disk},xvda,r"])
    boot.console.expect_exact(hashlib.sha256(data).hexdigest())
    vbd = boot.machine.xen.vbds[0]
    assert vbd.directories.text("protocol") == protocol
    boot.wait("poweroff")


def test_grub_boots_linux(guest: Guest, disk: Path) -> None:
    """One domain throughout: what follows GRUB finds its disk, its console and its store as a first kernel would."""
    boot = guest(disks=[f"{disk},xvda"])
    vbd, dom0 = boot.machine.xen.vbds[0], boot.machine.xen.xenstore.store.dom0
    states: list[bytes | None] = []
    dom0.watch(f"{vbd.directories.backend}/state", lambda path: states.append(dom0.read(path)))
    boot.console.expect_exact("Debian from the disk")
    grub = boot.hypercalls.mark()
    boot.console.send(DOWN)
    boot.console.send(b"\r")
    boot.console.expect("on /dev/xvda1 / ext4 ro")
    boot.console.expect_exact(SHELL)
    assert vbd.connected
    assert states[:2] == [b"2", b"4"]
    assert states[-3:] == [b"6", b"2", b"4"], "GRUB closes the disk, and the kernel opens it"
    boot.console.send(b"echo $((6 * 7)); cat /proc/cmdline; ls /boot\r")
    boot.console.expect_exact("42")
    boot.console.expect_exact("root=/dev/xvda1 console=hvc0 loglevel=4")
    boot.console.expect("grub .*initrd.img .*vmlinuz")
    boot.console.expect_exact(SHELL)
    boot.console.send(b"exit\r")
    boot.wait("poweroff")
    assert boot.machine.boots == 1
    handover = boot.hypercalls.since(grub).assert_order(
        ["grant_table_op", "mmuext_op:NEW_BASEPTR", "set_trap_table", "grant_table_op", "iret"]
    )[1]
    assert [entry for entry in ("PIN_L4_TABLE", "NEW_BASEPTR", "UNPIN_TABLE") if entry not in line(handover)] == []
