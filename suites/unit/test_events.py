"""Event channels without a guest: back ends' ends, several vCPUs, many ports, and no event lost whatever the order."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stub.abi.event_channel import EvtchnFifoControlBlock
from stub.abi.xen import SharedInfo32, SharedInfo64, VcpuInfo32, VcpuInfo64
from stub.hypervisor.event_fifo import BUSY, LINKED, MASKED, PENDING, WORDS_PER_PAGE
from stub.hypervisor.event_ports import FREE, INTERDOMAIN, IPI, UNBOUND, Port
from stub.hypervisor.events import EventChannels
from stub.memory.ram import Ram
from stub.units import PAGE_SIZE

SHARED, ARRAY, SECOND = 1, 8, 9  # frames
CONTROL = (4, 5)  # of each vCPU
FRAMES = 16
DOMID = 1
LINK = (1 << 17) - 1
READY, HEAD = (EvtchnFifoControlBlock.offset(field) // 4 for field in ("ready", "head"))


class Domain:
    """A domain's channels, and the memory that they are in."""

    def __init__(self, bits: int = 64, vcpus: int = 2, fifo: bool = False) -> None:
        self.ram = Ram(FRAMES)
        self.words = self.ram.bytes.cast("I")
        self.info_at = [SHARED * PAGE_SIZE + 64 * number for number in range(vcpus)]
        told: Any = [SimpleNamespace(info_at=at) for at in self.info_at]
        self.events = EventChannels(self.ram, SHARED, told, bits, DOMID, 1023)
        self.polled: list[int] = []
        self.events.polled = self.polled.append
        if fifo:
            self.events.init_control(0, CONTROL[0] * PAGE_SIZE)
            self.grow(ARRAY)

    def grow(self, frame: int) -> None:
        fifo = self.events.fifo
        assert fifo is not None
        self.events.expand_array(fifo, frame)

    def ipi(self, vcpu: int = 0) -> Port:
        port = self.events.free_port()
        assert port is not None
        self.events.open(port, IPI, vcpu=vcpu)
        return port

    def upcalls(self) -> list[int]:
        """Each vCPU's upcall byte, which is then cleared."""
        found = [self.ram.bytes[at] for at in self.info_at]
        for at in self.info_at:
            self.ram.bytes[at] = 0
        return found

    def heads(self, vcpu: int = 0) -> dict[int, int]:
        """The heads of the queues that are ready."""
        block = CONTROL[vcpu] * WORDS_PER_PAGE
        return {i: self.words[block + HEAD + i] for i in range(16) if self.words[block + READY] >> i & 1}

    def word(self, port: Port) -> int:
        return self.words[ARRAY * WORDS_PER_PAGE + port.number]


def test_a_back_end_binds_to_a_port_that_waits_for_it() -> None:
    domain, rung = Domain(), []
    events = domain.events
    port = domain.ipi()
    assert events.connect(port.number, lambda: None) is None
    assert events.connect(99, lambda: None) is None
    events.close(port)
    events.open(port, UNBOUND, remote_domain=DOMID)
    assert events.connect(port.number, lambda: None) is None
    events.open(port, UNBOUND, remote_domain=0)
    end = events.connect(port.number, lambda: rung.append(1))
    assert end is not None
    assert (port.state, port.peer, end.port) == (INTERDOMAIN, end, port)
    events.send(port)
    assert rung == [1]
    assert not events.is_pending(port)
    end.signal()
    assert events.is_pending(port)
    assert domain.upcalls() == [1, 0]
    end.close()
    assert (port.state, port.peer, port.remote_domain) == (UNBOUND, None, 0)
    assert events.far_end(end.number) is None
    events.send(port)
    end.signal()
    assert rung == [1]


def test_a_back_ends_end_outlives_the_guests() -> None:
    """The guest closes its port and binds another one to what is left; the number in domain 0 is the same."""
    domain = Domain()
    events = domain.events
    first = domain.ipi()
    events.open(first, UNBOUND)
    end = events.connect(first.number, lambda: None)
    assert end is not None
    events.close(first)
    assert (first.state, end.port) == (FREE, None)
    end.signal()
    second = domain.ipi()
    third = domain.ipi()
    assert events.far_end(end.number) is end
    events.connect_ports(third, end)
    assert events.is_pending(third)
    assert not events.is_pending(second)
    domain.events.abi.clear_pending(third)
    end.signal()
    assert events.is_pending(third)


