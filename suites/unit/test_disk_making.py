"""harness.disks: file systems made of files, the same each time, and looked into again."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import disks
from stub.errors import UsageError

FILES: dict[str, str | bytes | Path] = {"/etc/hello": "hello\n", "/data": bytes(range(256)) * 64}


def test_the_same_files_make_the_same_disk(tmp_path: Path) -> None:
    host = tmp_path / "host"
    host.write_bytes(b"from the host")
    made = [
        disks.ext4(tmp_path / name, {**FILES, "/copy": host}, megabytes=8, links={"/link": "/data"}, folders=("/proc",))
        for name in ("one", "two")
    ]
    assert made[0].read_bytes() == made[1].read_bytes()
    assert made[0].stat().st_size == 8 << 20
    assert disks.problems(made[0]) == ""
    assert disks.content(made[0], "/copy") == b"from the host"
    assert disks.content(made[0], "/data") == FILES["/data"]
    with pytest.raises(UsageError, match="no /nothing"):
        disks.content(made[0], "/nothing")


def test_a_partition_has_its_file_system_where_the_table_says(tmp_path: Path) -> None:
    whole = disks.ext4(tmp_path / "whole", FILES, megabytes=8, partition_at=2048)
    table = whole.read_bytes()[446:512]
    assert (table[4], int.from_bytes(table[8:12], "little"), int.from_bytes(table[12:16], "little")) == (
        0x83,
        2048,
        7 << 11,
    )
    assert table[-2:] == b"\x55\xaa"
    part = tmp_path / "part"
    part.write_bytes(whole.read_bytes()[1 << 20 :])
    assert disks.problems(part) == ""
    assert disks.content(part, "/etc/hello") == b"hello\n"


def test_a_damaged_file_system_is_told(tmp_path: Path) -> None:
    disk = disks.ext4(tmp_path / "disk", FILES, megabytes=8)
    with disk.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(1 << 20))
    assert disks.problems(disk)


@pytest.mark.parametrize("path", ["", "/", "/a/../b", '/a"b', "/a\nb"])
def test_what_is_no_path_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(UsageError, match="no path for a disk"):
        disks.ext4(tmp_path / "disk", {path: ""}, megabytes=8)


def test_missing_tools_are_told_with_their_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "_SBIN", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"mke2fs is not installed.*e2fsprogs"):
        disks.ext4(tmp_path / "disk", FILES, megabytes=8)
