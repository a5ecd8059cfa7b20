"""The symbols that a stripped Linux kernel still has: its own kallsyms table, read with vmlinux-to-elf.

Nothing in the file says where the table is. ``KallsymsFinder`` finds it by its looks, which takes time in proportion
to what it is given; so it is first given ``.rodata`` alone, where the table is (scripts/kallsyms.c, ``write_src``).
"""

from __future__ import annotations

import contextlib
import logging
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from stub.image.elf import Elf, read_sections
from stub.image.faults import Fault

REMEDY = "name a Linux kernel built with CONFIG_KALLSYMS, or a vmlinux that has symbols"
# What a search for a table in bytes that have none runs into.
NOT_FOUND = (ValueError, LookupError, struct.error, ArithmeticError, AssertionError, AttributeError, TypeError)


class KernelSymbol(NamedTuple):
    """``kind`` is nm's letter: T code, D data, B bss, R read-only, A absolute; lower case for a local symbol."""

    name: str
    address: int
    kind: str


def read_kallsyms(elf: Elf) -> list[KernelSymbol]:
    """The symbols of an x86-64 Linux kernel, in the table's order. ``Fault`` if it has no such table."""
    rodata = [s for s in read_sections(elf) if s.name == ".rodata" and s.offset + s.size <= len(elf.data)]
    parts = [elf.data[s.offset : s.offset + s.size] for s in rodata[:1]] + [elf.data]
    if b"Linux version " not in bytes(elf.data):
        raise Fault("no Linux kernel, and no symbol table", REMEDY)
    for part in parts:
        with contextlib.suppress(*NOT_FOUND), _quiet():
            found = _find(bytes(part))
            if _plausible(elf, found):
                return found
    raise Fault("a Linux kernel whose kallsyms table cannot be found", REMEDY)


def _find(data: bytes) -> list[KernelSymbol]:
    from vmlinux_to_elf.core.kallsyms import KallsymsFinder

    class Finder(KallsymsFinder):  # type: ignore[misc]
        """What it would guess from code, or look up for its messages, is known or not needed."""

        def guess_architecture(self) -> None:
            self.is_64_bits, self.is_big_endian = True, False

        def extract_db_information(self, extra_info: bool = True) -> None:
            pass

    found: Any = Finder(data, 64)
    return [
        KernelSymbol(s.name, s.virtual_address, s.symbol_type.value if s.is_global else s.symbol_type.value.lower())
        for s in found.symbols
    ]


def _plausible(elf: Elf, symbols: list[KernelSymbol]) -> bool:
    """Whether most of them lie in the kernel; what only looks like a table gives addresses anywhere."""
    loads = [(h.vaddr, h.vaddr + h.memsz) for h in elf.headers if h.type == 1]
    inside = sum(any(start <= symbol.address <= end for start, end in loads) for symbol in symbols)
    return bool(symbols) and inside * 10 >= len(symbols) * 9


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """vmlinux-to-elf tells the root logger what it finds, which makes a handler on standard error if there is none."""
    root, before = logging.getLogger(), logging.root.manager.disable
    nowhere = logging.NullHandler()
    root.addHandler(nowhere)
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
        root.removeHandler(nowhere)