@pytest.mark.parametrize(("bits", "shared", "info"), [(64, SharedInfo64, VcpuInfo64), (32, SharedInfo32, VcpuInfo32)])
def test_the_two_level_abi_by_width(bits: int, shared: Any, info: Any) -> None:
    """A port's bit, its selector's bit in the vCPU that is told, and that vCPU's upcall byte."""
    domain = Domain(bits)
    port = [domain.ipi(vcpu=1) for _ in range(200)][-1]
    domain.events.raise_port(port)
    memory = domain.ram.bytes
    at = SHARED * PAGE_SIZE + shared.offset("evtchn_pending") + port.number // 8
    assert memory[at] == 1 << port.number % 8
    assert domain.events.two_level.selector(domain.events.vcpus[1]) == 1 << port.number // bits
    assert info.unpack_from(memory, domain.info_at[1]).evtchn_pending_sel == 1 << port.number // bits
    assert domain.upcalls() == [0, 1]
    assert domain.polled == [port.number]
    memory[at + shared.offset("evtchn_mask") - shared.offset("evtchn_pending")] = 0xFF
    assert domain.events.abi.is_masked(port)
    domain.events.raise_port(port)
    assert domain.polled == [port.number]


@pytest.mark.parametrize(("bits", "fifo", "last"), [(32, False, 1023), (64, False, 4095), (64, True, 4999)])
def test_the_number_of_ports(bits: int, fifo: bool, last: int) -> None:
    domain = Domain(bits, fifo=fifo)
    domain.events.max_port = 4999
    ports = [domain.ipi() for _ in range(last)]
    assert ports[-1].number == last
    assert domain.events.free_port() is None


def test_a_second_array_page_and_the_way_back() -> None:
    domain = Domain(fifo=True)
    events = domain.events
    events.max_port = 1 << 16
    port = [domain.ipi() for _ in range(1030)][-1]
    events.raise_port(port)
    assert (port.pending, events.is_pending(port)) == (True, False)
    domain.grow(SECOND)
    assert events.is_pending(port)
    assert domain.words[SECOND * WORDS_PER_PAGE + port.number - 1024] == PENDING | LINKED
    assert domain.heads() == {7: port.number}
    assert events.reset() == [CONTROL[0], ARRAY, SECOND]
    assert list(events.in_use()) == []
    assert events.fifo is None


def test_a_vcpu_without_a_control_block_hears_nothing() -> None:
    domain = Domain(fifo=True)
    events = domain.events
    port = domain.ipi(vcpu=1)
    events.raise_port(port)
    assert (domain.word(port), domain.polled, domain.upcalls()) == (0, [], [0, 0])
    events.init_control(1, CONTROL[1] * PAGE_SIZE)
    events.raise_port(port)
    assert domain.heads(1) == {7: port.number}
    assert domain.heads(0) == {}
    assert domain.upcalls() == [0, 1]


def test_a_port_that_changes_its_vcpu_leaves_no_tail_behind() -> None:
    """As a tail of vCPU 0's queue it was taken out; on vCPU 1's, vCPU 0's next event must not be linked behind it."""
    domain = Domain(fifo=True)
    events = domain.events
    events.init_control(1, CONTROL[1] * PAGE_SIZE)
    moved, stays = domain.ipi(), domain.ipi()
    events.raise_port(moved)
    domain.words[ARRAY * WORDS_PER_PAGE + moved.number] = 0
    moved.vcpu = 1
    events.raise_port(moved)
    events.raise_port(stays)
    assert domain.heads(0)[7] == stays.number
    assert domain.heads(1) == {7: moved.number}
    assert domain.word(moved) == PENDING | LINKED


def test_virqs_of_a_vcpu_and_of_the_domain() -> None:
    domain = Domain()
    events = domain.events
    ports = [domain.ipi() for _ in range(3)]
    for port in ports:
        events.close(port)
    own, other, both = ports
    events.bind_virq(own, 0, 0)
    events.bind_virq(other, 0, 1)
    events.bind_virq(both, 2, 0)
    assert (events.virq_port(0, 0), events.virq_port(0, 1), events.virq_port(2, 1)) == (own, other, both)
    both.vcpu = 1
    events.raise_virq(2)
    assert domain.upcalls() == [0, 1]
    events.raise_virq(7)
    assert domain.upcalls() == [0, 0]
    events.close(both)
    events.close(other)
    assert (events.virq_port(2), events.virq_port(0, 1), events.virq_port(0)) == (None, None, own)


# -- whatever the order

