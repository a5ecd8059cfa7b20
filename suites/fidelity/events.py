"""What a guest asked and what it was answered, in one form for the recording of real Xen and for our own log.

An event has three parts, compared differently. ``asked``: kind, sub-operation and every argument that means the same
in two boots. ``places``: where in its memory the guest put things (pseudo-physical frames, pointers). ``answer``: what
the hypervisor made of it. Machine frames are never compared: each side's are turned into the guest's own numbering by
that side's frame table, so that a wrong frame still shows. Absolute times are left out, and so are registers that a
call does not use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from stub.abi import xen
from stub.abi.layout import Struct
from stub.abi.xen import Hypercall
from stub.trace.names import hypercall_name
from stub.trace.rows import Arg, Call, Flow, Pointed
from stub.trace.schema import CALLS
from stub.trace.styles import pointer

Frames = Callable[[int], str]
"""A machine frame in the guest's own words: ``p1a2`` for pseudo-physical frame 0x1a2, ``xen`` for one of Xen's."""

SHOWN = 32
"""Bytes of an argument structure that the recording has."""

_PRESENT = 1
_FLAGS = 0xFFF0_0000_0000_0FFF
_FRAME_FIELDS = {"mfn", "gmfn", "control_gfn", "array_gfn"}
_PLACE_FIELDS = {"addr", "buffer", "frame_list", "errs"}
_TIME_FIELDS = {"timeout_abs_ns"}


class Event(NamedTuple):
    """``line``: where the event is in what it was read from, from 1."""

    asked: tuple[str, ...]
    places: tuple[str, ...]
    answer: tuple[str, ...]
    line: int

    def __str__(self) -> str:
        text = " ".join(self.asked)
        if self.places:
            text += f" [{' '.join(self.places)}]"
        return f"{text} = {' '.join(self.answer)}" if self.answer else text

    @property
    def name(self) -> str:
        """Hypercall and sub-operation, or the kind of event: the first word."""
        return self.asked[0]


def entry(frames: Frames, value: int) -> tuple[str, str]:
    """A page-table entry: its flags, its frame."""
    if not value & _PRESENT:
        return f"{value:#x}", "-"
    return f"{value & _FLAGS:#x}", frames((value & ~_FLAGS) >> 12)


def hypercall(
    frames: Frames, line: int, number: int, args: Sequence[int], result: int, before: bytes, after: bytes
) -> Event:
    """A hypercall. ``before`` and ``after``: the first `SHOWN` bytes behind its pointer; ``after`` empty: unchanged."""
    row = CALLS.get(number, Call(number, (Arg("op"), Arg("arg", pointer))))
    asked, places, answer = [_name(row, args)], list[str](), list[str]()
    special = _SPECIAL.get(number)
    if special is not None:
        special(frames, args, before, asked, places)
    else:
        pointed = row.points_to(args)
        for index, (arg, value) in enumerate(zip(row.args, args, strict=False)):
            if index == row.command:
                continue
            if arg.style is pointer or (pointed is not None and pointed.arg == index):
                places.append(f"{value:#x}")
            else:
                asked.append(f"{arg.name}={value:#x}")
        if pointed is not None:
            _structure(frames, pointed, args, before, after, asked, places, answer)
    if number != Hypercall.iret:  # whose result is the rax that it restores
        answer.insert(0, str(result))
    return Event(tuple(asked), tuple(places), tuple(answer), line)


def _name(row: Call, args: Sequence[int]) -> str:
    name = hypercall_name(row.number)
    if row.command is None:
        return name
    command = args[row.command] & row.mask
    return f"{name}:{row.commands.get(command, command)}"


def _structure(
    frames: Frames,
    pointed: Pointed,
    args: Sequence[int],
    before: bytes,
    after: bytes,
    asked: list[str],
    places: list[str],
    answer: list[str],
) -> None:
    layout = pointed.layout(64)
    if Flow.IN in pointed.flow and before:
        for number in range(min(pointed.size(args, 64), SHOWN) // layout.size or 1):
            for name, value in _fields(layout, before, number * layout.size):
                if name in _FRAME_FIELDS or layout.name == "Word64":
                    places.append(frames(value))
                elif name in _PLACE_FIELDS:
                    places.append(f"{value:#x}")
                elif name not in _TIME_FIELDS:
                    asked.append(f"{name}={value:#x}")
            if pointed.terminated and not value:
                break
    if Flow.OUT in pointed.flow:
        for name, value in _fields(layout, after or before):
            if name not in _PLACE_FIELDS | _FRAME_FIELDS:
                answer.append(f"{name}={value:#x}")


def _fields(layout: Struct, data: bytes, base: int = 0) -> list[tuple[str, int]]:
    """The structure's members that are whole in ``data``, as unsigned numbers."""
    fields = []
    for name, place in layout.fields.items():
        part = data[base + place.offset : base + place.offset + place.size]
        if len(part) == place.size:
            fields.append((name, int.from_bytes(part, "little")))
    return fields


