"""Disk specifications: xl-disk-configuration(5), with the cases of Xen's own tools/xl/check-xl-disk-parse."""

from __future__ import annotations

from pathlib import Path

import pytest

from stub.domain.disk import Disk
from stub.domain.guestfile.disks import parse
from stub.domain.guestfile.place import Place, Source, Value
from stub.errors import ConfigError

BASE = Path("/base")


def read(spec: str, warned: list[str] | None = None) -> Disk:
    source = Source("g.cfg", f"disk = [ '{spec}' ]")
    told: list[str] = [] if warned is None else warned
    return parse(source, Value(spec, Place(1, 10), text=True), BASE, lambda _, text: told.append(text))


VOLUME = Disk(Path("/dev/vg/guest-volume"), "hda", 768)
ISO = Disk(Path("/root/image.iso"), "hdc", 5632, readonly=True, device_type="cdrom")
EMPTY = Disk(None, "hdc", 5632, readonly=True, device_type="cdrom", format="empty")
SAME = {
    VOLUME: (
        "/dev/vg/guest-volume,,hda",
        "/dev/vg/guest-volume,raw,hda,rw",
        "format=raw, vdev=hda, access=rw, target=/dev/vg/guest-volume",
        "raw:/dev/vg/guest-volume,hda,w",
        "phy:/dev/vg/guest-volume,hda,w",
        "tap:aio:/dev/vg/guest-volume,hda,w",
        "file:/dev/vg/guest-volume,hda",
        "vdev=hda,/dev/vg/guest-volume",
        "discard,direct-io-safe,backendtype=qdisk,/dev/vg/guest-volume,,hda:disk,w",
    ),
    ISO: (
        "/root/image.iso,,hdc,cdrom",
        "/root/image.iso,,hdc,,cdrom",
        "/root/image.iso,raw,hdc,devtype=cdrom",
        "format=raw, vdev=hdc, access=ro, devtype=cdrom, target=/root/image.iso",
        "raw:/root/image.iso,hdc:cdrom,ro",
    ),
    EMPTY: (
        "devtype=cdrom,,,hdc",
        ",,hdc:cdrom,r",
        ",hdc:cdrom,r",
        "vdev=hdc,access=r,devtype=cdrom,target=",
        ",empty,hdc:cdrom,r",
        "vdev=hdc,access=r,devtype=cdrom,format=empty",
        "vdev=hdc,access=r,devtype=cdrom",
    ),
    Disk(Path("/dev/vg/guest-volume"), "xvdb", 51728): (
        "backendtype=phy,vdev=xvdb,access=w,target=/dev/vg/guest-volume",
    ),
    Disk(Path("/some/disk/image.raw"), "hda", 768): ("discard,vdev=hda,target=/some/disk/image.raw",),
    Disk(Path("/export/nv.iso"), "6", 6, readonly=True, device_type="cdrom"): ("file:/export/nv.iso,6:cdrom,r",),
    Disk(Path("/export/nv.img"), "0", 0): ("file:/export/nv.img,0,w",),
    Disk(Path("/d,with=odd:name"), "d0p1", 51713): ("vdev=d0p1,target=/d,with=odd:name",),
    Disk(BASE / "disk.qcow2", "xvda", 51712, format="qcow2"): ("disk.qcow2,qcow2,xvda", "qcow2:disk.qcow2,xvda"),
    Disk(Path("/x"), "sda1", 2049, readonly=True): ("/x,raw,sda1,r", "/x,,sda1,ro"),
}


@pytest.mark.parametrize(("disk", "spec"), [(disk, spec) for disk, specs in SAME.items() for spec in specs])
def test_specification(disk: Disk, spec: str) -> None:
    assert read(spec) == disk


WRONG = {
    "foo": (11, "no vdev"),
    "": (11, "no vdev"),
    ",,hda": (11, "no target"),
    "/x,,hdz": (15, "hdz is no vdev"),
    "/x,,xvda,rx": (20, "access is one of r, ro"),
    "/x,cow,xvda": (14, "format is one of raw"),
    "/x,,6:floppy": (17, "a cdrom or a disk"),
    "/x,,hda,w,more": (21, "four positional"),
    "/x,,hda,vdev=hdb": (24, "vdev is given twice"),
    "/x,,hda,nonsense=1": (19, "no parameter nonsense"),
    "/x,,hda,script=block-drbd": (26, "script is not run"),
    "drbd:app01,hda,w": (11, "block script"),
    "odd:/x,hda,w": (11, "odd: is no prefix"),
    "/x=y,,hda": (11, "with target=, last"),
    "/x,empty,hda": (11, "only a cdrom"),
    "specification=virtio,/x,,hda": (25, "specification is one of xen"),
}


@pytest.mark.parametrize("spec", WRONG)
def test_error_is_shown_inside_the_string(spec: str) -> None:
    column, message = WRONG[spec]
    with pytest.raises(ConfigError) as caught:
        read(spec)
    assert str(caught.value).startswith(f"g.cfg:1:{column}: "), caught.value
    assert message in str(caught.value)


def test_a_driver_domain_is_a_warning() -> None:
    warned: list[str] = []
    assert read("backend=storage,/x,,xvda", warned).vdev == "xvda"
    assert len(warned) == 1
