"""The ELF headers that booting needs, little endian, both widths. Only what is asked for is read.

Sources: the System V ABI's chapter on object files; what Xen accepts, from its libelf.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

from stub.image.faults import Fault, c_string
from stub.image.model import Segment
from stub.units import GIB, U64

ELF_MAGIC = b"\x7fELF"
EM_386, EM_X86_64 = 3, 62
ET_REL, ET_EXEC, ET_DYN, ET_CORE = 1, 2, 3, 4
PT_LOAD, PT_NOTE = 1, 4
SHT_NOTE, SHT_NOBITS = 7, 8
RWX = 7
SPAN_LIMIT = 8 * GIB
"""No domain is larger, so no kernel can be."""

FILE_TYPES = {
    0: "no type",
    ET_REL: "relocatable object",
    ET_EXEC: "executable",
    ET_DYN: "shared object",
    ET_CORE: "core dump",
}
MACHINES = {
    0: "no machine", 2: "SPARC", 3: "x86 (32-bit)", 4: "Motorola 68000", 6: "Intel MCU", 7: "Intel 80860", 8: "MIPS",
    9: "IBM System/370", 10: "MIPS RS3000", 15: "PA-RISC", 18: "SPARC V8+", 20: "PowerPC", 21: "PowerPC 64",
    22: "IBM S/390", 36: "NEC V800", 40: "ARM", 41: "Alpha", 42: "SuperH", 43: "SPARC V9", 50: "Itanium", 62: "x86-64",
    75: "VAX", 76: "CRIS", 92: "OpenRISC", 93: "ARC", 94: "Xtensa", 164: "Hexagon", 183: "AArch64", 189: "MicroBlaze",
    243: "RISC-V", 247: "eBPF", 252: "C-SKY", 258: "LoongArch", 0x9026: "Alpha", 0x9041: "MicroBlaze", 0xA390: "S/390",
}  # fmt: skip

HEADER = {32: struct.Struct("<HHIIIIIHHHHHH"), 64: struct.Struct("<HHIQQQIHHHHHH")}
PROGRAM_HEADER = {32: struct.Struct("<8I"), 64: struct.Struct("<IIQQQQQQ")}
SECTION_HEADER = {32: struct.Struct("<10I"), 64: struct.Struct("<IIQQQQIIQQ")}


class ProgramHeader(NamedTuple):
    """One row of the program header table, the same order for both widths."""

    type: int
    flags: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int
    align: int


class Section(NamedTuple):
    """One row of the section header table, with its name."""

    name: str
    type: int
    flags: int
    address: int
    offset: int
    size: int


@dataclass(frozen=True)
class Elf:
    """An ELF file's header and program headers, bounds checked; ``data`` is the file."""

    data: memoryview
    bits: int
    type: int
    machine: int
    entry: int
    flags: int
    headers: tuple[ProgramHeader, ...]
    section_place: tuple[int, int, int, int]
    """Offset, entry size, count and string-table index of the section headers, unchecked."""


def machine_name(machine: int) -> str:
    """The name of an e_machine value."""
    return MACHINES.get(machine, f"machine {machine}")


def parse_elf(data: memoryview) -> Elf:
    """The headers of the ELF file ``data``. ``Fault`` when it is not one for x86, or cut short."""
    ident = bytes(data[:16])
    if not ident.startswith(ELF_MAGIC):
        raise Fault("not an ELF file", "name a kernel file")
    if len(ident) < 16 or ident[4] not in (1, 2) or ident[5] not in (1, 2):
        raise Fault("damaged ELF header (class or byte order)", "fetch or build the kernel again")
    bits = 32 * ident[4]
    if len(data) < 16 + HEADER[bits].size:
        raise Fault("truncated inside the ELF header", "fetch or build the kernel again")
    if ident[5] == 2:  # big endian: all that is wanted is the machine's name
        (machine,) = struct.unpack_from(">H", data, 18)
        raise _other_machine(machine)
    kind, machine, _, entry, phoff, shoff, flags, _, phentsize, phnum, shentsize, shnum, shstrndx = HEADER[
        bits
    ].unpack_from(data, 16)
    if machine not in (EM_386, EM_X86_64):
        raise _other_machine(machine)
    if (machine == EM_X86_64) != (bits == 64):
        raise Fault(f"ELF{bits} file for {machine_name(machine)}", "build it for x86-64 as ELF64")
    if kind not in (ET_EXEC, ET_DYN):
        what = FILE_TYPES.get(kind, f"of ELF type {kind}")
        raise Fault(f"ELF file that is not executable: {what}", "name the linked kernel (vmlinux, vmlinuz)")
    headers = _program_headers(data, bits, phoff, phentsize, phnum)
    return Elf(data, bits, kind, machine, entry, flags, headers, (shoff, shentsize, shnum, shstrndx))