# -- hypercalls whose arguments are not what a structure's members say


def _words(data: bytes) -> list[int]:
    return [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data) & ~7, 8)]


def _mmu_update(frames: Frames, args: Sequence[int], before: bytes, asked: list[str], places: list[str]) -> None:
    count = args[1]
    asked += [f"count={count}", f"foreigndom={args[3]:#x}"]
    words = _words(before)
    for at in range(0, min(2 * count, len(words)), 2):
        address, value = words[at : at + 2]
        command = address & 7
        asked.append(xen.MMU_UPDATES[command])
        places.append(f"{frames(address >> 12)}:{address >> 3 & 511:x}")
        if command == xen.MMU_MACHPHYS_UPDATE:
            places.append(f"p{value:x}")
        else:
            flags, frame = entry(frames, value)
            asked.append(flags)
            places.append(frame)


_TAKES_FRAME = {
    xen.MMUEXT_PIN_L1_TABLE,
    xen.MMUEXT_PIN_L2_TABLE,
    xen.MMUEXT_PIN_L3_TABLE,
    xen.MMUEXT_PIN_L4_TABLE,
    xen.MMUEXT_UNPIN_TABLE,
    xen.MMUEXT_NEW_BASEPTR,
    xen.MMUEXT_NEW_USER_BASEPTR,
}
_TAKES_ADDRESS = {xen.MMUEXT_INVLPG_LOCAL, xen.MMUEXT_INVLPG_MULTI, xen.MMUEXT_INVLPG_ALL}


