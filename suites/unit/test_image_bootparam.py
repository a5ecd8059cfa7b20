"""The set-up header's and the zero page's numbers are those of Linux's own headers and documents."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from stub.image import bootparam
from stub.image.bzimage import parse_setup_header
from stub.image.zeropage import XEN_PV_FILLS, ZERO_PAGE, ZERO_PAGE_SIZE
from suites.unit import elf_builder as build

HEADER_FILE = Path("/usr/include/x86_64-linux-gnu/asm/bootparam.h")
LANDMARKS = {
    "setup_sects": (0x1F1, 1, 0x0000),
    "header": (0x202, 4, 0x0200),
    "version": (0x206, 2, 0x0200),
    "loadflags": (0x211, 1, 0x0200),
    "xloadflags": (0x236, 2, 0x020C),
    "hardware_subarch": (0x23C, 4, 0x0207),
    "hardware_subarch_data": (0x240, 8, 0x0207),
    "payload_offset": (0x248, 4, 0x0208),
    "payload_length": (0x24C, 4, 0x0208),
    "pref_address": (0x258, 8, 0x020A),
    "init_size": (0x260, 4, 0x020A),
    "handover_offset": (0x264, 4, 0x020B),
    "kernel_info_offset": (0x268, 4, 0x020F),
}
"""Offset, size and protocol as boot.rst has them."""


def test_the_landmarks_of_the_header_are_where_the_document_has_them() -> None:
    rows = {row.name: (row.offset, row.size, row.protocol) for row in bootparam.SETUP_HEADER}
    assert {name: rows[name] for name in LANDMARKS} == LANDMARKS


def test_the_header_has_no_gaps() -> None:
    ends = [row.offset + row.size for row in bootparam.SETUP_HEADER]
    assert [row.offset for row in bootparam.SETUP_HEADER] == [bootparam.HEADER_START, *ends[:-1]]
    assert bootparam.HEADER_END == ends[-1] == 0x26C


def test_the_zero_pages_fields_do_not_overlap() -> None:
    ends = [row.offset + row.size for row in ZERO_PAGE]
    assert all(end <= row.offset for end, row in zip(ends, ZERO_PAGE[1:], strict=False))
    assert ends[-1] <= ZERO_PAGE_SIZE
    assert XEN_PV_FILLS.keys() <= {row.name for row in bootparam.SETUP_HEADER}


@pytest.mark.skipif(not HEADER_FILE.exists() or not shutil.which("cc"), reason="needs a C compiler and linux-libc-dev")
def test_every_number_agrees_with_the_c_header(tmp_path: Path) -> None:
    lines = ["#include <stdio.h>", "#include <stddef.h>", "#include <asm/bootparam.h>", "int main(void) {"]
    lines += ["struct boot_params *p = 0;"]
    for name, _, _ in expected():
        lines.append(f'printf("%s %zu %zu\\n", "{name}", offsetof(struct boot_params, {name}), sizeof(p->{name}));')
    lines += ['printf("%zu\\n", sizeof(struct boot_params)); return 0; }']
    (tmp_path / "probe.c").write_text("\n".join(lines))
    subprocess.run(["cc", "-o", tmp_path / "probe", tmp_path / "probe.c"], check=True)
    said = subprocess.run([tmp_path / "probe"], check=True, capture_output=True, text=True).stdout.splitlines()
    assert said == [f"{name} {offset} {size}" for name, offset, size in expected()] + [str(ZERO_PAGE_SIZE)]


def expected() -> list[tuple[str, int, int]]:
    """Name as in C, offset and size of each row of both tables."""
    header = [(f"hdr.{row.name}", row.offset, row.size) for row in bootparam.SETUP_HEADER]
    return [(row.name, row.offset, row.size) for row in ZERO_PAGE if row.name != "hdr"] + header


@pytest.mark.parametrize("version", [0x0200, 0x0204, 0x0207, 0x0208, 0x020A, 0x020D, 0x020F])
def test_a_header_has_the_fields_of_its_protocol_and_no_more(version: int) -> None:
    header = parse_setup_header(memoryview(build.bzimage(b"x" * 64, version=version)))
    assert set(header.values) == {row.name for row in bootparam.SETUP_HEADER if row.protocol <= version}
    assert header.protocol == (2, version & 0xFF)
    assert header["kernel_info_offset"] == 0


def test_the_version_string_must_lie_in_the_set_up_code() -> None:
    image = memoryview(build.bzimage(b"x" * 64, setup_sects=3, release="6.1"))
    assert parse_setup_header(image).kernel_version == "6.1"
    outside = memoryview(build.bzimage(b"x" * 64, setup_sects=3, kernel_version=3 * 512))
    assert parse_setup_header(outside).kernel_version is None
    none = memoryview(build.bzimage(b"x" * 64, kernel_version=0))
    assert parse_setup_header(none).kernel_version is None


def test_setup_sects_0_is_not_4() -> None:
    header = parse_setup_header(memoryview(build.bzimage(b"x" * 64, setup_sects=3)))
    assert header.setup_size == 2048
    assert type(header)({"setup_sects": 0}, None).setup_size == 512
