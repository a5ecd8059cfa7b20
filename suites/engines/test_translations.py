"""After a flush, or with a new CR3, the CPU sees what the page tables say, whatever it had seen before."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from stub.domain.config import DomainConfig
from stub.engine.base import CR3, FLUSH, R8, RDI
from stub.machine import Machine
from stub.memory import entries as e
from stub.units import PAGE_SIZE
from suites.boot.small_guest import CODE, DATA_OFFSET, kernel

# mov $data, %rdi; 1: mov (%rdi), %r8; mov 0x1000(%rdi), %r9; jmp 1b
READS = b"\x48\xbf" + struct.pack("<Q", CODE + DATA_OFFSET) + b"\x4c\x8b\x07\x4c\x8b\x8f\x00\x10\x00\x00\xeb\xf4"
WRITES = READS[:10] + b"\x4c\x89\x07\xeb\xfb"  # 1: mov %r8, (%rdi); jmp 1b
DATA = CODE + DATA_OFFSET
OFFSET = DATA % PAGE_SIZE


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Machine]:
    """A guest that reads its data for ever, and has done so."""
    with Machine(DomainConfig(kernel=kernel(tmp_path, READS), memory=32)) as made:
        made.run(deadline_ns=1000)
        yield made


def table_of(made: Machine, vaddr: int, level: int, root: int | None = None) -> int:
    """The frame of the table at ``level`` that translates an address."""
    table = made.xen.words[CR3] >> 12 if root is None else root
    for above in range(4, level, -1):
        table = int(made.xen.domain.ram.table[table, e.index(vaddr, above)]) >> 12 & e.FRAME_MASK
    return table


def spare(made: Machine, number: int) -> int:
    """A frame that nothing uses; its word at the data's place is ``number``."""
    frame = int(made.xen.domain.p2m[-1 - number])
    made.xen.domain.ram.table[frame] = 0
    made.xen.domain.ram.table[frame, OFFSET // 8] = number
    return frame


def seen(made: Machine) -> int:
    """What the guest reads a little later."""
    made.run(deadline_ns=made.now_ns + 1000)
    return made.xen.words[R8]


def entry(made: Machine, level: int) -> tuple[int, int]:
    """Where the entry at ``level`` for the data is: (frame, slot)."""
    return table_of(made, DATA, level), e.index(DATA, level)


def test_another_frame_is_seen_after_a_flush(guest: Machine) -> None:
    ram = guest.xen.domain.ram
    at = entry(guest, 1)
    before = int(ram.table[at])
    assert seen(guest) == 1 << 32, "the numbers 0 and 1"
    for number in (7, 8, 9):
        ram.table[at] = before & ~e.ADDRESS_MASK | spare(guest, number) << 12
        code = guest.xen.domain.ram.pages[int(ram.table[at]) >> 12 & e.FRAME_MASK]
        code[:OFFSET] = ram.pages[before >> 12 & e.FRAME_MASK][:OFFSET]  # the loop is on this page too
        guest.xen.words[FLUSH] = 1
        assert seen(guest) == number
    ram.table[at] = before
    guest.xen.words[FLUSH] = 1
    assert seen(guest) == 1 << 32


@pytest.mark.parametrize("level", [2, 3, 4])
def test_another_table_is_seen_after_a_flush(guest: Machine, level: int) -> None:
    """A copy of each table on the way down from ``level``, the last leading to another frame."""
    ram = guest.xen.domain.ram
    at = entry(guest, level)
    frame = spare(guest, 20)
    ram.pages[frame][:OFFSET] = ram.pages[int(ram.table[entry(guest, 1)]) >> 12 & e.FRAME_MASK][:OFFSET]
    copies = []
    for below in range(level - 1, 0, -1):
        copies.append(spare(guest, 30 + below))
        ram.table[copies[-1]] = ram.table[table_of(guest, DATA, below)]
    chain = [*copies, frame]
    for table, below in zip(copies, range(level - 1, 0, -1), strict=True):
        slot = e.index(DATA, below)
        ram.table[table, slot] = int(ram.table[table, slot]) & ~e.ADDRESS_MASK | chain[chain.index(table) + 1] << 12
    ram.table[at] = int(ram.table[at]) & ~e.ADDRESS_MASK | chain[0] << 12
    guest.xen.words[FLUSH] = 1
    assert seen(guest) == 20


def test_a_page_that_goes_is_not_seen_through_another_root(guest: Machine) -> None:
    """A root that shares all but the data's neighbour, which is not mapped there: a page fault, and a crash."""
    ram = guest.xen.domain.ram
    root = spare(guest, 40)
    ram.table[root] = ram.table[guest.xen.words[CR3] >> 12]
    copies = [root]
    for level in (3, 2, 1):
        copies.append(spare(guest, 40 + level))
        ram.table[copies[-1]] = ram.table[table_of(guest, DATA + PAGE_SIZE, level)]
    for upper, lower, level in zip(copies, copies[1:], (4, 3, 2), strict=False):
        slot = e.index(DATA, level)
        ram.table[upper, slot] = int(ram.table[upper, slot]) & ~e.ADDRESS_MASK | lower << 12
    ram.table[copies[-1], e.index(DATA + PAGE_SIZE, 1)] = 0
    old = guest.xen.words[CR3]
    for turn in range(3):  # there and back again
        guest.xen.words[CR3] = root << 12 if turn == 2 else old
        guest.xen.domain.guest.root = guest.xen.words[CR3]
        verdict = guest.run(deadline_ns=guest.now_ns + 1000)
        assert (verdict is not None) == (turn == 2)
    assert guest.verdict
    assert "#PF" in guest.verdict.reason
    assert guest.xen.words[RDI] == DATA


def test_two_changes_of_mode_between_two_instructions(tmp_path: Path) -> None:
    """To user code and back by an event, before the CPU sees either: each loads CR3, which drops what was narrowed."""
    with Machine(DomainConfig(kernel=kernel(tmp_path, WRITES), memory=32)) as guest:
        assert guest.run(deadline_ns=1000) is None
        vcpu, ram = guest.xen.vcpu, guest.xen.domain.ram
        vcpu.user_root = spare(guest, 50)
        ram.table[vcpu.user_root] = ram.table[vcpu.kernel_root]
        ram.table[entry(guest, 1)] &= ~e.RW & (1 << 64) - 1
        assert vcpu.switch_mode()
        assert vcpu.switch_mode()
        verdict = guest.run(deadline_ns=guest.now_ns + 1000)
        assert verdict
        assert "#PF[0003]" in verdict.reason


def test_losing_the_right_to_write_is_seen(tmp_path: Path) -> None:
    """At one level or another."""
    for level in (1, 2, 3, 4):
        with Machine(DomainConfig(kernel=kernel(tmp_path, WRITES), memory=32)) as guest:
            assert guest.run(deadline_ns=1000) is None
            guest.xen.domain.ram.table[entry(guest, level)] &= ~e.RW & (1 << 64) - 1
            guest.xen.words[FLUSH] = 1
            verdict = guest.run(deadline_ns=guest.now_ns + 1000)
            assert verdict
            assert "#PF[0003]" in verdict.reason, level
