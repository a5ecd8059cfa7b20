"""What a kernel tells Xen is taken from the right place, in Xen's order, with Xen's defaults."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from stub.abi import elfnote
from stub.image import Segment, XenParms, load_image
from stub.image.fingerprint import fingerprint
from stub.image.legacy import c_number, parse_guest_string
from stub.image.load import read_image
from stub.image.notes import XEN_NOTES, number, pairs
from stub.image.parms import NOTE_PARMS, parse_features
from suites.unit.elf_builder import PSTART, VIRT_BASE, Load, Sect, elf, note, xen_notes

SHT_PROGBITS, SHT_NOTE = 1, 7
LEGACY = "GUEST_OS=Mach,XEN_VER=xen-3.0,VIRT_BASE=0x40000000,LOADER=generic"


def parms_of(folder: Path, content: bytes) -> XenParms:
    (folder / "kernel").write_bytes(content)
    return load_image(folder / "kernel").parms


def guest_section(text: str) -> Sect:
    return Sect("__xen_guest", SHT_PROGBITS, text.encode() + b"\0")


NOTES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ENTRY": ({"ENTRY": VIRT_BASE + PSTART + 16}, {"entry": VIRT_BASE + PSTART + 16}),
    "ENTRY absent": ({"ENTRY": None}, {"entry": VIRT_BASE + PSTART}),
    "HYPERCALL_PAGE": ({"HYPERCALL_PAGE": VIRT_BASE + PSTART}, {"hypercall_page": VIRT_BASE + PSTART}),
    "HYPERCALL_PAGE absent": ({}, {"hypercall_page": None}),
    "VIRT_BASE": ({}, {"virt_base": VIRT_BASE, "paddr_offset": 0}),
    "PADDR_OFFSET": (
        {"PADDR_OFFSET": PSTART, "ENTRY": VIRT_BASE},
        {"paddr_offset": PSTART, "virt_base": VIRT_BASE, "entry": VIRT_BASE},
    ),
    "four bytes": ({"PADDR_OFFSET": struct.pack("<I", 0x1000), "ENTRY": VIRT_BASE + PSTART}, {"paddr_offset": 0x1000}),
    "names": ({"GUEST_VERSION": "5"}, {"guest_os": "linux", "guest_version": "5", "xen_version": "xen-3.0"}),
    "LOADER": ({"LOADER": "generic-ish", "GUEST_OS": "else"}, {"loader": "generic-ish"}),
    "LOADER of Linux": ({"LOADER": None}, {"loader": ""}),
    "PAE yes": ({"PAE_MODE": "yes"}, {"pae": "extended-cr3"}),
    "PAE bimodal": ({"PAE_MODE": "yes,bimodal"}, {"pae": "bimodal"}),
    "PAE no": ({"PAE_MODE": "no"}, {"pae": None}),
    "FEATURES": (
        {"FEATURES": "!writable_page_tables|pae_pgdir_above_4gb|later_thing"},
        {
            "features_supported": frozenset({"writable_page_tables", "pae_pgdir_above_4gb"}),
            "features_required": frozenset({"writable_page_tables"}),
        },
    ),
    "SUPPORTED_FEATURES": (
        {"SUPPORTED_FEATURES": struct.pack("<I", 0x801)},
        {"supported_features": 0x801, "features_supported": frozenset({"writable_page_tables", "dom0"})},
    ),
    "BSD_SYMTAB": ({"BSD_SYMTAB": "yes"}, {"bsd_symtab": True}),
    "BSD_SYMTAB no": ({"BSD_SYMTAB": "no"}, {"bsd_symtab": False}),
    "HV_START_LOW": ({"HV_START_LOW": 0xF5800000}, {"hv_start_low": 0xF5800000}),
    "L1_MFN_VALID": ({"L1_MFN_VALID": struct.pack("<QQ", 3, 1)}, {"l1_mfn_valid": ((3, 1),)}),
    "SUSPEND_CANCEL": ({"SUSPEND_CANCEL": struct.pack("<I", 1)}, {"suspend_cancel": 1}),
    "INIT_P2M": ({"INIT_P2M": 0x8000000000}, {"init_p2m": 0x8000000000}),
    "INIT_P2M above VIRT_BASE": ({"INIT_P2M": VIRT_BASE + 0x80000000 - 0x1000}, {"init_p2m": None}),
    "INIT_P2M unaligned": ({"INIT_P2M": 0x8000000008}, {"init_p2m": None}),
    "MOD_START_PFN": ({"MOD_START_PFN": struct.pack("<I", 1)}, {"mod_start_pfn": True}),
    "MOD_START_PFN 0": ({"MOD_START_PFN": struct.pack("<I", 0)}, {"mod_start_pfn": False}),
    "PHYS32_ENTRY beside PV": ({"PHYS32_ENTRY": 0x1000850}, {"phys32_entry": 0x1000850}),
}


@pytest.mark.parametrize("case", NOTES)
def test_each_note_says_what_it_says(tmp_path: Path, case: str) -> None:
    notes, expected = NOTES[case]
    parms = parms_of(tmp_path, elf(notes=xen_notes(**notes)))
    assert {name: getattr(parms, name) for name in expected} == expected
    assert parms.source == "PT_NOTE"


def test_every_note_of_xens_header_has_a_row() -> None:
    assert set(XEN_NOTES) == set(elfnote.ELFNOTES)
    assert set(NOTE_PARMS) == set(XEN_NOTES) - {elfnote.XEN_ELFNOTE_INFO}


def test_of_two_notes_of_a_kind_the_later_one_counts(tmp_path: Path) -> None:
    assert parms_of(tmp_path, elf(notes=xen_notes() + xen_notes(GUEST_VERSION="9"))).guest_version == "9"


def test_notes_in_segments_come_before_notes_in_sections(tmp_path: Path) -> None:
    section = Sect(".note.Xen", SHT_NOTE, xen_notes(GUEST_VERSION="from the section"))
    image = elf(notes=xen_notes(GUEST_VERSION="from the segment"), sections=[section, guest_section(LEGACY)])
    parms = parms_of(tmp_path, image)
    assert (parms.source, parms.guest_version) == ("PT_NOTE", "from the segment")


def test_notes_in_sections_come_before_the_guest_string(tmp_path: Path) -> None:
    section = Sect(".note.Xen", SHT_NOTE, xen_notes(GUEST_VERSION="from the section"))
    parms = parms_of(tmp_path, elf(sections=[section, guest_section(LEGACY)]))
    assert (parms.source, parms.guest_version) == ("SHT_NOTE", "from the section")


def test_notes_of_another_owner_do_not_count(tmp_path: Path) -> None:
    """As in GNU Mach's image, whose notes would otherwise do."""
    kernel = [Load(0x40000000, bytes(4096), vaddr=0x40000000)]
    wrong = note(elfnote.XEN_ELFNOTE_VIRT_BASE, 0x12345000, owner="name")
    sections = [Sect(".note.Xen", SHT_NOTE, wrong), guest_section(LEGACY)]
    parms = parms_of(tmp_path, elf(kernel, note(1, b"x", "GNU"), sections=sections, entry=0x40000000))
    assert (parms.source, parms.virt_base, parms.paddr_offset) == ("__xen_guest", 0x40000000, 0x40000000)


