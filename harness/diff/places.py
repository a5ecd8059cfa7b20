"""Where a guest's numbers point, in words that hold for two boots: frames as PFNs, addresses by symbol or region.

Each word comes twice: exactly, with its offset, for two boots of one kernel; and roughly, without what moves when a
kernel is built anew. A name out of the guest's symbol table is as good in both.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from stub.domain.builder import LOW_FRAMES, shuffled
from stub.domain.config import MAX_MEMORY
from stub.gdb.symbols import Symbols

_MEMORY_DEFAULT: Final = 256

# Documentation/arch/x86/x86_64/mm.rst of Linux (the direct map's second place is that of Linux before 4.20); Xen's own
# part: xen/include/asm-x86/config.h. Where a region begins, and its name.
REGIONS: Final[Mapping[int, tuple[tuple[int, str], ...]]] = {
    64: (
        (0, "user"),
        (0x0000_8000_0000_0000, "no address"),
        (0xFFFF_8000_0000_0000, "Xen"),
        (0xFFFF_8800_0000_0000, "direct map (old)"),
        (0xFFFF_8880_0000_0000, "direct map"),
        (0xFFFF_C880_0000_0000, "kernel's high half"),
        (0xFFFF_C900_0000_0000, "vmalloc"),
        (0xFFFF_E900_0000_0000, "kernel's high half"),
        (0xFFFF_EA00_0000_0000, "vmemmap"),
        (0xFFFF_EB00_0000_0000, "kernel's high half"),
        (0xFFFF_FE00_0000_0000, "CPU entry area"),
        (0xFFFF_FE80_0000_0000, "kernel's high half"),
        (0xFFFF_FFFF_8000_0000, "kernel"),
        (0xFFFF_FFFF_A000_0000, "modules"),
        (0xFFFF_FFFF_FF00_0000, "fixmap"),
    ),
    32: ((0, "user"), (0xC000_0000, "kernel"), (0xF580_0000, "Xen")),
}


class Word(NamedTuple):
    """One place: ``exact`` and ``rough``."""

    exact: str
    rough: str


class Places:
    """The places of one run, from its log's ``identity``; ``symbols`` of its kernel, empty for none."""

    def __init__(self, identity: Mapping[str, Any], symbols: Symbols) -> None:
        memory = identity.get("memory")
        pages = (memory if isinstance(memory, int) and 0 < memory <= MAX_MEMORY else _MEMORY_DEFAULT) << 8
        seed = identity.get("seed")
        self.frames = (pages, seed, identity.get("p2m"))
        self.bits = 32 if identity.get("bits") == 32 else 64
        self.symbols = symbols
        self.low = 0 if identity.get("p2m") == "identity" else LOW_FRAMES
        # order[pfn] is its machine frame, less the low ones; this is the way back.
        order = range(pages) if not self.low else shuffled(pages, seed if isinstance(seed, int) else 0).tolist()
        self.pfns = [0] * pages
        for pfn, mfn in enumerate(order):
            self.pfns[mfn] = pfn
        self._starts = [start for start, _ in REGIONS[self.bits]]
        # What a log asks for again and again: the hypercall page, the same few tables.
        self.address = lru_cache(1 << 16)(self._address)
        self.frame = lru_cache(1 << 16)(self._frame)
        self.machine = lru_cache(1 << 16)(self._machine)

    def same_addresses(self, other: Places) -> bool:
        """Whether equal addresses have equal words in both."""
        return self.bits == other.bits and self.symbols.path == other.symbols.path

    def pfn(self, mfn: int) -> int:
        """The guest's own number for a machine frame at its start; -1 for one that was not its own, -2 for frame 0."""
        at = mfn - self.low
        if 0 <= at < len(self.pfns):
            return self.pfns[at]
        return -1 if mfn else -2

    def _machine(self, maddr: int) -> Word:
        frame = self.frame(maddr >> 12)
        return Word(f"{frame.exact}+{maddr & 0xFFF:#x}", frame.rough)

    def _frame(self, mfn: int) -> Word:
        """A machine frame by the guest's own number for it at its start; ``rough`` says only whose it is."""
        pfn = self.pfn(mfn)
        if pfn >= 0:
            return Word(f"pfn {pfn:#x}", "the guest's frame")
        return Word("no frame of the guest's", "no frame of the guest's") if mfn else Word("mfn 0", "mfn 0")

    def symbol(self, address: int) -> str | None:
        """``name+0x12`` for an address that has a symbol."""
        found = self.symbols.nearest(address) if len(self.symbols) else None
        if found is None:
            return None
        name, offset = found
        return f"{name}+{offset:#x}" if offset else name

    def _address(self, address: int) -> Word:
        if not address:
            return Word("NULL", "NULL")
        found = self.symbol(address)
        if found is not None:
            return Word(found, found.partition("+")[0])
        number = bisect_right(self._starts, address) - 1
        start, name = REGIONS[self.bits][max(number, 0)]
        return Word(f"{name}+{address - start:#x}", name)
