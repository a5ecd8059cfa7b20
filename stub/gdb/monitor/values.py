"""Numbers in a monitor command: C notation, ``$register``, a symbol's name, sums of these (modulo 2^64)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stub.engine.base import NAMES
from stub.gdb.monitor.faults import MonitorError
from stub.units import U64

if TYPE_CHECKING:
    from stub.gdb.monitor.context import Context

_INDEX = {name: index for index, name in enumerate(NAMES)}
_ALIASES = {"pc": "rip", "sp": "rsp", "fp": "rbp", "eflags": "rflags", "eip": "rip"}
_NUMBER = re.compile(r"(0[xX][0-9a-fA-F]+|0[bB][01]+|0[0-7]*|[1-9][0-9]*)[uUlL]{0,3}")
_PART = re.compile(r"\s*([-+]?)\s*(~?)([^\s+-]+)")


def number(context: Context, text: str) -> int:
    """The value of an argument; MonitorError where it has none."""
    value, at = 0, 0
    while at < len(text):
        part = _PART.match(text, at)
        if part is None or (at and not part[1]):
            raise MonitorError(f"{text!r} is no number")
        term = _term(context, part[3])
        value += (-1 if part[1] == "-" else 1) * (~term if part[2] else term)
        at = part.end()
    if not text:
        raise MonitorError("a number is missing")
    return value & U64


def _term(context: Context, text: str) -> int:
    if text.startswith("$"):
        return register(context, text[1:])
    matched = _NUMBER.fullmatch(text)
    if matched is not None:
        digits = matched[1]
        value = int(digits, 8) if re.fullmatch("0[0-7]+", digits) else int(digits, 0)
        if value > U64:
            raise MonitorError(f"{text} has more than 64 bits")
        return value
    if text[0].isdigit():
        raise MonitorError(f"{text!r} is no number: write 1234, 0x4d2 or 02322")
    address = context.symbols.address_of(text)
    if address is None:
        raise MonitorError(f"{text!r} is no number, $register or known symbol")
    return address


def register(context: Context, name: str) -> int:
    """A register's value by gdb's name for it."""
    name = _ALIASES.get(name, name)
    xen = context.xen
    if name == "k_gs_base":
        return xen.vcpu.gs_base_other
    if name in _INDEX:
        value: int = xen.words[_INDEX[name]]
        return value
    if name[:1] == "e" and "r" + name[1:] in _INDEX:
        return int(xen.words[_INDEX["r" + name[1:]]]) & 0xFFFFFFFF
    raise MonitorError(f"${name} is no register; there are ${', $'.join(NAMES)}, $k_gs_base")


def text(_: Context, word: str) -> str:
    """A word as it is."""
    return word