def _mmuext_op(frames: Frames, args: Sequence[int], before: bytes, asked: list[str], places: list[str]) -> None:
    count = args[1]
    asked += [f"count={count}", f"foreigndom={args[3]:#x}"]
    words = _words(before)
    for at in range(0, min(3 * count, len(words) // 3 * 3), 3):
        command, argument = words[at] & 0xFFFF_FFFF, words[at + 1]
        asked.append(xen.MMUEXT_OPS[command])
        if command in _TAKES_FRAME:
            places.append(frames(argument))
        elif command in _TAKES_ADDRESS:
            places.append(f"{argument:#x}")
        elif command == xen.MMUEXT_SET_LDT:
            asked.append(f"entries={words[at + 2] & 0xFFFF_FFFF}")
            places.append(f"{argument:#x}")


def _update_va_mapping(frames: Frames, args: Sequence[int], _: bytes, asked: list[str], places: list[str]) -> None:
    flags, frame = entry(frames, args[1])
    asked += [flags, f"uvmf={args[2]:#x}" if args[2] < 8 else "uvmf=vcpus"]
    places += [f"{args[0]:#x}", frame]


def _update_descriptor(frames: Frames, args: Sequence[int], _: bytes, asked: list[str], places: list[str]) -> None:
    asked += [f"slot {args[0] >> 3 & 511:#x}", f"{args[1]:#x}"]
    places.append(frames(args[0] >> 12))


def _stack_switch(_: Frames, args: Sequence[int], __: bytes, asked: list[str], places: list[str]) -> None:
    asked.append(f"ss={args[0]:#x}")
    places.append(f"{args[1]:#x}")


def _set_segment_base(_: Frames, args: Sequence[int], __: bytes, ___: list[str], places: list[str]) -> None:
    places.append(f"{args[1]:#x}")


def _version_only(_: Frames, args: Sequence[int], __: bytes, ___: list[str], ____: list[str]) -> None:
    """Nothing but the call: iret takes its frame off the stack, which the recording does not show."""


_SPECIAL: dict[int, Callable[[Frames, Sequence[int], bytes, list[str], list[str]], None]] = {
    Hypercall.mmu_update: _mmu_update,
    Hypercall.mmuext_op: _mmuext_op,
    Hypercall.update_va_mapping: _update_va_mapping,
    Hypercall.update_descriptor: _update_descriptor,
    Hypercall.stack_switch: _stack_switch,
    Hypercall.set_segment_base: _set_segment_base,
    Hypercall.iret: _version_only,
}


# -- what is no hypercall


def cpuid(line: int, forced: bool, leaf: int, subleaf: int, registers: Sequence[int]) -> Event:
    """A ``cpuid``. The sub-leaf is left out of leaves that have none."""
    asked = ("cpuid", "forced" if forced else "trapped", f"{leaf:#x}", f"{subleaf:#x}")
    return Event(asked, (), tuple(f"{value:#x}" for value in registers), line)


def port(line: int, write: bool, number: int, size: int, value: int) -> Event:
    """An ``in`` or ``out`` of ``size`` bytes: what is written is asked, what is read is the answer."""
    value &= (1 << 8 * size) - 1
    if write:
        return Event(("out", f"{number:#x}", f"{size}", f"{value:#x}"), (), (), line)
    return Event(("in", f"{number:#x}", f"{size}"), (), (f"{value:#x}",), line)


def privileged(line: int, code: bytes, before: dict[str, int], after: dict[str, int]) -> Event:
    """A privileged instruction: ``before`` and ``after`` hold ax, cx and dx (64 bits)."""
    low = 0xFFFF_FFFF
    opcode = code[:2] if code[0] == 0x0F else code[:1]
    match opcode:
        case b"\x0f\x30":
            value = (before["dx"] & low) << 32 | before["ax"] & low
            return Event(("wrmsr", f"{before['cx'] & low:#x}"), (f"{value:#x}",), (), line)
        case b"\x0f\x32":
            value = (after["dx"] & low) << 32 | after["ax"] & low
            return Event(("rdmsr", f"{before['cx'] & low:#x}"), (), (f"{value:#x}",), line)
        case b"\x0f\x20":
            value = after[_REGISTERS[code[2] & 7]]
            return Event((f"read cr{code[2] >> 3 & 7}",), (), (f"{value:#x}",), line)
        case b"\x0f\x22":
            return Event((f"write cr{code[2] >> 3 & 7}",), (), (), line)
        case b"\x0f\x01":
            return Event((f"0f01{code[2]:02x}",), (), (), line)
        case b"\xfa" | b"\xfb":
            return Event(("cli" if opcode == b"\xfa" else "sti",), (), (), line)
    raise ValueError(f"line {line}: no privileged instruction that this suite knows: {code.hex()}")


_REGISTERS = {0: "ax", 1: "cx", 2: "dx"}


def exception(line: int, vector: int, error_code: int | None, cr2: int, rip: int, to_rip: int) -> Event:
    """An exception handed to the guest's handler."""
    code = "-" if error_code is None else f"{error_code:#x}"
    return Event((f"exception:{vector}", code, f"{rip:#x}"), (f"{cr2:#x}",), (f"{to_rip:#x}",), line)
