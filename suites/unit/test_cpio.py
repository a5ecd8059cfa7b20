"""Ramdisk archives: what is put in comes out again, read by this file's own reader and by the tools of the machine."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cpio import Archive, concatenate, overlay
from stub.errors import UsageError


class Found(NamedTuple):
    inode: int
    mode: int
    owner: tuple[int, int]
    links: int
    mtime: int
    rdev: tuple[int, int]
    data: bytes


def read(data: bytes) -> list[tuple[str, Found]]:
    """Read archives in newc form one after another, as the kernel does: 4-byte steps, zeros between archives."""
    found: list[tuple[str, Found]] = []
    at = 0
    while at < len(data):
        if data[at : at + 4] == bytes(4):
            at += 4
            continue
        assert data[at : at + 6] == b"070701"
        words = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        inode, mode, uid, gid, links, mtime, size, _, _, major, minor, name_size, check = words
        assert check == 0
        name = data[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        content = (at + 110 + name_size + 3) // 4 * 4
        row = Found(inode, mode, (uid, gid), links, mtime, (major, minor), data[content : content + size])
        found.append((name[:-1].decode(), row))
        at = (content + size + 3) // 4 * 4
    return found


def sample() -> Archive:
    archive = Archive()
    archive.file("/init", b"#!/bin/sh\n")
    archive.file("bin/odd", b"12345", mode=0o640)
    archive.symlink("/bin/sh", "odd")
    archive.device("/dev/console", "c", 5, 1)
    archive.device("/dev/xvda", "b", 202, 0, mode=0o660)
    archive.directory("/tmp", 0o1777)
    return archive


def test_every_kind_of_member_comes_out_as_it_went_in() -> None:
    members = dict(read(sample().bytes()))
    assert members["init"].mode == stat.S_IFREG | 0o755
    assert members["init"].data == b"#!/bin/sh\n"
    assert members["bin/odd"].mode == stat.S_IFREG | 0o640
    assert members["bin/sh"].mode == stat.S_IFLNK | 0o777
    assert members["bin/sh"].data == b"odd"
    assert members["dev/console"].mode == stat.S_IFCHR | 0o600
    assert members["dev/console"].rdev == (5, 1)
    assert members["dev/xvda"].mode == stat.S_IFBLK | 0o660
    assert members["dev/xvda"].rdev == (202, 0)
    assert members["tmp"].mode == stat.S_IFDIR | 0o1777
    assert members["bin"].mode == members["dev"].mode == stat.S_IFDIR | 0o755


def test_nothing_of_the_host_or_the_hour_is_in_it() -> None:
    backwards = Archive()
    backwards.directory("/tmp", 0o1777)
    backwards.device("/dev/xvda", "b", 202, 0, mode=0o660)
    backwards.device("/dev/console", "c", 5, 1)
    backwards.symlink("/bin/sh", "odd")
    backwards.file("bin/odd", b"12345", mode=0o640)
    backwards.file("/init", b"#!/bin/sh\n")
    assert backwards.bytes() == sample().bytes()
    members = read(sample().bytes())
    assert [name for name, _ in members] == [*sorted(name for name, _ in members[:-1]), "TRAILER!!!"]
    assert [found.inode for _, found in members] == [*range(1, len(members)), 0]
    assert {(found.owner, found.mtime) for _, found in members} == {((0, 0), 0)}


def test_archives_in_a_row_are_read_in_that_order() -> None:
    later = Archive()
    later.file("/init", b"another")
    both = concatenate((sample().bytes() + b"\0\0\0\0", later.bytes()))
    assert len(sample().bytes()) % 512 == len(both) % 512 == 0
    assert [found.data for name, found in read(both) if name == "init"] == [b"#!/bin/sh\n", b"another"]


def test_an_overlay_takes_bytes_and_files_of_the_host(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")
    members = dict(read(overlay({"/pvstub/main": program, "/etc/hello": b"hi"}, mode=0o700).bytes()))
    assert members["pvstub/main"].data == b"\x7fELF"
    assert members["etc/hello"] == members["etc/hello"]._replace(mode=stat.S_IFREG | 0o700, data=b"hi")
    with pytest.raises(UsageError, match=r"absent: No such file or directory; name a readable file"):
        overlay({"/x": tmp_path / "absent"})


@pytest.mark.parametrize("path", ["", "/", "a/../b", "..", "a\0b", "."])
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="is no path for a ramdisk"):
        Archive().file(path, b"")


def test_a_path_taken_twice_is_refused() -> None:
    archive = sample()
    with pytest.raises(UsageError, match="twice"):
        archive.symlink("//init", "bin/odd")
    with pytest.raises(UsageError, match="device kind"):
        archive.device("/dev/p", "p", 0, 0)


def test_a_file_that_is_also_a_folder_is_refused() -> None:
    with pytest.raises(UsageError, match="a/b: a file and a folder"):
        overlay({"a/b": b"", "a/b/c": b""}).bytes()


NAMES = st.text("ab-é ", min_size=1, max_size=4)


@given(st.dictionaries(NAMES, st.dictionaries(NAMES, st.binary(), min_size=1)))
def test_any_files_come_out_again(folders: dict[str, dict[str, bytes]]) -> None:
    files = {f"{folder}/{name}": data for folder, names in folders.items() for name, data in names.items()}
    members = dict(read(overlay(files).bytes()))
    assert {name: found.data for name, found in members.items() if stat.S_ISREG(found.mode)} == files


@pytest.mark.parametrize("tool", ["cpio", "bsdtar"])
def test_the_machines_own_tools_read_it(tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"no {tool} here")
    command = {"cpio": ["cpio", "--quiet", "-t"], "bsdtar": ["bsdtar", "-t", "-f", "-"]}[tool]
    listed = subprocess.run(command, input=sample().bytes(), capture_output=True, check=True).stdout.decode()
    ours = [name for name, _ in read(sample().bytes())[:-1]]
    assert [line.rstrip("/") for line in listed.splitlines()] == ours
