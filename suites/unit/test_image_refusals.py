"""Each file that cannot be booted ends in one line that names the file, the fault and the remedy."""

from __future__ import annotations

import gzip
import os
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from stub.errors import ImageError
from stub.image import load_image
from stub.image.faults import printable
from suites.unit import elf_builder as build
from suites.unit.elf_builder import PSTART, VIRT_BASE, Load, elf, xen_notes

PLAIN = build.elf()
KERNEL = elf(notes=xen_notes())
COMPRESSED = build.payload(KERNEL * 30, "xz")
PE = b"MZ" + bytes(0x3A) + struct.pack("<I", 0x40) + b"PE\0\0" + struct.pack("<H", 0x8664)
PAGE_OF_CODE = b"\xcc" * 4096


def refusal(folder: Path, content: bytes) -> str:
    path = folder / "kernel"
    path.write_bytes(content)
    return refused(path)


def refused(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        load_image(path)
    line = str(caught.value)
    assert caught.value.status == 2
    assert line.startswith(f"{printable(str(path), 4096)}: ")
    assert "\n" not in line
    fault, _, remedy = line.rpartition("; ")
    assert fault
    assert remedy
    return line


NOT_IMAGES = {
    "a script (#!/bin/sh)": b"#!/bin/sh\nexit 0\n",
    "a cpio archive, probably an initramfs": b"070701" + b"0" * 104,
    "a cpio archive, probably an initramfs inside gzip compression": gzip.compress(b"070701" + b"0" * 104),
    "a text file inside gzip compression": gzip.compress(b"hello, world\n"),
    "a text file": b"hello, world\n",
    "a Debian package": b"!<arch>\ndebian-binary   1",
    "a ZIP archive": b"PK\x03\x04" + bytes(30),
    "a tar archive": bytes(257) + b"ustar" + bytes(300),
    "a QCOW2 disk image": b"QFI\xfb" + bytes(60),
    "a DOS executable": b"MZ" + bytes(100),
    "a Windows or EFI executable (PE) for x86-64": PE,
    "an EFI unified kernel image for x86-64": PE + bytes(100) + b".linux\0\0",
    "a kernel for AArch64": bytes(0x38) + b"ARM\x64" + bytes(60),
    "a SunOS a.out file for SPARC": b"\x81\x03\x01\x0b" + bytes(60),
    "a raw binary with libxc's image table": b"\xeb\xfe" + bytes(62) + struct.pack("<I", 0x336EC578) + bytes(64),
    "a boot sector or disk image": b"\xeb\x3c" + bytes(508) + b"\x55\xaa",
    "LZO-compressed data": b"\x89LZO\0\r\n\x1a\n",
    "nothing but zeros": bytes(4096),
    "unknown data": bytes(range(128, 256)),
}


@pytest.mark.parametrize("what", NOT_IMAGES)
def test_a_file_that_is_no_kernel_is_named_for_what_it_is(tmp_path: Path, what: str) -> None:
    if what.startswith("a SunOS"):
        assert what in refusal(tmp_path, b"\0" + NOT_IMAGES[what][1:])
    else:
        assert f"not a kernel but {what}" in refusal(tmp_path, NOT_IMAGES[what])


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "missing")
    assert "is a folder" in refused(tmp_path)
    assert "is empty" in refusal(tmp_path, b"")
    os.mkfifo(tmp_path / "fifo")
    assert "is not a regular file" in refused(tmp_path / "fifo")
    assert "cannot be read (file name too long)" in refused(tmp_path / ("x" * 300))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "cannot be read (too many levels of symbolic links)" in refused(tmp_path / "loop")
    assert "no such file can exist" in refused(Path("a\0b"))
    assert "is larger than 4 GiB" in refused(_sparse(tmp_path / "huge", (4 << 30) + 1))


def _sparse(path: Path, size: int) -> Path:
    path.write_bytes(b"")
    os.truncate(path, size)
    return path


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(KERNEL)
    (tmp_path / "kernel").chmod(0)
    assert "cannot be read (permission denied)" in refused(tmp_path / "kernel")


