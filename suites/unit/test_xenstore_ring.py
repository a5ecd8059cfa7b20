"""XenStore's end of the shared page: indexes, wrap-around, room, and what a guest may do to them."""

from __future__ import annotations

import pytest

from stub.abi import xs_wire as abi
from stub.devices.xenstore import Ring
from stub.memory.ram import Ram
from stub.units import PAGE_SIZE
from suites.unit.xenstore_talk import Talk, message, messages

PAGE = 3 * PAGE_SIZE
U32 = 0xFFFFFFFF
READ_NAME = message(abi.XS_READ, b"name\0", 5)
NAME = (abi.XS_READ, 5, 0, b"guest")


class Front:
    """The guest's end of the page, and what its hypervisor sees."""

    def __init__(self) -> None:
        self.talk = Talk()
        self.ram = Ram(8)
        self.raised = self.woken = 0
        self.ring = Ring(self.ram, PAGE, self.talk.wire, self._raise, self._wake)

    def _raise(self) -> None:
        self.raised += 1

    def _wake(self) -> None:
        self.woken += 1

    def get(self, field: str) -> int:
        at = PAGE + abi.XenstoreDomainInterface.fields[field].offset
        return int.from_bytes(self.ram.bytes[at : at + 4], "little")

    def set(self, field: str, value: int) -> None:
        at = PAGE + abi.XenstoreDomainInterface.fields[field].offset
        self.ram.bytes[at : at + 4] = (value & U32).to_bytes(4, "little")

    def start_at(self, index: int) -> None:
        for field in ("req_cons", "req_prod", "rsp_cons", "rsp_prod"):
            self.set(field, index)

    def put(self, data: bytes) -> None:
        """Write a request as the guest does, one byte after the other."""
        at = self.get("req_prod")
        for i, byte in enumerate(data):
            self.ram.bytes[PAGE + (at + i & 1023)] = byte
        self.set("req_prod", at + len(data))

    def get_bytes(self, most: int = 1024) -> bytes:
        """Take what there is of answers."""
        at = self.get("rsp_cons")
        size = min(self.get("rsp_prod") - at & U32, most)
        data = bytes(self.ram.bytes[PAGE + 1024 + (at + i & 1023)] for i in range(size))
        self.set("rsp_cons", at + size)
        return data


@pytest.fixture
def front() -> Front:
    return Front()


def test_a_request_and_its_answer(front: Front) -> None:
    assert not front.ring.service(), "nothing was asked"
    assert front.raised == 0
    front.put(READ_NAME)
    assert front.ring.service()
    assert front.raised == 1
    assert messages(front.get_bytes()) == [NAME]
    assert (front.get("req_cons"), front.get("rsp_prod")) == (21, 21)
    assert (front.get("server_features"), front.get("connection"), front.get("error")) == (3, 0, 0)


@pytest.mark.parametrize("start", [*range(1000, 1030), U32 - 5, U32 - 20, U32])
def test_around_the_end_of_the_ring_and_of_the_indexes(front: Front, start: int) -> None:
    front.start_at(start)
    front.put(READ_NAME)
    front.ring.service()
    assert messages(front.get_bytes()) == [NAME]
    assert front.get("req_cons") == start + 21 & U32


@pytest.mark.parametrize("size", [1, 5, 15, 16, 20])
def test_a_request_in_pieces(front: Front, size: int) -> None:
    front.start_at(1020)
    heard = b""
    for at in range(0, len(READ_NAME), size):
        assert not heard, "before it is whole there is no answer"
        front.put(READ_NAME[at : at + size])
        assert front.ring.service()
        heard += front.get_bytes()
    assert messages(heard) == [NAME]


def test_an_answer_larger_than_the_ring(front: Front) -> None:
    value = bytes(range(256)) * 12
    front.talk.dom0.write("/local/domain/1/large", value)
    front.start_at(700)
    front.put(message(abi.XS_READ, b"large\0", 9))
    front.ring.service()
    assert front.get("rsp_prod") - front.get("rsp_cons") == 1024
    heard, pieces = b"", 0
    while piece := front.get_bytes(500):
        heard += piece
        pieces += 1
        front.ring.service()
    assert messages(heard) == [(abi.XS_READ, 9, 0, value)]
    assert pieces > 6


