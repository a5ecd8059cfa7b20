"""Xen's core file of a domain (docs/misc/dump-core-format.txt, tools/libs/ctrl/xc_core.c), which gdb reads, too.

The format has sections only: notes, the vCPUs' contexts, the shared_info page, the P2M and the pages. gdb looks at
segments only: where memory lies by virtual address, and the registers as in a process's core. This file has both; the
segments lie over the ``.xen_pages`` section, so that nothing stands in it twice. Pages of zeros are holes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stub.abi import elfnote
from stub.units import PAGE_SIZE

XC_CORE_MAGIC = 0xF00FEBED  # of a paravirtual domain (tools/include/xenctrl.h)
FORMAT_VERSION = 1  # (0, 1)
MAX_SEGMENTS = 60_000  # e_phnum has 16 bits, and its largest values another meaning

_ET_CORE, _EM_X86_64, _PT_LOAD, _PT_NOTE = 4, 62, 1, 4
_SHT_PROGBITS, _SHT_STRTAB, _SHT_NOTE = 1, 3, 7
FXSAVE_SIZE = 512
XCR0_AT = 464  # in an XSAVE area, by NT_X86_XSTATE: 48 bytes there are software's (asm/user.h, xstate_fx_sw_bytes)
_NT_PRSTATUS, _NT_FPREGSET, _NT_PRXFPREG, _NT_X86_XSTATE = 1, 2, 0x46E62B7F, 0x202
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_PRSTATUS = struct.Struct("<12xh18xi76x27Q8x")  # struct elf_prstatus: signal, thread, registers
_PRSTATUS_32 = struct.Struct("<i4x3QiiI4x17I4x")  # FreeBSD's: version, sizes, release, signal, thread, registers
_I386_REGISTERS = 17
_CHUNK = 1024  # pages

U64s = npt.NDArray[np.uint64]
I64s = npt.NDArray[np.int64]


class Segment(NamedTuple):
    """Pages that follow each other by virtual address and in the file: ``first`` of them, how many, PF_* flags."""

    vaddr: int
    first: int
    pages: int
    flags: int


@dataclass(frozen=True)
class Core:
    """What goes into a core file.

    ``contexts``: a vcpu_guest_context of each vCPU. ``registers``: of each, what gdb expects in NT_PRSTATUS (r15 … gs),
    of a 32-bit guest the 17 of i386, and ``extended`` its FXSAVE area, or XSAVE's, with XCR0 where Linux has it.
    ``mfns`` and ``pfns``: its pages, in the file's order. ``memory``: all machine frames, 512 words a row.
    ``version``: the note with Xen's version. ``signal``: what gdb says it died of.
    """

    contexts: Sequence[bytes]
    registers: Sequence[Sequence[int]]
    extended: Sequence[bytes]
    shared_info: bytes
    mfns: I64s
    pfns: U64s
    memory: U64s
    segments: Sequence[Segment]
    version: bytes
    signal: int = 0


def _note(name: bytes, kind: int, data: bytes) -> bytes:
    name += b"\0"
    padded = name.ljust(-(-len(name) // 4) * 4, b"\0")
    return struct.pack("<III", len(name), len(data), kind) + padded + data.ljust(-(-len(data) // 4) * 4, b"\0")


def _xen_notes(core: Core) -> bytes:
    header = struct.pack("<QQQQ", XC_CORE_MAGIC, len(core.contexts), len(core.mfns), PAGE_SIZE)
    return b"".join(
        (
            _note(b"Xen", elfnote.XEN_ELFNOTE_DUMPCORE_NONE, b""),
            _note(b"Xen", elfnote.XEN_ELFNOTE_DUMPCORE_HEADER, header),
            _note(b"Xen", elfnote.XEN_ELFNOTE_DUMPCORE_XEN_VERSION, core.version),
            _note(b"Xen", elfnote.XEN_ELFNOTE_DUMPCORE_FORMAT_VERSION, struct.pack("<Q", FORMAT_VERSION)),
        )
    )


def _process_notes(core: Core) -> bytes:
    """A thread a vCPU, numbered from 1 as gdb's server does.

    The file is one of 64 bits whatever the guest is, in which Linux's note has the registers of 64-bit code. FreeBSD's
    says itself how long its registers are: with those of i386 in it, gdb reads them by a 32-bit kernel's symbols.
    """
    parts = []
    for number, (registers, extended) in enumerate(zip(core.registers, core.extended, strict=True), 1):
        if len(registers) == _I386_REGISTERS:
            sizes = _PRSTATUS_32.size, 4 * _I386_REGISTERS, FXSAVE_SIZE
            data = _PRSTATUS_32.pack(1, *sizes, 0, core.signal, number, *registers)
            parts += [_note(b"FreeBSD", _NT_PRSTATUS, data), _note(b"LINUX", _NT_PRXFPREG, extended[:FXSAVE_SIZE])]
        else:
            parts.append(_note(b"CORE", _NT_PRSTATUS, _PRSTATUS.pack(core.signal, number, *registers)))
            parts.append(_note(b"CORE", _NT_FPREGSET, extended[:FXSAVE_SIZE]))
        parts += [_note(b"LINUX", _NT_X86_XSTATE, extended)] if len(extended) > FXSAVE_SIZE else []
    return b"".join(parts)


class _Body(NamedTuple):
    """A section: its data, or for the pages only how many bytes they are."""

    name: str
    type: int
    data: bytes
    entry_size: int = 0


def write(path: Path, core: Core) -> None:
    """Write the file; it is there when it is whole. OSError when it cannot be."""
    p2m = np.stack([core.pfns, core.mfns.astype(np.uint64)], axis=1).astype("<u8").tobytes()
    bodies = [
        _Body(".note.Xen", _SHT_NOTE, _xen_notes(core)),
        _Body(".note.prstatus", _SHT_NOTE, _process_notes(core)),
        _Body(".xen_prstatus", _SHT_PROGBITS, b"".join(core.contexts), len(core.contexts[0])),
        _Body(".xen_shared_info", _SHT_PROGBITS, core.shared_info, PAGE_SIZE),
        _Body(".xen_p2m", _SHT_PROGBITS, p2m, 16),
    ]
    new = path.with_name(f"{path.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        head, pages_at = _head(core, bodies)
        _write_at(descriptor, 0, head)
        os.ftruncate(descriptor, pages_at + len(core.mfns) * PAGE_SIZE)
        _write_pages(descriptor, pages_at, core)
    except BaseException:
        os.close(descriptor)
        new.unlink()
        raise
    os.close(descriptor)
    new.replace(path)


def _head(core: Core, bodies: Sequence[_Body]) -> tuple[bytes, int]:
    """All in front of the pages, and where these begin."""
    segments = core.segments[:MAX_SEGMENTS]
    end = _HEADER.size + _PROGRAM.size * (1 + len(segments))
    places, parts = [], []
    for body in bodies:
        padding = -end % 16
        parts.append(bytes(padding) + body.data)
        places.append(end + padding)
        end += padding + len(body.data)
    names = b"\0".join([b"", *(body.name.encode() for body in bodies), b".xen_pages", b".shstrtab", b""])
    names_at, sections_at = end, end + len(names) + (-(end + len(names)) % 16)
    pages_at = -(-(sections_at + _SECTION.size * (len(bodies) + 3)) // PAGE_SIZE) * PAGE_SIZE
    rows = [
        (body.name, body.type, at, len(body.data), body.entry_size) for body, at in zip(bodies, places, strict=True)
    ]
    rows.append((".xen_pages", _SHT_PROGBITS, pages_at, len(core.mfns) * PAGE_SIZE, PAGE_SIZE))
    rows.append((".shstrtab", _SHT_STRTAB, names_at, len(names), 0))
    table = bytes(_SECTION.size) + b"".join(
        _SECTION.pack(
            names.index(b"\0" + name.encode() + b"\0") + 1, kind, 0, 0, at, size, 0, 0,
            PAGE_SIZE if at == pages_at else 1 if kind == _SHT_STRTAB else 4, entry,
        )
        for name, kind, at, size, entry in rows
    )  # fmt: skip
    notes = _PROGRAM.pack(_PT_NOTE, 0, places[1], 0, 0, len(bodies[1].data), 0, 4)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = _HEADER.pack(
        ident, _ET_CORE, _EM_X86_64, 1, 0, _HEADER.size, sections_at, 0, _HEADER.size, _PROGRAM.size,
        1 + len(segments), _SECTION.size, 1 + len(rows), len(rows),
    )  # fmt: skip
    head = header + notes + b"".join(_load(core, segment, pages_at) for segment in segments) + b"".join(parts) + names
    return head.ljust(sections_at, b"\0") + table, pages_at


def _load(core: Core, segment: Segment, pages_at: int) -> bytes:
    """A segment's header; its physical address is the guest's own, of the first page."""
    size = segment.pages * PAGE_SIZE
    paddr = int(core.pfns[segment.first]) * PAGE_SIZE & (1 << 64) - 1
    at = pages_at + segment.first * PAGE_SIZE
    return _PROGRAM.pack(_PT_LOAD, segment.flags, at, segment.vaddr, paddr, size, size, PAGE_SIZE)


def _write_pages(descriptor: int, start: int, core: Core) -> None:
    for at in range(0, len(core.mfns), _CHUNK):
        block = core.memory[core.mfns[at : at + _CHUNK]]
        filled = np.flatnonzero(block.any(axis=1))
        for run in np.split(filled, np.flatnonzero(np.diff(filled) != 1) + 1) if len(filled) else []:
            first = int(run[0])
            _write_at(descriptor, start + (at + first) * PAGE_SIZE, block[first : int(run[-1]) + 1].tobytes())


def _write_at(descriptor: int, offset: int, data: bytes) -> None:
    while data:
        done = os.pwrite(descriptor, data, offset)
        data, offset = data[done:], offset + done
