"""Address kinds and sizes. The only file that converts between them.

A machine frame number (``Mfn``) indexes the emulator's RAM; a pseudo-physical frame number (``Pfn``) is the
guest's own view; a ``Maddr`` is a byte address in machine memory; a ``Vaddr`` a guest virtual address.
Hot loops work on plain ints and name their variables by kind; public interfaces carry the types.
"""

from __future__ import annotations

from typing import NewType

Mfn = NewType("Mfn", int)
Pfn = NewType("Pfn", int)
Maddr = NewType("Maddr", int)
Vaddr = NewType("Vaddr", int)

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
PAGE_MASK = PAGE_SIZE - 1
KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
U64 = (1 << 64) - 1


def mfn_to_maddr(mfn: Mfn) -> Maddr:
    """The machine address of a frame's first byte."""
    return Maddr(mfn << PAGE_SHIFT)


def maddr_to_mfn(maddr: Maddr) -> Mfn:
    """The frame that a machine address lies in."""
    return Mfn(maddr >> PAGE_SHIFT)


def pages(size: int) -> int:
    """How many 4 KiB pages hold ``size`` bytes."""
    return (size + PAGE_MASK) >> PAGE_SHIFT


def page_up(address: int) -> int:
    """``address`` rounded up to a page."""
    return (address + PAGE_MASK) & ~PAGE_MASK


def is_canonical(vaddr: int) -> bool:
    """Whether a 64-bit value is a canonical 48-bit virtual address (x86 manual, vol. 1, 3.3.7.1)."""
    return vaddr < 0x0000_8000_0000_0000 or 0xFFFF_8000_0000_0000 <= vaddr <= U64


def signed64(value: int) -> int:
    """A 64-bit register's value read as two's complement."""
    return value - (1 << 64) if value >> 63 else value
