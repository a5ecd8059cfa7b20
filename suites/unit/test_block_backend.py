"""The block back end against a front end that a test drives: what xen-blkback answers, we answer."""

from __future__ import annotations

import pytest

from stub.abi import blkif as abi
from stub.abi import xenbus
from stub.abi.blkif import BLKIF_RSP_EOPNOTSUPP, BLKIF_RSP_ERROR, BLKIF_RSP_OKAY
from stub.devices.block.faults import Fault
from stub.devices.block.images import SECTOR, NoDisc
from stub.devices.block.server import MAX_PERSISTENT
from stub.errors import UsageError
from suites.unit.fake_frontend import PORT, Frontend, Memory, pattern

SECTORS = 4096
READ, WRITE, BARRIER, FLUSH = 0, 1, 2, 3
LAYOUTS = (xenbus.XEN_IO_PROTO_ABI_X86_64, xenbus.XEN_IO_PROTO_ABI_X86_32)


@pytest.fixture
def image() -> Memory:
    image = Memory(SECTORS * SECTOR)
    image.content[:] = pattern(SECTORS)
    return image


@pytest.fixture
def frontend(image: Memory) -> Frontend:
    frontend = Frontend(image)
    frontend.connect()
    return frontend


# -- the handshake


def test_the_handshake_is_blkbacks(image: Memory) -> None:
    frontend = Frontend(image)
    assert frontend.node("state") == b"2"
    assert frontend.node("feature-max-indirect-segments") == b"256"
    assert frontend.node("sectors") is None
    frontend.connect()
    assert frontend.node("state") == b"4"
    told = {name: frontend.node(name) for name in ("sectors", "sector-size", "physical-sector-size", "info")}
    assert told == {"sectors": b"4096", "sector-size": b"512", "physical-sector-size": b"512", "info": b"0"}
    features = ("feature-flush-cache", "feature-barrier", "feature-persistent", "feature-discard")
    assert [frontend.node(name) for name in features] == [b"1"] * 4
    frontend.say(state=4)
    assert frontend.node("state") == b"4"
    assert frontend.guest.notes == []


def test_a_front_end_closes_and_opens_again(frontend: Frontend) -> None:
    """As GRUB does for each use of the disk, and as the kernel after it does."""
    for _ in range(3):
        assert (frontend.mapped(), frontend.guest.ports[PORT] is not None) == (1, True)
        frontend.say(state=5)
        assert frontend.node("state") == b"5"
        frontend.say(state=6)
        assert frontend.node("state") == b"6"
        assert (frontend.mapped(), frontend.guest.ports[PORT]) == (0, None)
        frontend.say(state=1)
        assert frontend.node("state") == b"2"
        frontend.connect()
        assert frontend.node("state") == b"4"
        page = frontend.grant(1)
        assert frontend.request(READ, 8, [(1, 0, 7)]) == BLKIF_RSP_OKAY
        assert page == pattern(8, 8)


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        ({"event_channel": 9}, "port 9"),
        ({"event_channel": "x"}, "event-channel"),
        ({"ring_ref": 55}, "grant"),
        ({"ring_ref": ""}, "ring-ref"),
        ({"ring_ref": 1 << 32}, "ring-ref"),
        ({"protocol": "arm-abi"}, "protocol"),
        ({"ring_page_order": 5}, "order 5"),
        ({"ring_page_order": 1}, "ring-ref0"),
        ({"multi_queue_num_queues": 2}, "queue"),
    ],
)
def test_a_bad_front_end_is_told_and_may_try_again(image: Memory, nodes: dict[str, object], why: str) -> None:
    frontend = Frontend(image)
    frontend.connect()
    frontend.say(state=6)
    frontend.say(state=1)
    frontend.say(**{"ring_ref": 100, "event_channel": PORT, **nodes, "state": 3})
    assert frontend.node("state") == b"5"
    error = frontend.guest.nodes["/local/domain/0/error/backend/vbd/1/51712/error"].decode()
    assert why in error
    assert [note for note in frontend.guest.notes if error in note]
    assert frontend.mapped() == 0
    frontend.guest.nodes.pop(f"{frontend.front}/ring-page-order", None)
    frontend.guest.nodes.pop(f"{frontend.front}/multi-queue-num-queues", None)
    frontend.say(state=6)
    frontend.say(state=1)
    frontend.connect()
    assert frontend.node("state") == b"4"


