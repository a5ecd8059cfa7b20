"""Kernel files made of nothing: tiny ELF files with notes and sections, and bzImages around them."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import lz4.block
import zstandard

from stub.abi import elfnote

VIRT_BASE = 0xFFFFFFFF80000000
PSTART = 0x1000000
PAGE = 4096


@dataclass
class Load:
    """A PT_LOAD segment. ``memsz`` None is the length of ``data``, ``vaddr`` None what VIRT_BASE says."""

    paddr: int
    data: bytes
    memsz: int | None = None
    vaddr: int | None = None
    flags: int = 7
    filesz: int | None = None
    offset: int | None = None


@dataclass
class Sect:
    """A section: SHT_NOTE is 7, SHT_PROGBITS 1."""

    name: str
    type: int
    data: bytes
    link: int = 0
    entsize: int = 0
    flags: int = 0
    address: int = 0


def note(kind: int, desc: bytes | str | int, owner: str = "Xen") -> bytes:
    """One ELF note; a str gets its NUL, an int is 8 bytes."""
    if isinstance(desc, str):
        desc = desc.encode() + b"\0"
    if isinstance(desc, int):
        desc = struct.pack("<Q", desc)
    name = owner.encode() + b"\0"
    return (
        struct.pack("<III", len(name), len(desc), kind)
        + name.ljust(len(name) + 3 & ~3, b"\0")
        + desc.ljust(len(desc) + 3 & ~3, b"\0")
    )


def xen_notes(**values: bytes | str | int | None) -> bytes:
    """Notes of a Linux-like PV kernel, by name; None leaves one out, others are added."""
    wanted: dict[str, bytes | str | int | None] = {
        "GUEST_OS": "linux",
        "GUEST_VERSION": "2.6",
        "XEN_VERSION": "xen-3.0",
        "LOADER": "generic",
        "VIRT_BASE": VIRT_BASE,
        "ENTRY": VIRT_BASE + PSTART,
        **values,
    }
    return b"".join(
        note(getattr(elfnote, f"XEN_ELFNOTE_{name}"), value) for name, value in wanted.items() if value is not None
    )


def elf(
    loads: Sequence[Load] = (Load(PSTART, b"\xcc" * PAGE),),
    notes: bytes | None = None,
    *,
    sections: Sequence[Sect] = (),
    bits: int = 64,
    machine: int | None = None,
    kind: int = 2,
    entry: int = VIRT_BASE + PSTART,
    order: str = "<",
) -> bytes:
    """An ELF file. ``notes`` go into a PT_NOTE segment, nothing into none."""
    machine = machine if machine is not None else {64: 62, 32: 3}[bits]
    ehsize, phsize, shsize = {64: (64, 56, 64), 32: (52, 32, 40)}[bits]
    count = len(loads) + (notes is not None)
    body, place = bytearray(), ehsize + phsize * count
    headers: list[bytes] = []
    for load in loads:
        vaddr = load.vaddr if load.vaddr is not None else (VIRT_BASE + load.paddr) & 0xFFFFFFFFFFFFFFFF
        filesz = load.filesz if load.filesz is not None else len(load.data)
        memsz = load.memsz if load.memsz is not None else filesz
        offset = load.offset if load.offset is not None else place + len(body)
        headers.append(_program_header(bits, order, 1, load.flags, offset, vaddr, load.paddr, filesz, memsz))
        body += load.data
    if notes is not None:
        body += bytes(-(place + len(body)) % 4)
        headers.append(_program_header(bits, order, 4, 4, place + len(body), 0, 0, len(notes), len(notes)))
        body += notes
    table, shstrndx = b"", 0
    if sections:
        names, rows = b"\0", [bytes(shsize)]
        for section in (*sections, Sect(".shstrtab", 3, b"")):
            at = len(names)
            names += section.name.encode() + b"\0"
            data = names if section.name == ".shstrtab" else section.data
            rows.append(_section_header(bits, at, section, place + len(body), len(data)))
            body += data
        table, shstrndx = b"".join(rows), len(rows) - 1
    shoff = place + len(body) if table else 0
    shape = order + ("HHIQQQIHHHHHH" if bits == 64 else "HHIIIIIHHHHHH")
    if bits == 32:
        entry &= 0xFFFFFFFF
    shnum = len(table) // shsize
    ident = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2, 1]) + bytes(9)
    header = struct.pack(
        shape, kind, machine, 1, entry, ehsize, shoff, 0, ehsize, phsize, count, shsize, shnum, shstrndx
    )
    return ident + header + b"".join(headers) + bytes(body) + table


def _program_header(bits: int, order: str, kind: int, flags: int, *place: int) -> bytes:
    if bits == 64:
        return struct.pack(order + "IIQQQQQQ", kind, flags, *place, PAGE)
    offset, vaddr, paddr, filesz, memsz = (value & 0xFFFFFFFF for value in place)
    return struct.pack(order + "8I", kind, offset, vaddr, paddr, filesz, memsz, flags, PAGE)


def _section_header(bits: int, name: int, section: Sect, offset: int, size: int) -> bytes:
    shape = "<IIQQQQIIQQ" if bits == 64 else "<10I"
    return struct.pack(shape, name, section.type, section.flags, section.address, offset, size, section.link, 0, 1,
                       section.entsize)  # fmt: skip


def symbol_sections(symbols: dict[str, int]) -> list[Sect]:
    """.symtab and .strtab, to be the first two sections of a 64-bit file."""
    names, rows = b"\0", [bytes(24)]
    for name, address in symbols.items():
        rows.append(struct.pack("<IBBHQQ", len(names), 0x12, 0, 1, address, 0))
        names += name.encode() + b"\0"
    return [Sect(".symtab", 2, b"".join(rows), link=2, entsize=24), Sect(".strtab", 3, names)]


def lz4_legacy(data: bytes, block: int = 8 << 20) -> bytes:
    """The frame that Linux uses: magic, then length and block, again and again."""
    codec: Any = lz4.block  # it re-exports its names in a way that mypy does not accept
    out = b"\x02\x21\x4c\x18"
    for place in range(0, len(data), block):
        packed = codec.compress(data[place : place + block], store_size=False)
        out += struct.pack("<I", len(packed)) + packed
    return out


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda data: data,
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32),
    "zstd": lambda data: zstandard.ZstdCompressor(write_content_size=False).compress(data),
    "lz4": lz4_legacy,
    "bzip2": bz2.compress,
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
}


def payload(data: bytes, compression: str) -> bytes:
    """A bzImage's payload as Linux makes it: compressed, with the size appended where the format has none."""
    packed = COMPRESSORS[compression](data)
    return packed if compression in ("gzip", "none") else packed + struct.pack("<I", len(data))


