"""How single values are shown: each style turns a number into its text and its JSON form.

The JSON form of an address, a frame, a page-table entry or a set of flags is a string in hexadecimal, because a reader
that keeps numbers as doubles would lose its low bits; counts, ports and times are numbers; what has a name is its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from stub.abi.grant_table import GNTST_NAMES
from stub.abi.xen import (
    DOMIDS,
    UVMF_ALL,
    UVMF_FLUSHTYPE_MASK,
    UVMF_INVLPG,
    UVMF_NONE,
    UVMF_TLB_FLUSH,
)
from stub.units import U64, signed64

Style = Callable[[int], "Shown"]


class Shown(NamedTuple):
    """One value as text and as what goes into JSON."""

    text: str
    data: Any


def hexadecimal(value: int) -> Shown:
    """Addresses, frames, flags without names."""
    text = hex(value)
    return Shown(text, text)


def decimal(value: int) -> Shown:
    """Counts, ports, vCPUs, nanoseconds."""
    return Shown(str(value), value)


def packed(value: int) -> Shown:
    """A result that is 0, or halves packed into one number: a version."""
    return hexadecimal(value) if value else decimal(value)


def pointer(value: int) -> Shown:
    """A guest pointer that was not followed."""
    text = hex(value) if value else "NULL"
    return Shown(text, hex(value))


def signed(value: int) -> Shown:
    """A register read as two's complement."""
    return decimal(signed64(value & U64))


def named(table: Mapping[int, str], fallback: Style = decimal) -> Style:
    """A style that shows a value by its name in ``table``."""
    shown = {value: Shown(name, name) for value, name in table.items()}
    return lambda value: shown.get(value) or fallback(value)


def flags(table: Mapping[int, str]) -> Style:
    """A style for a set of flag bits: names joined by a vertical bar, what is left over in hexadecimal."""

    def style(value: int) -> Shown:
        names = [name for bit, name in table.items() if value & bit]
        rest = value & ~sum(bit for bit in table if value & bit)
        if rest or not names:
            names.append(hex(rest))
        text = "|".join(names)
        return Shown(text, text)

    return style


domid: Final[Style] = named(DOMIDS)
"""A domain id."""

grant_status: Final[Style] = named(GNTST_NAMES)
"""The status of one grant operation, already signed."""


def foreign_domain(value: int) -> Shown:
    """mmu_update's last argument: the pages' owner, and in the high half the page tables' owner plus one (0: self)."""
    owner, tables = domid(value & 0xFFFF), value >> 16
    if not tables:
        return owner
    text = f"{owner.text}|pt_owner={tables - 1}"
    return Shown(text, text)


_FLUSH: Final = {UVMF_NONE: "UVMF_NONE", UVMF_TLB_FLUSH: "UVMF_TLB_FLUSH", UVMF_INVLPG: "UVMF_INVLPG"}


def uvm_flags(value: int) -> Shown:
    """update_va_mapping's flags: a flush type, and which vCPUs (none named: this one; else a pointer to a bitmap)."""
    kind, where = value & UVMF_FLUSHTYPE_MASK, value & ~UVMF_FLUSHTYPE_MASK
    text = _FLUSH.get(kind, hex(kind))
    if where:
        text += "|UVMF_ALL" if where == UVMF_ALL else f"|UVMF_MULTI({where:#x})"
    return Shown(text, text)


def text(value: bytes) -> Shown:
    """A character array up to its NUL, quoted; bytes that are no UTF-8 as escapes."""
    content = value.split(b"\0", 1)[0].decode(errors="backslashreplace")
    return Shown(quote(content), content)


def quote(content: str) -> str:
    """``content`` in double quotes on one line, with C escapes for what does not print."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\x1b": "\\e"}
    shown = "".join(escapes.get(char) or (char if char.isprintable() else f"\\x{ord(char):02x}") for char in content)
    return f'"{shown}"'