def test_a_directory_that_went_away_disconnects(frontend: Frontend) -> None:
    del frontend.guest.nodes[f"{frontend.front}/state"]
    frontend.vbd.frontend_changed()
    assert (frontend.node("state"), frontend.mapped()) == (b"6", 0)


@pytest.mark.parametrize("state", [7, 8, 99, -1, "x"])
def test_other_states_change_nothing(frontend: Frontend, state: object) -> None:
    frontend.say(state=state)
    assert frontend.node("state") in (b"4", b"6")
    frontend.say(state=4)


def test_a_cd_is_read_only_and_says_so(image: Memory) -> None:
    frontend = Frontend(image, writable=False, cdrom=True)
    frontend.connect()
    assert int(frontend.node("info") or 0) == abi.VDISK_CDROM | abi.VDISK_READONLY
    assert (frontend.node("removable"), frontend.node("feature-discard")) == (b"1", b"0")
    assert frontend.guest.nodes[f"{frontend.front}/device-type"] == b"cdrom"
    frontend.grant(1)
    assert frontend.request(WRITE, 0, [(1, 0, 7)]) == BLKIF_RSP_ERROR
    assert frontend.request(READ, 0, [(1, 0, 7)]) == BLKIF_RSP_OKAY
    assert image.content == pattern(SECTORS)


def test_an_empty_drive_connects_and_reads_nothing() -> None:
    frontend = Frontend(NoDisc(), writable=False, cdrom=True)
    frontend.connect()
    assert (frontend.node("state"), frontend.node("sectors")) == (b"4", b"0")
    frontend.grant(1)
    assert frontend.request(READ, 0, [(1, 0, 0)]) == BLKIF_RSP_ERROR


# -- operations


@pytest.mark.parametrize("order", [None, 0, 1, 4])
@pytest.mark.parametrize("protocol", LAYOUTS)
def test_data_goes_both_ways_in_both_layouts(image: Memory, protocol: bytes, order: int | None) -> None:
    """Many times around the ring, whose slots lie across its pages' ends."""
    frontend = Frontend(image, protocol)
    frontend.connect(order)
    assert frontend.slots == 32 << (order or 0)
    for i in range(2 * frontend.slots + 3):
        page = frontend.grant(1, pattern(8, i))
        assert frontend.request(WRITE, 8 * (i % 100), [(1, 0, 7)]) == BLKIF_RSP_OKAY
        page = frontend.grant(2)
        assert frontend.request(READ, 8 * (i % 100) + 1, [(2, 2, 4)]) == BLKIF_RSP_OKAY
        assert page[2 * SECTOR : 5 * SECTOR] == pattern(8, i)[SECTOR : 4 * SECTOR]
        assert not any(page[: 2 * SECTOR] + page[5 * SECTOR :])
    assert frontend.mapped() == len(frontend.rings)


def test_eleven_segments_land_in_their_order(frontend: Frontend) -> None:
    pages = [frontend.grant(i + 1) for i in range(11)]
    assert frontend.request(READ, 16, [(i + 1, 0, 7) for i in range(11)]) == BLKIF_RSP_OKAY
    assert b"".join(pages) == pattern(88, 16)


@pytest.mark.parametrize("protocol", LAYOUTS)
def test_indirect_segments_come_in_pages(image: Memory, protocol: bytes) -> None:
    frontend = Frontend(image, protocol)
    frontend.connect()
    rows = b"".join(abi.BlkifRequestSegment.pack(gref=i + 1000, first_sect=0, last_sect=7) for i in range(256))
    frontend.grant(500, rows, readonly=True)
    pages = [frontend.grant(i + 1000) for i in range(256)]
    assert frontend.indirect(READ, 0, 256, [500]) == BLKIF_RSP_OKAY
    assert b"".join(pages) == pattern(2048)
    assert frontend.indirect(READ, 0, 257, [500]) == BLKIF_RSP_ERROR
    assert frontend.indirect(FLUSH, 0, 1, [500]) == BLKIF_RSP_ERROR
    assert frontend.indirect(77, 0, 1, [500]) == BLKIF_RSP_ERROR
    assert frontend.indirect(READ, 0, 1, [501]) == BLKIF_RSP_ERROR
    assert frontend.mapped() == 1


