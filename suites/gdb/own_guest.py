"""The guest of ``guest/``: built with the host's gcc and kept in pvstub's cache, with its symbols and lines."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache as remembered
from pathlib import Path

from elftools.elf.elffile import ELFFile

from harness.programs import compiled

SOURCES = Path(__file__).with_name("guest")
FLAGS = (
    "gcc", "-m64", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-g", "-Og", "-static", "-nostdlib", "-ffreestanding",
    "-fno-pic", "-no-pie", "-mcmodel=kernel", "-mno-red-zone", "-fno-stack-protector", "-fcf-protection=none",
    "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-fno-asynchronous-unwind-tables",
    f"-Wl,-T,{SOURCES / 'link.ld'},--build-id=none,-z,max-page-size=4096,--no-warn-rwx-segments",
)  # fmt: skip
COMPILED = ("entry.S", "spots.S", "kernel.c", "sections.c")
MEMORY = 32
LATE = 0x10000000
TWICE = LATE + 4096
HOLE = LATE + 2 * 4096


def build() -> Path:
    """The kernel's file, compiled if a source changed. Its debugging information names the sources here."""
    return compiled("gdb-guest", (*FLAGS, *(str(SOURCES / name) for name in COMPILED)), [SOURCES])


@remembered
def symbols() -> Mapping[str, int]:
    """Name → address."""
    with build().open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        return {symbol.name: symbol["st_value"] for symbol in table.iter_symbols() if symbol.name}


def line_of(source: str, text: str) -> int:
    """The number of the first line of a source that has this text."""
    lines = (SOURCES / source).read_text().splitlines()
    return next(number for number, line in enumerate(lines, start=1) if text in line)
