"""A domain's disks: their images, which outlive a reboot, and their back ends, which do not."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from stub.abi.xenbus import XEN_IO_PROTO_ABI_X86_32, XEN_IO_PROTO_ABI_X86_64
from stub.devices.block.faults import Fault, Faults
from stub.devices.block.images import Image, NoDisc, RawImage
from stub.devices.block.overlay import Overlay, WriteCache
from stub.devices.block.vbd import Vbd, VbdInfo, toolstack_nodes
from stub.devices.xenstore.toolstack import add_device
from stub.domain.disk import Disk
from stub.errors import ConfigError
from stub.hypervisor.backends import Domain0

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor


class Disks:
    """The images of ``disks``, opened. ConfigError or UsageError when one cannot be had; nothing is open then.

    ``described``: what a run's summary says of each.
    """

    def __init__(self, disks: Sequence[Disk], faults: Sequence[str]) -> None:
        self._faults = [Fault.parse(text) for text in faults]
        self._images: list[tuple[Disk, Image]] = []
        with ExitStack() as opened:
            for disk in disks:
                image = _open(disk)
                opened.callback(image.close)
                self._images.append((disk, image))
            opened.pop_all()
        self.described = [_described(disk, image) for disk, image in self._images]

    def keep_changes(self, folder: Path | None) -> None:
        """Have what guests write to disks that are not written through kept in ``folder``, until :meth:`close`."""
        for i, (disk, image) in enumerate(self._images):
            if disk.overlay and not disk.readonly:
                self._images[i] = disk, Overlay(image, folder)
            elif not disk.readonly and Faults.of(self._faults, disk.vdev).forgets:
                self._images[i] = disk, WriteCache(image, folder)

    def connect(self, xen: Hypervisor) -> list[Vbd]:
        """A back end for each disk, as a new domain finds it."""
        return [_connect(xen, disk, image, Faults.of(self._faults, disk.vdev)) for disk, image in self._images]

    def close(self) -> None:
        """Let go of the images, and of the changes that were kept."""
        with ExitStack() as parts:
            for _, image in self._images:
                parts.callback(image.close)
        self._images = []


def _open(disk: Disk) -> Image:
    if disk.target is None:
        return NoDisc()
    if disk.format != "raw":
        raise ConfigError(f"{disk.target}: images in the format {disk.format} are not supported; use a raw one")
    return RawImage(disk.target, writable=not disk.overlay and not disk.readonly)


def _described(disk: Disk, image: Image) -> dict[str, object]:
    return {
        "vdev": disk.vdev,
        "file": disk.target.name if disk.target else None,
        "type": disk.device_type,
        "mode": "r" if disk.readonly else "w",
        "overlay": disk.overlay and not disk.readonly,
        "size": image.size,
    }


def _connect(xen: Hypervisor, disk: Disk, image: Image, faults: Faults) -> Vbd:
    name = disk.target.name if disk.target else ""
    protocol = XEN_IO_PROTO_ABI_X86_64 if xen.domain.bits == 64 else XEN_IO_PROTO_ABI_X86_32
    info = VbdInfo(disk.number, disk.vdev, not disk.readonly, disk.cdrom, name, protocol)
    dom0, domid = xen.xenstore.store.dom0, xen.domain.domid
    add_device(dom0, "vbd", domid, info.number, *toolstack_nodes(info, domid))
    vbd = Vbd(info, image, dom0, Domain0(xen), domid, xen.backend_notified, faults)
    dom0.watch(f"{vbd.directories.frontend}/state", lambda _: vbd.frontend_changed())
    return vbd
