"""Every form in which a kernel may come gives the same ``Image``, with and without the cache."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stub.errors import ImageError
from stub.image import Image, cache, load, load_image, payload
from stub.image.faults import Fault
from suites.unit import elf_builder as build

KERNEL = build.elf(
    [
        build.Load(0x1002000, b"data" * 8, memsz=0x3000, flags=6),
        build.Load(0x1000000, b"\xcc" * 0x1800, flags=5),
    ],
    build.xen_notes(),
)


def load_bytes(folder: Path, content: bytes, **options: Path) -> Image:
    path = folder / "kernel"
    path.write_bytes(content)
    return load_image(path, **options)


def test_an_elf_file_gives_its_segments_in_order_of_address(tmp_path: Path) -> None:
    image = load_bytes(tmp_path, KERNEL)
    assert (image.kind, image.compression, image.bits, image.machine) == ("ELF", "none", 64, "x86-64")
    assert [(s.paddr, s.filesz, s.memsz, s.flags) for s in image.segments] == [
        (0x1000000, 0x1800, 0x1800, 5),
        (0x1002000, 32, 0x3000, 6),
    ]
    assert bytes(image.segments[1].data) == b"data" * 8
    assert (image.pstart, image.pend) == (0x1000000, 0x1005000)
    assert (image.virt_kstart, image.virt_kend) == (0xFFFFFFFF81000000, 0xFFFFFFFF81005000)
    assert image.entry == image.parms.entry == 0xFFFFFFFF81000000
    assert image.sha256 == hashlib.sha256(KERNEL).hexdigest()
    assert image.setup_header is None


@pytest.mark.parametrize("compression", sorted(build.COMPRESSORS))
def test_a_bzimage_of_each_compression_gives_the_kernel_inside(tmp_path: Path, compression: str) -> None:
    image = load_bytes(tmp_path, build.bzimage(build.payload(KERNEL, compression)))
    assert (image.kind, image.compression) == ("bzImage", compression)
    assert bytes(image.elf[: len(KERNEL)]) == KERNEL
    assert image.setup_header is not None
    assert image.setup_header.protocol == (2, 15)
    assert image.setup_header.kernel_version == "6.1.0-test (us@here) #1"
    assert image.setup_header["pref_address"] == 0x1000000


@pytest.mark.parametrize(("compression", "suffix"), sorted(load.OUTER.items()))
def test_a_whole_file_may_be_compressed(tmp_path: Path, compression: str, suffix: str) -> None:
    image = load_bytes(tmp_path, build.COMPRESSORS[compression](KERNEL))
    assert (image.kind, image.compression) == (f"ELF.{suffix}", compression)
    assert bytes(image.elf) == KERNEL


def test_a_bzimage_may_be_compressed_once_more(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    file = gzip.compress(build.bzimage(build.payload(KERNEL, "xz")))
    for _ in range(2):
        image = load_bytes(tmp_path, file, cache=kept)
        assert (image.kind, image.compression) == ("bzImage.gz", "xz")
        assert bytes(image.elf) == KERNEL


def test_bytes_after_the_compressed_stream_are_legal(tmp_path: Path) -> None:
    for compression in ("gzip", "xz", "bzip2", "zstd"):
        image = load_bytes(tmp_path, build.COMPRESSORS[compression](KERNEL) + b"a signature, say")
        assert bytes(image.elf) == KERNEL


def test_several_lz4_blocks_and_frames_are_one_payload(tmp_path: Path) -> None:
    packed = build.lz4_legacy(KERNEL[:3000], 1000) + build.lz4_legacy(KERNEL[3000:])
    image = load_bytes(tmp_path, build.bzimage(packed + len(KERNEL).to_bytes(4, "little")))
    assert bytes(image.elf) == KERNEL


@pytest.mark.parametrize("compression", [name for name in build.COMPRESSORS if name != "none"])
def test_a_stream_grows_no_further_than_the_limit(compression: str) -> None:
    row = payload.compression_of(memoryview(build.COMPRESSORS[compression](b"\0")))
    assert row is not None
    bomb = memoryview(build.COMPRESSORS[compression](bytes(5 << 20)))
    assert len(payload.decompress(row, bomb, 5 << 20)) == 5 << 20
    with pytest.raises(Fault, match="grows past 1 MiB"):
        payload.decompress(row, bomb, 1 << 20)


def test_the_cache_spares_the_decompressor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "kept"
    file = build.bzimage(build.payload(KERNEL, "xz"))
    first = load_bytes(tmp_path, file, cache=kept)
    monkeypatch.setattr(lzma, "LZMADecompressor", None)
    second = load_bytes(tmp_path, file, cache=kept)
    assert first == second
    assert bytes(second.elf) == KERNEL
    assert [path.name for path in kept.iterdir()] == [f"{hashlib.sha256(file).hexdigest()}.payload"]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "grow", "folder"])
def test_a_damaged_cache_entry_is_made_again(tmp_path: Path, damage: str) -> None:
    kept = tmp_path / "kept"
    file = build.bzimage(build.payload(KERNEL, "gzip"))
    load_bytes(tmp_path, file, cache=kept)
    (entry,) = kept.iterdir()
    good = entry.read_bytes()
    bad = {"flip": good[:100] + b"!" + good[101:], "cut": good[:-50], "empty": b"", "grow": good + b"x"}
    if damage == "folder":
        entry.unlink()
        entry.mkdir()
    else:
        entry.write_bytes(bad[damage])
    assert cache.lookup(kept, entry.stem) is None
    assert bytes(load_bytes(tmp_path, file, cache=kept).elf) == KERNEL
    if damage != "folder":
        assert entry.read_bytes() == good
    assert [path.name for path in kept.iterdir()] == [entry.name]


def test_many_runs_may_share_a_cache(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    path = tmp_path / "kernel"
    path.write_bytes(build.bzimage(build.payload(KERNEL, "lzma")))
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(lambda _: load_image(path, cache=kept), range(32)))
    assert {bytes(image.elf) for image in images} == {KERNEL}
    assert len(list(kept.iterdir())) == 1


def test_a_cache_that_cannot_be_written_is_no_fault(tmp_path: Path) -> None:
    blocked = tmp_path / "a file"
    blocked.write_bytes(b"")
    image = load_bytes(tmp_path, build.bzimage(build.payload(KERNEL, "gzip")), cache=blocked / "kept")
    assert bytes(image.elf) == KERNEL


def test_symbols_are_sorted_and_found_by_address(tmp_path: Path) -> None:
    names = {"second": build.VIRT_BASE + 0x1000040, "startup_xen": build.VIRT_BASE + 0x1000000}
    symbols = load_bytes(tmp_path, build.elf(notes=build.xen_notes(), sections=build.symbol_sections(names))).symbols()
    assert symbols.names == ("startup_xen", "second")
    assert symbols.find(build.VIRT_BASE + 0x1000044) == ("second", 4)
    assert symbols.find(build.VIRT_BASE + 0x100003F) == ("startup_xen", 0x3F)
    assert symbols.find(0) is None


def test_a_stripped_or_damaged_symbol_table_is_empty(tmp_path: Path) -> None:
    assert len(load_bytes(tmp_path, KERNEL).symbols()) == 0
    sections = build.symbol_sections({"f": 1})
    sections[0].link = 77
    assert len(load_bytes(tmp_path, build.elf(notes=build.xen_notes(), sections=sections)).symbols()) == 0


def test_a_32_bit_kernel_has_to_use_pae(tmp_path: Path) -> None:
    path = tmp_path / "kernel"
    notes = build.xen_notes(PAE_MODE="yes", VIRT_BASE=0xC0000000, ENTRY=0xC1000000)
    path.write_bytes(build.elf(notes=notes, bits=32))
    image = load.read_image(path)
    assert (image.bits, image.machine, image.parms.pae) == (32, "x86 (32-bit)", "extended-cr3")
    assert (image.virt_kstart, image.entry) == (0xC1000000, 0xC1000000)
    assert load_image(path).bits == 32
    path.write_bytes(build.elf(notes=build.xen_notes(VIRT_BASE=0xC0000000, ENTRY=0xC1000000), bits=32))
    with pytest.raises(ImageError, match="32-bit non-PAE Xen PV guest, not started by any Xen"):
        load_image(path)


def test_a_large_file_is_mapped_not_read(tmp_path: Path) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(KERNEL)
    os.truncate(path, load.MAP_FROM + 1)
    assert load_image(path).segments == load_bytes(tmp_path, KERNEL).segments