ELF_FAULTS = {
    "a plain ELF file, no Xen guest": PLAIN,
    "a kernel for SPARC;": elf(machine=2, bits=32, order=">"),
    "a kernel for SPARC V9": elf(machine=43, order=">"),
    "a kernel for PowerPC 64": elf(machine=21, order=">"),
    "a kernel for MIPS": elf(machine=8, bits=32),
    "a kernel for AArch64": elf(machine=183),
    "a kernel for machine 12345": elf(machine=12345),
    "ELF32 file for x86-64": elf(machine=62, bits=32),
    "ELF64 file for x86 (32-bit)": elf(machine=3),
    "not executable: relocatable object": elf(kind=1),
    "not executable: core dump": elf(kind=4),
    "without program headers": elf([]),
    "nothing to load": elf([Load(PSTART, PAGE_OF_CODE, flags=0)]),
    "truncated inside the ELF header": KERNEL[:40],
    "the program headers lie past the end": KERNEL[:70],
    "bytes of the segment at 0x1000000 are missing": KERNEL[:3000],
    "damaged ELF header (class or byte order)": b"\x7fELF\x07" + KERNEL[5:],
    "a PVH kernel only: PHYS32_ENTRY is 0x1000850": elf(
        notes=xen_notes(PHYS32_ENTRY=0x1000850, VIRT_BASE=None, ENTRY=None)
    ),
    "for lguest": elf([Load(PSTART, PAGE_OF_CODE + b"GenuineLguest")]),
    "reaches past 0xf5800000, where Xen's part begins": elf(
        notes=xen_notes(PAE_MODE="yes", VIRT_BASE=0xF4800000, ENTRY=0xF5800000), bits=32
    ),
    "32-bit non-PAE Xen PV guest": elf(notes=xen_notes(VIRT_BASE=0xC0000000, ENTRY=0xC1000000), bits=32),
}


@pytest.mark.parametrize("fault", ELF_FAULTS)
def test_an_elf_file_that_is_no_64_bit_pv_guest_is_refused(tmp_path: Path, fault: str) -> None:
    assert fault in refusal(tmp_path, ELF_FAULTS[fault])


SEGMENT_FAULTS = {
    "absurd segment at 0x1000000: 0x1000000000000000 bytes": [Load(PSTART, PAGE_OF_CODE, memsz=1 << 60)],
    "absurd segment at 0xfffffffffffff000": [Load(0xFFFFFFFFFFFFF000, PAGE_OF_CODE, memsz=0x2000)],
    "absurd segment at 0x8000000000": [Load(PSTART, PAGE_OF_CODE), Load(1 << 39, PAGE_OF_CODE)],
    "more bytes in the file (0x1000) than in memory (0x800)": [Load(PSTART, PAGE_OF_CODE, memsz=0x800)],
    "overlapping segments: the segment at 0x1000800": [Load(PSTART, PAGE_OF_CODE), Load(PSTART + 0x800, PAGE_OF_CODE)],
    "truncated: ": [Load(PSTART, PAGE_OF_CODE, offset=1 << 62)],
}


@pytest.mark.parametrize("fault", SEGMENT_FAULTS)
def test_segments_that_cannot_be_loaded_are_refused_before_memory_is_taken(tmp_path: Path, fault: str) -> None:
    tracemalloc.start()
    try:
        assert fault in refusal(tmp_path, elf(SEGMENT_FAULTS[fault], xen_notes()))
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


ADDRESS_FAULTS: dict[str, dict[str, Any]] = {
    "does not lie above VIRT_BASE 0xffffffffff000000": {"VIRT_BASE": 0xFFFFFFFFFF000000},
    "the entry 0xffffffff80000000 lies outside the kernel": {"ENTRY": VIRT_BASE},
    "the entry 0xffffffff81001001 lies outside the kernel": {"ENTRY": VIRT_BASE + PSTART + 0x1001},
    "the hypercall page 0xffffffff81001000 lies outside": {"HYPERCALL_PAGE": VIRT_BASE + PSTART + 0x1000},
    "a PADDR_OFFSET without a VIRT_BASE": {"VIRT_BASE": None, "PADDR_OFFSET": 0, "ENTRY": PSTART},
    "does not begin on a page": {"VIRT_BASE": VIRT_BASE + 8, "ENTRY": VIRT_BASE + PSTART + 8},
    "addresses that are not canonical": {"VIRT_BASE": 1 << 50, "ENTRY": (1 << 50) + PSTART},
    "overlaps the addresses that belong to Xen": {
        "VIRT_BASE": 0xFFFF800000000000,
        "ENTRY": 0xFFFF800000000000 + PSTART,
    },
    'requires the feature "time_travel", which Xen': {"FEATURES": "!time_travel"},
    "requires to be dom0": {"FEATURES": "!dom0"},
    'the loader "lilo" and the system "plan9"': {"LOADER": "lilo", "GUEST_OS": "plan9"},
    'made for Xen "xen-2.0", not for xen-3.0': {"XEN_VERSION": "xen-2.0"},
    'made for Xen "", not for xen-3.0': {"XEN_VERSION": None},
}


