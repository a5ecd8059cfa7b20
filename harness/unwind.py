"""Who called: the callers of a place in a guest, from the unwind table that its symbols' file has.

DWARF 4, section 6.4 (call frame information, as compilers write it into ``.debug_frame``, and `harness.orc` for stock
kernels), and as much of section 2.5 (expressions) as frames of x86 need. Where an address has no row, the chain of
frame pointers is followed, as the System V ABI has it.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from harness import orc
from stub.image.elf import parse_elf, read_sections
from stub.image.faults import Fault

MOST_FRAMES: Final = 64
_COMPRESSED: Final = 0x800  # SHF_COMPRESSED
_MOST_BITS: Final = 64  # of a number
_MOST_REMEMBERED: Final = 16  # rows; compilers nest one
_MOST_PROGRAM: Final = 1 << 20  # bytes of an entry's instructions
_MOST_SECTION: Final = 64 << 20  # bytes
_STACK_REACH: Final = 1 << 16  # bytes in which the next frame pointer has to be

Read = Callable[[int, int], bytes]
"""So many bytes of the guest at an address, or fewer."""


class _Width(NamedTuple):
    """An architecture: bytes of a word, and the numbers of its registers in DWARF."""

    word: int
    registers: tuple[str, ...]
    frame: int
    stack: int
    place: int


# System V ABI, AMD64: figure 3.36; Intel386: table 2.14.
_WIDTHS: Final[Mapping[int, _Width]] = {
    64: _Width(8, ("rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", *(f"r{n}" for n in range(8, 16)), "rip"),
               6, 7, 16),
    32: _Width(4, ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "rip"), 5, 4, 8),
}  # fmt: skip


class _Stop(Exception):
    """The table ends here, or says what is not understood."""


class _Cursor:
    """Numbers out of a piece of the section; running out of it is the end."""

    def __init__(self, data: memoryview, at: int = 0) -> None:
        self.data, self.at = data, at

    def take(self, size: int) -> bytes:
        if self.at + size > len(self.data):
            raise _Stop
        self.at += size
        return bytes(self.data[self.at - size : self.at])

    def unsigned(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def uleb(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
            if shift > _MOST_BITS:
                raise _Stop

    def sleb(self) -> int:
        start = self.at
        value = self.uleb()
        bits = 7 * (self.at - start)
        return value - (1 << bits) if value >> (bits - 1) & 1 else value

    def block(self) -> bytes:
        return self.take(self.uleb())


class _Row:
    """What holds at an address: how the frame's address (CFA) is found, and each saved register."""

    def __init__(self) -> None:
        self.cfa: tuple[int, int] | bytes | None = None
        self.saved: dict[int, tuple[str, int | bytes]] = {}

    def copy(self) -> _Row:
        other = _Row()
        other.cfa, other.saved = self.cfa, dict(self.saved)
        return other


class _Cie(NamedTuple):
    code_align: int
    data_align: int
    signal: bool
    program: memoryview


class Frame(NamedTuple):
    """``place``: where it is; ``caller``: it is there after a call, so the call itself is before."""

    place: int
    caller: bool


