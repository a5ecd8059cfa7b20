"""What a hypercall's arguments are and point to, as the guest has it: in 64 bits or in 32.

Handlers ask here and do not look at the width themselves. Lists of words are of what Xen calls xen_pfn_t, xen_ulong_t
or unsigned long, as long as a register.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stub.abi.layout import Layout, Record
from stub.units import U64

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor


def take(xen: Hypervisor, layout: Layout, at: int) -> Record:
    """Read the structure at a guest address; the log shows it as what the call was given. GuestFault."""
    own = layout.of(xen.width.bits)
    xen.payload = xen.domain.guest.read(at, own.size)
    return own.unpack_from(xen.payload)


def give(xen: Hypervisor, layout: Layout, at: int, **values: Any) -> int:
    """Write a whole structure to a guest address, as the call's answer; 0. GuestFault."""
    data = layout.of(xen.width.bits).pack(**values)
    xen.domain.guest.write(at, data)
    xen.out = data
    return 0


def numbers(xen: Hypervisor, *registers: int) -> list[int]:
    """64-bit values among a call's arguments: a 32-bit guest has each in two registers, the lower half first."""
    if xen.width.bits == 64:
        return list(registers)
    return [low | high << 32 for low, high in zip(registers[::2], registers[1::2], strict=True)]


class Numbers:
    """A list of 64-bit numbers in guest memory, read and written one by one. GuestFault where one is not there."""

    def __init__(self, xen: Hypervisor, start: int, bits: int = 64) -> None:
        guest = xen.domain.guest
        self._start, self._size = start, bits // 8
        self._read = guest.read_u64 if bits == 64 else guest.read_u32
        self._write = guest.write_u64 if bits == 64 else guest.write_u32

    def __getitem__(self, index: int) -> int:
        return self._read((self._start + index * self._size) & U64)

    def __setitem__(self, index: int, value: int) -> None:
        self._write((self._start + index * self._size) & U64, value)


class Words(Numbers):
    """The same of words."""

    def __init__(self, xen: Hypervisor, start: int) -> None:
        super().__init__(xen, start, xen.width.bits)
