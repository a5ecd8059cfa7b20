"""Damaged kernel files: whatever is done to one, loading it ends in an ``Image`` or an ``ImageError``, soon and small.

Three kinds of damage: any bytes changed, cut out or put in; a header field set to an absurd value; two of these.
``inspect`` must explain each of the same files.
"""

from __future__ import annotations

import gzip
import json
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stub.errors import ImageError
from stub.image import load_image
from stub.image.inspect import describe, render
from suites.unit import elf_builder as build

SECONDS = 2.0
MEMORY = 64 << 20
KERNEL = build.elf(
    [
        build.Load(0x1000000, b"\xcc\x90" * 1000, flags=5),
        build.Load(0x1001000, b"d" * 500, memsz=0x3000, flags=6),
    ],
    build.xen_notes(FEATURES="!writable_page_tables|dom0", HYPERCALL_PAGE=build.VIRT_BASE + 0x1000000),
    sections=build.symbol_sections({"startup_xen": build.VIRT_BASE + 0x1000000}),
)
LEGACY = build.elf(
    [build.Load(0x40000000, b"\xcc" * 4096, vaddr=0x40000000)],
    sections=[
        build.Sect(
            "__xen_guest", 1, b"GUEST_OS=Mach,XEN_VER=xen-3.0,VIRT_BASE=0x40000000,HYPERCALL_PAGE=0,LOADER=generic\0"
        ),
        build.Sect(".note", 7, build.note(1, b"1234", "GNU")),
    ],
    entry=0x40000000,
)
FILES = {
    "elf": KERNEL,
    "legacy": LEGACY,
    "elf.gz": gzip.compress(KERNEL, mtime=0),
    **{f"bzImage-{name}": build.bzimage(build.payload(KERNEL, name)) for name in build.COMPRESSORS},
}
ELF_FIELDS = ((0x10, 2), (0x12, 2), (0x18, 8), (0x20, 8), (0x28, 8), (0x34, 2), (0x36, 2), (0x38, 2), (0x3C, 2))
PROGRAM_HEADER_FIELDS = tuple((64 + 56 * row + at, 8) for row in range(3) for at in (0, 8, 16, 24, 32, 40, 48))
NOTE_FIELDS = tuple((at, 4) for at in range(len(KERNEL) - 0x500, len(KERNEL) - 4, 4))
SETUP_FIELDS = ((0x1F1, 1), (0x1F4, 4), (0x206, 2), (0x20E, 2), (0x23C, 4), (0x248, 4), (0x24C, 4), (0x268, 4))
FIELDS = ELF_FIELDS + PROGRAM_HEADER_FIELDS + NOTE_FIELDS + SETUP_FIELDS
ABSURD = st.one_of(
    st.sampled_from(
        [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**60, 2**63, 2**64 - 4096, 2**64 - 1]
    ),
    st.integers(0, 2**64 - 1),
)


@dataclass(frozen=True)
class Damage:
    """One thing done to a file: ``place`` is reduced to the file's length."""

    kind: str
    place: int
    size: int
    content: bytes

    def apply(self, data: bytes) -> bytes:
        return DAMAGES[self.kind](data, self.place % (len(data) + 1), self.size, self.content)


DAMAGES: dict[str, Callable[[bytes, int, int, bytes], bytes]] = {
    "change": lambda data, at, size, new: data[:at] + new + data[at + len(new) :],
    "flip": lambda data, at, size, new: (
        data[:at] + bytes(b ^ (1 << size % 8) for b in data[at : at + 1]) + data[at + 1 :]
    ),
    "truncate": lambda data, at, size, new: data[:at],
    "cut": lambda data, at, size, new: data[:at] + data[at + size :],
    "insert": lambda data, at, size, new: data[:at] + new + data[at:],
    "zero": lambda data, at, size, new: data[:at] + bytes(min(size, len(data) - at)) + data[at + size :],
    "repeat": lambda data, at, size, new: data[:at] + data[at : at + size] * 8 + data[at:],
}
places = st.one_of(st.integers(0, 0x400), st.integers(0, 0x4000))
damages = st.builds(
    Damage, st.sampled_from(sorted(DAMAGES)), places, st.integers(1, 4096), st.binary(min_size=1, max_size=64)
)


@st.composite
def absurd_fields(draw: st.DrawFn) -> Damage:
    place, size = draw(st.sampled_from(FIELDS))
    return Damage("change", place, size, (draw(ABSURD) & (1 << 8 * size) - 1).to_bytes(size, "little"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    tracemalloc.start()
    yield tmp_path_factory.mktemp("damaged")
    tracemalloc.stop()


def survives(path: Path) -> bool:
    """Loads and explains ``path``; whether it is still an image. Fails on anything but an ``ImageError``."""
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    start = time.process_time()
    try:
        image = load_image(path)
    except ImageError as error:
        good, line = False, str(error)
    else:
        good, line = True, ""
        assert image.segments
        assert image.virt_kstart <= image.entry <= image.virt_kend
        assert all(len(s.data) == s.filesz <= s.memsz for s in image.segments)
        image.symbols()
    assert line.isprintable()
    report = describe(path)
    json.dumps(report)
    assert all(line.isprintable() for line in render(report).splitlines())
    assert report["bootable"] == good
    assert time.process_time() - start < SECONDS
    assert tracemalloc.get_traced_memory()[1] - before < MEMORY
    return good


@pytest.mark.parametrize("name", FILES)
def test_the_undamaged_file_is_an_image(folder: Path, name: str) -> None:
    (folder / name).write_bytes(FILES[name])
    assert survives(folder / name)


@settings(
    max_examples=350, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=st.sampled_from(sorted(FILES)), done=st.lists(st.one_of(damages, absurd_fields()), min_size=1, max_size=2))
def test_a_damaged_file_is_an_image_or_an_image_error(folder: Path, name: str, done: list[Damage]) -> None:
    data = FILES[name]
    for damage in done:
        data = damage.apply(data)
    path = folder / "damaged"
    path.write_bytes(data)
    survives(path)


@settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(damage=absurd_fields(), compression=st.sampled_from(["gzip", "lz4", "zstd"]))
def test_a_damaged_kernel_in_a_good_bzimage_is_no_worse(folder: Path, damage: Damage, compression: str) -> None:
    path = folder / "wrapped"
    path.write_bytes(build.bzimage(build.payload(damage.apply(KERNEL), compression)))
    survives(path)


@settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.one_of(st.binary(max_size=600), st.binary(max_size=100).map(lambda tail: b"\x7fELF\2\1\1" + tail)))
def test_any_bytes_are_an_image_or_an_image_error(folder: Path, content: bytes) -> None:
    path = folder / "bytes"
    path.write_bytes(content)
    survives(path)
