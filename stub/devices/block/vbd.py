"""The back end of one virtual disk: from its front end's first state to its last, and the requests between.

Sources: Linux, drivers/block/xen-blkback/xenbus.c (xen_blkbk_probe, frontend_changed, connect_ring, connect). A guest
may close its end and open it again, with another driver and other rings, as often as it likes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from stub.abi import blkif as abi
from stub.abi import xenbus
from stub.devices.access import Channel, GuestAccess, StoreAccess
from stub.devices.block.faults import Faults
from stub.devices.block.images import SECTOR, Image
from stub.devices.block.overlay import CLUSTER
from stub.devices.block.requests import LAYOUTS, Layout, decode, response
from stub.devices.block.ring import BogusRing, Ring
from stub.devices.block.server import MAX_INDIRECT_SEGMENTS, Server
from stub.devices.xenbus import Directories, XenbusError

MAX_RING_PAGE_ORDER = 4
_A_TIME = 16 << 20  # bytes that are moved before others have their turn
_MAX_PORT = (1 << 32) - 1


class VbdInfo(NamedTuple):
    """What the toolstack says of a disk. ``number`` names it in XenStore, ``vdev`` for people.

    ``protocol`` is the layout of the domain's own width.
    """

    number: int
    vdev: str
    writable: bool = True
    cdrom: bool = False
    params: str = ""
    protocol: bytes = xenbus.XEN_IO_PROTO_ABI_X86_64


class _Connection(NamedTuple):
    """A front end that is connected: its rings' and data pages are mapped, its port is bound."""

    ring: Ring
    layout: Layout
    server: Server
    channel: Channel
    grefs: tuple[int, ...]


def toolstack_nodes(info: VbdInfo, domid: int) -> tuple[dict[str, str], dict[str, str]]:
    """(front end's, back end's) nodes as libxl writes them for a PV guest, with what the block script adds.

    Source: tools/libs/light/libxl_disk.c, device_disk_add.
    """
    kind = "cdrom" if info.cdrom else "disk"
    front = {
        "backend-id": "0",
        "state": str(xenbus.XenbusStateInitialising),
        "virtual-device": str(info.number),
        "device-type": kind,
        "protocol": info.protocol.decode(),
    }
    back = {
        "params": info.params,
        "script": "/etc/xen/scripts/block",
        "frontend-id": str(domid),
        "online": "1",
        "removable": str(int(info.cdrom)),
        "bootable": "1",
        "state": str(xenbus.XenbusStateInitialising),
        "dev": info.vdev,
        "type": "phy",
        "mode": "w" if info.writable else "r",
        "device-type": kind,
        "discard-enable": str(int(info.writable)),
        "hotplug-status": "connected",
    }
    return front, back