class Unwinder:
    """The unwind table of an ELF file; without one there are frame pointers."""

    def __init__(self, path: Path | None, bits: int = 64) -> None:
        self._width = _WIDTHS[bits]
        self._data = _section(path)
        starts, self._entries = [], []
        for start, size, at in self._index():
            starts.append(start)
            self._entries.append((size, at))
        order = np.argsort(np.array(starts, np.uint64), kind="stable")
        self._starts = np.array(starts, np.uint64)[order]
        self._order = order

    def frames(self, registers: Mapping[str, int], read: Read) -> Iterator[Frame]:
        """The frames of a vCPU, innermost first, as far as they can be followed."""
        width = self._width
        mask = (1 << 8 * width.word) - 1
        values = {number: registers[name] & mask for number, name in enumerate(width.registers)}
        caller = False
        for _ in range(MOST_FRAMES):
            place, stack = values[width.place], values[width.stack]
            yield Frame(place, caller)
            try:
                found = self._row(place - caller)
                if found is None:
                    values, caller = self._by_frame_pointer(values, read), True
                else:
                    row, signal = found
                    values, caller = self._apply(row, values, read), not signal
            except _Stop:
                return
            if not values[width.place] or (caller and values[width.stack] <= stack):
                return

    # -- one step

    def _apply(self, row: _Row, values: Mapping[int, int], read: Read) -> dict[int, int]:
        width = self._width
        mask = (1 << 8 * width.word) - 1
        if row.cfa is None:
            raise _Stop
        if isinstance(row.cfa, bytes):
            cfa = self._evaluate(row.cfa, values, read, None)
        else:
            cfa = values.get(row.cfa[0], 0) + row.cfa[1] & mask
        above = dict(values) | {width.stack: cfa}
        if width.place not in row.saved:
            raise _Stop
        for number, (how, what) in row.saved.items():
            if how == "undefined" or (how == "register" and isinstance(what, int) and what not in values):
                if number == width.place:
                    raise _Stop
                continue
            if isinstance(what, bytes):
                at = self._evaluate(what, values, read, cfa)
            else:
                at = values[what] if how == "register" else cfa + what & mask
            above[number] = self._word(read, at) if how in ("at", "expression") else at
        return above

    def _by_frame_pointer(self, values: Mapping[int, int], read: Read) -> dict[int, int]:
        width = self._width
        frame, stack = values[width.frame], values[width.stack]
        if not stack <= frame < stack + _STACK_REACH:
            raise _Stop
        return dict(values) | {
            width.frame: self._word(read, frame),
            width.place: self._word(read, frame + width.word),
            width.stack: frame + 2 * width.word,
        }

    def _word(self, read: Read, at: int) -> int:
        data = read(at, self._width.word)
        if len(data) < self._width.word:
            raise _Stop
        return int.from_bytes(data, "little")

    def _evaluate(self, code: bytes, values: Mapping[int, int], read: Read, first: int | None) -> int:
        """An expression; ``first`` is on the stack before."""
        mask = (1 << 8 * self._width.word) - 1
        stack = [] if first is None else [first]
        cursor = _Cursor(memoryview(code))
        while cursor.at < len(code):
            operation = cursor.take(1)[0]
            if orc.DW_OP_breg0 <= operation < orc.DW_OP_breg0 + 32:
                stack.append(values.get(operation - orc.DW_OP_breg0, 0) + cursor.sleb() & mask)
            elif operation == orc.DW_OP_deref and stack:
                stack.append(self._word(read, stack.pop()))
            elif operation == orc.DW_OP_plus_uconst and stack:
                stack.append(stack.pop() + cursor.uleb() & mask)
            else:
                raise _Stop
        if not stack:
            raise _Stop
        return stack[-1]

    # -- the table

    def _index(self) -> Iterator[tuple[int, int, int]]:
        """(first address, bytes, offset) of each FDE."""
        word, head = self._width.word, struct.Struct("<II")
        place = struct.Struct("<QQ" if word == 8 else "<II")
        at = 0
        while at + head.size <= len(self._data):
            length, identity = head.unpack_from(self._data, at)
            if length == 0xFFFFFFFF:  # the 64-bit format, which nobody writes for a kernel
                return
            if (
                identity != 0xFFFFFFFF
                and 4 + 2 * word <= length <= _MOST_PROGRAM
                and at + head.size + place.size <= len(self._data)
            ):
                yield *place.unpack_from(self._data, at + head.size), at
            at += 4 + length

    def _row(self, place: int) -> tuple[_Row, bool] | None:
        """The row of an address, and whether its frame is an interrupted one's; None where nothing covers it."""
        number = int(np.searchsorted(self._starts, np.uint64(max(place, 0)), side="right")) - 1
        if number < 0:
            return None
        start = int(self._starts[number])
        size, at = self._entries[self._order[number]]
        if place >= start + size:
            return None
        length, cie_at = struct.unpack_from("<II", self._data, at)
        body = _Cursor(self._data[at + 8 + 2 * self._width.word : at + 4 + length])
        cie, augmented = self._cie(cie_at)
        if augmented:
            body.block()
        first = self._play(_Cursor(cie.program), _Row(), None, cie, 0, 0)
        return self._play(body, first.copy(), first, cie, start, place), cie.signal

    def _cie(self, at: int) -> tuple[_Cie, bool]:
        if at + 8 > len(self._data):
            raise _Stop
        (length,) = struct.unpack_from("<I", self._data, at)
        if length > _MOST_PROGRAM:
            raise _Stop
        cursor = _Cursor(self._data[at + 8 : at + 4 + length])
        version = cursor.unsigned(1)
        text = bytearray()
        while byte := cursor.unsigned(1):
            text.append(byte)
        if version >= 4:
            cursor.take(2)
        code_align, data_align = cursor.uleb(), cursor.sleb()
        _ = cursor.unsigned(1) if version == 1 else cursor.uleb()
        if text.startswith(b"z"):
            cursor.block()
        elif text:
            raise _Stop
        return _Cie(code_align, data_align, b"S" in text, cursor.data[cursor.at :]), text.startswith(b"z")

    def _play(self, code: _Cursor, row: _Row, first: _Row | None, cie: _Cie, at: int, place: int) -> _Row:
        """Call frame instructions up to an address."""
        remembered: list[_Row] = []
        while code.at < len(code.data):
            opcode = code.take(1)[0]
            step = _distance(opcode, code, self._width.word)
            if step is not None:
                at = step[0] if step[1] else at + step[0] * cie.code_align
                if at > place:
                    break
            elif opcode == 0x0A:
                if len(remembered) == _MOST_REMEMBERED:
                    raise _Stop
                remembered.append(row.copy())
            elif opcode == 0x0B:
                if not remembered:
                    raise _Stop
                row = remembered.pop()
            else:
                _instruct(opcode, code, row, first, cie.data_align)
        return row


