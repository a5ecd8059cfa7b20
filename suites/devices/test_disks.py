"""Disks in a real guest: Debian's blkfront and ext4 on our back end, from the first sector to the last flush."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from harness import disks
from harness.guests import Guest
from stub.abi import xenbus

pytestmark = [pytest.mark.guest("debian-disk", extra="loglevel=4"), pytest.mark.pv_limits(virtual=20, wall=240)]

LIVES = """
echo "root is $(grep ' / ' /proc/mounts)"
mount -o remount,rw /
head -c 3000000 /dev/zero | tr '\\0' 'x' >/data
cp /bin/busybox /copy && sync
sha256sum /copy | cut -c 1-64 >/sum
mount -o remount,ro /
cat /sum
poweroff -f
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A disk that Linux lives on, writes to and leaves in order."""
    return disks.busybox_root(tmp_path / "root.img", LIVES)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


BUSYBOX_SUM = "^[0-9a-f]{64}$"


def test_linux_lives_on_an_ext4_root(guest: Guest, root: Path) -> None:
    """From an overlay, twice: the disk's file stays as it was, and both boots are the same, byte for byte."""
    before = digest(root)
    logs = []
    for _ in range(2):
        boot = guest(disks=[f"{root},xvda"], extra="loglevel=4 root=/dev/xvda")
        boot.console.expect("root is /dev/xvda / ext4 ro")
        assert boot.console.expect_line(BUSYBOX_SUM) == digest(disks.busybox())
        boot.wait("poweroff")
        logs.append((boot.machine.console.output, (boot.run_directory / "hypercalls").read_bytes()))
        boot.close()
    assert digest(root) == before
    assert logs[0] == logs[1]


def test_a_disk_that_is_written_through_is_left_clean(guest: Guest, root: Path) -> None:
    boot = guest(disks=[f"{root},xvda,w,direct"], extra="loglevel=4 root=/dev/xvda", audit=5000)
    boot.wait("poweroff")
    boot.close()
    assert disks.problems(root) == ""
    assert disks.content(root, "/data") == b"x" * 3_000_000
    assert disks.content(root, "/copy") == disks.busybox().read_bytes()


WRITES = """
mount -o remount,rw /
if [ -z "$safe" ]; then
	i=0
	while :; do
		i=$((i + 1))
		seq $i $((i + 3000)) >/file$i
		sync
		echo "safe $i"
	done
fi
for i in $(seq 1 $safe); do
	seq $i $((i + 3000)) | cmp - /file$i || echo "lost $i"
done
echo "looked at $safe files"
poweroff -f
"""


def test_a_crash_among_writes_loses_nothing_that_was_flushed(guest: Guest, tmp_path: Path) -> None:
    """The guest is stopped while it writes, and its disk forgets what was not flushed.

    ext4's journal recovers, and each file that was synced is whole.
    """
    disk = disks.busybox_root(tmp_path / "root.img", WRITES)
    written = [f"{disk},xvda,w,direct"]
    writer = guest(disks=written, faults=["disk:unflushed"], extra="loglevel=4 root=/dev/xvda")
    writer.console.expect("safe 12\r")
    back_end = writer.machine.xen.vbds[0]
    before = back_end.moved
    while back_end.moved == before:  # into the midst of the next file's way to the disk
        writer.run(0.0002)
    safe = [int(line.split()[1]) for line in writer.console.text.splitlines() if line.startswith("safe ")][-1]
    writer.close()
    reader = guest(disks=written, extra=f"loglevel=7 root=/dev/xvda safe={safe}")
    reader.console.expect("recovery complete")
    reader.console.expect(f"looked at {safe} files")
    reader.wait("poweroff")
    reader.close()
    assert "lost" not in reader.console.text
    assert disks.problems(disk) == ""


DRIVES = """#!/bin/sh
if [ "$(head -c 6 /dev/xvda)" = before ]; then
	echo 'the first boot was here'
	poweroff -f
fi
for disk in xvda xvdb xvdc; do
	echo "$disk $(cat /sys/block/$disk/size) $(cat /sys/block/$disk/ro) $(cat /sys/block/$disk/removable)"
done
sum() { sha256sum | cut -c 1-64; }
echo "sum $(sum </dev/xvdb)"
for disk in xvdb xvdc; do
	dd if=/dev/zero of=/dev/$disk bs=512 count=1 2>/dev/null || echo "$disk is not written"
done
for sector in 63 71 72; do
	dd if=/dev/xvda of=/dev/null bs=512 skip=$sector count=1 2>/dev/null && echo "good $sector" || echo "bad $sector"
done
echo vbd-51728 >/sys/bus/xen/drivers/vbd/unbind
[ -e /sys/block/xvdb ] || echo 'xvdb is gone'
dd if=/dev/urandom of=/tmp/data bs=65536 count=48 2>/dev/null
dd if=/tmp/data of=/dev/xvda bs=65536 seek=4 conv=fsync 2>/dev/null
echo 3 >/proc/sys/vm/drop_caches
dd if=/dev/xvda bs=65536 skip=4 count=48 2>/dev/null | cmp - /tmp/data && echo 'xvda holds it'
blkdiscard -o 262144 -l 1048576 /dev/xvda && dd if=/dev/xvda bs=65536 skip=4 count=16 2>/dev/null | tr -d '\\0' | wc -c
echo before | dd of=/dev/xvda conv=fsync 2>/dev/null
reboot -f
"""


def test_drives_of_all_sorts(guest: Guest, tmp_path: Path) -> None:
    """Written, read-only, a CD; a bad sector on purpose; a driver that leaves its disk; a reboot keeps changes."""
    disk, readonly, cd = (tmp_path / name for name in ("disk.img", "readonly.img", "cd.iso"))
    for path, size in ((disk, 8 << 20), (readonly, 1 << 20), (cd, 1 << 20)):
        path.write_bytes(bytes(range(256)) * (size >> 8))
    sums = {path: digest(path) for path in (disk, readonly, cd)}
    boot = guest(
        disks=[f"{disk}", f"{readonly},xvdb,r", f"{cd},xvdc,cdrom"],
        faults=["disk=xvda:read:sector=71"],
        extra="loglevel=3 pvstub=exec",
        files={"/pvstub/main": DRIVES},
        on_reboot="restart",
    )
    boot.console.expect("xvdb is gone")
    back_end = boot.machine.xen.vbds[1]
    assert (back_end.directories.state, back_end.connected) == (xenbus.XenbusStateClosed, False)
    boot.console.expect("the first boot was here")
    boot.wait("poweroff")
    said = boot.console.text.replace("\r", "").splitlines()
    for line in (
        f"xvda {8 << 11} 0 0",
        f"xvdb {1 << 11} 1 0",
        f"xvdc {1 << 11} 1 0",
        f"sum {sums[readonly]}",
        "xvdb is not written",
        "xvdc is not written",
        "good 63",
        "bad 71",
        "good 72",
        "xvda holds it",
    ):
        assert line in said
    assert said[said.index("xvda holds it") + 1] == "0"
    assert {path: digest(path) for path in sums} == sums