def test_flush_and_barrier_flush(frontend: Frontend, image: Memory) -> None:
    assert frontend.request(FLUSH) == BLKIF_RSP_OKAY
    assert image.flushes == 1
    frontend.grant(1, pattern(8, 9))
    assert frontend.request(BARRIER, 0, [(1, 0, 7)]) == BLKIF_RSP_OKAY
    assert (image.flushes, image.content[: 8 * SECTOR]) == (2, pattern(8, 9))


def test_discard(frontend: Frontend, image: Memory) -> None:
    assert frontend.discard(8, 16) == BLKIF_RSP_OKAY
    assert frontend.discard(8, 16, abi.BLKIF_DISCARD_SECURE) == BLKIF_RSP_OKAY  # the flag means nothing: not offered
    assert frontend.discard(0, 0) == BLKIF_RSP_OKAY
    assert frontend.discard(SECTORS - 1, 2) == BLKIF_RSP_ERROR
    assert frontend.discard(1, (1 << 64) - 1) == BLKIF_RSP_ERROR
    assert image.discarded == [(8 * SECTOR, 16 * SECTOR)] * 2


# -- what is refused


@pytest.mark.parametrize(
    ("operation", "sector", "segments", "status", "why"),
    [
        (READ, 0, [], BLKIF_RSP_ERROR, "0 segments"),
        (READ, 0, [(1, 0, 0)] * 12, BLKIF_RSP_ERROR, "12 segments"),
        (READ, 0, [(1, 3, 2)], BLKIF_RSP_ERROR, "from sector 3 to 2"),
        (READ, 0, [(1, 0, 8)], BLKIF_RSP_ERROR, "from sector 0 to 8"),
        (READ, SECTORS - 7, [(1, 0, 7)], BLKIF_RSP_ERROR, "the disk has 0x1000"),
        (READ, (1 << 64) - 1, [(1, 0, 7)], BLKIF_RSP_ERROR, "the disk has 0x1000"),
        (READ, 0, [(99, 0, 7)], BLKIF_RSP_ERROR, "no grant 0x63"),
        (READ, 0, [(1, 0, 7), (99, 0, 7)], BLKIF_RSP_ERROR, "no grant 0x63"),
        (READ, 0, [(2, 0, 7)], BLKIF_RSP_ERROR, "no grant 0x2"),
        (4, 0, [(1, 0, 7)], BLKIF_RSP_EOPNOTSUPP, "no operation 4"),
        (255, 0, [], BLKIF_RSP_EOPNOTSUPP, "no operation 255"),
    ],
)
def test_bad_requests_are_answered_and_noted(
    frontend: Frontend, operation: int, sector: int, segments: list[tuple[int, int, int]], status: int, why: str
) -> None:
    page = frontend.grant(1)
    frontend.grant(2, readonly=True)
    assert frontend.request(operation, sector, segments) == status
    assert [why in note for note in frontend.guest.notes] == [True]
    assert frontend.mapped() == 1
    assert not any(page)
    assert frontend.request(READ, 0, [(1, 0, 7)]) == BLKIF_RSP_OKAY


def test_a_granted_page_that_is_read_only_can_be_written_from(frontend: Frontend, image: Memory) -> None:
    frontend.grant(1, pattern(8, 3), readonly=True)
    assert frontend.request(WRITE, 0, [(1, 0, 7)]) == BLKIF_RSP_OKAY
    assert image.content[: 8 * SECTOR] == pattern(8, 3)


@pytest.mark.parametrize("ahead", [33, 1 << 31, (1 << 32) - 1])
def test_a_ring_with_more_requests_than_slots_is_left_alone(frontend: Frontend, ahead: int) -> None:
    frontend.rings[0][:4] = ahead.to_bytes(4, "little")
    assert not frontend.vbd.service()
    assert "32 slots" in frontend.guest.notes[0]
    kicks = frontend.kicks
    assert not frontend.vbd.service()
    assert (len(frontend.guest.notes), frontend.kicks) == (1, kicks)
    frontend.say(state=6)
    frontend.say(state=1)
    frontend.connect()
    frontend.grant(1)
    assert frontend.request(READ, 0, [(1, 0, 7)]) == BLKIF_RSP_OKAY


