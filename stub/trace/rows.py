"""What a hypercall's arguments mean: the shape of a registry row, and the bytes behind its pointers.

A row names a hypercall's arguments, which of them is the command, and for each command what its pointer points to.
The rows themselves are in `stub.trace.schema`. From a row follow the spans to capture (`payload_span` before the call,
`output_span` after it) and how the captured bytes are shown; nothing here reads guest memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Flag
from typing import Final

from stub.abi.layout import Layout, Struct
from stub.trace.styles import Style, hexadecimal

PAYLOAD_CAP: Final = 4096
"""No more bytes than this are captured of one argument: 256 mmu_update requests."""

Span = tuple[int, int]
"""A guest virtual address and a length in bytes."""


class Flow(Flag):
    """Which way a structure goes: read by the hypervisor, written by it, or both."""

    IN = 1
    OUT = 2
    BOTH = 3


@dataclass(frozen=True)
class Arg:
    """One argument register: its name, how it is shown, and whether its text carries the name."""

    name: str
    style: Style = hexadecimal
    label: bool = False


@dataclass(frozen=True)
class Pointed:
    """What the pointer in argument ``arg`` (from 0) points to: ``count`` structures, or one.

    ``count`` is the index of the argument that counts them, ``per`` how many of those make one element (GDT entries a
    frame). ``text``: bytes to be read as text. ``terminated``: the array ends where the structure's ``address`` is 0.
    """

    arg: int
    structure: Layout
    flow: Flow = Flow.IN
    count: int | None = None
    per: int = 1
    text: bool = False
    terminated: bool = False

    def layout(self, bits: int) -> Struct:
        """The structure in a guest of that width."""
        return self.structure.of(bits)

    def size(self, args: Sequence[int], bits: int) -> int:
        """How many bytes it takes, before any cap."""
        if self.terminated:
            return 256 * self.layout(bits).size
        elements = 1 if self.count is None else -(-(args[self.count] & 0xFFFF_FFFF) // self.per)
        return elements * self.layout(bits).size


@dataclass(frozen=True)
class Call:
    """A row: hypercall ``number``, its arguments, its commands.

    ``command`` is the index of the argument that holds the command, ``mask`` the bits of it that count,
    ``commands`` the commands' names and ``pointed`` what each one's pointer points to; a call without commands has its
    pointed structure under the key None. ``args32`` where a 32-bit guest passes other registers.
    ``result``: how a result that is no error is shown.
    """

    number: int
    args: tuple[Arg, ...]
    command: int | None = None
    mask: int = 0xFFFF_FFFF
    commands: Mapping[int, str] = field(default_factory=dict)
    pointed: Mapping[int | None, Pointed] = field(default_factory=dict)
    args32: tuple[Arg, ...] | None = None
    result: Style | None = None

    def arguments(self, bits: int) -> tuple[Arg, ...]:
        """The arguments of a guest of that width."""
        return self.args32 if bits == 32 and self.args32 is not None else self.args

    def points_to(self, args: Sequence[int]) -> Pointed | None:
        """What the pointer of a call with these arguments points to."""
        return self.pointed.get(None if self.command is None else args[self.command] & self.mask)


def registry(rows: Sequence[Call]) -> dict[int, Call]:
    """The rows by number. ``ValueError`` for two rows of one number."""
    table = {row.number: row for row in rows}
    if len(table) != len(rows):
        raise ValueError("two rows for one hypercall")
    return table
