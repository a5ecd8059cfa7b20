"""The numbers that the names of disks stand for, as libxl gives them."""

from __future__ import annotations

import pytest

from stub.domain.disk import vdev_number

KNOWN = {
    "xvda": 51712,
    "xvda1": 51713,
    "xvdb": 51728,
    "xvdp15": 51967,
    "xvdq": (1 << 28) | (16 << 8),
    "xvda16": (1 << 28) | 16,
    "xvdaa": (1 << 28) | (26 << 8),
    "d0": None,
    "d0p0": 51712,
    "d0p1": 51713,
    "d1048575p255": (1 << 28) | (1048575 << 8) | 255,
    "d1048576p0": None,
    "d0p256": None,
    "hda": 768,
    "hdb": 832,
    "hdc": 5632,
    "hdd63": 5759,
    "hda64": None,
    "hde": None,
    "sda": 2048,
    "sda3": 2051,
    "sdp15": 2303,
    "sdq": None,
    "sda16": None,
    "0": 0,
    "6": 6,
    "768": 768,
    "0xca00": 51712,
    "010": 8,
    "08": None,
    "2147483647": 2147483647,
    "2147483648": None,
    "xvd": None,
    "xvda01": None,
    "xvdA": None,
    "xvdzzzzzz": None,
    "": None,
    "-1": None,
    "\uff11": None,
    "vda": None,
}


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_vdev_has_libxls_number(name: str) -> None:
    """libxl__device_disk_dev_number."""
    assert vdev_number(name) == KNOWN[name]
