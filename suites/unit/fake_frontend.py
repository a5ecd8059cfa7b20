"""A block front end without a guest: its pages, its grants, its directory in XenStore, and the requests it makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from stub.abi import blkif as abi
from stub.abi import xenbus
from stub.devices.block.faults import Fault, Faults
from stub.devices.block.images import SECTOR, Image
from stub.devices.block.requests import LAYOUTS
from stub.devices.block.vbd import Vbd, VbdInfo, toolstack_nodes
from stub.units import PAGE_SIZE

PORT = 7


class Memory:
    """An image in memory; ``flushes`` counts, ``discarded`` has what was."""

    can_discard = True

    def __init__(self, size: int) -> None:
        self.content, self.size = bytearray(size), size
        self.flushes = 0
        self.discarded: list[tuple[int, int]] = []

    def read(self, position: int, into: list[memoryview]) -> None:
        for piece in into:
            piece[:] = self.content[position : position + len(piece)]
            position += len(piece)

    def write(self, position: int, data: list[memoryview]) -> None:
        for piece in data:
            self.content[position : position + len(piece)] = piece
            position += len(piece)

    def flush(self) -> None:
        self.flushes += 1

    def discard(self, position: int, length: int) -> None:
        self.discarded.append((position, length))
        self.content[position : position + length] = bytes(length)

    def close(self) -> None:
        pass


@dataclass
class Grant:
    """A page, whether it may be written, and how often it is mapped."""

    page: bytearray
    readonly: bool = False
    mapped: int = 0


@dataclass
class FakeGuest:
    """The guest as its back end sees it: GuestAccess and StoreAccess in one."""

    grants: dict[int, Grant] = field(default_factory=dict)
    nodes: dict[str, bytes] = field(default_factory=dict)
    ports: dict[int, Callable[[], None] | None] = field(default_factory=lambda: {PORT: None})
    signals: int = 0
    notes: list[str] = field(default_factory=list)
    refusal: str = ""

    def map(self, ref: int, *, readonly: bool) -> memoryview | None:
        grant = self.grants.get(ref)
        if grant is None or (grant.readonly and not readonly):
            self.refusal = f"no grant {ref:#x}"
            return None
        grant.mapped += 1
        return memoryview(grant.page)

    def unmap(self, ref: int, *, readonly: bool) -> None:
        self.grants[ref].mapped -= 1

    def connect(self, port: int, notified: Callable[[], None]) -> FakeGuest | None:
        if self.ports.get(port, notified) is not None:
            self.refusal = f"no port {port}"
            return None
        self.ports[port] = notified
        return self

    def signal(self) -> None:
        self.signals += 1

    def close(self) -> None:
        self.ports[PORT] = None

    def note(self, text: str) -> None:
        self.notes.append(text)

    def read(self, path: str) -> bytes | None:
        return self.nodes.get(path)

    def write(self, path: str, value: bytes) -> None:
        self.nodes[path] = value

    def watch(self, path: str, callback: Callable[[str], object]) -> None:
        callback(path)


class Frontend:
    """A front end of the layout ``protocol`` on ``image``; ``kicks`` counts how often its back end asked for a turn."""

    def __init__(
        self,
        image: Image,
        protocol: bytes = xenbus.XEN_IO_PROTO_ABI_X86_64,
        *,
        writable: bool = True,
        cdrom: bool = False,
        faults: tuple[str, ...] = (),
    ) -> None:
        self.guest = FakeGuest()
        self.layout, self.protocol = LAYOUTS[protocol], protocol
        self.kicks = 0
        info = VbdInfo(51712, "xvda", writable, cdrom)
        self.front, self.back = "/local/domain/1/device/vbd/51712", "/local/domain/0/backend/vbd/1/51712"
        for path, nodes in zip((self.front, self.back), toolstack_nodes(info, 1), strict=True):
            for name, value in nodes.items():
                self.guest.nodes[f"{path}/{name}"] = value.encode()
        plan = Faults.of([Fault.parse(text) for text in faults], "xvda")
        self.vbd = Vbd(info, image, self.guest, self.guest, 1, self._kick, plan)
        self.rings: list[bytearray] = []
        self.produced = self.consumed = 0

    def _kick(self) -> None:
        self.kicks += 1

    def node(self, name: str) -> bytes | None:
        """A node of the back end's."""
        return self.guest.nodes.get(f"{self.back}/{name}")

    def say(self, **nodes: object) -> None:
        """Write nodes of the front end's, ``state`` last of all."""
        for name, value in nodes.items():
            self.guest.nodes[f"{self.front}/{name.replace('_', '-')}"] = str(value).encode()
        self.vbd.frontend_changed()

    def connect(self, order: int | None = None, **nodes: object) -> None:
        """Go through the handshake with a fresh ring, of 1 << ``order`` pages where that is given."""
        self.rings = [bytearray(PAGE_SIZE) for _ in range(1 << (order or 0))]
        for i, page in enumerate(self.rings):
            self.guest.grants[100 + i] = Grant(page)
        refs = {"ring_ref": 100} if order is None else {f"ring_ref{i}": 100 + i for i in range(1 << order)}
        if order is not None:
            refs["ring_page_order"] = order
        self._set(4, 1)
        self._set(12, 1)
        self.produced = self.consumed = 0
        self.say(event_channel=PORT, protocol=self.protocol.decode(), **refs, **nodes, state=3)

    @property
    def slots(self) -> int:
        """How many the ring has."""
        return 1 << ((len(self.rings) * PAGE_SIZE - 64) // self.layout.request.size).bit_length() - 1

    def grant(self, ref: int, content: bytes = b"", readonly: bool = False) -> bytearray:
        """Grant a page; its bytes."""
        page = bytearray(content.ljust(PAGE_SIZE, b"\0"))
        self.guest.grants[ref] = Grant(page, readonly)
        return page

    def put(self, slot: bytes) -> None:
        """A request's bytes into the next slot."""
        at = 64 + (self.produced % self.slots) * self.layout.request.size
        for i, byte in enumerate(slot):
            self.rings[(at + i) // PAGE_SIZE][(at + i) % PAGE_SIZE] = byte
        self.produced += 1
        self._set(0, self.produced)

    def request(self, operation: int, sector: int = 0, segments: list[tuple[int, int, int]] | None = None) -> int:
        """Make one request and have it served; the response's status."""
        rows = [
            abi.BlkifRequestSegment.pack(gref=gref, first_sect=first, last_sect=last)
            for gref, first, last in segments or []
        ]
        self.put(
            self.layout.request.pack(
                operation=operation, nr_segments=len(rows), id=0x1122334455667788, sector_number=sector,
                seg=b"".join(rows[:11]),
            )
        )  # fmt: skip
        return self.answer(operation)

    def indirect(self, operation: int, sector: int, count: int, grefs: list[int]) -> int:
        """The same with indirect segments."""
        self.put(
            self.layout.indirect.pack(
                operation=abi.BLKIF_OP_INDIRECT, indirect_op=operation, nr_segments=count, id=0x1122334455667788,
                sector_number=sector, indirect_grefs=(*grefs, *[0] * (8 - len(grefs))),
            )
        )  # fmt: skip
        return self.answer(operation)

    def discard(self, sector: int, sectors: int, flag: int = 0) -> int:
        """A discard."""
        self.put(
            self.layout.discard.pack(
                operation=abi.BLKIF_OP_DISCARD, flag=flag, id=0x1122334455667788, sector_number=sector,
                nr_sectors=sectors,
            )
        )  # fmt: skip
        return self.answer(abi.BLKIF_OP_DISCARD)

    def answer(self, operation: int) -> int:
        """Have the back end run; the status of the one response that came, whose id and operation are checked."""
        self.vbd.service()
        assert self._get(8) == self.consumed + 1, "one response"
        at = 64 + (self.consumed % self.slots) * self.layout.request.size
        data = b"".join(bytes(page) for page in self.rings)[at : at + 16]
        self.consumed += 1
        self._set(12, self.consumed + 1)
        response = self.layout.response.unpack_from(data)
        assert (response.id, response.operation) == (0x1122334455667788, operation)
        return int(response.status)

    def mapped(self) -> int:
        """How many mappings the back end has."""
        return sum(grant.mapped for grant in self.guest.grants.values())

    def _get(self, at: int) -> int:
        return int.from_bytes(self.rings[0][at : at + 4], "little")

    def _set(self, at: int, value: int) -> None:
        self.rings[0][at : at + 4] = (value & 0xFFFFFFFF).to_bytes(4, "little")


def pattern(sectors: int, seed: int = 0) -> bytes:
    """Bytes that differ from sector to sector."""
    return b"".join(bytes([(i + seed) % 251 + 1]) * SECTOR for i in range(sectors))
