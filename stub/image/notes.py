"""ELF notes, and the table of those that are Xen's (xen/include/public/elfnote.h)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from stub.abi import elfnote
from stub.image.elf import PT_NOTE, SHT_NOTE, Elf, read_sections
from stub.image.faults import Fault, c_string
from stub.image.model import Note

HEADER = struct.Struct("<III")
NOTE_LIMIT = 65536
OWNER_LIMIT = 256
OWNER = "Xen"


class NoteKind(NamedTuple):
    """A row: whether the descriptor is a "number", a "string" or "pairs", and what it says."""

    form: str
    meaning: str


XEN_NOTES: dict[int, NoteKind] = {
    elfnote.XEN_ELFNOTE_INFO: NoteKind("string", "free text"),
    elfnote.XEN_ELFNOTE_ENTRY: NoteKind("number", "virtual address of the first instruction"),
    elfnote.XEN_ELFNOTE_HYPERCALL_PAGE: NoteKind("number", "virtual address of the page that Xen fills with stubs"),
    elfnote.XEN_ELFNOTE_VIRT_BASE: NoteKind("number", "virtual address that corresponds to pseudo-physical 0"),
    elfnote.XEN_ELFNOTE_PADDR_OFFSET: NoteKind("number", "what to subtract from the physical addresses in the file"),
    elfnote.XEN_ELFNOTE_XEN_VERSION: NoteKind("string", "version of Xen's interface that the kernel was made for"),
    elfnote.XEN_ELFNOTE_GUEST_OS: NoteKind("string", "name of the operating system"),
    elfnote.XEN_ELFNOTE_GUEST_VERSION: NoteKind("string", "version of the operating system"),
    elfnote.XEN_ELFNOTE_LOADER: NoteKind("string", "loader that the kernel was made for"),
    elfnote.XEN_ELFNOTE_PAE_MODE: NoteKind("string", "32-bit: whether it uses PAE, with directories above 4 GiB"),
    elfnote.XEN_ELFNOTE_FEATURES: NoteKind("string", "features that it can use; with ! those that it must have"),
    elfnote.XEN_ELFNOTE_BSD_SYMTAB: NoteKind("string", "whether its symbol table is to be loaded after it"),
    elfnote.XEN_ELFNOTE_HV_START_LOW: NoteKind("number", "lowest virtual address at which Xen may begin"),
    elfnote.XEN_ELFNOTE_L1_MFN_VALID: NoteKind("pairs", "mask and value that tell a level-1 entry with a frame number"),
    elfnote.XEN_ELFNOTE_SUSPEND_CANCEL: NoteKind("number", "whether it understands a cancelled suspend"),
    elfnote.XEN_ELFNOTE_INIT_P2M: NoteKind("number", "virtual address at which it wants the initial P2M list"),
    elfnote.XEN_ELFNOTE_MOD_START_PFN: NoteKind("number", "whether it takes the ramdisk unmapped, by frame number"),
    elfnote.XEN_ELFNOTE_SUPPORTED_FEATURES: NoteKind("number", "bitmap of the features that it can use"),
    elfnote.XEN_ELFNOTE_PHYS32_ENTRY: NoteKind("number", "physical address of its 32-bit PVH entry"),
}


def parse_notes(data: memoryview, start: int, end: int, source: str) -> Iterator[Note]:
    """The notes that begin in ``data[start:end]``. ``Fault`` when one runs past the end of the file.

    The last note of GRUB's 32-bit image claims more bytes than its segment and even the file have; Xen reads it up
    to its NUL, and so do we.
    """
    while start < min(end, len(data)):
        if start + HEADER.size > len(data):
            raise Fault("truncated inside an ELF note", "fetch or build the kernel again")
        namesz, descsz, kind = HEADER.unpack_from(data, start)
        name = start + HEADER.size
        desc = name + (namesz + 3 & ~3)
        content = bytes(data[desc : desc + descsz])
        ended = kind in XEN_NOTES and XEN_NOTES[kind].form == "string" and b"\0" in content
        if len(content) < descsz and not ended:
            raise Fault("an ELF note runs past the end of the file", "fetch or build the kernel again")
        yield Note(c_string(data[name : name + min(namesz, OWNER_LIMIT)]), kind, content, source)
        start = desc + (descsz + 3 & ~3)


def read_notes(elf: Elf) -> tuple[Note, ...]:
    """The notes that Xen would look at: of the PT_NOTE segments, or if none there is Xen's, also of the sections."""
    found: list[Note] = []
    for header in elf.headers:
        # A PT_NOTE with p_offset 0 comes from a binutils that forgot to set it.
        if header.type == PT_NOTE and header.offset:
            found += _some(elf, header.offset, header.filesz, "PT_NOTE", len(found))
    if any(note.owner == OWNER for note in found):
        return tuple(found)
    for section in read_sections(elf)[1:]:
        if section.type == SHT_NOTE:
            found += _some(elf, section.offset, section.size, "SHT_NOTE", len(found))
    return tuple(found)


def _some(elf: Elf, offset: int, size: int, source: str, before: int) -> list[Note]:
    notes: list[Note] = []
    for note in parse_notes(elf.data, offset, offset + size, source):
        if before + len(notes) >= NOTE_LIMIT:
            raise Fault(f"more than {NOTE_LIMIT} ELF notes", "fetch or build the kernel again")
        notes.append(note)
    return notes


def number(desc: bytes) -> int:
    """A numeric descriptor: 1, 2, 4 or 8 bytes; any other size reads as 0, as in Xen."""
    return int.from_bytes(desc, "little") if len(desc) in (1, 2, 4, 8) else 0


def pairs(desc: bytes) -> tuple[tuple[int, int], ...]:
    """(mask, value) pairs of 64-bit words, of 32-bit ones when there is but one such pair."""
    word = 8 if len(desc) % 16 == 0 else 4
    words = [int.from_bytes(desc[i : i + word], "little") for i in range(0, len(desc) - word + 1, word)]
    return tuple(zip(words[::2], words[1::2], strict=False))
