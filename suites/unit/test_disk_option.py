"""--disk: the short form of xl's disk syntax becomes disks, or an error that says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from stub.domain.config import DomainConfig
from stub.domain.disk import Disk
from stub.domain.diskoption import parse_disks
from stub.errors import ConfigError
from stub.machine import Machine
from stub.trace import summary
from suites.boot.small_guest import kernel, shutdown


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


def test_the_summary_names_the_disks_and_the_faults(tmp_path: Path) -> None:
    """As they were given: name, file, whether the guest's writes reach it, how large it is."""
    for name, size in (("root.img", 1 << 20), ("data.img", 5000), ("cd.iso", 2048)):
        (tmp_path / name).write_bytes(bytes(size))
    folder = str(tmp_path)
    disks = parse_disks(
        [f"{folder}/root.img", f"{folder}/data.img,xvdb,w,direct", f"file:{folder}/cd.iso,6:cdrom,r", ",hdc,cdrom"]
    )
    faults = ("disk:read:sector=4", "disk=xvdb:unflushed")
    config = DomainConfig(kernel=kernel(tmp_path, shutdown(0)), memory=32, disks=disks, faults=faults)
    with Machine(config, tmp_path / "run") as machine:
        machine.run()
    found = summary.load(tmp_path / "run")["config"]
    assert found["faults"] == list(faults)
    columns = ("vdev", "file", "type", "mode", "overlay", "size")
    assert [tuple(disk[name] for name in columns) for disk in found["disks"]] == [
        ("xvda", "root.img", "disk", "w", True, 1 << 20),
        ("xvdb", "data.img", "disk", "w", False, 9 * 512),
        ("6", "cd.iso", "cdrom", "r", False, 2048),
        ("hdc", None, "cdrom", "r", False, 0),
    ]


def test_a_run_without_disks_says_nothing_of_them(tmp_path: Path) -> None:
    with Machine(DomainConfig(kernel=kernel(tmp_path, shutdown(0)), memory=32), tmp_path / "run") as machine:
        machine.run()
    assert not {"disks", "faults"} & set(summary.load(tmp_path / "run")["config"])
