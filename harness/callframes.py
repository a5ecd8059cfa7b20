"""The unwind table of an ELF file: by which rules a frame's caller is found from an address on.

``.debug_frame`` as DWARF 4, section 6.4 has it, as compilers write it, and `harness.orc` for stock kernels. The file
may be anybody's: what it says is bounded, and `Ended` is raised for what is not understood.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from harness import dwarf
from harness.dwarf import Cursor, Ended
from stub.image.elf import parse_elf, read_sections
from stub.image.faults import Fault

_COMPRESSED: Final = 0x800  # SHF_COMPRESSED
_MOST_REMEMBERED: Final = 16  # rows; compilers nest one
_MOST_PROGRAM: Final = 1 << 20  # bytes of an entry's instructions
_MOST_SECTION: Final = 64 << 20  # bytes
_CIE: Final = 0xFFFF_FFFF  # in the place where an FDE says which CIE is its
_OPERAND: Final = 0x3F  # of the three instructions that have it in themselves
_HEAD: Final = struct.Struct("<II")


class Register(NamedTuple):
    """A register's value and so much."""

    number: int
    offset: int = 0


class FromCfa(NamedTuple):
    """The frame's address (CFA) and so much."""

    offset: int


class Expression(NamedTuple):
    """What an expression (section 2.5) comes to."""

    code: bytes


class Rule(NamedTuple):
    """Where a caller's register is: a value, or the word in memory at it."""

    value: Register | FromCfa | Expression
    in_memory: bool


class Row:
    """What holds at an address: how the CFA is found, and each saved register; None for one that is lost."""

    def __init__(self) -> None:
        self.cfa: Register | Expression | None = None
        self.saved: dict[int, Rule | None] = {}

    def copy(self) -> Row:
        """Another one that says the same."""
        other = Row()
        other.cfa, other.saved = self.cfa, dict(self.saved)
        return other


class _Cie(NamedTuple):
    """What several entries have in common. ``augmented``: each has a block of its own; ``signal``: see `Table.row`."""

    code_align: int
    data_align: int
    signal: bool
    augmented: bool
    program: memoryview


class Table:
    """The table of a file, with addresses of ``word`` bytes; empty for a file that has none, or is not there."""

    def __init__(self, path: Path | None, word: int) -> None:
        self._word = word
        self._data = _section(path)
        entries = list(self._index())
        starts = np.array([start for start, _, _ in entries], np.uint64)
        order = np.argsort(starts, kind="stable")
        self._starts = starts[order]
        self._entries = [entries[number] for number in order]

    def row(self, address: int) -> tuple[Row, bool] | None:
        """The row of an address, and whether its frame is an interrupted one's; None where nothing covers it."""
        number = int(np.searchsorted(self._starts, np.uint64(max(address, 0)), side="right")) - 1
        if number < 0:
            return None
        start, size, at = self._entries[number]
        if address >= start + size:
            return None
        length, cie_at = _HEAD.unpack_from(self._data, at)
        code = Cursor(self._data[at + _HEAD.size + 2 * self._word : at + 4 + length])
        cie = self._cie(cie_at)
        if cie.augmented:
            code.block()
        initial = _Program(Cursor(cie.program), Row(), cie, self._word).run(0, 0)
        return _Program(code, initial, cie, self._word).run(start, address), cie.signal

    def _index(self) -> Iterator[tuple[int, int, int]]:
        """(first address, bytes, offset) of each FDE."""
        place = struct.Struct("<QQ" if self._word == 8 else "<II")
        at = 0
        while at + _HEAD.size + place.size <= len(self._data):
            length, identity = _HEAD.unpack_from(self._data, at)
            if length == 0xFFFFFFFF:  # the 64-bit format, which nobody writes for a kernel
                return
            if identity != _CIE and 4 + place.size <= length <= _MOST_PROGRAM:
                yield *place.unpack_from(self._data, at + _HEAD.size), at
            at += 4 + length

    def _cie(self, at: int) -> _Cie:
        if at + _HEAD.size > len(self._data):
            raise Ended
        length, _ = _HEAD.unpack_from(self._data, at)
        if length > _MOST_PROGRAM:
            raise Ended
        cursor = Cursor(self._data[at + _HEAD.size : at + 4 + length])
        version = cursor.unsigned(1)
        text = bytearray()
        while byte := cursor.unsigned(1):
            text.append(byte)
        if version >= 4:
            cursor.take(2)  # sizes of an address and a segment
        code_align, data_align = cursor.uleb(), cursor.sleb()
        _return_address = cursor.unsigned(1) if version == 1 else cursor.uleb()
        augmented = text.startswith(b"z")
        if augmented:
            cursor.block()
        elif text:
            raise Ended
        return _Cie(code_align, data_align, b"S" in text, augmented, cursor.data[cursor.at :])


