"""Disks for guests: file systems made without root and without mounting anything, and checked again afterwards.

The same content gives the same image, byte for byte, whoever makes it and whenever.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from stub.errors import UsageError

_EPOCH = "1700000000"  # of every file, and of the file system
_UUID = "7076f7cd-0000-4000-8000-000000000000"
_FEATURES = "^metadata_csum_seed,^orphan_file"  # which not every GRUB knows
_SECTOR = 512
_SBIN = ":/usr/sbin:/sbin"  # where mke2fs is, though not on everybody's path
_LINUX = 0x83  # a partition's type

BUSYBOX_LINKS = ("/bin/sh", "/bin/mount", "/bin/cat", "/bin/echo", "/sbin/poweroff")
"""Programs that a root of busybox has by name; its shell finds all others in itself."""


def ext4(
    path: Path,
    files: Mapping[str, str | bytes | Path],
    *,
    megabytes: int = 32,
    links: Mapping[str, str] = {},
    folders: Sequence[str] = (),
    partition_at: int = 0,
) -> Path:
    """Make ``path`` a sparse disk of ``megabytes`` with an ext4 file system, and return it.

    ``files`` (path → text, bytes or a host's file) are executable, ``links`` are symbolic. ``partition_at``: the file
    system lies in the one partition of a disk that begins at this sector (a multiple of 2048), else it is the whole
    disk. UsageError when the tools are not there.
    """
    size, offset = megabytes << 20, partition_at * _SECTOR
    path.unlink(missing_ok=True)
    with path.open("wb") as disk:
        if offset:
            disk.write(_partition_table(partition_at, size // _SECTOR - partition_at))
        disk.truncate(size)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "root")
        root.mkdir()
        _lay_out(root, files, links, folders)
        _make(path, root, offset, f"{(size - offset) >> 10}k")
    return path


def _make(disk: Path, root: Path, offset: int, blocks: str) -> None:
    """Have mke2fs make the file system of the folder ``root``, ``offset`` bytes into the disk."""
    options = f"hash_seed={_UUID},lazy_itable_init=1,root_owner=0:0,offset={offset}"
    kind = ["-q", "-F", "-t", "ext4", "-O", _FEATURES, "-U", _UUID, "-E", options]
    _run(["mke2fs", *kind, "-d", str(root), str(disk), blocks])
    # mke2fs takes these from the host, where not everybody can set them.
    fields = {"ctime": f"@{_EPOCH}", "uid": "0", "gid": "0"}
    places = [".", *(str(place.relative_to(root)) for place in sorted(root.rglob("*")))]
    commands = root.parent / "commands"
    commands.write_text(
        "".join(f'set_inode_field "/{place}" {name} {value}\n' for place in places for name, value in fields.items())
    )
    _run(["debugfs", "-w", "-f", str(commands), f"{disk}?offset={offset}"])


def busybox_root(
    path: Path,
    init: str,
    files: Mapping[str, str | bytes | Path] = {},
    *,
    megabytes: int = 32,
    partition_at: int = 0,
) -> Path:
    """An ext4 disk that Linux can live on: busybox, ``init`` (a shell script's lines) as /sbin/init, ``files``."""
    script = f"#!/bin/sh\nexport PATH=/bin:/sbin\nmount -t proc proc /proc\n{init}\n"
    return ext4(
        path,
        {"/bin/busybox": busybox(), "/sbin/init": script, **files},
        megabytes=megabytes,
        partition_at=partition_at,
        links=dict.fromkeys(BUSYBOX_LINKS, "/bin/busybox"),
        folders=("/dev", "/proc", "/sys", "/tmp", "/etc", "/mnt"),
    )


def busybox() -> Path:
    """Debian's static busybox, fetched when it is not there."""
    from . import catalogue

    return catalogue.part("busybox")


def problems(path: Path) -> str:
    """What is wrong with the ext4 file system that is the disk ``path``, in e2fsck's words; empty for a clean one."""
    done = _tool(["e2fsck", "-f", "-n", str(path)])
    return "" if done.returncode == 0 else done.stdout + done.stderr


def content(path: Path, file: str) -> bytes:
    """A file's bytes, out of the ext4 file system that is the disk ``path``. UsageError when it has no such file."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy")
        done = _tool(["debugfs", "-R", f"dump {file} {copy}", str(path)])
        if not copy.exists() or "File not found" in done.stderr:
            raise UsageError(f"{path}: there is no {file} in it")
        return copy.read_bytes()


def _lay_out(
    root: Path, files: Mapping[str, str | bytes | Path], links: Mapping[str, str], folders: Sequence[str]
) -> None:
    """The files as a folder of the host's, all with one time and one mode."""
    for name, data in files.items():
        place = _inside(root, name)
        if isinstance(data, Path):
            shutil.copyfile(data, place)
        else:
            place.write_bytes(data.encode() if isinstance(data, str) else data)
        place.chmod(0o755)
    for name, target in links.items():
        _inside(root, name).symlink_to(target)
    for name in folders:
        _inside(root, name).mkdir(exist_ok=True)
    for place in (root, *root.rglob("*")):
        if place.is_dir() and not place.is_symlink():
            place.chmod(0o755)
        os.utime(place, (int(_EPOCH), int(_EPOCH)), follow_symlinks=False)


def _inside(root: Path, name: str) -> Path:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or set(name) & set('"\n\0'):
        raise UsageError(f"{name!r} is no path for a disk; use one like /bin/program")
    place = root.joinpath(*parts)
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def _partition_table(first: int, sectors: int) -> bytes:
    """A master boot record with one Linux partition."""
    entry = bytes([0x80, 0, 0, 0, _LINUX, 0, 0, 0]) + first.to_bytes(4, "little") + sectors.to_bytes(4, "little")
    return bytes(446) + entry.ljust(64, b"\0") + b"\x55\xaa"


def _tool(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    path = os.environ.get("PATH", "") + _SBIN
    try:
        return subprocess.run(
            command,
            env=os.environ | {"PATH": path, "LC_ALL": "C", "E2FSPROGS_FAKE_TIME": _EPOCH},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise UsageError(f"{command[0]} is not installed: file systems are made with it (package e2fsprogs)") from None


def _run(command: Sequence[str]) -> None:
    done = _tool(command)
    if done.returncode:
        raise UsageError(f"{command[0]} fails: {done.stderr.strip()}")