class Vbd:
    """One disk's back end. ``frontend_changed`` is called when its front end's state may have changed.

    ``kick`` is called when there is something to do: have ``service`` called soon.
    """

    def __init__(
        self,
        info: VbdInfo,
        image: Image,
        store: StoreAccess,
        guest: GuestAccess,
        domid: int,
        kick: Callable[[], None],
        faults: Faults | None = None,
    ) -> None:
        self.info, self.image = info, image
        self._guest, self._kick = guest, kick
        self._faults = faults or Faults()
        self._connection: _Connection | None = None
        self._is_bogus = False  # the connection's ring cannot be understood: it is left alone
        self.directories = Directories(store, "vbd", domid, info.number)
        self.directories.tell(
            feature_max_indirect_segments=MAX_INDIRECT_SEGMENTS, max_ring_page_order=MAX_RING_PAGE_ORDER
        )
        self.directories.switch(xenbus.XenbusStateInitWait)

    @property
    def connected(self) -> bool:
        """Whether a front end uses it."""
        return self._connection is not None

    @property
    def moved(self) -> int:
        """Bytes that the front end that is connected has read and written."""
        return self._connection.server.moved if self._connection is not None else 0

    def frontend_changed(self) -> None:
        """Look at the front end's state, and follow."""
        act = _FOLLOW.get(self.directories.frontend_state)
        if act is not None:
            act(self)

    def close(self) -> None:
        """Let go of the guest."""
        connection, self._connection, self._is_bogus = self._connection, None, False
        if connection is not None:
            connection.server.close()
            connection.channel.close()
            for ref in connection.grefs:
                self._guest.unmap(ref, readonly=False)

    # -- states

    def _reopen(self) -> None:
        if self.directories.state == xenbus.XenbusStateClosed:
            self.directories.switch(xenbus.XenbusStateInitWait)

    def _connect(self) -> None:
        directories = self.directories
        if directories.state == xenbus.XenbusStateConnected:
            return
        self.close()
        try:
            self._connection = self._open()
        except XenbusError as why:
            self._guest.note(f"block: {self.info.vdev}: {why}")
            directories.fail(str(why))
            return
        self._publish()
        directories.switch(xenbus.XenbusStateConnected)
        self._kick()  # requests may be there already

    def _closing(self) -> None:
        self.directories.switch(xenbus.XenbusStateClosing)

    def _closed(self) -> None:
        self.close()
        self.directories.switch(xenbus.XenbusStateClosed)

    def _publish(self) -> None:
        """What the front end wants to know of the disk (connect, xen_blkbk_discard and the like)."""
        info, image, tell = self.info, self.image, self.directories.tell
        discards = info.writable and image.can_discard
        tell(feature_flush_cache=1)
        if discards:
            tell(discard_granularity=CLUSTER, discard_alignment=0, discard_secure=0)
        tell(feature_discard=int(discards), feature_barrier=1, feature_persistent=1)
        flags = (abi.VDISK_CDROM if info.cdrom else 0) | (0 if info.writable else abi.VDISK_READONLY)
        tell(sectors=image.size // SECTOR, info=flags, sector_size=SECTOR, physical_sector_size=SECTOR)

    # -- the ring

    def _open(self) -> _Connection:
        """Map the ring and bind the port that the front end names (connect_ring, read_per_ring_refs)."""
        front, guest = self.directories, self._guest
        protocol = front.text("protocol")
        layout = LAYOUTS.get(xenbus.XEN_IO_PROTO_ABI_X86_32 if protocol is None else protocol)
        if layout is None:
            raise XenbusError(f"unknown fe protocol {protocol!r}")
        if (front.number("multi-queue-num-queues") or 1) != 1:
            raise XenbusError("the guest asks for more than one queue")
        order = front.number("ring-page-order")
        if order is not None and order > MAX_RING_PAGE_ORDER:
            raise XenbusError(f"requested ring page order {order} exceed max:{MAX_RING_PAGE_ORDER}")
        port = self._number("event-channel", _MAX_PORT)
        names = ["ring-ref"] if order is None else [f"ring-ref{i}" for i in range(1 << order)]
        grefs = tuple(self._number(name, _MAX_PORT) for name in names)
        pages: list[memoryview] = []
        channel: Channel | None = None
        try:
            for ref in grefs:
                page = guest.map(ref, readonly=False)
                if page is None:
                    raise XenbusError(f"mapping ring-ref {ref}: {guest.refusal}")
                pages.append(page)
            channel = guest.connect(port, self._kick)
            if channel is None:
                raise XenbusError(f"binding port {port}: {guest.refusal}")
            ring = Ring(pages, layout.request.size)
        except (XenbusError, BogusRing) as why:
            if channel is not None:
                channel.close()
            for ref, _ in zip(grefs, pages, strict=False):
                guest.unmap(ref, readonly=False)
            raise XenbusError(str(why)) from why
        keep = bool(front.number("feature-persistent"))
        server = Server(self.image, guest, writable=self.info.writable, faults=self._faults, persistent=keep)
        return _Connection(ring, layout, server, channel, grefs)

    def _number(self, name: str, highest: int) -> int:
        value = self.directories.number(name)
        if value is None or value > highest:
            raise XenbusError(f"reading {self.directories.frontend}/{name}")
        return value

    def service(self) -> bool:
        """Do what was asked, all that is there now or a good part of it; whether anything was."""
        connection = self._connection
        if connection is None or self._is_bogus:
            return False
        ring, layout, server, channel, _ = connection
        served = 0
        most = server.moved + _A_TIME
        try:
            while served < ring.slots and server.moved < most and ring.waiting:
                request = decode(ring.take(), layout)
                ring.answer(response(request, server.serve(request), layout))
                served += 1
            if served and ring.publish():
                channel.signal()
            if ring.ask_for_event():
                self._kick()
        except BogusRing as why:
            self._guest.note(f"block: {self.info.vdev}: {why}: no more requests are taken from it")
            if served and ring.publish():
                channel.signal()
            self._is_bogus = True
        return served > 0


_FOLLOW: dict[int, Callable[[Vbd], None]] = {
    xenbus.XenbusStateUnknown: Vbd._closed,
    xenbus.XenbusStateInitialising: Vbd._reopen,
    xenbus.XenbusStateInitialised: Vbd._connect,
    xenbus.XenbusStateConnected: Vbd._connect,
    xenbus.XenbusStateClosing: Vbd._closing,
    xenbus.XenbusStateClosed: Vbd._closed,
}
"""What a back end does in each state of its front end; it is not told of any other."""