PORTS = 6
numbers = st.integers(0, PORTS - 1)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("raise"), numbers, st.just(0)),
        st.tuples(st.just("mask"), numbers, st.just(0)),
        st.tuples(st.just("unmask"), numbers, st.just(0)),
        st.tuples(st.just("priority"), numbers, st.integers(0, 3)),
        st.tuples(st.just("take"), st.just(0), st.integers(1, 3)),
    ),
    max_size=60,
)


class Consumer:
    """A guest's event loop, that may be interrupted between two events."""

    def __init__(self, domain: Domain) -> None:
        self.words, self.block = domain.words, CONTROL[0] * WORDS_PER_PAGE
        self.next = [0] * 16
        self.ready = 0
        self.taken: list[int] = []

    def take(self, most: int = 1000) -> None:
        for _ in range(most):
            self.ready |= self.words[self.block + READY]
            self.words[self.block + READY] = 0
            if not self.ready:
                return
            self._one((self.ready & -self.ready).bit_length() - 1)
        assert most < 1000, "an endless queue"

    def _one(self, priority: int) -> None:
        port = self.next[priority] or self.words[self.block + HEAD + priority]
        at = ARRAY * WORDS_PER_PAGE + port
        word = self.words[at]
        self.words[at] = word & ~(LINKED | LINK)
        self.next[priority] = word & LINK
        if not self.next[priority]:
            self.ready &= ~(1 << priority)
        if word & PENDING and not word & MASKED:
            self.words[at] &= ~PENDING
            self.taken.append(port)


@given(steps)
@settings(max_examples=100, deadline=None)
def test_no_event_of_a_sound_guest_is_lost_or_doubled(script: list[tuple[str, int, int]]) -> None:
    domain = Domain(fifo=True)
    ports = [domain.ipi() for _ in range(PORTS)]
    guest = Consumer(domain)
    wanted: set[int] = set()
    for action, number, value in script:
        port = ports[number]
        if action == "raise":
            domain.events.raise_port(port)
            wanted.add(port.number)
        elif action == "mask":
            domain.words[ARRAY * WORDS_PER_PAGE + port.number] |= MASKED
        elif action == "unmask":
            domain.events.abi.unmask(port)
        elif action == "priority":
            port.priority = value
        else:
            guest.take(value)
        assert wanted >= set(guest.taken)
        assert len(guest.taken) == len(set(guest.taken))
        wanted -= set(guest.taken)
        guest.taken.clear()
    for port in ports:
        domain.events.abi.unmask(port)
    guest.take()
    assert sorted(guest.taken) == sorted(wanted)
    assert not any(domain.events.is_pending(port) for port in ports)


scribbles = st.lists(
    st.tuples(
        st.sampled_from(("word", "head", "ready", "raise", "unmask", "close", "open", "grow", "move")),
        st.integers(0, 40),
        st.one_of(st.integers(0, (1 << 32) - 1), st.sampled_from([PENDING, MASKED, LINKED, BUSY, LINKED | LINK])),
    ),
    max_size=80,
)


@given(scribbles)
@settings(max_examples=100, deadline=None)
def test_whatever_the_guest_writes_only_its_pages_change(script: list[tuple[str, int, int]]) -> None:
    """The event array, the control blocks and the upcall bytes; and the array never gets a page that was not given."""
    domain = Domain(fifo=True)
    events = domain.events
    events.init_control(1, CONTROL[1] * PAGE_SIZE)
    for _ in range(4):
        domain.ipi()
    for action, number, value in script:
        port = events.ports[number]
        if action == "word":
            domain.words[ARRAY * WORDS_PER_PAGE + number] = value
        elif action in ("head", "ready"):
            place = READY if action == "ready" else HEAD + number % 16
            domain.words[CONTROL[number % 2] * WORDS_PER_PAGE + place] = value
        elif action == "raise":
            events.raise_port(port)
        elif action == "unmask" and port.in_use:
            events.abi.unmask(port)
        elif action == "close" and port.in_use:
            events.close(port)
        elif action == "open":
            free = events.free_port()
            if free is not None:
                events.open(free, IPI, vcpu=value % 2)
        elif action == "grow":
            domain.grow(SECOND)
        elif action == "move":
            port.priority, port.vcpu = value % 16, number % 2
    ours = {ARRAY, SECOND, *CONTROL}
    for frame in set(range(FRAMES)) - ours:
        page = bytearray(domain.ram.bytes[frame * PAGE_SIZE : (frame + 1) * PAGE_SIZE])
        if frame == SHARED:
            page[0] = page[64] = 0
        assert not any(page), f"frame {frame}"
