"""Page tables built by hand in a small machine's memory, and snapshots of them."""

from __future__ import annotations

import numpy as np

from stub.memory import entries as e
from stub.memory.formats import LONG, Format
from stub.memory.frames import WRITABLE, XEN, FrameTable
from stub.trace.pagetables.moments import Root
from stub.trace.pagetables.snapshot import Facts, Snapshot, capture
from stub.trace.pagetables.space import AddressSpace

FRAMES = 128
XEN_FROM = 120  # frames that are Xen's own
UPPER = e.P | e.RW | e.US | e.A
KERNEL = e.P | e.US | e.GUEST_KERNEL  # what Xen stores for a page that the guest gave to its kernel
USER = e.P | e.US | e.G
IDENTITY = {"kernel": "00", "seed": 0}


class Machine:
    """Memory of FRAMES frames, all but Xen's the guest's; tables are taken from frame 64 on. PFN 5n is in frame n."""

    def __init__(self) -> None:
        self.table = np.zeros((FRAMES, 512), dtype=np.uint64)
        self.frames = FrameTable(FRAMES)
        for mfn in range(FRAMES):
            self.frames.give_one(mfn)
        self.frames.np_owner[XEN_FROM:] = XEN
        self.m2p = np.arange(FRAMES, dtype=np.uint64) * np.uint64(5) % np.uint64(FRAMES)
        self.next = 64
        self.roots: list[Root] = []
        self.identity: dict[str, object] = dict(IDENTITY)

    def root(self, fmt: Format = LONG, *names: str) -> int:
        """A new root table; its machine address."""
        maddr = self.new(fmt, fmt.root_level) << 12
        self.roots.append(Root(maddr, fmt.name, names))
        return maddr

    def new(self, fmt: Format, level: int) -> int:
        """A frame for a table; Xen knows those of a running 64-bit guest."""
        mfn = self.next
        self.next += 1
        if fmt is LONG:
            self.frames.type[mfn], self.frames.type_count[mfn] = level, 1
        return mfn

    def entry(self, fmt: Format, mfn: int, slot: int) -> int:
        """An entry's value."""
        return int(fmt.entries_of(self.table[mfn : mfn + 1], fmt.levels[-1])[0, slot])

    def write(self, fmt: Format, mfn: int, slot: int, value: int) -> None:
        """Write an entry."""
        (self.table.view("<u4") if fmt.entry_size == 4 else self.table)[mfn, slot] = value

    def map(self, root: int, vaddr: int, mfn: int, flags: int, *, fmt: Format = LONG, page: int = 4096) -> None:
        """Map a page, building the tables between."""
        table = root >> 12
        for level in fmt.levels:
            slot = fmt.index(vaddr, level)
            if level.span == page:
                large = e.PSE if level.number > 1 else 0
                self.write(fmt, table, slot, mfn << 12 | flags | large)
                return
            value = self.entry(fmt, table, slot)
            if not value & e.P:
                upper = e.P if not level.rights else UPPER & 0xFFF
                value = self.new(fmt, level.number - 1) << 12 | upper
                self.write(fmt, table, slot, value)
            table = fmt.table_frame(value)
        raise AssertionError(f"{fmt.name} has no pages of {page} bytes")

    def snapshot(self, number: int = 0, **facts: int) -> Snapshot:
        """What is there now."""
        return capture(self.table, self.frames, self.m2p, self.roots, Facts(number=number, **facts), self.identity)


TEXT, DATA, HEAP = 0xFFFFFFFF81000000, 0xFFFFFFFF82000000, 0x400000
XEN_VA = 0xFFFF820000000000


MEM = """\
0000000000400000-0000000000401000 0000000000001000 urw-
0000000000401000-0000000000402000 0000000000001000 ur-x
ffffffff81000000-ffffffff81003000 0000000000003000 -r-x
ffffffff82000000-ffffffff8202a000 000000000002a000 -rw-
"""
"""That guest's ranges, as QEMU's info mem has them."""


def guest() -> Machine:
    """A guest with a text of three pages, 42 of data, two of a user's, and one of Xen's own."""
    machine = Machine()
    root = machine.root(LONG, "in use", "kernel")
    for i in range(3):
        machine.map(root, TEXT + i * 4096, 10 + i, KERNEL | e.A)
    for i in range(42):
        machine.map(root, DATA + i * 4096, 20 + i, KERNEL | e.RW | e.NX)
        machine.frames.type[20 + i], machine.frames.type_count[20 + i] = WRITABLE, 1
    machine.map(root, HEAP, 3, USER | e.RW | e.NX | e.A | e.D)
    machine.map(root, HEAP + 4096, 9, USER)
    machine.map(root, XEN_VA, 121, e.P | e.RW)
    return machine


def space_of(snapshot: Snapshot, root: str = "", *, by_pfn: bool = False) -> AddressSpace:
    return AddressSpace(snapshot, snapshot.root(root), by_pfn=by_pfn)
