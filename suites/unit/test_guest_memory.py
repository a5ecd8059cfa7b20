"""The gate to guest memory against a walk written out in Python: translations, rights, the accessed and dirty bits."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stub.memory import entries as e
from stub.memory.guest import GuestFault, GuestMemory
from stub.memory.ram import Ram
from stub.units import PAGE_SIZE, U64

FRAMES = 24
ROOT = 1
HOLE = range(0xFFFF_8000_0000_0000, 0xFFFF_8800_0000_0000)
SLOTS = (0, 1, 255, 256, 271, 272, 511)

slots = st.sampled_from(SLOTS)
addresses = st.builds(
    lambda l4, l3, l2, l1, offset: sign_extended(l4 << 39 | l3 << 30 | l2 << 21 | l1 << 12 | offset),
    slots, slots, slots, slots, st.integers(0, PAGE_SIZE - 1),
)  # fmt: skip
# a frame beyond memory now and then
tables = st.dictionaries(
    st.tuples(st.integers(ROOT, 8), slots),
    st.tuples(st.integers(0, FRAMES + 1), st.sampled_from([0, e.P, e.P | e.RW, e.P | e.RW | e.US | e.NX])),
    max_size=60,
)


def sign_extended(address: int) -> int:
    return address | (0xFFFF << 48 if address >> 47 else 0)


def filled(content: dict[tuple[int, int], tuple[int, int]]) -> tuple[Ram, GuestMemory]:
    """Memory with these entries in its tables: (frame, slot) → (target, flags)."""
    ram = Ram(FRAMES)
    for (table, slot), (target, flags) in content.items():
        ram.table[table, slot] = target << 12 | flags
    guest = GuestMemory(ram)
    guest.root = ROOT << 12
    return ram, guest


def walk(ram: Ram, vaddr: int, write: bool, anywhere: bool = False) -> int | None:
    """What a byte's machine address is."""
    if 1 << 47 <= vaddr < HOLE.start or (vaddr in HOLE and not anywhere):
        return None
    table, writable = ROOT, True
    for level in (4, 3, 2, 1):
        entry = int(ram.table[table, e.index(vaddr, level)])
        table = entry >> 12 & e.FRAME_MASK
        if not entry & e.P or table >= FRAMES:
            return None
        writable &= bool(entry & e.RW)
    return None if write and not writable else table << 12 | vaddr & (PAGE_SIZE - 1)


@settings(max_examples=300, deadline=None)
@given(tables, st.lists(st.tuples(addresses, st.booleans()), min_size=1, max_size=20))
def test_translations_are_the_tables(
    content: dict[tuple[int, int], tuple[int, int]], asked: list[tuple[int, bool]]
) -> None:
    ram, guest = filled(content)
    for vaddr, write in asked:
        expected = walk(ram, vaddr, write)
        if expected is None:
            with pytest.raises(GuestFault) as fault:
                guest.locate(vaddr, write)
            assert (fault.value.vaddr, fault.value.write) == (vaddr, write)
        else:
            assert guest.locate(vaddr, write) == expected
        anywhere = walk(ram, vaddr, False, True)
        assert len(guest.read_available(vaddr, 1)) == (anywhere is not None)


def mapped(*pages: int) -> tuple[Ram, GuestMemory]:
    """Virtual pages 0, 1, 2 … mapped to these frames, writable; 0: not mapped."""
    content = {(ROOT, 0): (2, e.P | e.RW), (2, 0): (3, e.P | e.RW), (3, 0): (4, e.P | e.RW)}
    ram, guest = filled(content | {(4, i): (frame, e.P | e.RW) for i, frame in enumerate(pages) if frame})
    return ram, guest


def test_a_write_marks_its_page_and_a_read_does_not() -> None:
    ram, guest = mapped(10)
    guest.read(0, 8)
    assert int(ram.table[4, 0]) & (e.A | e.D) == 0
    guest.write(0, b"x")
    assert int(ram.table[4, 0]) & (e.A | e.D) == e.A | e.D


def test_across_pages_it_is_all_or_nothing() -> None:
    ram, guest = mapped(10, 12, 0)
    data = bytes(range(100))
    guest.write(PAGE_SIZE - 40, data)
    assert guest.read(PAGE_SIZE - 40, 100) == data
    assert bytes(ram.pages[10][-40:]) + bytes(ram.pages[12][:60]) == data
    with pytest.raises(GuestFault) as fault:
        guest.write(2 * PAGE_SIZE - 40, data)
    assert fault.value.vaddr == 2 * PAGE_SIZE
    assert not ram.pages[12][-40:].any()
    with pytest.raises(GuestFault):
        guest.read(2 * PAGE_SIZE - 40, 100)
    assert guest.read_available(2 * PAGE_SIZE - 40, 100) == bytes(40)
    assert guest.read(5 * PAGE_SIZE, 0) == b""


def test_numbers_are_little_endian_and_cut() -> None:
    _, guest = mapped(10, 12)
    guest.write_u64(PAGE_SIZE - 4, 0x1122_3344_5566_7788)
    assert guest.read_u64(PAGE_SIZE - 4) == 0x1122_3344_5566_7788
    guest.write_u32(0, -1)
    assert guest.read_u64(0) == 0xFFFF_FFFF
    guest.write_u64(8, 1 << 64 | 5)
    assert guest.read_u32(8) == 5


@pytest.mark.parametrize("vaddr", [-1, 1 << 64, 1 << 200, 1 << 47, U64, HOLE.start, HOLE.stop - 1])
def test_what_is_no_address_faults(vaddr: int) -> None:
    _, guest = mapped(10)
    for access in (guest.locate, guest.read_u64, lambda at: guest.read(at, 3), lambda at: guest.write(at, b"abc")):
        with pytest.raises(GuestFault):
            access(vaddr)


@pytest.mark.parametrize("root", [1, FRAMES << 12, 1 << 63])
def test_a_root_that_is_no_frame_is_refused(root: int) -> None:
    _, guest = mapped(10)
    with pytest.raises(ValueError, match="no such root"):
        guest.root = root
    assert guest.locate_from(ROOT << 12, 5) == 10 << 12 | 5
    with pytest.raises(GuestFault):
        guest.locate_from(FRAMES << 12, 5)
