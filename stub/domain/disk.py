"""A disk as a domain is given it, and the number that its name stands for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FORMATS = ("raw", "qcow", "qcow2", "vhd", "qed", "empty")
DEVICE_TYPES = ("disk", "cdrom")

_XVD_MAJOR, _SD_MAJOR, _HD_MAJORS = 202, 8, (3, 22)
_EXTENDED = 1 << 28
_MAX_NUMBER = (1 << 31) - 1
_LETTERS = re.compile(r"(xvd|hd|sd)([a-z]{1,5})([1-9][0-9]{0,2})?")
_NUMBERS = re.compile(r"d([0-9]{1,7})p([0-9]{1,3})")
_PLAIN = re.compile(r"0[xX][0-9a-fA-F]{1,8}|[0-9]{1,12}")


@dataclass(frozen=True)
class Disk:
    """One virtual disk (libxl_device_disk): what the guest finds, and the file behind it.

    ``target`` is None for a drive without a medium, whose ``format`` is ``empty``. ``vdev`` is the name as it was
    asked for (``xvda``, ``hdc``, ``d0p1``, ``51712``, ``6``), ``number`` the guest's handle of it, by which XenStore
    names the device. ``overlay``: what the guest writes is kept beside the file, which stays as it is.
    """

    target: Path | None
    vdev: str
    number: int
    readonly: bool = False
    device_type: str = "disk"
    format: str = "raw"
    overlay: bool = True

    @property
    def cdrom(self) -> bool:
        """Whether the guest is told that it is a CD drive; such a one is read-only and its medium removable."""
        return self.device_type == "cdrom"


def vdev_number(name: str) -> int | None:
    """The number that a vdev stands for; None for what is none (libxl__device_disk_dev_number).

    ``xvda1`` and ``d0p1`` are alike: the first 16 disks with up to 15 partitions have block major 202, the others
    bit 28. ``hd`` and ``sd`` have Linux's old majors, and a number is itself.
    """
    if numbers := _NUMBERS.fullmatch(name):
        return _xvd(int(numbers[1]), int(numbers[2]))
    if letters := _LETTERS.fullmatch(name):
        disk, partition = _disk_index(letters[2]), int(letters[3] or 0)
        return {"xvd": _xvd, "hd": _hd, "sd": _sd}[letters[1]](disk, partition)
    if _PLAIN.fullmatch(name):
        octal = name[0] == "0" and name.isdigit() and len(name) > 1
        if octal and not set(name) <= set("01234567"):
            return None
        number = int(name, 8 if octal else 0)
        return number if number <= _MAX_NUMBER else None
    return None


def _disk_index(letters: str) -> int:
    """``a`` is 0, ``z`` 25, ``aa`` 26."""
    index = 0
    for letter in letters:
        index = index * 26 + ord(letter) - ord("a") + 1
    return index - 1


def _xvd(disk: int, partition: int) -> int | None:
    if disk >= 1 << 20 or partition > 255:
        return None
    if disk < 16 and partition < 16:
        return _XVD_MAJOR << 8 | disk << 4 | partition
    return _EXTENDED | disk << 8 | partition


def _hd(disk: int, partition: int) -> int | None:
    if disk > 3 or partition > 63:
        return None
    return _HD_MAJORS[disk // 2] << 8 | disk % 2 << 6 | partition


def _sd(disk: int, partition: int) -> int | None:
    if disk > 15 or partition > 15:
        return None
    return _SD_MAJOR << 8 | disk << 4 | partition