@pytest.mark.parametrize("fault", ADDRESS_FAULTS)
def test_what_xen_would_not_start_is_refused(tmp_path: Path, fault: str) -> None:
    assert fault in refusal(tmp_path, elf(notes=xen_notes(**ADDRESS_FAULTS[fault])))


def test_a_kernel_below_its_paddr_offset_is_refused(tmp_path: Path) -> None:
    notes = xen_notes(VIRT_BASE=0, PADDR_OFFSET=PSTART + 0x1000, ENTRY=PSTART)
    assert "does not lie above VIRT_BASE" in refusal(tmp_path, elf(notes=notes))


def test_a_kernel_far_above_its_virt_base_is_refused(tmp_path: Path) -> None:
    notes = xen_notes(VIRT_BASE=0, ENTRY=1 << 40)
    line = refusal(tmp_path, elf([Load(1 << 40, PAGE_OF_CODE, vaddr=0)], notes))
    assert "ends more than 8 GiB above VIRT_BASE" in line


BZIMAGE_FAULTS = {
    "boot protocol 2.07, which does not tell where the kernel is": build.bzimage(COMPRESSED, version=0x0207),
    "bytes of its payload are missing": build.bzimage(COMPRESSED)[:-40],
    "bzImage without a payload": build.bzimage(COMPRESSED, payload_length=0),
    "bzImage whose payload is a text file;": build.bzimage(b"just words, not compressed"),
    "payload is a script (#!/bin/true), not a kernel": build.bzimage(build.payload(b"#!/bin/true\n", "gzip")),
    "a plain ELF file": build.bzimage(build.payload(PLAIN, "gzip")),
    "for lguest": build.bzimage(build.payload(PLAIN, "gzip"), hardware_subarch=1),
    "lzo payload, which pvstub does not read": build.bzimage(b"\x89LZO\0\r\n\x1a\n" + bytes(30)),
}


@pytest.mark.parametrize("fault", BZIMAGE_FAULTS)
def test_a_bzimage_without_a_pv_kernel_is_refused(tmp_path: Path, fault: str) -> None:
    assert fault in refusal(tmp_path, BZIMAGE_FAULTS[fault])


@pytest.mark.parametrize("compression", [name for name in build.COMPRESSORS if name != "none"])
def test_a_damaged_payload_is_refused(tmp_path: Path, compression: str) -> None:
    noise = b"".join(struct.pack("<I", i * 2654435761 & 0xFFFFFFFF) for i in range(3000))
    good = build.payload(elf([Load(PSTART, noise)], xen_notes()), compression)
    assert f"damaged {compression} payload" in refusal(tmp_path, build.bzimage(good[: len(good) // 2]))
    if compression in ("gzip", "xz", "bzip2"):  # those with a checksum
        middle = len(good) // 2
        flipped = good[:middle] + bytes([good[middle] ^ 0xFF]) + good[middle + 1 :]
        assert f"damaged {compression} payload" in refusal(tmp_path, build.bzimage(flipped))


def test_an_lz4_payload_shorter_than_it_says_is_refused(tmp_path: Path) -> None:
    content = build.lz4_legacy(KERNEL) + struct.pack("<I", len(KERNEL) + 1)
    assert f"damaged lz4 payload ({len(KERNEL)} bytes instead of {len(KERNEL) + 1})" in refusal(
        tmp_path, build.bzimage(content)
    )


def test_text_from_the_file_cannot_drive_the_terminal(tmp_path: Path) -> None:
    line = refusal(tmp_path, elf(notes=xen_notes(LOADER="\x1b[2J\nx", GUEST_OS="\x07")))
    assert r'"\x1b[2J\nx"' in line
    assert line.isprintable()


def test_a_path_with_a_newline_stays_on_one_line(tmp_path: Path) -> None:
    assert r"a\nb: no such file" in refused(tmp_path / "a\nb")