def _other_machine(machine: int) -> Fault:
    return Fault(f"a kernel for {machine_name(machine)}", "pvstub runs x86 Xen PV guests only: use an x86-64 kernel")


def _program_headers(data: memoryview, bits: int, offset: int, size: int, count: int) -> tuple[ProgramHeader, ...]:
    layout = PROGRAM_HEADER[bits]
    if not count:
        raise Fault("ELF file without program headers", "name the linked kernel (vmlinux, vmlinuz)")
    if size != layout.size:
        raise Fault(f"damaged ELF header (program headers of {size} bytes)", "fetch or build the kernel again")
    if offset + count * size > len(data):
        raise Fault("truncated: the program headers lie past the end of the file", "fetch or build the kernel again")
    rows = layout.iter_unpack(data[offset : offset + count * size])
    if bits == 64:
        return tuple(map(ProgramHeader._make, rows))
    return tuple(
        ProgramHeader(kind, flags, at, vaddr, paddr, filesz, memsz, align)
        for kind, at, vaddr, paddr, filesz, memsz, flags, align in rows
    )


def loadable(header: ProgramHeader) -> bool:
    """Whether Xen loads it: a PT_LOAD with any of the access rights, and of some size."""
    return header.type == PT_LOAD and bool(header.flags & RWX) and header.memsz > 0


def load_segments(elf: Elf) -> tuple[Segment, ...]:
    """The segments to load, in ascending order of p_paddr. ``Fault`` for what cannot be loaded."""
    headers = sorted(filter(loadable, elf.headers), key=lambda h: h.paddr)
    if not headers:
        raise Fault("ELF file with nothing to load", "name the linked kernel (vmlinux, vmlinuz)")
    start, end = headers[0].paddr, headers[0].paddr
    for header in headers:
        where = f"segment at {header.paddr:#x}"
        if header.paddr + header.memsz > U64 or header.paddr + header.memsz - start > SPAN_LIMIT:
            raise Fault(
                f"absurd {where}: {header.memsz:#x} bytes make the kernel larger than any domain",
                "fetch or build the kernel again",
            )
        if header.filesz > header.memsz:
            raise Fault(
                f"absurd {where}: more bytes in the file ({header.filesz:#x}) than in memory ({header.memsz:#x})",
                "fetch or build the kernel again",
            )
        if header.filesz and header.offset + header.filesz > len(elf.data):
            missing = header.offset + header.filesz - len(elf.data)
            raise Fault(f"truncated: {missing} bytes of the {where} are missing", "fetch or build the kernel again")
        if header.paddr < end:
            raise Fault(f"overlapping segments: the {where} begins before {end:#x}", "link the kernel again")
        end = header.paddr + header.memsz
    return tuple(
        Segment(h.paddr, h.vaddr, h.filesz, h.memsz, h.flags, elf.data[h.offset : h.offset + h.filesz]) for h in headers
    )


def read_sections(elf: Elf) -> tuple[Section, ...]:
    """The section headers, as far as they are sane; none when the file has lost them. Never a fault: Xen's loader
    reads them only to look for notes and for ``__xen_guest``."""
    offset, size, count, strings = elf.section_place
    layout = SECTION_HEADER[elf.bits]
    if not count or size != layout.size or offset >= len(elf.data):
        return ()
    count = min(count, (len(elf.data) - offset) // size)
    rows = list(layout.iter_unpack(elf.data[offset : offset + count * size]))
    names = elf.data[rows[strings][4] :][: rows[strings][5]] if strings < len(rows) else elf.data[:0]
    return tuple(
        Section(c_string(names[row[0] : row[0] + 256]), row[1], row[2], row[3], row[4], row[5]) for row in rows
    )
