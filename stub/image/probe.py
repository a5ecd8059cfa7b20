"""What a file is that is no kernel of ours: enough to tell the user which file they named by mistake."""

from __future__ import annotations

import struct
from typing import NamedTuple

from stub.image.elf import MACHINES
from stub.image.faults import printable

HEAD = 64 * 1024
TEXT_SAMPLE = 512


class Magic(NamedTuple):
    """A row: bytes at an offset, what they give away, and what to do about it."""

    offset: int
    bytes: bytes
    what: str
    remedy: str = "name a kernel (vmlinuz, vmlinux)"


UNPACK_PACKAGE = "unpack it (dpkg-deb -x, rpm2cpio, tar) and name the kernel inside"
RAMDISK = "name a kernel, and give this file with --ramdisk"
MAGICS = (
    Magic(0, b"#!", "a script"),
    Magic(0, b"070701", "a cpio archive, probably an initramfs", RAMDISK),
    Magic(0, b"070702", "a cpio archive with checksums, probably an initramfs", RAMDISK),
    Magic(0, b"070707", "an old cpio archive", RAMDISK),
    Magic(0, b"\xc7\x71", "an old binary cpio archive", RAMDISK),
    Magic(0, b"!<arch>\ndebian-binary", "a Debian package", UNPACK_PACKAGE),
    Magic(0, b"!<arch>\n", "an ar archive", UNPACK_PACKAGE),
    Magic(0, b"\xed\xab\xee\xdb", "an RPM package", UNPACK_PACKAGE),
    Magic(257, b"ustar", "a tar archive", UNPACK_PACKAGE),
    Magic(0, b"PK\x03\x04", "a ZIP archive", UNPACK_PACKAGE),
    Magic(0, b"hsqs", "a squashfs file system", RAMDISK),
    Magic(0x8001, b"CD001", "an ISO 9660 file system", "take the kernel out of it"),
    Magic(0, b"QFI\xfb", "a QCOW2 disk image", "name a kernel; disks are not kernels"),
    Magic(0x438, b"\x53\xef", "an ext2/3/4 file system", "take the kernel out of it"),
    Magic(0, b"\x27\x05\x19\x56", "a U-Boot image", "name the kernel inside"),
    Magic(0, b"\xd0\x0d\xfe\xed", "a device tree or FIT image", "name the kernel inside"),
    Magic(0x38, b"ARM\x64", "a kernel for AArch64", "use an x86-64 kernel"),
    Magic(0x38, b"RSC\x05", "a kernel for RISC-V", "use an x86-64 kernel"),
    Magic(0, b"\x1f\x8b", "gzip-compressed data"),
    Magic(0, b"\xfd7zXZ\0", "xz-compressed data"),
    Magic(0, b"\x28\xb5\x2f\xfd", "zstd-compressed data"),
    Magic(0, b"\x04\x22\x4d\x18", "LZ4-compressed data", "unpack it with lz4 -d"),
    Magic(0, b"\x02\x21\x4c\x18", "LZ4-compressed data (legacy frame)", "unpack it with lz4 -d"),
    Magic(0, b"BZh", "bzip2-compressed data"),
    Magic(0, b"\x89LZO", "LZO-compressed data", "unpack it with lzop -d"),
    Magic(0, b"\xfe\xed\xfa", "a Mach-O file"),
    Magic(0, b"\xcf\xfa\xed\xfe", "a Mach-O file"),
    Magic(0, b"\xce\xfa\xed\xfe", "a Mach-O file"),
    Magic(0x1FE, b"\x55\xaa", "a boot sector or disk image, without a Linux set-up header"),
)
BIN_IMAGE_MAGIC = struct.pack("<I", 0x336EC578)
BIN_IMAGE_SEARCH = 8192
SUN_MACHINES = {0: "Sun-2", 1: "Sun-2 (68010)", 2: "Sun-3 (68020)", 3: "SPARC"}
AOUT_MAGICS = (0o407, 0o410, 0o413)
PE_MACHINES = {0x14C: "x86 (32-bit)", 0x8664: "x86-64", 0x1C0: "ARM", 0xAA64: "AArch64", 0x200: "Itanium"}


def what_is(data: memoryview) -> tuple[str, str]:
    """What ``data`` is, with its article, and the remedy. Always an answer, if only "unknown data"."""
    if not len(data):
        return "an empty file", "fetch or build the kernel again"
    head = bytes(data[:HEAD])
    if head.startswith(b"\x7fELF"):
        return _elf(head), "name a Xen PV kernel"
    if head.startswith(b"MZ"):
        return _pe(head)
    for magic in MAGICS:
        if head.startswith(magic.bytes, magic.offset):
            return _detail(magic, head), magic.remedy
    if len(head) >= 32 and head[1] in SUN_MACHINES and int.from_bytes(head[2:4], "big") in AOUT_MAGICS:
        return f"a SunOS a.out file for {SUN_MACHINES[head[1]]}", "pvstub runs x86 kernels only: use an x86-64 kernel"
    if BIN_IMAGE_MAGIC in head[:BIN_IMAGE_SEARCH]:
        return "a raw binary with libxc's image table (32-bit without PAE)", "use an ELF kernel for 64-bit Xen PV"
    if not head.strip(b"\0"):
        return "nothing but zeros", "fetch or build the kernel again"
    sample = head[:TEXT_SAMPLE]
    if all(byte >= 32 or byte in b"\t\n\r\f\x1b" for byte in sample) and b"\xff" not in sample:
        return "a text file", "name a kernel (vmlinuz, vmlinux)"
    return "unknown data", "name a kernel (vmlinuz, vmlinux)"


def _detail(magic: Magic, head: bytes) -> str:
    """The row's text; of a script also its interpreter."""
    if magic.bytes == b"#!":
        return f"a script ({printable(head.splitlines()[0], 60)})"
    return magic.what


def _elf(head: bytes) -> str:
    """An ELF file by machine, without further checks."""
    if len(head) < 20:
        return "the beginning of an ELF file"
    machine = int.from_bytes(head[18:20], "big" if head[5] == 2 else "little")
    return f"an ELF file for {MACHINES.get(machine, f'machine {machine}')}"


def _pe(head: bytes) -> tuple[str, str]:
    """A DOS, Windows or EFI program. A unified kernel image has the kernel in its section ".linux"."""
    place = int.from_bytes(head[0x3C:0x40], "little")
    if head[place : place + 4] != b"PE\0\0":
        return "a DOS executable", "name a kernel (vmlinuz, vmlinux)"
    for magic in MAGICS:
        if magic.offset == 0x38 and head.startswith(magic.bytes, magic.offset):
            return magic.what, magic.remedy
    machine = int.from_bytes(head[place + 4 : place + 6], "little")
    name = PE_MACHINES.get(machine, f"machine {machine:#x}")
    if b".linux\0\0" in head[place : place + 4096]:
        return (
            f"an EFI unified kernel image for {name}",
            "take the kernel out: objcopy -O binary --only-section=.linux FILE vmlinuz",
        )
    return f"a Windows or EFI executable (PE) for {name}", "name a kernel (vmlinuz, vmlinux)"
