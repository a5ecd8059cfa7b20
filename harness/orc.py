"""ORC, the unwind table that Linux carries for itself, told in DWARF's words, so that gdb can use it.

A kernel built with CONFIG_UNWINDER_ORC (all of Debian's) has no frame pointers, and without debug information gdb
then guesses callers wrong from the second frame on. ORC says for each address where the caller's stack pointer,
frame pointer and return address are; each such row becomes a row of ``.debug_frame``.

Sources: Linux arch/x86/include/asm/orc_types.h (the entries, before and since 6.4), arch/x86/kernel/unwind_orc.c
(``unwind_next_frame``: what they mean), arch/x86/include/asm/ptrace.h; DWARF 4, section 6.4.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.dwarf import (
    DW_CFA_advance_loc,
    DW_CFA_advance_loc1,
    DW_CFA_advance_loc2,
    DW_CFA_advance_loc4,
    DW_CFA_def_cfa,
    DW_CFA_def_cfa_expression,
    DW_CFA_def_cfa_sf,
    DW_CFA_expression,
    DW_CFA_offset,
    DW_CFA_offset_extended_sf,
    DW_CFA_same_value,
    DW_CFA_undefined,
    DW_OP_breg0,
    DW_OP_deref,
    DW_OP_plus_uconst,
    sleb,
    uleb,
)
from stub.image.elf import Elf, Section, read_sections

ENTRY = np.dtype([("sp_offset", "<i2"), ("bp_offset", "<i2"), ("bits", "<u2")])  # bits: sp_reg 4, bp_reg 4, type 2 or 3

# ORC_REG_*
UNDEFINED, PREV_SP, BP, BP_INDIRECT, SP_INDIRECT = 0, 1, 4, 8, 9
# ORC_REG_* → DWARF's number of the register (System V ABI for AMD64, figure 3.36)
DWARF = {2: 1, 3: 5, BP: 6, 5: 7, 6: 10, 7: 13}
RBP, RSP, RIP = 6, 7, 16
# DWARF's number → offset in struct pt_regs
PT_REGS = {15: 0, 14: 8, 13: 16, 12: 24, RBP: 32, 3: 40, 11: 48, 10: 56, 9: 64, 8: 72, 0: 80, 2: 88, 1: 96, 4: 104,
           5: 112, RIP: 128, RSP: 152}  # fmt: skip
# The hardware's part of it: rip, cs, rflags, rsp, ss.
IRET_FRAME = {RIP: 0, RSP: 24}

DATA_ALIGN = -8
ROWS_A_PIECE = 64
"""gdb replays a piece (FDE) from its start to the address that it is after."""


class Frame(Enum):
    """What lies on the stack, and its number in ``type`` before Linux 6.4 and since."""

    NONE = (None, 0)
    END = (None, 1)
    CALL = (0, 2)
    REGS = (1, 3)
    IRET = (2, 4)


def debug_frame(elf: Elf) -> bytes:
    """A ``.debug_frame`` section that says what the kernel's ORC tables say; empty if it has none that we know."""
    sections = {section.name: section for section in read_sections(elf)}
    table = _read(elf, sections)
    if table is None:
        return b""
    addresses, entries = table
    # Since 6.4 the format is versioned, and has more types.
    column = 1 if ".orc_header" in sections else 0
    kinds = {frame.value[column]: frame for frame in Frame if frame.value[column] is not None}
    shapes, which = np.unique(entries, return_inverse=True)
    rules = [_rule(int(e["sp_offset"]), int(e["bp_offset"]), int(e["bits"]), kinds) for e in shapes]
    return _section(addresses.tolist(), which.tolist(), rules)


def _read(elf: Elf, sections: Mapping[str, Section]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]] | None:
    """Addresses, ascending and each once, and their entries."""
    places, rows = sections.get(".orc_unwind_ip"), sections.get(".orc_unwind")
    if places is None or rows is None or max(s.offset + s.size for s in (places, rows)) > len(elf.data):
        return None
    count = places.size // 4
    if not count or rows.size != count * ENTRY.itemsize:
        return None
    distances = np.frombuffer(elf.data, "<i4", count, places.offset).astype(np.uint64)
    addresses = np.uint64(places.address) + 4 * np.arange(count, dtype=np.uint64) + distances
    entries = np.frombuffer(elf.data, ENTRY, count, rows.offset)
    # As the kernel sorts them (orc_sort_cmp): of two at one address the one that says something comes last, and wins.
    order = np.lexsort((entries["bits"] & 15 != UNDEFINED, addresses))
    addresses, entries = addresses[order], entries[order]
    last = np.append(addresses[1:] != addresses[:-1], True)
    return addresses[last], entries[last]


