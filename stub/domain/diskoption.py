"""``--disk`` of the command line and ``disks=`` of a test: the short form of xl's disk syntax, read into disks.

The full syntax (xl-disk-configuration.5) is the configuration files'.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from stub.domain.disk import DEVICE_TYPES, Disk, vdev_number
from stub.errors import ConfigError

SYNTAX = "PATH[,VDEV[,r|w|cdrom[,direct]]]"
MAX_DISKS = 64
_READONLY = {"": False, "w": False, "rw": False, "w!": False, "r": True, "ro": True, "cdrom": True}
_PREFIX = re.compile(r"(?:(?:tap2?:)?(?:aio|raw)|file|phy):")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def parse_disks(texts: Sequence[str], others: Sequence[Disk] = (), *, devices: bool = True) -> tuple[Disk, ...]:
    """Disks of a domain, beside ``others``; those without a VDEV get the first free xvda, xvdb…

    What the guest writes is thrown away with the run, unless the disk is ``direct``: then the file is written.
    ConfigError says what is wrong, also when there are too many disks or two with one number, and of a device of the
    host's unless ``devices`` lets the guest have it.
    """
    asked = [[word.strip() for word in text.split(",")] for text in texts]
    taken = {vdev_number(words[1].partition(":")[0]) for words in asked if len(words) > 1}
    taken |= {disk.number for disk in others}
    free = (name for name in map("xvd{}".format, _LETTERS) if vdev_number(name) not in taken)
    disks = []
    for text, words in zip(texts, asked, strict=True):
        if len(words) > 4:
            raise ConfigError(f"disk {text!r}: there are words left over; use {SYNTAX}")
        target, vdev, access, backing = words + [""] * (4 - len(words))
        disk = _disk(text, target, vdev or next(free, ""), access, backing)
        if disk.target is not None and disk.target.parts[:2] == ("/", "dev") and not devices:
            raise ConfigError(f"disk {text!r}: it is a device of this host's; --allow-devices lets the guest have it")
        disks.append(disk)
    _check((*others, *disks))
    return tuple(disks)


def _disk(text: str, target: str, vdev: str, access: str, backing: str) -> Disk:
    vdev, _, kind = vdev.partition(":")  # xm's form: 6:cdrom
    device_type = "cdrom" if access == "cdrom" else kind or "disk"
    number = vdev_number(vdev)
    path = _PREFIX.sub("", target, count=1)
    readonly = _READONLY.get(access, False) or device_type == "cdrom"
    for bad, why in (
        (access not in _READONLY, f"{access!r} is no way to use it; use r, w or cdrom"),
        (device_type not in DEVICE_TYPES, f"{device_type!r} is no kind of disk; use disk or cdrom"),
        (number is None, f"no virtual disk is named {vdev!r}; use xvda, hda, sda, d0p0 or a number"),
        (backing not in ("", "direct"), f"{backing!r} is not known; use direct, or leave it out"),
        (backing and readonly, "it is read-only, nothing can be written through; leave out direct"),
        (not path and device_type != "cdrom", "no file is named; only a CD drive may be empty"),
    ):
        if bad:
            raise ConfigError(f"disk {text!r}: {why}")
    assert number is not None
    return Disk(
        Path(path) if path else None,
        vdev,
        number,
        readonly,
        device_type,
        "raw" if path else "empty",
        overlay=not backing,
    )


def _check(disks: Sequence[Disk]) -> None:
    if len(disks) > MAX_DISKS:
        raise ConfigError(f"{len(disks)} disks: use at most {MAX_DISKS}")
    seen: dict[int, Disk] = {}
    for disk in disks:
        other = seen.setdefault(disk.number, disk)
        if other is not disk:
            raise ConfigError(f"disk {disk.vdev}: {other.target} has this name already; give one of them another")
