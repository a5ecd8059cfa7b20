"""DWARF's numbers and codes, those that an unwind table is written in: DWARF 4, figure 40, sections 7.6 and 7.7.1."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

DW_CFA_advance_loc, DW_CFA_offset, DW_CFA_restore = 0x40, 0x80, 0xC0  # with an operand in their low six bits
DW_CFA_nop, DW_CFA_set_loc = 0x00, 0x01
DW_CFA_advance_loc1, DW_CFA_advance_loc2, DW_CFA_advance_loc4 = 0x02, 0x03, 0x04
DW_CFA_offset_extended, DW_CFA_restore_extended = 0x05, 0x06
DW_CFA_undefined, DW_CFA_same_value, DW_CFA_register = 0x07, 0x08, 0x09
DW_CFA_remember_state, DW_CFA_restore_state = 0x0A, 0x0B
DW_CFA_def_cfa, DW_CFA_def_cfa_register, DW_CFA_def_cfa_offset = 0x0C, 0x0D, 0x0E
DW_CFA_def_cfa_expression, DW_CFA_expression = 0x0F, 0x10
DW_CFA_offset_extended_sf, DW_CFA_def_cfa_sf, DW_CFA_def_cfa_offset_sf = 0x11, 0x12, 0x13
DW_CFA_val_offset, DW_CFA_val_offset_sf, DW_CFA_val_expression = 0x14, 0x15, 0x16
DW_CFA_GNU_args_size = 0x2E

DW_OP_deref, DW_OP_plus_uconst, DW_OP_breg0 = 0x06, 0x23, 0x70

_MOST_BITS: Final = 64  # of a number


class Ended(Exception):
    """There is no more of it, or it says what is not understood."""


class Cursor:
    """Reads numbers out of a piece of a section; `Ended` where it runs out of it."""

    def __init__(self, data: memoryview) -> None:
        self.data, self.at = data, 0

    @property
    def more(self) -> bool:
        """Whether anything is left."""
        return self.at < len(self.data)

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        if self.at + size > len(self.data):
            raise Ended
        self.at += size
        return bytes(self.data[self.at - size : self.at])

    def unsigned(self, size: int) -> int:
        """A number of ``size`` bytes."""
        return int.from_bytes(self.take(size), "little")

    def uleb(self) -> int:
        """A number in ULEB128; `Ended` for one of more than 64 bits."""
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
            if shift > _MOST_BITS:
                raise Ended

    def sleb(self) -> int:
        """A number in SLEB128."""
        start = self.at
        value = self.uleb()
        bits = 7 * (self.at - start)
        return value - (1 << bits) if value >> (bits - 1) & 1 else value

    def block(self) -> bytes:
        """Bytes with their number before them."""
        return self.take(self.uleb())


def uleb(value: int) -> Iterable[int]:
    """The bytes of a number from 0 on in ULEB128."""
    while value >= 0x80:
        yield value & 0x7F | 0x80
        value >>= 7
    yield value


def sleb(value: int) -> Iterable[int]:
    """The bytes of a number in SLEB128."""
    while not -0x40 <= value < 0x40:
        yield value & 0x7F | 0x80
        value >>= 7
    yield value & 0x7F
