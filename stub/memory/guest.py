"""The checked gate to guest memory: every guest address goes through here, and only through here.

Addresses are translated through the guest's current page tables with Xen's rights (supervisor, so no user-bit
check; a write needs RW at every level), anew each time, by the C part (``_walk.c``).
"""

from __future__ import annotations

from typing import Self

from stub.memory._walk import Walk
from stub.memory.ram import Ram


class GuestFault(Exception):
    """A guest address that does not translate: -EFAULT, or a trap, by whoever asked."""

    def __init__(self, vaddr: int, write: bool, present: bool) -> None:
        super().__init__(vaddr)
        self.vaddr, self.write, self.present = vaddr, bool(write), bool(present)


class GuestMemory(Walk):
    """Reads and writes at guest virtual addresses; :class:`GuestFault` where one does not translate.

    ``root`` is the machine address of the L4 in use; ``limit`` where a 32-bit guest's addresses end, else 0
    (what Xen maps below that, the M2P, it follows a guest's pointer to). The
    methods are:

    - ``locate(vaddr, write=False)``: the machine address of a byte; ``locate_from(root, vaddr)``: through another
      root; ``locate_any(vaddr)``: also in Xen's own part of the address space (for fetching code);
    - ``read(vaddr, size)``; ``read_available(vaddr, size)``: fewer bytes where a page is missing, also in Xen's part;
    - ``write(vaddr, data)``: nothing is written unless all of it can be;
    - ``read_u32``, ``read_u64``, ``write_u32``, ``write_u64``: little-endian numbers, cut to their size.
    """

    ram_bytes: memoryview

    def __new__(cls, ram: Ram) -> Self:
        made = super().__new__(cls, ram.map, GuestFault)
        made.ram_bytes = ram.bytes
        return made