def _rule(sp_offset: int, bp_offset: int, bits: int, kinds: Mapping[int | None, Frame]) -> tuple[Frame, bytes]:
    """An entry as call frame instructions that say all of it, whatever held before in a piece of the same kind."""
    sp_reg, bp_reg = bits & 15, bits >> 4 & 15
    frame = kinds.get(bits >> 8 & (7 if Frame.NONE in kinds.values() else 3), Frame.NONE)
    cfa = _cfa(sp_reg, sp_offset)
    if cfa is None or frame in (Frame.NONE, Frame.END):
        return Frame.END, bytes([DW_CFA_def_cfa, RSP, 8, DW_CFA_undefined, RIP])
    if frame is Frame.CALL:
        return frame, cfa + _frame_pointer(bp_reg, bp_offset)
    saved = PT_REGS if frame is Frame.REGS else IRET_FRAME
    return frame, cfa + b"".join(_saved(register, offset) for register, offset in saved.items())


def _cfa(register: int, offset: int) -> bytes | None:
    """Where the caller's stack pointer was before the call; of saved registers, where they are."""
    if register == BP_INDIRECT:
        return _block(DW_CFA_def_cfa_expression, bytes([DW_OP_breg0 + RBP, *sleb(offset), DW_OP_deref]))
    if register == SP_INDIRECT and offset >= 0:
        code = bytes([DW_OP_breg0 + RSP, 0, DW_OP_deref, DW_OP_plus_uconst, *uleb(offset)])
        return _block(DW_CFA_def_cfa_expression, code)
    if register not in DWARF:
        return None
    if offset >= 0:
        return bytes([DW_CFA_def_cfa, DWARF[register], *uleb(offset)])
    if offset % DATA_ALIGN:
        return None
    return bytes([DW_CFA_def_cfa_sf, DWARF[register], *sleb(offset // DATA_ALIGN)])


def _frame_pointer(register: int, offset: int) -> bytes:
    if register == PREV_SP:
        return _saved(RBP, offset)
    if register == BP:
        return bytes([DW_CFA_expression, RBP, *_block(None, bytes([DW_OP_breg0 + RBP, *sleb(offset)]))])
    return bytes([DW_CFA_same_value, RBP])


def _saved(register: int, offset: int) -> bytes:
    """``register`` is in memory, ``offset`` bytes from the CFA."""
    if offset % DATA_ALIGN:
        return bytes([DW_CFA_undefined, register])
    factored = offset // DATA_ALIGN
    if factored >= 0:
        return bytes([DW_CFA_offset | register, *uleb(factored)])
    return bytes([DW_CFA_offset_extended_sf, register, *sleb(factored)])


def _section(addresses: list[int], which: list[int], rules: list[tuple[Frame, bytes]]) -> bytes:
    """CIEs and FDEs. A piece ends where the kind of frame changes; the table's last row only says where it ends."""
    section = bytearray()
    # What REGS and IRET frames were interrupted at is an instruction itself, not the one after a call: S says so (the
    # augmentation, as in .eh_frame; z, that each of its FDEs says how many bytes of more it has: none).
    cies = {}
    for signal in (False, True):
        cies[signal] = len(section)
        initial = b"" if signal else bytes([DW_CFA_offset | RIP, 1])
        text = bytes([*b"zS\0", 1, *sleb(DATA_ALIGN), RIP, 0]) if signal else bytes([0, 1, *sleb(DATA_ALIGN), RIP])
        section += _entry(0xFFFFFFFF, b"\x01" + text + initial)
    at, stop = 0, len(addresses) - 1
    while at < stop:
        frame, begin = rules[which[at]][0], at
        code, row = bytearray(rules[which[at]][1]), addresses[at]
        at += 1
        while at < stop and at - begin < ROWS_A_PIECE and rules[which[at]][0] is frame:
            if which[at] != which[at - 1]:
                code += _advance(addresses[at] - row) + rules[which[at]][1]
                row = addresses[at]
            at += 1
        signal = frame in (Frame.REGS, Frame.IRET)
        place = struct.pack("<QQ", addresses[begin], addresses[at] - addresses[begin])
        section += _entry(cies[signal], place + b"\0" * signal + code)
    return bytes(section)


def _entry(identity: int, body: bytes) -> bytes:
    """A CIE or an FDE: length, CIE pointer and body, padded with DW_CFA_nop to 8 bytes."""
    body += bytes(-(len(body) + 8) % 8)
    return struct.pack("<II", len(body) + 4, identity) + body


def _advance(distance: int) -> bytes:
    if distance < 64:
        return bytes([DW_CFA_advance_loc | distance])
    if distance < 1 << 8:
        return struct.pack("<BB", DW_CFA_advance_loc1, distance)
    if distance < 1 << 16:
        return struct.pack("<BH", DW_CFA_advance_loc2, distance)
    return struct.pack("<BI", DW_CFA_advance_loc4, min(distance, 0xFFFFFFFF))


def _block(opcode: int | None, code: bytes) -> bytes:
    return bytes([*([opcode] if opcode is not None else []), *uleb(len(code)), *code])