def test_a_full_ring_is_served_in_turns(frontend: Frontend) -> None:
    """Of 32 requests of a MiB each, some are left for the next turn, which the back end asks for."""
    rows = b"".join(abi.BlkifRequestSegment.pack(gref=1, first_sect=0, last_sect=7) for _ in range(256))
    frontend.grant(1)
    frontend.grant(500, rows)
    slot = frontend.layout.indirect.pack(operation=6, indirect_op=READ, nr_segments=256, indirect_grefs=(500, *[0] * 7))
    for _ in range(32):
        frontend.put(slot)
    kicks, turns = frontend.kicks, 1
    while frontend.vbd.service():
        turns += 1
    assert (turns - 1, frontend.kicks - kicks) == (2, 1)
    assert int.from_bytes(frontend.rings[0][8:12], "little") == 32


def test_the_guest_is_signalled_only_when_it_asks(frontend: Frontend) -> None:
    frontend.grant(1)
    assert frontend.request(READ, 0, [(1, 0, 7)]) == BLKIF_RSP_OKAY
    signals = frontend.guest.signals
    assert signals == 1
    frontend.rings[0][12:16] = (1000).to_bytes(4, "little")
    assert frontend.request(READ, 0, [(1, 0, 7)]) == BLKIF_RSP_OKAY
    assert frontend.guest.signals == signals
    assert frontend.rings[0][4:8] == (3).to_bytes(4, "little")  # req_event: the next request


# -- persistent grants


def test_persistent_grants_stay_mapped_until_the_end(frontend: Frontend, image: Memory) -> None:
    frontend.say(state=6)
    frontend.say(state=1)
    frontend.connect(feature_persistent=1)
    page = frontend.grant(1, pattern(8, 5))
    for i in range(5):
        assert frontend.request(WRITE, 8 * i, [(1, 0, 7)]) == BLKIF_RSP_OKAY
    assert frontend.guest.grants[1].mapped == 1
    page[:] = bytes(len(page))
    assert frontend.request(READ, 0, [(1, 0, 7)]) == BLKIF_RSP_OKAY
    assert page == pattern(8, 5)
    for ref in range(1000, 1000 + MAX_PERSISTENT + 10):
        frontend.grant(ref)
        assert frontend.request(READ, 0, [(ref, 0, 0)]) == BLKIF_RSP_OKAY
    assert frontend.mapped() == 1 + MAX_PERSISTENT
    frontend.grant(1, readonly=True)
    frontend.say(state=6)
    assert [ref for ref, grant in frontend.guest.grants.items() if grant.mapped > 0] == []


# -- faults


def test_faults_hit_what_they_name(image: Memory) -> None:
    frontend = Frontend(image, faults=("disk:read:sector=10", "disk=xvda:write:every=3", "disk=xvdb:flush"))
    frontend.connect()
    frontend.grant(1)
    assert [frontend.request(READ, sector, [(1, 0, 7)]) for sector in (0, 3, 8, 11)] == [0, -1, -1, 0]
    assert [frontend.request(WRITE, 0, [(1, 0, 7)]) for _ in range(6)] == [0, 0, -1, 0, 0, -1]
    assert frontend.request(FLUSH) == BLKIF_RSP_OKAY
    assert "fails on purpose" in frontend.guest.notes[0]


@pytest.mark.parametrize("text", ["", "disk", "disk:eat", "disk:read:every=0", "disk:read:sector=-1", "net:read"])
def test_faults_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="use disk"):
        Fault.parse(text)


def test_a_host_that_fails_is_an_io_error(frontend: Frontend, image: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(position: int, data: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(image, "write", fail)
    frontend.grant(1)
    assert frontend.request(WRITE, 0, [(1, 0, 7)]) == BLKIF_RSP_ERROR
    assert "No space left" in frontend.guest.notes[0]
    assert frontend.mapped() == 1