class _Program:
    """Call frame instructions at work on a row; what ``initial`` says is what may be restored."""

    def __init__(self, code: Cursor, initial: Row, cie: _Cie, word: int) -> None:
        self.code, self.align = code, cie.data_align
        self.row = initial.copy()
        self._initial, self._cie, self._word = initial, cie, word
        self._remembered: list[Row] = []

    def run(self, start: int, address: int) -> Row:
        """The row that holds at an address, where the first one holds from ``start`` on."""
        at = start
        while self.code.more and at <= address:
            opcode = self.code.take(1)[0]
            operation, operand = opcode & ~_OPERAND, opcode & _OPERAND
            if operation == dwarf.DW_CFA_advance_loc:
                at += operand * self._cie.code_align
            elif opcode in _ADVANCES:
                at += self.code.unsigned(_ADVANCES[opcode]) * self._cie.code_align
            elif opcode == dwarf.DW_CFA_set_loc:
                at = self.code.unsigned(self._word)
            elif operation == dwarf.DW_CFA_offset:
                self.save(operand, FromCfa(self.factored()))
            elif operation == dwarf.DW_CFA_restore:
                self.restore(operand)
            elif opcode in _INSTRUCTIONS:
                _INSTRUCTIONS[opcode](self)
            else:
                raise Ended
        return self.row

    def factored(self) -> int:
        """An offset from 0 on, in units of the table's."""
        return self.code.uleb() * self.align

    def signed(self) -> int:
        """An offset, in units of the table's."""
        return self.code.sleb() * self.align

    def save(self, register: int, value: Register | FromCfa | Expression, in_memory: bool = True) -> None:
        self.row.saved[register] = Rule(value, in_memory)

    def lose(self, register: int) -> None:
        self.row.saved[register] = None

    def keep(self, register: int) -> None:
        """It is the caller's still."""
        self.row.saved.pop(register, None)

    def restore(self, register: int) -> None:
        self.keep(register)
        if register in self._initial.saved:
            self.row.saved[register] = self._initial.saved[register]

    def define(self, register: int | None, offset: int | None) -> None:
        """The CFA, or one half of it; the other stays."""
        old = self.row.cfa if isinstance(self.row.cfa, Register) else Register(0)
        self.row.cfa = Register(old.number if register is None else register, old.offset if offset is None else offset)

    def define_by(self, code: bytes) -> None:
        self.row.cfa = Expression(code)

    def remember(self) -> None:
        if len(self._remembered) == _MOST_REMEMBERED:
            raise Ended
        self._remembered.append(self.row.copy())

    def recall(self) -> None:
        if not self._remembered:
            raise Ended
        self.row = self._remembered.pop()


_ADVANCES: Final = {dwarf.DW_CFA_advance_loc1: 1, dwarf.DW_CFA_advance_loc2: 2, dwarf.DW_CFA_advance_loc4: 4}
_INSTRUCTIONS: Final[Mapping[int, Callable[[_Program], object]]] = {
    dwarf.DW_CFA_nop: lambda p: None,
    dwarf.DW_CFA_offset_extended: lambda p: p.save(p.code.uleb(), FromCfa(p.factored())),
    dwarf.DW_CFA_restore_extended: lambda p: p.restore(p.code.uleb()),
    dwarf.DW_CFA_undefined: lambda p: p.lose(p.code.uleb()),
    dwarf.DW_CFA_same_value: lambda p: p.keep(p.code.uleb()),
    dwarf.DW_CFA_register: lambda p: p.save(p.code.uleb(), Register(p.code.uleb()), False),
    dwarf.DW_CFA_remember_state: lambda p: p.remember(),
    dwarf.DW_CFA_restore_state: lambda p: p.recall(),
    dwarf.DW_CFA_def_cfa: lambda p: p.define(p.code.uleb(), p.code.uleb()),
    dwarf.DW_CFA_def_cfa_register: lambda p: p.define(p.code.uleb(), None),
    dwarf.DW_CFA_def_cfa_offset: lambda p: p.define(None, p.code.uleb()),
    dwarf.DW_CFA_def_cfa_expression: lambda p: p.define_by(p.code.block()),
    dwarf.DW_CFA_expression: lambda p: p.save(p.code.uleb(), Expression(p.code.block())),
    dwarf.DW_CFA_offset_extended_sf: lambda p: p.save(p.code.uleb(), FromCfa(p.signed())),
    dwarf.DW_CFA_def_cfa_sf: lambda p: p.define(p.code.uleb(), p.signed()),
    dwarf.DW_CFA_def_cfa_offset_sf: lambda p: p.define(None, p.signed()),
    dwarf.DW_CFA_val_offset: lambda p: p.save(p.code.uleb(), FromCfa(p.factored()), False),
    dwarf.DW_CFA_val_offset_sf: lambda p: p.save(p.code.uleb(), FromCfa(p.signed()), False),
    dwarf.DW_CFA_val_expression: lambda p: p.save(p.code.uleb(), Expression(p.code.block()), False),
    dwarf.DW_CFA_GNU_args_size: lambda p: p.code.uleb(),  # says nothing of where things are
}


def _section(path: Path | None) -> memoryview:
    """The bytes of ``.debug_frame``; none for a file that has none, or is not there."""
    if path is None:
        return memoryview(b"")
    try:
        with path.open("rb") as file:
            elf = parse_elf(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
        for section in read_sections(elf):
            known = section.name == ".debug_frame" and not section.flags & _COMPRESSED
            if known and section.size <= _MOST_SECTION:
                return elf.data[section.offset : section.offset + section.size]
    except (OSError, ValueError, Fault):
        pass
    return memoryview(b"")
