"""The one walker of page tables against a plain one: four formats, random tables, large pages and all.

The reference reads bytes with ``struct`` and knows each format by its own lines, straight from the manual's figures
(x86 manual, vol. 3, 4-2 to 4-11); it shares nothing with the walker.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stub.memory import entries as e
from stub.memory import forest, mappings, words
from stub.memory.formats import FORMATS, LEGACY, LONG, PAE, RAW, Format
from stub.memory.frames import GUEST, L1, PINNED, FrameTable
from stub.memory.walker import FrameArray, Renumbered, walk

FRAMES = 16
ROOT = 1
SIZE = FRAMES * 4096


class Page(NamedTuple):
    """Where an address leads by the reference: the page's own size, and what may be done there."""

    maddr: int
    size: int
    write: bool
    user: bool
    execute: bool


# -- the reference


def u32(memory: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", memory, at)[0])


def u64(memory: bytes, at: int) -> int:
    return int(struct.unpack_from("<Q", memory, at)[0])


def plain_legacy(memory: bytes, root: int, va: int) -> Page | None:
    pde = u32(memory, (root & 0xFFFFF000) + (va >> 22) * 4)
    if not pde & 1:
        return None
    if pde & 0x80:
        base = pde & 0xFFC00000 | (pde >> 13 & 0xFF) << 32
        return Page(base + (va & 0x3FFFFF), 1 << 22, bool(pde & 2), bool(pde & 4), True)
    if (pde & 0xFFFFF000) >= SIZE:
        return None
    pte = u32(memory, (pde & 0xFFFFF000) + (va >> 12 & 0x3FF) * 4)
    if not pte & 1:
        return None
    return Page((pte & 0xFFFFF000) + (va & 0xFFF), 4096, bool(pde & pte & 2), bool(pde & pte & 4), True)


def plain_pae(memory: bytes, root: int, va: int) -> Page | None:
    pdpte = u64(memory, (root & 0xFFFFFFE0) + (va >> 30) * 8)
    table = pdpte & 0x000FFFFFFFFFF000
    if not pdpte & 1 or table >= SIZE:
        return None
    pde = u64(memory, table + (va >> 21 & 0x1FF) * 8)
    if not pde & 1:
        return None
    if pde & 0x80:
        maddr = (pde & 0x000FFFFFFFE00000) + (va & 0x1FFFFF)
        return Page(maddr, 1 << 21, bool(pde & 2), bool(pde & 4), not pde >> 63)
    table = pde & 0x000FFFFFFFFFF000
    if table >= SIZE:
        return None
    pte = u64(memory, table + (va >> 12 & 0x1FF) * 8)
    if not pte & 1:
        return None
    maddr = (pte & 0x000FFFFFFFFFF000) + (va & 0xFFF)
    return Page(maddr, 4096, bool(pde & pte & 2), bool(pde & pte & 4), not (pde | pte) >> 63)


def plain_long(memory: bytes, root: int, va: int) -> Page | None:
    table, together, never = root & 0x000FFFFFFFFFF000, 7, 0
    for shift, mask in ((39, 0), (30, 0x000FFFFFC0000000), (21, 0x000FFFFFFFE00000), (12, 0x000FFFFFFFFFF000)):
        if table >= SIZE:
            return None
        entry = u64(memory, table + (va >> shift & 0x1FF) * 8)
        if not entry & 1:
            return None
        together, never = together & entry, never | entry >> 63
        if shift == 12 or (mask and entry & 0x80):
            maddr = (entry & mask) + (va & (1 << shift) - 1)
            return Page(maddr, 1 << shift, bool(together & 2), bool(together & 4), not never)
        table = entry & 0x000FFFFFFFFFF000
    raise AssertionError("the last level always ends it")


PLAIN: dict[str, Callable[[bytes, int, int], Page | None]] = {
    "legacy": plain_legacy,
    "pae": plain_pae,
    "long": plain_long,
    "raw": plain_long,
}


# -- random tables

Entries = list[tuple[int, int, int, int]]  # table, slot, frame named, flags
FEW_SLOTS = [0, 1, 2, 255, 256, 511]  # so that entries meet
FLAGS = st.sampled_from([0, 1, 3, 5, 7, 0x83, 0x85, 0x87, 0x107, 0x80])
TARGETS = st.one_of(st.integers(2, 6), st.integers(0, FRAMES + 2), st.sampled_from([0x400, 0x12345, 0xFFFFF]))
CONTENT = st.lists(st.tuples(st.integers(1, 6), st.sampled_from(FEW_SLOTS), TARGETS, FLAGS), max_size=10)


def built(fmt: Format, content: Entries, high: int = 0) -> FrameArray:
    """Tables in memory of FRAMES frames. A PAE root has 4 entries, so its slots are cut to them."""
    table = np.zeros((FRAMES, 512), dtype=np.uint64)
    small = table.view("<u4")
    for number, slot, target, flags in content:
        if fmt.entry_size == 4:
            small[number, slot * 2] = (target << 12 | flags) & 0xFFFFFFFF
        else:
            table[number, slot & 3 if fmt is PAE and number == ROOT else slot] = target << 12 | flags | high
    return FrameArray(table)


def addresses(fmt: Format, memory: FrameArray) -> Iterator[int]:
    """Every address that begins a page by the reference, found by asking at each slot that any table uses."""
    stack = [(0, fmt.levels)]
    size, raw = fmt.entry_size, memory.table.tobytes()
    read = u32 if size == 4 else u64
    used = sorted(
        {slot for table in range(1, 7) for slot in range(4096 // size) if read(raw, table * 4096 + slot * size)}
    )
    while stack:
        base, levels = stack.pop()
        if not levels:
            yield base
            continue
        for slot in used:
            if slot < levels[0].entries:
                stack.append((base | slot << levels[0].shift, levels[1:]))


@pytest.mark.parametrize("name", FORMATS)
@given(content=CONTENT, never=st.booleans())
@settings(max_examples=80, deadline=None)
def test_a_walk_is_the_plain_walk(name: str, content: Entries, never: bool) -> None:
    fmt = FORMATS[name]
    memory = built(fmt, content, e.NX if never and fmt.entry_size == 8 else 0)
    raw = memory.table.tobytes()
    root = ROOT << 12
    for base in list(addresses(fmt, memory))[:600]:
        vaddr = base + 0x123
        expected = PLAIN[name](raw, root, vaddr)
        found = walk(memory, fmt, root, fmt.canonical(vaddr))
        if expected is None or (expected.maddr & -expected.size) >> 12 >= FRAMES:
            assert not found.found
            continue
        assert found.found, found.why
        assert (found.maddr, found.size) == (expected.maddr, expected.size)
        assert bool(found.rights & e.RW) == expected.write
        assert bool(found.rights & e.US) == expected.user
        assert bool(found.rights & e.NX) != expected.execute


@pytest.mark.parametrize("name", FORMATS)
@given(content=CONTENT, never=st.booleans())
@settings(max_examples=80, deadline=None)
def test_all_mappings_are_those_of_the_plain_walk(name: str, content: Entries, never: bool) -> None:
    fmt = FORMATS[name]
    memory = built(fmt, content, e.NX if never and fmt.entry_size == 8 else 0)
    raw = memory.table.tobytes()
    expected = {}
    for base in addresses(fmt, memory):
        page = PLAIN[name](raw, ROOT << 12, base)
        if page is not None:
            start = base & ~(page.size - 1)
            expected[fmt.canonical(start)] = page._replace(maddr=page.maddr & ~(page.size - 1))
    found = mappings.mappings(memory, fmt, ROOT << 12)
    assert found.vaddr.tolist() == sorted(expected)
    assert not found.cut
    for vaddr, rights, size, frame in zip(*(getattr(found, c).tolist() for c in ("vaddr", "rights", "size", "frame")), strict=True):  # fmt: skip  # noqa: E501
        page = Page(frame << 12, size, bool(rights & e.RW), bool(rights & e.US), not rights & e.NX)
        assert page == expected[vaddr]


@pytest.mark.parametrize("name", FORMATS)
@given(content=CONTENT, target=st.one_of(st.integers(0, FRAMES - 1), st.sampled_from([0x400, 0x401, 0x12345])))
@settings(max_examples=80, deadline=None)
def test_who_maps_a_frame_is_what_maps_it(name: str, content: Entries, target: int) -> None:
    """The reverse map and the forward one agree about every frame, through large pages too."""
    fmt = FORMATS[name]
    memory = built(fmt, content)
    levels = forest.reach(memory, fmt, np.array([ROOT << 12]))
    trees = forest.Forest(memory, fmt, levels)
    forward = mappings.mappings(memory, fmt, ROOT << 12)
    if fmt.xen_slots:  # Xen's entries are nobody's mappings
        slot = forward.vaddr >> np.uint64(39) & np.uint64(511)
        forward = forward.only((slot < fmt.xen_slots.start) | (slot >= fmt.xen_slots.stop))
        skipped = forest.reach(memory, fmt, np.array([ROOT << 12]), skip=fmt.xen_slots)
        trees = forest.Forest(memory, fmt, skipped)
    first, pages = forward.frame, forward.size.astype(np.int64) >> 12
    expected = set(forward.vaddr[(first <= target) & (target < first + pages)].tolist())
    found = set()
    for level in fmt.levels:
        rows = [row for row in trees.mappers(target, level.number) if row.leaf]
        places = trees.places(level.number, {row.table for row in rows})
        for row in rows:
            found |= {fmt.canonical(base | row.slot << level.shift) for base, _ in places[row.table]}
    assert found == expected


def test_tables_are_counted_once_at_each_level() -> None:
    """One PML4, two PDPTs, four PDs, one page table: the hand-built layout of a boot loader."""
    table = np.zeros((FRAMES, 512), dtype=np.uint64)
    flags = e.P | e.RW
    table[1, 0], table[1, 511] = 2 << 12 | flags, 3 << 12 | flags
    for slot, target in ((0, 4), (1, 5), (2, 6)):
        table[2, slot] = target << 12 | flags
    table[3, 511] = 7 << 12 | flags
    table[4, 0] = 8 << 12 | flags
    table[4, 1] = 0x200 << 12 | flags | e.PSE
    table[8, 1] = 1 << 12 | flags
    found = forest.reach(FrameArray(table), RAW, np.array([1 << 12]))
    assert {level: len(frames) for level, frames in found.items()} == {4: 1, 3: 2, 2: 4, 1: 1}


def test_tables_that_map_each_other_are_cut_in_time() -> None:
    for fmt in (LONG, LEGACY):
        table = np.zeros((8, 512), dtype=np.uint64)
        words_, flags = table.view("<u4") if fmt is LEGACY else table, e.P | e.RW | e.US
        for number in (1, 2, 3, 4):
            words_[number, :] = number % 4 + 1 << 12 | flags
        began = time.monotonic()
        found = mappings.mappings(FrameArray(table), fmt, 1 << 12)
        assert found.cut == (fmt is LONG)
        assert len(found) == (mappings.MAX_MAPPINGS if fmt is LONG else 1 << 20)
        levels = forest.reach(FrameArray(table), fmt, np.array([1 << 12]))
        assert [tables.tolist() for tables in levels.values()] == [[1], [2], [3], [4]][: len(levels)]
        assert time.monotonic() - began < 20


def test_a_32_byte_root_may_begin_anywhere_in_its_page() -> None:
    table = np.zeros((FRAMES, 512), dtype=np.uint64)
    table[1, 4 * 3 + 1] = 2 << 12 | e.P  # the second entry of the fourth root in the page
    table[2, 7] = 3 << 12 | e.P | e.RW
    table[3, 9] = 4 << 12 | e.P | e.RW | e.NX
    vaddr, root = 1 << 30 | 7 << 21 | 9 << 12 | 0x45, (1 << 12) + 3 * 32
    found = walk(FrameArray(table), PAE, root, vaddr)
    assert (found.maddr, found.access) == (0x4045, "kernel rw-"), "the root's entries have no rights to take away"
    assert mappings.mappings(FrameArray(table), PAE, root).vaddr.tolist() == [vaddr & ~0xFFF]
    assert not walk(FrameArray(table), PAE, 1 << 12, vaddr).found
    assert forest.reach(FrameArray(table), PAE, np.array([root, 1 << 12]))[1].tolist() == [3]


def test_a_4_mib_page_may_lie_above_4_gib() -> None:
    table = np.zeros((FRAMES, 512), dtype=np.uint64)
    table.view("<u4")[1, 3] = 0xC0000000 | 0x5 << 13 | e.P | e.PSE
    found = mappings.mappings(FrameArray(table), LEGACY, 1 << 12)
    assert (found.vaddr.tolist(), found.frame.tolist(), found.size.tolist()) == ([3 << 22], [0x5C0000], [1 << 22])
    assert len(found.small()) == 1024
    assert found.small().frame.tolist() == list(range(0x5C0000, 0x5C0400))


def test_tables_that_hold_pfns_are_read_with_the_p2m() -> None:
    """A loader's tables before it has looked its frames up: entries name PFNs, and the walk finds PFNs."""
    numbers = np.array([3, 5, 2, 9, -1, 7])
    table = np.zeros((FRAMES, 512), dtype=np.uint64)
    for pfn, target in ((0, 1), (1, 2), (2, 3), (3, 5)):
        table[numbers[pfn], 0] = target << 12 | e.P | e.RW
    memory = Renumbered(FrameArray(table), numbers)
    found = walk(memory, RAW, 0, 0x10)
    assert [step.table for step in found.steps] == [0, 1, 2, 3]
    assert found.maddr == 0x5010
    assert mappings.mappings(memory, RAW, 0).frame.tolist() == [5]
    table[numbers[2], 0] = 4 << 12 | e.P
    assert walk(memory, RAW, 0, 0x10).why == "the L2 entry names mfn 0x4, whose content is not kept here"


@pytest.mark.parametrize(
    ("written", "level"),
    [
        (e.P | e.RW | 0x5000, 1),
        (e.P | e.RW | e.US | 0x5000, 1),
        (e.P | e.G | e.NX | 0x5000, 1),
        (e.RW | 0x5000, 1),
        (e.P | e.RW | e.US | e.A | 0x5000, 3),
        (0, 4),
    ],
)
def test_what_the_guest_meant_is_what_it_wrote(written: int, level: int) -> None:
    """Of an upper entry US cannot be told; of a user page G cannot."""
    stored = e.adjust_l1e(written) if level == 1 else e.adjust_upper(written, level)
    assert LONG.meant(stored, level) == written
    assert RAW.meant(stored, level) == stored


def test_marks_in_a_pae_root_are_taken_away() -> None:
    assert PAE.meant(0x5000 | e.P | e.RW | e.US | e.A, 3) == 0x5000 | e.P
    assert PAE.meant(0x5000 | e.P | e.RW | e.US | e.A, 2) == 0x5000 | e.P | e.RW | e.US | e.A


def test_addresses_of_each_format() -> None:
    assert LONG.is_address(0xFFFF800000000000)
    assert not LONG.is_address(0x0000800000000000)
    assert not LONG.is_address(1 << 64)
    assert LEGACY.is_address(0xFFFFFFFF)
    assert not PAE.is_address(1 << 32)
    assert LONG.canonical(0x0000FF8000000000) == 0xFFFFFF8000000000
    assert PAE.canonical(0xFFFFFFFF) == 0xFFFFFFFF


def test_a_walk_says_why_it_ends() -> None:
    memory = built(LONG, [(1, 0, 2, 7), (2, 0, FRAMES + 1, 7), (2, 1, 3, 7), (3, 0, 4, 7), (4, 0, FRAMES, 7)])
    assert walk(memory, LONG, 1 << 12, 1 << 39).why == "the L4 entry is not present"
    assert walk(memory, LONG, 1 << 12, 0).why == f"the L3 entry names mfn {FRAMES + 1:#x}, beyond machine memory"
    assert walk(memory, LONG, 1 << 12, 1 << 30).why == f"the L1 entry names mfn {FRAMES:#x}, beyond machine memory"
    beyond = walk(memory, LONG, FRAMES << 12, 0)
    assert (beyond.steps, beyond.why) == ((), f"the root is mfn {FRAMES:#x}, beyond machine memory")


def test_entries_and_frames_in_words() -> None:
    assert words.flags(e.P | e.PSE | e.GUEST_KERNEL | e.NX | 3 << 9, 2) == "P PSE AVL=0x3 KERNEL NX"
    assert words.flags(e.P | e.PSE | e.GUEST_KERNEL, 1, marked=False) == "P PAT high=0x1"
    assert words.flags(0, 1) == "-"
    frames = FrameTable(4)
    frames.give_one(1)
    frames.type[1], frames.type_count[1], frames.flags[1] = L1, 2, PINNED
    assert frames.owner[1] == GUEST
    assert words.frame(frames, 1) == "type l1 count 2, refs 1, pinned"
    assert words.frame(frames, 2) == "free"
    assert words.frame(frames, 4) == "beyond machine memory, which ends at mfn 0x4"
    assert [words.size(size) for size in (4096, 1 << 21, 3 << 30, (1 << 21) + 4096)] == ["4K", "2M", "3G", "2052K"]