def _distance(opcode: int, code: _Cursor, word: int) -> tuple[int, bool] | None:
    """How far an instruction moves on; True: that is the address itself. None for one that does not."""
    if opcode & 0xC0 == orc.DW_CFA_advance_loc:
        return opcode & 0x3F, False
    if opcode == 0x01:
        return code.unsigned(word), True
    sizes = {orc.DW_CFA_advance_loc1: 1, orc.DW_CFA_advance_loc2: 2, orc.DW_CFA_advance_loc4: 4}
    return (code.unsigned(sizes[opcode]), False) if opcode in sizes else None


def _instruct(opcode: int, code: _Cursor, row: _Row, first: _Row | None, align: int) -> None:
    """An instruction that changes the row. Numbers: DWARF 4, figure 40."""
    high, low = opcode & 0xC0, opcode & 0x3F
    if high == orc.DW_CFA_offset:
        row.saved[low] = ("at", code.uleb() * align)
    elif high == 0xC0:
        _restore(low, row, first)
    elif opcode == 0x00:
        pass
    elif opcode in _ROWS:
        _ROWS[opcode](code, row, align)
    elif opcode == 0x06:
        _restore(code.uleb(), row, first)
    else:
        raise _Stop


def _restore(number: int, row: _Row, first: _Row | None) -> None:
    row.saved.pop(number, None)
    if first is not None and number in first.saved:
        row.saved[number] = first.saved[number]


def _cfa(code: _Cursor, row: _Row, register: int | None, offset: int | None) -> None:
    old = row.cfa if isinstance(row.cfa, tuple) else (0, 0)
    row.cfa = old[0] if register is None else register, old[1] if offset is None else offset


def _whole_cfa(code: _Cursor, row: _Row, align: int) -> None:
    row.cfa = code.block()


_ROWS: Final[Mapping[int, Callable[[_Cursor, _Row, int], None]]] = {
    0x05: lambda c, row, align: row.saved.update({c.uleb(): ("at", c.uleb() * align)}),
    orc.DW_CFA_undefined: lambda c, row, align: row.saved.update({c.uleb(): ("undefined", 0)}),
    orc.DW_CFA_same_value: lambda c, row, align: _restore(c.uleb(), row, None),
    0x09: lambda c, row, align: row.saved.update({c.uleb(): ("register", c.uleb())}),
    orc.DW_CFA_def_cfa: lambda c, row, align: _cfa(c, row, c.uleb(), c.uleb()),
    0x0D: lambda c, row, align: _cfa(c, row, c.uleb(), None),
    0x0E: lambda c, row, align: _cfa(c, row, None, c.uleb()),
    orc.DW_CFA_def_cfa_expression: _whole_cfa,
    orc.DW_CFA_expression: lambda c, row, align: row.saved.update({c.uleb(): ("expression", c.block())}),
    orc.DW_CFA_offset_extended_sf: lambda c, row, align: row.saved.update({c.uleb(): ("at", c.sleb() * align)}),
    orc.DW_CFA_def_cfa_sf: lambda c, row, align: _cfa(c, row, c.uleb(), c.sleb() * align),
    0x13: lambda c, row, align: _cfa(c, row, None, c.sleb() * align),
    0x14: lambda c, row, align: row.saved.update({c.uleb(): ("value", c.uleb() * align)}),
    0x15: lambda c, row, align: row.saved.update({c.uleb(): ("value", c.sleb() * align)}),
    0x16: lambda c, row, align: row.saved.update({c.uleb(): ("value of", c.block())}),
    0x2E: lambda c, row, align: _ignored(c.uleb()),
}


def _ignored(value: int) -> None:
    """DW_CFA_GNU_args_size says nothing of where things are."""


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
