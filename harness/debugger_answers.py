"""What a stub's answers mean: stop replies, and the registers of its target description. Bytes in, facts out."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from harness.debugger_wire import DebuggerError, shown

LETTERS = {"watch", "rwatch", "awatch", "swbreak", "hwbreak"}


class Register(NamedTuple):
    """One register of the target description. ``offset`` and ``size``: bytes, in the answer to ``g``."""

    name: str
    number: int
    offset: int
    size: int


@dataclass(frozen=True)
class StopReply:
    """Why the guest stands still, or that it is no more.

    ``kind``: ``swbreak``, ``hwbreak``, ``watch``, ``rwatch``, ``awatch`` or empty; ``address``: of a watched access.
    ``thread``: 1 is vCPU 0. ``registers``: what came along, by number. ``exited``, ``killed``: the status or signal
    of a guest that has ended. ``notes``: the lines that the stub had for the person, since the guest went on.
    """

    raw: bytes
    signal: int = 0
    thread: int = 0
    kind: str = ""
    address: int = 0
    registers: Mapping[int, int] = field(default_factory=dict)
    exited: int | None = None
    killed: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether the guest is no more."""
        return self.exited is not None or self.killed is not None


def parse_stop(raw: bytes, notes: tuple[str, ...] = ()) -> StopReply:
    """Read a stop reply (GDB manual, E.3)."""
    try:
        kind, number, rest = raw[:1], int(raw[1:3], 16), raw[3:].decode("ascii")
        if kind == b"W":
            return StopReply(raw, exited=number, notes=notes)
        if kind == b"X":
            return StopReply(raw, killed=number, notes=notes)
        if kind == b"S" and not rest:
            return StopReply(raw, signal=number, notes=notes)
        if kind == b"T":
            return _parse_reasons(raw, number, rest, notes)
    except ValueError:
        pass
    raise DebuggerError(f"not a stop reply: {shown(raw)}")


def _parse_reasons(raw: bytes, signal: int, text: str, notes: tuple[str, ...]) -> StopReply:
    thread, kind, address, registers = 0, "", 0, {}
    for part in text.removesuffix(";").split(";") if text else []:
        name, colon, value = part.partition(":")
        if not colon:
            raise ValueError(part)
        if name == "thread":
            thread = int(value.rpartition(".")[2], 16)
        elif name in LETTERS:
            kind, address = name, int(value, 16) if value else 0
        elif re.fullmatch("[0-9a-f]+", name):
            registers[int(name, 16)] = int.from_bytes(bytes.fromhex(value), "little")
    return StopReply(raw, signal, thread, kind, address, registers, notes=notes)


def described_registers(read: Callable[[str], bytes]) -> Iterator[Register]:
    """The registers of a target description (GDB manual, G); ``read`` gives its documents by name."""
    sizes: dict[int, tuple[str, int]] = {}
    number = 0
    for element in _elements("target.xml", read):
        if element.tag == "reg":
            number = int(element.get("regnum", number))
            sizes[number] = (element.attrib["name"], int(element.attrib["bitsize"]) // 8)
            number += 1
    offset = 0
    for number in sorted(sizes):
        name, size = sizes[number]
        yield Register(name, number, offset, size)
        offset += size


def _elements(name: str, read: Callable[[str], bytes]) -> Iterator[ElementTree.Element]:
    for element in ElementTree.fromstring(read(name)).iter():
        if element.tag == "{http://www.w3.org/2001/XInclude}include":
            yield from _elements(element.attrib["href"], read)
        else:
            yield element
