"""--disk: the short form of xl's disk syntax becomes disks, or an error that says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from stub.domain.disk import Disk
from stub.domain.diskoption import parse_disks
from stub.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "disk"),
    [
        ("a.img", Disk(Path("a.img"), "xvda", 51712)),
        ("a.img,hdc,r", Disk(Path("a.img"), "hdc", 5632, readonly=True)),
        ("a.img, xvdb1 , w, direct", Disk(Path("a.img"), "xvdb1", 51729, overlay=False)),
        ("file:/path.iso,6:cdrom,r", Disk(Path("/path.iso"), "6", 6, readonly=True, device_type="cdrom")),
        ("file:/img,0,w", Disk(Path("/img"), "0", 0)),
        ("tap:aio:/img,xvdc,cdrom", Disk(Path("/img"), "xvdc", 51744, readonly=True, device_type="cdrom")),
        (",hdc,cdrom", Disk(None, "hdc", 5632, readonly=True, device_type="cdrom", format="empty")),
    ],
)
def test_a_disk_is_read(text: str, disk: Disk) -> None:
    assert parse_disks([text]) == (disk,)


def test_disks_without_a_name_get_the_first_letters_that_are_free() -> None:
    others = (Disk(Path("d"), "xvdb", 51728),)
    found = parse_disks(["a", "b,xvdc", "c", "e,xvda"], others)
    assert [(str(disk.target), disk.vdev) for disk in found] == [
        ("a", "xvdd"),
        ("b", "xvdc"),
        ("c", "xvde"),
        ("e", "xvda"),
    ]


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        (["a,xvda,w,direct,more"], "words left over"),
        (["a,xvda,x"], "no way to use it"),
        (["a,vda"], "no virtual disk is named 'vda'"),
        (["a,6:floppy"], "no kind of disk"),
        (["a,xvda,w,through"], "is not known"),
        (["a,xvda,r,direct"], "nothing can be written through"),
        ([",xvda"], "only a CD drive may be empty"),
        (["a,xvda", "b,51712"], "a has this name already"),
        ([f"a,xvd{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"] + ["b"], "no virtual disk is named ''"),
        ([f"a,{number}" for number in range(65)], "at most 64"),
    ],
)
def test_what_is_no_disk_is_refused(texts: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse_disks(texts)


def test_devices_of_the_host_are_asked_for() -> None:
    assert parse_disks(["phy:/dev/sdz,xvda,r"])[0].target == Path("/dev/sdz")
    with pytest.raises(ConfigError, match="--allow-devices"):
        parse_disks(["phy:/dev/sdz,xvda,r"], devices=False)
