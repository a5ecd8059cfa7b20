"""``inspect`` tells everything that a file says about itself, and of any other file what it is."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from stub.errors import ConfigError, ImageError
from stub.image import Image
from stub.image.inspect import describe, render
from suites.unit import elf_builder as build
from suites.unit.elf_builder import PSTART, Load, Sect, elf, xen_notes

KERNEL = elf(
    [Load(PSTART, b"\xcc" * 0x1800, flags=5), Load(PSTART + 0x2000, b"d", memsz=0x2000, vaddr=0, flags=6)],
    xen_notes(FEATURES="!writable_page_tables", INIT_P2M=0x8000000000, PHYS32_ENTRY=0x1000850),
)


def report_of(folder: Path, content: bytes, **options: Any) -> dict[str, Any]:
    path = folder / "kernel"
    path.write_bytes(content)
    report = describe(path, **options)
    assert json.loads(json.dumps(report))["file"]["size"] == len(content)
    return report


def test_a_pv_kernel_is_explained(tmp_path: Path) -> None:
    report = report_of(tmp_path, KERNEL)
    assert (report["bootable"], report["verdict"], report["reason"]) == (True, "Xen PV 64-bit", None)
    assert (report["kind"], report["guest"], report["warnings"]) == ("ELF", "linux-pv", [])
    assert report["entries"] == {"pv": "0xffffffff81000000", "pvh": "0x1000850"}
    assert report["parms"]["features_required"] == ["writable_page_tables"]
    assert [s["holds_entry"] for s in report["segments"]] == [True, False]
    assert report["segments"][1] == {
        "flags": "rw-",
        "paddr": "0x1002000",
        "vaddr": "0x0",
        "filesz": 1,
        "memsz": 0x2000,
        "first_pfn": "0x1002",
        "last_pfn": "0x1003",
        "mapped_at": "0xffffffff81002000",
        "runs_where_linked": False,
        "holds_entry": False,
        "says": "linked elsewhere: the kernel must map it there before it can use it",
    }
    by_name = {note["name"]: note for note in report["notes"]}
    assert by_name["INIT_P2M"]["value"] == "0x8000000000"
    assert by_name["GUEST_OS"]["value"] == "linux"
    assert all(note["meaning"] for note in report["notes"])


def test_a_solaris_like_unix_shows_which_part_runs_where_it_is_linked(tmp_path: Path) -> None:
    """Text and data are linked high and run there later; at the entry only the start-up part is in place."""
    loads = [
        Load(0x40000000, b"t", memsz=0x1000, vaddr=0xFFFFFFFFFB800000),
        Load(0x40400000, b"d", memsz=0x1000, vaddr=0xFFFFFFFFFBC00000),
        Load(0x40800000, b"b", memsz=0x1000, vaddr=0x40800000),
    ]
    text = "GUEST_OS=Solaris,XEN_VER=xen-3.0,VIRT_BASE=0x40000000,ELF_PADDR_OFFSET=0x40000000,LOADER=generic"
    unix = elf(loads, sections=[Sect("__xen_guest", 1, text.encode() + b"\0")], entry=0x40800000)
    report = report_of(tmp_path, unix)
    assert report["guest"] == "i86xpv"
    assert [s["first_pfn"] for s in report["segments"]] == ["0x0", "0x400", "0x800"]
    assert [s["runs_where_linked"] for s in report["segments"]] == [False, False, True]
    assert [s["holds_entry"] for s in report["segments"]] == [False, False, True]
    assert [s["says"].split(":")[0] for s in report["segments"]] == [
        "linked elsewhere",
        "linked elsewhere",
        "the first instruction is here",
    ]
    assert report["entries"]["pv"] == "0x40800000"
    assert ("VIRT_BASE", "0x40000000") in report["guest_string"]["pairs"]


def test_a_bzimage_is_explained_field_by_field(tmp_path: Path) -> None:
    report = report_of(tmp_path, build.bzimage(build.payload(KERNEL, "lz4"), loadflags=0x81, xloadflags=0x23))
    header = report["setup_header"]
    fields = {field["name"]: field for field in header["fields"]}
    assert (report["bootable"], report["kind"], report["compression"]) == (True, "bzImage", "lz4")
    assert (header["protocol"], header["kernel_version"]) == ("2.15", "6.1.0-test (us@here) #1")
    assert fields["loadflags"] == {
        "offset": "0x211",
        "size": 1,
        "since": "2.00",
        "name": "loadflags",
        "value": "0x81",
        "says": "LOADED_HIGH, CAN_USE_HEAP",
        "meaning": "load options",
    }
    assert fields["xloadflags"]["says"] == "XLF_KERNEL_64, XLF_CAN_BE_LOADED_ABOVE_4G, XLF_5LEVEL"
    assert fields["hardware_subarch"]["says"] == "PC"
    assert fields["pref_address"]["value"] == "0x1000000"
    assert fields["init_size"]["says"] == "32 MiB"
    assert header["payload"]["offset"] == "0x840"
    assert header["relocatable"] is True
    assert [p["present"] for p in header["protocols"]] == [True] * 14
    assert {"offset": "0x23c", "size": 4, "name": "hdr.hardware_subarch"}.items() <= {
        tuple(item) for row in report["zero_page"] for item in row.items() if row["name"] == "hdr.hardware_subarch"
    }
    assert [row["xen_pv"] for row in report["zero_page"] if row["name"] == "hdr.type_of_loader"] == ["0x90: Xen"]


def test_an_old_protocol_is_warned_of(tmp_path: Path) -> None:
    report = report_of(tmp_path, build.bzimage(b"x" * 64, version=0x0206))
    assert not report["bootable"]
    assert "boot protocol 2.06" in report["reason"]
    assert [text.split(":")[0] for text in report["warnings"]] == ["protocol 2.06 < 2.08", "protocol 2.06 < 2.07"]
    fields = {field["name"]: field["value"] for field in report["setup_header"]["fields"]}
    assert fields["payload_offset"] is None
    assert fields["cmdline_size"] == "0x0"
    assert [p["protocol"] for p in report["setup_header"]["protocols"] if not p["present"]][:2] == ["2.07", "2.08"]


def test_a_payload_of_another_size_than_promised_is_warned_of(tmp_path: Path) -> None:
    content = build.COMPRESSORS["xz"](KERNEL) + bytes(4)
    assert report_of(tmp_path, build.bzimage(content))["warnings"] == [
        f"the payload holds {len(KERNEL)} bytes, its last four say 0"
    ]


def test_kernel_info_is_found(tmp_path: Path) -> None:
    content = build.payload(KERNEL, "gzip")
    info = b"LToP" + (16).to_bytes(4, "little") + (16).to_bytes(4, "little") + (9).to_bytes(4, "little")
    image = build.bzimage(content + info, payload_length=len(content), kernel_info_offset=0x40 + len(content))
    assert report_of(tmp_path, image)["setup_header"]["kernel_info"] == {
        "offset": f"{0x840 + len(content):#x}",
        "size": 16,
        "size_total": 16,
        "setup_type_max": "0x9",
    }


def test_a_32_bit_guest_needs_pae(tmp_path: Path) -> None:
    notes = xen_notes(PAE_MODE="yes", VIRT_BASE=0xC0000000, ENTRY=0xC1000000)
    report = report_of(tmp_path, elf(notes=notes, bits=32))
    assert (report["bootable"], report["verdict"]) == (True, "Xen PV 32-bit PAE")
    assert report["parms"]["virt_base"] == "0xc0000000"
    report = report_of(tmp_path, elf(notes=xen_notes(VIRT_BASE=0xC0000000, ENTRY=0xC1000000), bits=32))
    assert (report["bootable"], report["verdict"]) == (False, "Xen PV 32-bit")
    assert "non-PAE" in report["reason"]


def test_a_pvh_kernel_is_named_so(tmp_path: Path) -> None:
    report = report_of(tmp_path, elf(notes=build.note(18, 0x100000)))
    assert report["verdict"] == "PVH only, not a Xen PV guest"
    assert report["entries"] == {"pv": None, "pvh": "0x100000"}
    assert report["notes"][0]["name"] == "PHYS32_ENTRY"


OTHERS = {
    "an empty file": b"",
    "a script (#!/bin/sh)": b"#!/bin/sh\n",
    "an ELF file for x86-64": elf(),
    "an ELF file for SPARC V9": elf(machine=43, order=">"),
    "an ELF file for x86-64, gzip-compressed": gzip.compress(elf()),
    "a Linux bzImage": build.bzimage(b"broken"),
    "gzip-compressed data": gzip.compress(b"words")[:12],
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_file_that_cannot_boot_is_a_report_all_the_same(tmp_path: Path, what: str) -> None:
    report = report_of(tmp_path, OTHERS[what])
    assert (report["what"], report["bootable"], report["verdict"]) == (what, False, "not a Xen PV guest")
    assert report["reason"]
    assert report["remedy"]
    assert f"cannot boot: {report['reason']}" in render(report)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        describe(tmp_path / "missing")


def test_the_layout_is_included_and_drawn_as_a_table(tmp_path: Path) -> None:
    def layout(image: Image) -> dict[str, Any]:
        return {"pages": 16384, "objects": [{"name": "kernel", "pfn": hex(image.pstart >> 12)}, {"name": "p2m"}]}

    report = report_of(tmp_path, KERNEL, layout=layout)
    assert report["start_of_day"]["objects"][0]["pfn"] == "0x1000"
    text = render(report).partition("Start of day\n")[2].splitlines()[:5]
    assert [line.split() for line in text] == [
        ["pages", "16384"],
        ["objects"],
        ["name", "pfn"],
        ["kernel", "0x1000"],
        ["p2m", "-"],
    ]


def test_a_layout_that_fails_is_a_warning(tmp_path: Path) -> None:
    def layout(image: Image) -> dict[str, Any]:
        raise ConfigError("memory 4 MiB is too little; 64 MiB would do")

    report = report_of(tmp_path, KERNEL, layout=layout)
    assert report["warnings"] == ["start of day: memory 4 MiB is too little; 64 MiB would do"]
    assert "start_of_day" not in report


def test_the_text_shows_every_note_segment_and_field(tmp_path: Path) -> None:
    report = report_of(tmp_path, build.bzimage(build.payload(KERNEL, "gzip")))
    text = render(report)
    lines = [line.split() for line in text.splitlines()]
    assert text.splitlines()[0].endswith("kernel: Xen PV 64-bit")
    for note in report["notes"]:
        assert any(line[:3] == ["Xen", str(note["type"]), note["name"]] for line in lines)
    for field in report["setup_header"]["fields"]:
        assert any(line[:1] == [field["offset"]] and field["name"] in line for line in lines)
    for segment in report["segments"]:
        assert any(line[:3] == [segment["flags"], segment["paddr"], segment["vaddr"]] for line in lines)


def test_the_text_cannot_drive_the_terminal(tmp_path: Path) -> None:
    nasty = "\x1b]0;owned\x07\n"
    sections = [Sect("__xen_guest", 1, f"{nasty}={nasty}".encode() + b"\0"), Sect(nasty, 1, b"")]
    content = elf([Load(PSTART, b"x")], xen_notes(GUEST_VERSION=nasty), sections=sections)
    image = build.bzimage(build.payload(content, "gzip"), release=nasty)
    text = render(report_of(tmp_path, image))
    assert all(line.isprintable() for line in text.splitlines())
    assert "\\x1b]0;owned" in text