def test_a_note_segment_without_an_offset_is_passed_over(tmp_path: Path) -> None:
    """Some binutils forget p_offset; Xen then looks at the sections."""
    content = bytearray(elf(notes=xen_notes(), sections=[Sect(".note", SHT_NOTE, xen_notes(GUEST_VERSION="s"))]))
    content[64 + 56 + 8 : 64 + 56 + 16] = bytes(8)
    assert parms_of(tmp_path, bytes(content)).guest_version == "s"


def test_a_last_string_note_may_claim_more_than_the_file_has(tmp_path: Path) -> None:
    """As in Debian's grub-i386-xen.bin, which says 12 bytes and has "yes" and its NUL."""
    last = struct.pack("<III", 4, 12, elfnote.XEN_ELFNOTE_PAE_MODE) + b"Xen\0yes\0"
    (tmp_path / "kernel").write_bytes(elf(notes=xen_notes(VIRT_BASE=0xC0000000, ENTRY=0xC1000000) + last, bits=32))
    assert read_image(tmp_path / "kernel").parms.pae == "extended-cr3"


LEGACY_CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "hypercall page is a page number": (",HYPERCALL_PAGE=0x2", {"hypercall_page": 0x40002000}),
    "offset follows the base": ("", {"paddr_offset": 0x40000000, "virt_base": 0x40000000, "entry": 0x40000000}),
    "offset": (",ELF_PADDR_OFFSET=0x3ffff000,VIRT_ENTRY=0x40001000", {"paddr_offset": 0x3FFFF000}),
    "entry": (",VIRT_ENTRY=0x40000010", {"entry": 0x40000010}),
    "PAE": (",PAE=yes", {"pae": "yes"}),
    "PAE extended": (",PAE=yes[extended-cr3]", {"pae": "extended-cr3"}),
    "PAE no": (",PAE=no", {"pae": None}),
    "symbols": (",BSD_SYMTAB", {"bsd_symtab": True}),
    "version": (",GUEST_VER=1.3", {"guest_version": "1.3"}),
    "features": (",FEATURES=!writable_page_tables", {"features_required": frozenset({"writable_page_tables"})}),
    "unknown key": (",GUEST_VERSION=1.3", {"guest_version": "", "guest_os": "Mach", "loader": "generic"}),
}


