"""A hypercall record, decoded: its arguments, what they became and its result, each as text and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from stub.abi import arch_x86
from stub.abi.xen import Hypercall
from stub.trace.names import errno_name
from stub.trace.records import HypercallRecord
from stub.trace.rows import Arg, Call, Flow, Pointed
from stub.trace.schema import CALLS
from stub.trace.structures import combined, elements, members, plain, unstructured
from stub.trace.styles import Shown, decimal, hexadecimal

UNKNOWN_ARGS = tuple(Arg(f"a{number}") for number in range(1, 6))
"""How the registers of a hypercall without a row are shown."""
_IRET_FRAME_64 = ("rip", "cs", "rflags", "rsp", "ss", "rax", "flags")
_IRET_FRAME_32 = ("eax", "eip", "cs", "eflags", "esp", "ss")


class Argument(NamedTuple):
    """One argument: its name in Xen's prototypes, how it is shown, and whether its text carries the name."""

    name: str
    shown: Shown
    label: bool


@dataclass(frozen=True)
class Decoded:
    """``out``: the JSON form of what the call wrote back, None where it wrote nothing that was kept."""

    arguments: tuple[Argument, ...]
    out: Any
    result: str

    @property
    def text(self) -> str:
        """The arguments as between a call's parentheses."""
        return ", ".join(f"{arg.name}={arg.shown.text}" if arg.label else arg.shown.text for arg in self.arguments)

    @property
    def data(self) -> dict[str, Any]:
        """The arguments as JSON, by name."""
        return {arg.name: arg.shown.data for arg in self.arguments}


def decode(record: HypercallRecord) -> Decoded:
    """Decode a record by its row of the registry; a hypercall without one shows its registers."""
    row = CALLS.get(record.number)
    if row is None:
        arguments = [Argument(arg.name, arg.style(value), False) for arg, value in _zip(UNKNOWN_ARGS, record)]
        return Decoded(tuple(arguments), None, result(record))
    if record.number == Hypercall.iret:
        return Decoded(_iret_frame(record), None, result(record, row))
    pointed = row.points_to(record.args)
    arguments = []
    out = None
    for index, (arg, value) in enumerate(_zip(row.arguments(record.bits), record)):
        if index == row.command:
            value &= row.mask
        shown = arg.style(value)
        if pointed is not None and pointed.arg == index and (record.payload or record.out):
            shown, out = _followed(pointed, record, shown)
        arguments.append(Argument(arg.name, shown, arg.label))
    return Decoded(tuple(arguments), out, result(record, row))


def result(record: HypercallRecord, row: Call | None = None) -> str:
    """The result as strace prints one: ``0``, ``-EINVAL (-22)``, or as the call's row shows its numbers."""
    name = errno_name(record.result) if record.failed else None
    if name is not None:
        return f"-{name} ({record.result})"
    style = row.result if row is not None and row.result is not None else decimal
    return style(record.result if record.result >= 0 or style is decimal else record.result & (1 << 64) - 1).text


def _followed(pointed: Pointed, record: HypercallRecord, address: Shown) -> tuple[Shown, Any]:
    """The pointer's argument with what was captured behind it, and the JSON form of what came out."""
    before = elements(pointed, record.payload, record.bits) if record.payload else None
    after = elements(pointed, record.out, record.bits) if record.out else None
    if before is None and after is None:
        shown = unstructured(pointed, record.payload or record.out)
        return (shown, None) if record.payload else (shown, shown.data)
    shown = combined(pointed, before, after) or address
    out = plain(pointed, after) if after is not None else None
    # What only comes out is no argument: JSON keeps the two apart, the text does as strace.
    return (shown if Flow.IN in pointed.flow else Shown(shown.text, address.data)), out


def _iret_frame(record: HypercallRecord) -> tuple[Argument, ...]:
    """The frame by name; of a 32-bit guest's, the words that were read: no stack for a return to its kernel."""
    if record.bits == 64 and len(record.payload) >= arch_x86.IretContext64.size:
        fields = arch_x86.IretContext64.unpack_from(record.payload)._asdict()
        frame = [(name, fields[name]) for name in _IRET_FRAME_64]
    elif record.bits == 32:
        words = memoryview(record.payload[: len(record.payload) & ~3]).cast("I")
        frame = list(zip(_IRET_FRAME_32, words, strict=False))
    else:
        frame = []
    return tuple(Argument(name, hexadecimal(value), True) for name, value in frame)


def _zip(arguments: tuple[Arg, ...], record: HypercallRecord) -> list[tuple[Arg, int]]:
    return list(zip(arguments, record.args, strict=False))


__all__ = ["Argument", "Decoded", "decode", "members", "result"]
