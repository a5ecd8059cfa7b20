"""Names for addresses and addresses for names, out of the file that the debugger's client is given as well.

``stub.image.symbols`` does the same for the image that boots. This one is made for a session: nothing is read before
it is asked for, and a table of 90,000 symbols is looked at with numpy, not row by row.
"""

from __future__ import annotations

import mmap
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stub.image.elf import SECTION_HEADER, Elf, parse_elf, read_sections
from stub.image.faults import Fault, c_string
from stub.image.symbols import SHN_ABS, SHN_UNDEF, STT_FUNC, STT_NOTYPE, STT_OBJECT

Rows = npt.NDArray[Any]
# The System V ABI's Elf64_Sym and Elf32_Sym.
LAYOUT = {
    64: np.dtype([("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"),
                  ("size", "<u8")]),
    32: np.dtype([("name", "<u4"), ("value", "<u4"), ("size", "<u4"), ("info", "u1"), ("other", "u1"),
                  ("section", "<u2")]),
}  # fmt: skip
SHT_SYMTAB = 2
NAME_LIMIT = 512
# Its symbols are offsets into each CPU's own data, not addresses, though the file has them at addresses from 0 on.
PER_CPU = ".data..percpu"


class _Table(NamedTuple):
    """The symbols that mean something, in the file's order, and the bytes their names are in.

    ``end``: where each one's section ends; 0 for what is no address.
    """

    rows: Rows
    strings: bytes
    end: npt.NDArray[np.uint64]


class Symbols:
    """The symbol table of an ELF file. A file that is not there, is damaged or has none is as one without symbols."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def __len__(self) -> int:
        return len(self._table.rows)

    def address(self, name: str) -> int | None:
        """What a symbol stands for: a global one before a local one, the file's first of several; None for none."""
        rows, strings, _ = self._table
        wanted, offsets = name.encode() + b"\0", []
        at = strings.find(wanted)
        while at >= 0 and name and "\0" not in name:  # a name may be the tail of another
            offsets.append(at)
            at = strings.find(wanted, at + 1)
        found = rows[np.isin(rows["name"], offsets)]
        if not len(found):
            return None
        return int(found[np.argmin(found["info"] >> 4 == 0)]["value"])

    def nearest(self, address: int) -> tuple[str, int] | None:
        """The last symbol at or below an address and in the same section, with the distance in bytes."""
        rows, strings, end = self._table
        order = self._order
        if not 0 <= address < 1 << 64:
            return None
        at = int(np.searchsorted(self._addresses, np.uint64(address), side="right")) - 1
        if at < 0 or address >= int(end[order[at]]):
            return None
        row = rows[order[at]]
        place = int(row["name"])
        return c_string(strings[place : place + NAME_LIMIT]), address - int(row["value"])

    @cached_property
    def _table(self) -> _Table:
        try:
            if self.path is not None:
                with self.path.open("rb") as file:
                    data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
                return _read(parse_elf(data))
        except (OSError, ValueError, Fault):
            pass
        return _Table(np.zeros(0, LAYOUT[64]), b"", np.zeros(0, np.uint64))

    @cached_property
    def _order(self) -> npt.NDArray[np.int64]:
        """The table's rows that have an address, ascending; of several at one address the most telling last."""
        rows, _, end = self._table
        code, named = rows["info"] & 15 == STT_FUNC, rows["info"] >> 4 != 0
        order = np.lexsort((named, code, rows["size"] > 0, rows["value"]))
        return order[end[order] > 0]

    @cached_property
    def _addresses(self) -> npt.NDArray[np.uint64]:
        return self._table.rows["value"][self._order].astype(np.uint64)


def _read(elf: Elf) -> _Table:
    sections, layout = read_sections(elf), LAYOUT[elf.bits]
    number = next((i for i, section in enumerate(sections) if section.type == SHT_SYMTAB), -1)
    if number < 0:
        raise Fault("no symbol table", "name a file that has one")
    table = sections[number]
    offset, size, _, _ = elf.section_place
    link = SECTION_HEADER[elf.bits].unpack_from(elf.data, offset + number * size)[6]
    if link >= len(sections) or table.offset + table.size > len(elf.data):
        raise Fault("a damaged symbol table", "make it again")
    rows = np.frombuffer(elf.data, layout, table.size // layout.itemsize, table.offset)
    strings = bytes(elf.data[sections[link].offset : sections[link].offset + sections[link].size])
    telling = np.isin(rows["info"] & 15, (STT_NOTYPE, STT_OBJECT, STT_FUNC)) & (rows["section"] != SHN_UNDEF)
    rows = rows[telling & (rows["name"] != 0)]
    return _Table(rows, strings, _ends(rows, [(s.address + s.size) * (s.name != PER_CPU) for s in sections]))


def _ends(rows: Rows, ends: list[int]) -> npt.NDArray[np.uint64]:
    known = (rows["section"] < len(ends)) & (rows["section"] != SHN_ABS)
    return np.where(known, np.array(ends, np.uint64)[np.where(known, rows["section"], 0)], np.uint64(0))