def bzimage(
    content: bytes,
    *,
    version: int = 0x020F,
    setup_sects: int = 3,
    release: str = "6.1.0-test (us@here) #1",
    payload_offset: int = 0x40,
    **fields: int,
) -> bytes:
    """A bzImage around a payload; ``fields`` are set-up header fields by name."""
    from stub.image.bootparam import SETUP_HEADER

    setup = bytearray((setup_sects + 1) * 512)
    protected = bytes(payload_offset) + content
    protected += bytes(-len(protected) % 16)
    text = release.encode() + b"\0"
    setup[0x400 : 0x400 + len(text)] = text
    values = {
        "setup_sects": setup_sects,
        "syssize": len(protected) // 16,
        "boot_flag": 0xAA55,
        "jump": 0x6AEB,
        "header": 0x53726448,
        "version": version,
        "kernel_version": 0x200,
        "loadflags": 1,
        "relocatable_kernel": 1,
        "min_alignment": 21,
        "xloadflags": 0x3,
        "payload_offset": payload_offset,
        "payload_length": len(content),
        "pref_address": 0x1000000,
        "init_size": 0x2000000,
        **fields,
    }
    for row in SETUP_HEADER:
        if row.name in values and row.protocol <= version:
            setup[row.offset : row.offset + row.size] = values[row.name].to_bytes(row.size, "little")
    return bytes(setup) + protected
