"""A guest whose file has everything: Debian on the disks of its configuration, which it writes to, and its reboot."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from harness import disks
from harness.guests import Guest

INIT = """
mount -t sysfs sys /sys
echo "root is $(grep ' / ' /proc/mounts | cut -d ' ' -f 1-3)"
echo "second is $(cat /sys/block/xvdb/size) sectors, read-only $(cat /sys/block/xvdb/ro)"
mount -o remount,rw / && echo written >/data && sync && mount -o remount,ro /
reboot -f
"""
FILE = """
# Written as for xm, with values that are worked out.
folder = '%s'
name = 'nevada'
kernel = 'debian-disk'
memory = '128' + '0'[1:]
root = '/dev/xvda ro'
extra = 'console=hvc0 loglevel=%%d' %% 4
disk = ['file:' + folder + '/root.img,xvda,w', 'raw:second.img,xvdb:cdrom,r']
on_reboot = 'destroy'
on_crash = 'coredump-destroy'
"""


@pytest.mark.pv_limits(virtual=20, wall=240)
def test_debian_on_the_disks_of_its_file(guest: Guest, tmp_path: Path) -> None:
    """A relative disk is beside the file; what the guest writes goes to an overlay."""
    root = disks.busybox_root(tmp_path / "root.img", INIT)
    before = hashlib.sha256(root.read_bytes()).digest()
    (tmp_path / "second.img").write_bytes(bytes(64 * 512))
    file = tmp_path / "guest.xm"
    file.write_text(FILE % tmp_path)
    booted = guest(file)
    booted.console.expect("root is /dev/xvda / ext4")
    booted.console.expect("second is 64 sectors, read-only 1")
    booted.wait("reboot")
    assert booted.memory == 128
    assert hashlib.sha256(root.read_bytes()).digest() == before


@pytest.mark.pv_limits(virtual=20, wall=120)
@pytest.mark.parametrize("firmware", ["pvgrub32", "pvgrub64"])
def test_a_guest_that_grub_starts_off_its_disk(guest: Guest, tmp_path: Path, firmware: str) -> None:
    """As xl has it: the boot loader is the guest's, and reads the guest's own menu."""
    disks.ext4(tmp_path / "disk.img", {"/boot/grub/grub.cfg": "echo from the disk\nhalt\n"}, megabytes=8)
    file = tmp_path / "guest.cfg"
    file.write_text(f'firmware = "{firmware}"\nmemory = 64\ndisk = ["disk.img,raw,xvda,w"]\n')
    booted = guest(file)
    booted.console.expect_exact("from the disk")
    booted.wait("poweroff")
