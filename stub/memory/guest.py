"""The checked gate to guest memory: every guest address goes through here, and only through here.

Addresses are translated through the guest's current page tables with Xen's rights (supervisor, so no user-bit
check; a write needs RW at every level). Translations are kept by root with the L1 entry that they rest on, which is
looked at each time; whoever changes a present entry of an upper level calls :meth:`forget`.
"""

from __future__ import annotations

import struct

from stub.memory import entries as e
from stub.memory.ram import Ram
from stub.units import PAGE_MASK, PAGE_SIZE

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_HOLE_START, _HOLE_END = 0xFFFF_8000_0000_0000, 0xFFFF_8800_0000_0000
_LOW_END = 0x0000_8000_0000_0000
_WRITABLE = 2
_KEY = e.P | e.RW | e.ADDRESS_MASK  # of an L1 entry: what a translation rests on


class GuestFault(Exception):
    """A guest address that does not translate: -EFAULT, or a trap, by whoever asked."""

    def __init__(self, vaddr: int, write: bool, present: bool) -> None:
        super().__init__(vaddr)
        self.vaddr, self.write, self.present = vaddr, write, present


class GuestMemory:
    """Reads and writes at guest virtual addresses. ``root`` is the machine address of the L4 in use."""

    def __init__(self, ram: Ram) -> None:
        self._bytes = ram.bytes
        self._words = ram.words
        self._frames = ram.frames
        # by root, by virtual page: (word index of the L1 entry, its key, machine address and writable bit)
        self._roots: dict[int, dict[int, tuple[int, int, int]]] = {}
        self._pages: dict[int, tuple[int, int, int]] = {}
        self.root = 0

    def use_root(self, root: int) -> None:
        """Translate through another L4 from now on."""
        self.root = root
        pages = self._roots.get(root)
        if pages is None:
            if len(self._roots) > 64:
                self._roots.clear()
            pages = self._roots[root] = {}
        self._pages = pages

    def forget(self) -> None:
        """Drop every kept translation."""
        self._roots.clear()
        self._pages = self._roots[self.root] = {}

    def locate(self, vaddr: int, write: bool = False) -> int:
        """The machine address of a guest byte; :class:`GuestFault` where there is none."""
        row = self._pages.get(vaddr >> 12)
        if row is None or self._words[row[0]] & _KEY != row[1] or (write and not row[2] & _WRITABLE):
            row = self._pages[vaddr >> 12] = self._walk(vaddr, write)
        return (row[2] & ~PAGE_MASK) | (vaddr & PAGE_MASK)

    def locate_from(self, root: int, vaddr: int) -> int:
        """As :meth:`locate`, through another root than the one in use."""
        own, self.root = self.root, root
        try:
            return self._walk(vaddr, False)[2] & ~PAGE_MASK | (vaddr & PAGE_MASK)
        finally:
            self.root = own

    def locate_any(self, vaddr: int) -> int:
        """As :meth:`locate`, but also in Xen's own part of the address space (for fetching code)."""
        return self._walk(vaddr, False, True)[2] & ~PAGE_MASK | (vaddr & PAGE_MASK)

    def _walk(self, vaddr: int, write: bool, in_hole: bool = False) -> tuple[int, int, int]:
        if not (
            0 <= vaddr < _LOW_END or _HOLE_END <= vaddr < 1 << 64 or (in_hole and _HOLE_START <= vaddr < _HOLE_END)
        ):
            raise GuestFault(vaddr, write, False)
        table, rights = self.root, _WRITABLE
        for shift in (39, 30, 21, 12):
            at = (table >> 3) + ((vaddr >> shift) & 511)
            entry = self._words[at]
            if not entry & e.P:
                raise GuestFault(vaddr, write, False)
            rights &= entry
            table = entry & e.ADDRESS_MASK
            if table >> 12 >= self._frames:
                raise GuestFault(vaddr, write, True)
        if write:
            if not rights:
                raise GuestFault(vaddr, write, True)
            self._words[at] |= e.A | e.D
        return at, entry & _KEY, table | rights

    def read(self, vaddr: int, size: int) -> bytes:
        """``size`` bytes."""
        offset = vaddr & PAGE_MASK
        if offset + size <= PAGE_SIZE:
            at = self.locate(vaddr)
            return bytes(self._bytes[at : at + size])
        parts = []
        while size > 0:
            piece = min(size, PAGE_SIZE - (vaddr & PAGE_MASK))
            at = self.locate(vaddr)
            parts.append(bytes(self._bytes[at : at + piece]))
            vaddr, size = vaddr + piece, size - piece
        return b"".join(parts)

    def read_available(self, vaddr: int, size: int) -> bytes:
        """Up to ``size`` bytes, fewer where a page is missing; also in Xen's own part."""
        found = bytearray()
        while size > 0:
            piece = min(size, PAGE_SIZE - (vaddr & PAGE_MASK))
            try:
                at = self.locate_any(vaddr)
            except GuestFault:
                break
            found += self._bytes[at : at + piece]
            vaddr, size = vaddr + piece, size - piece
        return bytes(found)

    def write(self, vaddr: int, data: bytes) -> None:
        """Write ``data``; nothing is written unless all of it can be."""
        size, offset = len(data), vaddr & PAGE_MASK
        if offset + size <= PAGE_SIZE:
            at = self.locate(vaddr, True)
            self._bytes[at : at + size] = data
            return
        spans = []
        done = 0
        while done < size:
            piece = min(size - done, PAGE_SIZE - ((vaddr + done) & PAGE_MASK))
            spans.append((self.locate(vaddr + done, True), done, piece))
            done += piece
        for at, start, piece in spans:
            self._bytes[at : at + piece] = data[start : start + piece]

    def read_u32(self, vaddr: int) -> int:
        """A little-endian 32-bit value."""
        value: int = _U32.unpack(self.read(vaddr, 4))[0]
        return value

    def read_u64(self, vaddr: int) -> int:
        """A little-endian 64-bit value."""
        if vaddr & 7 == 0:
            return self._words[self.locate(vaddr) >> 3]
        value: int = _U64.unpack(self.read(vaddr, 8))[0]
        return value

    def write_u32(self, vaddr: int, value: int) -> None:
        """Store a little-endian 32-bit value."""
        self.write(vaddr, _U32.pack(value & 0xFFFFFFFF))

    def write_u64(self, vaddr: int, value: int) -> None:
        """Store a little-endian 64-bit value."""
        self.write(vaddr, _U64.pack(value & 0xFFFFFFFFFFFFFFFF))
