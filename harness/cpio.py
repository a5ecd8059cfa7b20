"""cpio archives in the "newc" form, which is what Linux unpacks as its initramfs.

The law of this file: the same members give the same bytes. Members are sorted, every time stamp and owner is zero,
and inode numbers count from one, so that the digest of a ramdisk says what is in it and nothing else.

Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst (header, padding, concatenation).
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from stub.errors import UsageError

MAGIC = b"070701"
TRAILER = "TRAILER!!!"
# The kernel takes several archives one after another when each starts on 4 bytes; cpio itself pads to 512.
BLOCK = 512
# File sizes are eight hexadecimal digits.
LARGEST_FILE = 0xFFFF_FFFF

DEVICE_KINDS: Mapping[str, int] = {"c": stat.S_IFCHR, "b": stat.S_IFBLK}


class Member(NamedTuple):
    """One member: ``mode`` holds file type and permissions, ``data`` a file's content or a link's target."""

    path: str
    mode: int
    data: bytes = b""
    major: int = 0
    minor: int = 0


class Archive:
    """Collects members and writes them as one newc archive. Parents that nobody named become directories, 0755.

    The methods that add raise UsageError for a path that is empty, holds a NUL or "..", or is already a member.
    """

    def __init__(self) -> None:
        self._members: dict[str, Member] = {}

    def file(self, path: str, data: bytes, mode: int = 0o755) -> None:
        """A regular file of at most 4 GiB - 1."""
        if len(data) > LARGEST_FILE:
            raise UsageError(f"{path}: {len(data)} bytes are too many for a cpio member; split it below 4 GiB")
        self._add(Member(_member_name(path), stat.S_IFREG | mode, data))

    def directory(self, path: str, mode: int = 0o755) -> None:
        """A directory."""
        self._add(Member(_member_name(path), stat.S_IFDIR | mode))

    def symlink(self, path: str, target: str) -> None:
        """A symbolic link that reads ``target``."""
        self._add(Member(_member_name(path), stat.S_IFLNK | 0o777, target.encode()))

    def device(self, path: str, kind: str, major: int, minor: int, mode: int = 0o600) -> None:
        """A device node: ``kind`` is "c" or "b". No privilege is needed, it is only a header in the archive."""
        if kind not in DEVICE_KINDS:
            raise UsageError(f'{path}: device kind {kind!r}; use "c" or "b"')
        self._add(Member(_member_name(path), DEVICE_KINDS[kind] | mode, b"", major, minor))

    def bytes(self) -> bytes:
        """The archive: members sorted by path, the trailer, zeros up to a multiple of 512 bytes.

        Raises UsageError if a file is also the folder of another member.
        """
        members = self._members | {name: Member(name, stat.S_IFDIR | 0o755) for name in self._unnamed_parents()}
        parts = [part for inode, name in enumerate(sorted(members), start=1) for part in _encode(members[name], inode)]
        return _padded(b"".join((*parts, *_encode(Member(TRAILER, 0), 0))), BLOCK)

    def _add(self, member: Member) -> None:
        if member.path in self._members:
            raise UsageError(f"{member.path}: twice in one archive; leave one of them out")
        self._members[member.path] = member

    def _unnamed_parents(self) -> set[str]:
        parents = {"/".join(parts[:depth]) for parts in map(_split, self._members) for depth in range(1, len(parts))}
        for name in sorted(parents & self._members.keys()):
            if stat.S_ISREG(self._members[name].mode):
                raise UsageError(f"{name}: a file and a folder in one archive; rename one of them")
        return parents - self._members.keys()


def concatenate(archives: Iterable[bytes]) -> bytes:
    """Several archives as one ramdisk; where two hold the same path, the later one wins when the kernel unpacks."""
    return b"".join(_padded(archive, BLOCK) for archive in archives)


def overlay(files: Mapping[str, bytes | Path], mode: int = 0o755) -> Archive:
    """An archive of regular files, all with ``mode``: path in the guest → content, or the host's file that has it."""
    archive = Archive()
    for path, content in files.items():
        try:
            archive.file(path, content.read_bytes() if isinstance(content, Path) else content, mode)
        except OSError as error:
            raise UsageError(
                f"{error.filename}: {error.strerror}; name a readable file for the ramdisk's {path}"
            ) from None
    return archive


def _split(name: str) -> list[str]:
    return name.split("/")


def _member_name(path: str) -> str:
    parts = [part for part in _split(path) if part not in ("", ".")]
    if not parts or ".." in parts or "\0" in path:
        raise UsageError(f"{path!r} is no path for a ramdisk; use one like /bin/program")
    return "/".join(parts)


def _encode(member: Member, inode: int) -> list[bytes]:
    name = member.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(member.mode) else 1
    # inode, mode, uid, gid, nlink, mtime, filesize, device (major, minor), rdev (major, minor), namesize, check
    fields = (
        *(inode, member.mode, 0, 0, links, 0, len(member.data)),
        *(0, 0, member.major, member.minor, len(name), 0),
    )
    header = MAGIC + "".join(f"{field:08X}" for field in fields).encode()
    return [_padded(header + name, 4), _padded(member.data, 4)]


def _padded(data: bytes, unit: int) -> bytes:
    short = -len(data) % unit
    return data + bytes(short) if short else data