def test_a_full_ring_of_answers_stops_the_requests(front: Front) -> None:
    """20 requests are outstanding, the rest stay in the ring until there is room."""
    front.talk.dom0.write("/local/domain/1/x", "v" * 100)
    front.put(message(abi.XS_READ, b"x\0") * 46)
    front.ring.service()
    before = front.get("req_cons")
    assert before < front.get("req_prod")
    heard = b""
    while piece := front.get_bytes(37):
        heard += piece
        front.ring.service()
    assert front.get("req_cons") == front.get("req_prod")
    assert len(messages(heard)) == 46


@pytest.mark.parametrize(("field", "value"), [("req_prod", 1025), ("req_prod", U32), ("req_cons", 1)])
def test_nonsense_for_requests(front: Front, field: str, value: int) -> None:
    front.set(field, value)
    assert not front.ring.service()
    assert front.get("error") == abi.XENSTORE_ERROR_RINGIDX
    front.start_at(0)
    front.put(READ_NAME)
    assert not front.ring.service(), "it is no longer listened to"
    assert front.get("rsp_prod") == 0
    assert front.raised == 0


@pytest.mark.parametrize("consumer", [1, U32 - 1024, 1 << 31])
def test_nonsense_for_answers(front: Front, consumer: int) -> None:
    """It is seen when there is something to answer."""
    front.set("rsp_cons", consumer)
    assert not front.ring.service()
    assert front.get("error") == 0
    front.put(READ_NAME)
    front.ring.service()
    assert front.get("error") == abi.XENSTORE_ERROR_RINGIDX
    assert front.get("rsp_prod") == 0


def test_too_long_a_payload(front: Front) -> None:
    front.put(message(abi.XS_READ, b"")[:12] + (4097).to_bytes(4, "little"))
    front.ring.service()
    assert front.get("error") == abi.XENSTORE_ERROR_PROTO


def test_beginning_anew(front: Front) -> None:
    """The guest sets the state to "reconnect"; all is forgotten, and the indexes and the error are 0."""
    front.talk.watch("data", "t")
    front.set("req_prod", 5000)
    front.ring.service()
    assert front.get("error") == abi.XENSTORE_ERROR_RINGIDX
    front.set("connection", abi.XENSTORE_RECONNECT)
    assert front.ring.service()
    assert front.raised == 1
    for field in ("req_cons", "req_prod", "rsp_cons", "rsp_prod", "connection", "error"):
        assert front.get(field) == 0
    front.put(message(abi.XS_WRITE, b"data/a\0"))
    front.ring.service()
    assert [found[0] for found in messages(front.get_bytes())] == [abi.XS_WRITE], "the watch is gone"


def test_half_a_request_is_forgotten_too(front: Front) -> None:
    front.put(READ_NAME[:19])
    front.ring.service()
    front.set("connection", abi.XENSTORE_RECONNECT)
    front.ring.service()
    front.put(READ_NAME)
    front.ring.service()
    assert messages(front.get_bytes()) == [NAME]


def test_somebody_elses_change_asks_to_be_serviced(front: Front) -> None:
    front.put(message(abi.XS_WATCH, b"memory/target\0t\0"))
    front.ring.service()
    front.get_bytes()
    assert front.woken == 0
    front.talk.dom0.write("/local/domain/1/memory/target", 1)
    assert front.woken == 1
    assert front.ring.service()
    assert messages(front.get_bytes()) == [(abi.XS_WATCH_EVENT, 0, 0, b"memory/target\0t\0")]
    front.ring.disconnect()
    front.talk.dom0.write("/local/domain/1/memory/target", 2)
    assert front.woken == 1


def test_nothing_beside_its_fields_is_touched(front: Front) -> None:
    before = bytes(front.ram.bytes)
    for start in (0, 1010):
        front.start_at(start)
        front.put(READ_NAME * 3)
        front.ring.service()
    after = bytes(front.ram.bytes)
    size = abi.XenstoreDomainInterface.size
    assert before[:PAGE] + before[PAGE + size :] == after[:PAGE] + after[PAGE + size :]
