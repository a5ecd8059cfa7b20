"""Asks the C compiler what Xen's public headers say: values of constant expressions, strings, macro names.

Nothing is run: the answers are read out of an object file, so 32-bit questions need no 32-bit libc.
"""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from elftools.elf.elffile import ELFFile

HEADERS = Path(__file__).with_name("headers.h")
REMEDY = "install with: sudo apt-get install gcc libc6-dev libxen-dev (make test does)"

# What the compiler is told, by view: a guest of either width, and Xen's own tools, who see more constants.
VIEWS: Mapping[str, tuple[str, ...]] = {
    "64": ("-m64",),
    "32": ("-m32",),
    "tools": ("-m64", "-D__XEN_TOOLS__"),
}


class ProbeError(Exception):
    """The compiler or the headers are missing, or the headers do not know a name; one line."""


def numbers(view: str, expressions: Sequence[str]) -> list[int]:
    """The values of C constant expressions, each in the range of a signed 64-bit number."""
    rows = "".join(f"    (int64_t)({expression}),\n" for expression in expressions)
    data = _section(view, f'const int64_t answers[] __attribute__((section(".answers"))) = {{\n{rows}}};\n')
    return [value for (value,) in struct.iter_unpack("<q", data)]


def texts(view: str, names: Sequence[str]) -> list[str]:
    """The values of macros that are string literals."""
    rows = ' "\\0" '.join(names)
    data = _section(view, f'const char answers[] __attribute__((section(".answers"))) = {rows};\n')
    return data.decode("ascii").rstrip("\0").split("\0")


def macros(view: str) -> frozenset[str]:
    """Names of all macros without arguments that the headers define."""
    return frozenset(re.findall(r"^#define (\w+) ", _compile(view, "", "-E", "-dM").decode(), re.MULTILINE))


def preprocessed(view: str) -> str:
    """The headers as the compiler proper sees them."""
    return _compile(view, "", "-E", "-P").decode()


def _section(view: str, source: str) -> bytes:
    section = ELFFile(io.BytesIO(_compile(view, source, "-c"))).get_section_by_name(".answers")
    if section is None:
        raise ProbeError("the compiler dropped the section of the answers")
    return section.data()


def _compile(view: str, source: str, *what: str) -> bytes:
    compiler = os.environ.get("CC", "gcc")
    command = [compiler, "-x", "c", "-std=gnu11", "-ffreestanding", *VIEWS[view], "-include", str(HEADERS), *what]
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "answer")
        try:
            done = subprocess.run([*command, "-o", str(answer), "-"], input=source, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise ProbeError(f"the C compiler {compiler!r} is missing; {REMEDY}") from error
        if done.returncode:
            fault = next((line for line in done.stderr.splitlines() if "error:" in line.lower()), "compiling failed")
            raise ProbeError(f"{fault}; if it is Xen's headers that are missing, {REMEDY}")
        return answer.read_bytes()