@pytest.mark.parametrize("case", LEGACY_CASES)
def test_the_guest_string_says_what_it_says(tmp_path: Path, case: str) -> None:
    more, expected = LEGACY_CASES[case]
    kernel = [Load(0x40000000, bytes(0x4000), vaddr=0x40000000)]
    parms = parms_of(tmp_path, elf(kernel, sections=[guest_section(LEGACY + more)], entry=0x40000000))
    assert {name: getattr(parms, name) for name in expected} == expected
    assert parms.source == "__xen_guest"


def test_a_guest_string_is_split_at_commas_and_the_first_equals_sign() -> None:
    assert parse_guest_string("A=1,B,C=x=y,,D=") == [("A", "1"), ("B", ""), ("C", "x=y"), ("D", "")]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0x10", 16),
        ("010", 8),
        ("10", 10),
        ("12rest", 12),
        ("0x", 0),
        ("x", 0),
        ("", 0),
        ("-1", 2**64 - 1),
        (" +7", 7),
        ("0x1" + "0" * 20, 2**64 - 1),
    ],
)
def test_numbers_read_as_in_c(text: str, value: int) -> None:
    assert c_number(text) == value


def test_features_are_read_as_xen_reads_them() -> None:
    found = parse_features("dom0||!pae_pgdir_above_4gb|!later|!even_later|plain")
    assert found.supported == {"dom0", "pae_pgdir_above_4gb"}
    assert found.required == {"pae_pgdir_above_4gb"}
    assert found.unknown == "later"


def test_descriptors_of_odd_sizes_read_as_in_xen() -> None:
    assert [number(b"\1" * size) for size in (0, 1, 2, 3, 4, 8, 9)] == [0, 1, 0x101, 0, 0x1010101, 0x101010101010101, 0]
    assert pairs(struct.pack("<II", 1, 2)) == ((1, 2),)
    assert pairs(struct.pack("<4Q", 1, 2, 3, 4)) == ((1, 2), (3, 4))
    assert pairs(b"\1\2\3") == ()


@pytest.mark.parametrize(
    ("name", "system"),
    [
        ("linux", "linux-pv"),
        ("GRUB", "grub"),
        ("Mini-OS", "mini-os"),
        ("NetBSD", "netbsd"),
        ("GNU Mach", "gnumach"),
        ("Solaris", "i86xpv"),
        ("XTF", "xtf"),
        ("TempleOS", "unknown"),
        ("", "unknown"),
    ],
)
def test_a_system_is_known_by_what_it_calls_itself(name: str, system: str) -> None:
    assert fingerprint(XenParms("PT_NOTE", 0, 0, 0, guest_os=name)).system == system


@pytest.mark.parametrize(
    ("base", "linked", "text", "system"),
    [
        (0x4000_0000, (0xFFFF_FFFF_FB80_0000, 0xFFFF_FFFF_FBC0_0000, 0x40C0_0000), b"", "i86xpv"),
        (0, (0xFFFF_FFFF_FB80_0000, 0xFFFF_FFFF_FBC0_0000), b"", "unknown"),
        (0x4000_0000, (0x4000_0000,), b"\0Linux version 6.1.0", "linux-pv"),
        (0x4000_0000, (0x4000_0000,), b"..GNU Mach 1.8+git", "gnumach"),
        (0, (), b"Welcome to\0GNU GRUB  version %s", "grub"),
        (0, (), b"Linux", "unknown"),
    ],
)
def test_one_that_does_not_say_is_known_by_other_signs(
    base: int, linked: tuple[int, ...], text: bytes, system: str
) -> None:
    """How it is linked, then what it will print."""
    segments = [Segment(0, address, 1, 1, 7, memoryview(b"x")) for address in linked]
    found = fingerprint(XenParms("PT_NOTE", 0, base, base), segments, memoryview(text))
    assert found.system == system
    assert found.sign.startswith("as it " if system != "unknown" else "by no")
