"""The ``__xen_guest`` section: what kernels told Xen before there were notes, as ``KEY=value,KEY=value``."""

from __future__ import annotations

import re

from stub.image.elf import Elf, read_sections
from stub.image.faults import c_string
from stub.units import U64

SECTION = "__xen_guest"
LENGTH_LIMIT = 65536
NUMBER = re.compile(r"\s*([+-]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)")


def find_guest_string(elf: Elf) -> str | None:
    """The string of the file's ``__xen_guest`` section; None when it has no such section."""
    for section in read_sections(elf):
        if section.name == SECTION:
            return c_string(elf.data[section.offset :][: min(section.size, LENGTH_LIMIT)])
    return None


def parse_guest_string(text: str) -> list[tuple[str, str]]:
    """Keys and values in order; a key without "=" has the value ""."""
    items = (item.partition("=") for item in text.split(",") if item)
    return [(key, value) for key, _, value in items]


def c_number(text: str) -> int:
    """``text`` as C's strtoull(text, NULL, 0) reads it: a prefix decides the base, rubbish is 0, too much saturates."""
    match = NUMBER.match(text)
    if match is None:
        return 0
    sign, digits = match.groups()
    base = 16 if digits[:2] in ("0x", "0X") else 8 if digits[0] == "0" else 10
    value = min(int(digits, base), U64)
    return -value & U64 if sign == "-" else value
