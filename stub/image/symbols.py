"""Names for addresses: the ELF symbol table of a kernel that has one."""

from __future__ import annotations

import io
import struct
from bisect import bisect_right
from dataclasses import dataclass

from stub.image.faults import c_string

STT_NOTYPE, STT_OBJECT, STT_FUNC = 0, 1, 2
SHN_UNDEF, SHN_ABS = 0, 0xFFF1
SYMBOL = {32: struct.Struct("<IIIBBH"), 64: struct.Struct("<IBBHQQ")}


@dataclass(frozen=True)
class Symbols:
    """Parallel lists, sorted by address."""

    addresses: tuple[int, ...] = ()
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.addresses)

    def find(self, address: int) -> tuple[str, int] | None:
        """The last symbol at or below ``address``, with the distance in bytes; None when there is none."""
        index = bisect_right(self.addresses, address) - 1
        return (self.names[index], address - self.addresses[index]) if index >= 0 else None


def read_symbols(elf: memoryview) -> Symbols:
    """Functions, objects and untyped labels of ``.symtab``; empty when it is missing or damaged.

    Symbols serve explanations only, so a damaged table is no reason to stop a boot.
    """
    from elftools.common.exceptions import ELFError
    from elftools.construct.core import ConstructError
    from elftools.elf.elffile import ELFFile

    try:
        file = ELFFile(io.BytesIO(elf))
        table = file.get_section_by_name(".symtab")
        if table is None or table["sh_type"] != "SHT_SYMTAB":
            return Symbols()
        raw, strings = table.data(), file.get_section(table["sh_link"]).data()
    except (ELFError, ConstructError, ValueError, OverflowError, MemoryError, AttributeError, TypeError, KeyError):
        return Symbols()
    # The walk over the entries is ours: pyelftools takes 20 µs a symbol, a kernel has 150,000.
    layout = SYMBOL[64 if file.elfclass == 64 else 32]
    found = sorted(
        (value, c_string(strings[name : name + 512]))
        for name, kind, section, value in _rows(raw[: len(raw) // layout.size * layout.size], layout)
        if kind & 15 in (STT_NOTYPE, STT_OBJECT, STT_FUNC) and section not in (SHN_UNDEF, SHN_ABS) and name
    )
    return Symbols(tuple(address for address, _ in found), tuple(name for _, name in found))


def _rows(raw: bytes, layout: struct.Struct) -> list[tuple[int, int, int, int]]:
    """(name offset, info, section index, value) of each entry of either width."""
    if layout.size == 24:
        return [(name, info, section, value) for name, info, _, section, value, _ in layout.iter_unpack(raw)]
    return [(name, info, section, value) for name, value, _, info, _, section in layout.iter_unpack(raw)]
