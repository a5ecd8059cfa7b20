"""memory_op's reservations: frames given back, taken and exchanged in blocks, and every frame accounted for."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stub.abi import memory as abi
from stub.abi.errno import ENOMEM
from stub.abi.xen import DOMID_SELF
from stub.domain.config import DomainConfig
from stub.hypervisor.hypercalls import reservation as memory
from stub.machine import Machine
from stub.memory.frames import FREE, GUEST, FrameTable
from suites.boot.small_guest import SPIN, kernel

pytestmark = pytest.mark.usefixtures("pv_engine")

MEMORY_MIB = 32


@given(st.sets(st.integers(0, 63)), st.integers(0, 3), st.integers(0, 20))
def test_blocks_are_aligned_free_and_given_back(free: set[int], order: int, count: int) -> None:
    frames = FrameTable(64)
    frames.free = dict.fromkeys(free)
    size = 1 << order
    possible = [first for first in range(0, 64, size) if free >= set(range(first, first + size))]
    blocks = frames.take(order, count)
    assert len(blocks) == min(count, len(possible))
    assert all(block.start in possible and len(block) == size for block in blocks)
    taken = [mfn for block in blocks for mfn in block]
    assert len(set(taken)) == len(taken)
    assert set(frames.free) == free - set(taken)
    frames.untake(blocks)
    assert set(frames.free) == free


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Machine]:
    """A guest that does nothing; its hypercalls are made for it."""
    with Machine(DomainConfig(kernel=kernel(tmp_path, SPIN), memory=MEMORY_MIB)) as made:
        assert made.run(deadline_ns=1000) is None
        yield made


class Lists:
    """Where a guest's extent lists lie: pages behind its boot stack, which are mapped."""

    def __init__(self, made: Machine) -> None:
        self.memory = made.xen.domain.guest
        self.next = made.xen.domain.layout.stack.vaddr + 0x2000

    def put(self, data: bytes) -> int:
        at, self.next = self.next, self.next + len(data) + 15 & ~15
        self.memory.write(at, data)
        return at

    def numbers(self, values: list[int]) -> int:
        return self.put(struct.pack(f"<{len(values)}Q", *values))

    def reservation(self, values: list[int], order: int = 0) -> bytes:
        return abi.XenMemoryReservation64.pack(
            extent_start=self.numbers(values), nr_extents=len(values), extent_order=order, domid=DOMID_SELF
        )


def unused(made: Machine, count: int) -> list[int]:
    """PFNs at the end of memory, which nothing maps."""
    return list(range(made.xen.domain.layout.nr_pages - count, made.xen.domain.layout.nr_pages))


def accounted(made: Machine) -> None:
    """Free frames are nobody's and hold no reference; all that were the guest's are its own or free."""
    frames = made.xen.domain.frames
    assert all(frames.owner[mfn] == FREE and frames.refs[mfn] == 0 for mfn in frames.free)
    owned = sum(1 for mfn in made.xen.domain.p2m.tolist() if frames.owner[mfn] == GUEST)
    assert owned + len(frames.free) == made.xen.domain.layout.nr_pages


def test_thousands_given_back_and_taken(guest: Machine) -> None:
    """In blocks of one and of many; what cannot be had in blocks is not had."""
    lists, xen = Lists(guest), guest.xen
    pfns = unused(guest, 3000)
    mfns = [int(xen.domain.p2m[pfn]) for pfn in pfns]
    xen.start_extent = 0
    assert memory.decrease_reservation(xen, lists.put(lists.reservation(mfns))) == 3000
    assert len(xen.domain.frames.free) == 3000
    accounted(guest)
    whole = [
        first
        for first in range(0, xen.domain.frames.frames, 4)
        if all(first + i in xen.domain.frames.free for i in range(4))
    ]
    request = lists.put(lists.reservation(pfns[: len(whole) + 5], order=2))
    assert memory.populate_physmap(xen, request) == len(whole)
    assert len(xen.domain.frames.free) == 3000 - 4 * len(whole)
    accounted(guest)
    rest = 3000 - 4 * len(whole)
    assert memory.populate_physmap(xen, lists.put(lists.reservation(pfns[:rest]))) == rest
    assert not xen.domain.frames.free
    accounted(guest)


def test_a_list_that_ends_early_takes_no_more(guest: Machine) -> None:
    """Ten frames are free, and the guest's list of PFNs breaks off after three."""
    lists, xen = Lists(guest), guest.xen
    pfns = unused(guest, 10)
    mfns = [int(xen.domain.p2m[pfn]) for pfn in pfns]
    xen.start_extent = 0
    assert memory.decrease_reservation(xen, lists.put(lists.reservation(mfns))) == 10
    end = xen.domain.layout.region.vaddr + xen.domain.layout.region.pages * 4096
    xen.domain.guest.write(end - 24, struct.pack("<3Q", *pfns[:3]))
    request = abi.XenMemoryReservation64.pack(extent_start=end - 24, nr_extents=10, domid=DOMID_SELF)
    assert memory.populate_physmap(xen, lists.put(request)) == 3
    assert len(xen.domain.frames.free) == 7
    accounted(guest)


def exchange(lists: Lists, given: bytes, wanted: bytes) -> int:
    """An exchange's argument."""
    return lists.put(given + wanted + bytes(8))


def test_an_exchange_makes_a_block(guest: Machine) -> None:
    """Frames that lie apart, given with as many more as make the block free, for one that is contiguous."""
    lists, xen = Lists(guest), guest.xen
    domain = xen.domain
    by_mfn = {int(domain.p2m[pfn]): pfn for pfn in unused(guest, 4000)}
    first = next(mfn for mfn in sorted(by_mfn) if mfn % 4 == 0 and all(mfn + i in by_mfn for i in range(4)))
    out = list(range(first, first + 4))
    pfns = [by_mfn[mfn] for mfn in out]
    wanted = lists.reservation([pfns[0]], order=2)
    assert memory.exchange(xen, exchange(lists, lists.reservation(out[::-1]), wanted)) == 0
    got = domain.guest.read_u64(abi.XenMemoryReservation64.unpack_from(wanted).extent_start)
    assert got == first
    assert [domain.m2p(mfn) for mfn in out] == [pfns[0] + i for i in range(4)]
    accounted(guest)


def test_an_exchange_that_cannot_be_changes_nothing(guest: Machine) -> None:
    lists, xen = Lists(guest), guest.xen
    domain = xen.domain
    by_mfn = {int(domain.p2m[pfn]): pfn for pfn in unused(guest, 4000)}
    out = [mfn for mfn in sorted(by_mfn) if mfn % 4 == 1][:4]
    before = [domain.m2p(mfn) for mfn in out]
    wanted = lists.reservation([by_mfn[out[0]]], order=2)
    assert memory.exchange(xen, exchange(lists, lists.reservation(out), wanted)) == -ENOMEM
    assert [domain.m2p(mfn) for mfn in out] == before
    assert not domain.frames.free
    accounted(guest)
