"""A kernel's symbols for gdb: made out of kallsyms and the unwind table, cached, and read again by the stub."""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import pytest
from elf_builder import PAGE, PSTART, VIRT_BASE, Load, Sect, bzimage, elf, payload, symbol_sections, xen_notes
from elftools.dwarf.callframe import FDE, CallFrameInfo
from elftools.dwarf.structs import DWARFStructs
from elftools.elf.elffile import ELFFile

from harness import commands, orc, symbols
from harness.kallsyms import KernelSymbol, read_kallsyms
from stub.errors import ImageError, UsageError
from stub.gdb.symbols import Symbols
from stub.image.elf import parse_elf, read_sections
from stub.image.faults import Fault

TEXT = VIRT_BASE + PSTART
DATA = TEXT + PAGE
KALLSYMS = [
    KernelSymbol("counter", 0x40, "A"),
    KernelSymbol("_text", TEXT, "T"),
    KernelSymbol("first", TEXT, "t"),
    KernelSymbol("second", TEXT + 0x30, "T"),
    KernelSymbol("perhaps", TEXT + 0x80, "W"),
    KernelSymbol("_etext", TEXT + PAGE, "T"),
    KernelSymbol("data", DATA + 0x10, "d"),
    KernelSymbol("_end", DATA + PAGE, "B"),
]


def kernel(*more: Sect) -> bytes:
    """A kernel with a section of code, one of data and one of each CPU's data at address 0."""
    return elf(
        [Load(PSTART, b"\xcc" * PAGE + b"Linux version 6.1.0 (nobody)".ljust(PAGE, b"\0"))],
        xen_notes(),
        sections=[
            Sect(".text", 1, b"\xcc" * PAGE, flags=6, address=TEXT),
            Sect(".data", 1, bytes(PAGE), flags=3, address=DATA),
            Sect(".data..percpu", 1, bytes(0x100), flags=3),
            *more,
        ],
    )


@pytest.fixture
def stripped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel file whose kallsyms is KALLSYMS; how often it was read is in the file ``reads`` beside it."""

    def read(_: object) -> list[KernelSymbol]:
        with (tmp_path / "reads").open("a") as log:
            log.write("x")
        return KALLSYMS

    monkeypatch.setenv("PVSTUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(symbols, "read_kallsyms", read)
    path = tmp_path / "vmlinuz-test"
    path.write_bytes(bzimage(payload(kernel(), "gzip")))
    return path


# -- the file that is made


def test_it_is_the_kernel_with_sections_added(stripped: Path) -> None:
    made = symbols.symbols_for(stripped)
    assert made.name == "vmlinux-test.symbols"
    before, after = ELFFile(io.BytesIO(kernel())), ELFFile(io.BytesIO(made.read_bytes()))
    assert after["e_machine"] == "EM_X86_64"
    assert list(map(vars, after.iter_segments())) != []
    assert [s.header for s in after.iter_segments()] == [s.header for s in before.iter_segments()]
    names = [section.name for section in before.iter_sections()]
    assert [section.name for section in after.iter_sections()] == [*names, ".symtab", ".strtab", ".shstrtab"]
    for old, new in zip(before.iter_sections(), after.iter_sections(), strict=False):
        assert old.data() == new.data()
        assert {k: v for k, v in old.header.items() if k != "sh_name"} == {
            k: v for k, v in new.header.items() if k != "sh_name"
        }
    with made.open("rb") as file:
        assert file.read(4) == b"\x7fELF"


def test_each_symbol_has_type_binding_section_and_size(stripped: Path) -> None:
    with symbols.symbols_for(stripped).open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        rows = {
            s.name: (s["st_value"], s["st_size"], s["st_info"]["type"][4:], s["st_info"]["bind"][4:], s["st_shndx"])
            for s in table.iter_symbols()
        }
        binds = [s["st_info"]["bind"] for s in table.iter_symbols()]
        assert table["sh_info"] == binds.index("STB_GLOBAL") == binds.count("STB_LOCAL")
    assert rows == {
        "": (0, 0, "NOTYPE", "LOCAL", "SHN_UNDEF"),
        "first": (TEXT, 0x30, "FUNC", "LOCAL", 1),
        "data": (DATA + 0x10, PAGE - 0x10, "OBJECT", "LOCAL", 2),
        "counter": (0x40, 0x100 - 0x40, "OBJECT", "GLOBAL", 3),
        "_text": (TEXT, 0x30, "FUNC", "GLOBAL", 1),
        "second": (TEXT + 0x30, 0x50, "FUNC", "GLOBAL", 1),
        "perhaps": (TEXT + 0x80, PAGE - 0x80, "FUNC", "WEAK", 1),
        "_etext": (TEXT + PAGE, 0x10, "OBJECT", "GLOBAL", 2),
        "_end": (DATA + PAGE, 0, "OBJECT", "GLOBAL", 2),
    }


def test_it_is_made_once_for_each_kernel(stripped: Path) -> None:
    first = symbols.symbols_for(stripped)
    copy = stripped.with_name("copy")
    copy.write_bytes(stripped.read_bytes())
    assert symbols.symbols_for(copy) == first == symbols.executable(stripped)
    assert (stripped.parent / "reads").read_text() == "x"
    stripped.write_bytes(bzimage(payload(kernel(Sect(".more", 1, b"more")), "gzip")))
    assert symbols.symbols_for(stripped) != first
    assert (stripped.parent / "reads").read_text() == "xx"


def test_a_file_that_has_symbols_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVSTUB_CACHE", str(tmp_path / "cache"))
    whole = elf(sections=symbol_sections({"start": TEXT}))
    plain, packed = tmp_path / "vmlinux", tmp_path / "vmlinuz"
    plain.write_bytes(whole)
    packed.write_bytes(bzimage(payload(whole, "xz")))
    assert symbols.symbols_for(plain) == plain
    assert symbols.symbols_for(packed).read_bytes() == whole


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (elf([Load(PSTART, b"\x90" * PAGE)], xen_notes()), "no Linux kernel, and no symbol table"),
        (kernel(), "kallsyms table cannot be found"),
        (kernel(Sect(".rodata", 1, b"Linux version 6.1.0 (nobody)" + bytes(range(256)) * 64)), "cannot be found"),
        (elf(bits=32), "32-bit"),
        (b"#!/bin/sh\n", "not a kernel but"),
        (b"", "is empty"),
    ],
)
def test_what_has_no_symbols_is_one_line(
    data: bytes, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """And vmlinux-to-elf, which tells the root logger all that it does, says nothing."""
    monkeypatch.setenv("PVSTUB_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "kernel"
    path.write_bytes(data)
    handlers, level = list(logging.root.handlers), logging.root.manager.disable
    assert commands.images(["symbols", str(path)]) == ImageError.status == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"pvstub images: {path}: ")
    assert said in err
    assert err.count("\n") == 1
    assert symbols.executable(path) is None
    assert (logging.root.handlers, logging.root.manager.disable) == (handlers, level)


def test_names_that_are_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVSTUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UsageError, match="did you mean debian-cloud"):
        symbols.kernel_file("debian-clod")
    with pytest.raises(ImageError, match="no such file"):
        symbols.symbols_for(tmp_path / "none")


def test_the_command_prints_the_path(stripped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.images(["symbols", str(stripped)]) == 0
    assert capsys.readouterr() == (f"{symbols.symbols_for(stripped)}\n", "")


def test_the_stub_finds_it_through_an_entry_point() -> None:
    (entry,) = metadata.entry_points(group="pvstub.symbols")
    assert entry.load() is symbols.executable


def test_addresses_all_over_are_no_symbols(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table found by its looks is believed only if most of its symbols lie in the kernel."""
    found = [KernelSymbol(f"s{i}", i << 40, "T") for i in range(100)]
    monkeypatch.setattr("harness.kallsyms._find", lambda _: found)
    with pytest.raises(Fault, match="kallsyms"):
        read_kallsyms(parse_elf(memoryview(kernel())))


# -- the unwind table

CALL, REGS, IRET = 0, 1, 2
SP, BP, PREV_SP, BP_INDIRECT, SP_INDIRECT, R10 = 5, 4, 1, 8, 9, 6
ORC_AT = DATA + 0x100


def orc_kernel(rows: Sequence[tuple[int, int, int, int]], *more: Sect) -> bytes:
    """(offset of the code, sp_offset, bp_offset, bits) as .orc_unwind_ip and .orc_unwind."""
    places = b"".join(struct.pack("<i", TEXT + row[0] - ORC_AT - 4 * i) for i, row in enumerate(rows))
    entries = b"".join(struct.pack("<hhH", *row[1:]) for row in rows)
    return kernel(
        Sect(".orc_unwind_ip", 1, places, flags=2, address=ORC_AT), Sect(".orc_unwind", 1, entries, flags=2), *more
    )


def frames(data: bytes) -> list[FDE]:
    """The FDEs of the .debug_frame made for a kernel, as pyelftools reads them."""
    section = orc.debug_frame(parse_elf(memoryview(data)))
    structs = DWARFStructs(little_endian=True, dwarf_format=32, address_size=8)
    entries = CallFrameInfo(io.BytesIO(section), len(section), 0, structs).get_entries()
    return [entry for entry in entries if isinstance(entry, FDE)]


def rule(data: bytes, offset: int) -> dict[str, str]:
    """Register → where it is, at ``offset`` of the code."""
    at = TEXT + offset
    (fde,) = [f for f in frames(data) if f["initial_location"] <= at < f["initial_location"] + f["address_range"]]
    row = [line for line in fde.get_decoded().table if line["pc"] <= at][-1]
    cfa = row["cfa"]
    told = {"cfa": f"r{cfa.reg}{cfa.offset:+}" if cfa.expr is None else bytes(cfa.expr).hex()}
    for register, name in {6: "rbp", 7: "rsp", 16: "rip"}.items():
        if register in row:
            value = row[register]
            told[name] = {"OFFSET": f"cfa{value.arg:+}" if isinstance(value.arg, int) else ""}.get(
                value.type, value.type
            )
    told["signal"] = "S" if fde.cie["augmentation"] == b"zS" else ""
    return told


ROWS = [
    (0x00, 8, 0, SP),  # at a function's first instruction
    (0x01, 16, -16, SP | PREV_SP << 4),  # behind push %rbp
    (0x04, 16, -16, BP | PREV_SP << 4),  # behind mov %rsp,%rbp
    (0x10, 0, 0, SP | REGS << 8),
    (0x20, 8, 0, SP | IRET << 8),
    (0x30, -8, 0, BP_INDIRECT | BP << 4),
    (0x38, 8, 0, SP_INDIRECT),
    (0x40, 0, 0, R10),
    (0x48, 0, 0, 0),
    (0x50, 0, 0, 0),
]


def test_each_kind_of_unwind_entry() -> None:
    data = orc_kernel(ROWS)
    call = {"rip": "cfa-8", "signal": ""}
    assert rule(data, 0x00) == {"cfa": "r7+8", "rbp": "SAME_VALUE", **call}
    assert rule(data, 0x03) == {"cfa": "r7+16", "rbp": "cfa-16", **call}
    assert rule(data, 0x0F) == {"cfa": "r6+16", "rbp": "cfa-16", **call}
    assert rule(data, 0x10) == {"cfa": "r7+0", "rbp": "cfa+32", "rsp": "cfa+152", "rip": "cfa+128", "signal": "S"}
    assert rule(data, 0x2F) == {"cfa": "r7+8", "rsp": "cfa+24", "rip": "cfa+0", "signal": "S"}
    assert rule(data, 0x30) == {"cfa": "767806", "rbp": "EXPRESSION", **call}  # *(rbp - 8)
    assert rule(data, 0x38) == {"cfa": "7700062308", "rbp": "SAME_VALUE", **call}  # *rsp + 8
    assert rule(data, 0x40) == {"cfa": "r10+0", "rbp": "SAME_VALUE", **call}
    assert rule(data, 0x48) == {"cfa": "r7+8", "rip": "UNDEFINED", "signal": ""}
    assert max(f["initial_location"] + f["address_range"] for f in frames(data)) == TEXT + 0x50


def test_since_linux_6_4_the_types_are_others() -> None:
    """And the format has a version, in .orc_header."""
    rows = [
        (0, 8, 0, SP | 2 << 8),
        (1, 0, 0, SP | 3 << 8),
        (2, 0, 0, SP | 4 << 8),
        (3, 0, 0, SP | 1 << 8),
        (4, 0, 0, 0),
    ]
    data = orc_kernel(rows, Sect(".orc_header", 1, bytes(20)))
    assert [rule(data, at).get("rip") for at in range(4)] == ["cfa-8", "cfa+128", "cfa+0", "UNDEFINED"]


def test_long_and_far_stretches() -> None:
    """More rows than a piece has, at distances of every width."""
    places = [0, *range(1, 400, 2), 700, 0x1000, 0x20000]
    data = orc_kernel([(at, 8 * (i % 9), 0, SP) for i, at in enumerate(places)])
    for i, at in enumerate(places[:-1]):
        assert rule(data, at)["cfa"] == f"r7+{8 * (i % 9)}"
        assert rule(data, places[i + 1] - 1)["cfa"] == f"r7+{8 * (i % 9)}"


def test_entries_out_of_order_and_twice() -> None:
    """Sorted as the kernel sorts them at boot; of two at an address the one that says something holds."""
    data = orc_kernel([(0x20, 0, 0, 0), (8, 16, 0, SP), (8, 0, 0, 0), (0, 8, 0, SP)])
    assert rule(data, 0x10)["cfa"] == "r7+16"
    assert rule(data, 0x07)["cfa"] == "r7+8"


@pytest.mark.parametrize("offset", [-32768, -1, 0, 1, 32767])
def test_no_entry_breaks_it(offset: int) -> None:
    rows = [(i, offset, offset, bits) for i, bits in enumerate(range(0, 1 << 16, 0x111))]
    covered = frames(orc_kernel([*rows, (len(rows), 0, 0, 0)]))
    assert sum(f["address_range"] for f in covered) == len(rows)
    assert all(f.get_decoded().table for f in covered)


def test_no_unwind_table_that_we_know() -> None:
    elf_files = [
        kernel(),
        orc_kernel([]),
        kernel(Sect(".orc_unwind_ip", 1, bytes(8)), Sect(".orc_unwind", 1, bytes(6))),
    ]
    assert [orc.debug_frame(parse_elf(memoryview(data))) for data in elf_files] == [b"", b"", b""]


# -- the stub's reader


def test_names_and_addresses(stripped: Path) -> None:
    table = Symbols(symbols.symbols_for(stripped))
    assert len(table) == len(KALLSYMS)
    assert [table.address(s.name) for s in KALLSYMS] == [s.address for s in KALLSYMS]
    assert [table.address(name) for name in ("", "end", "nothing", "_text\0first", "ä")] == [None] * 5
    assert table.nearest(TEXT) == ("_text", 0)
    assert table.nearest(TEXT + 0x2F) == ("_text", 0x2F)
    assert table.nearest(TEXT + 0x31) == ("second", 1)
    assert table.nearest(DATA + 0x11) == ("data", 1)
    nowhere = (0x40, TEXT - 1, DATA + PAGE, DATA + (1 << 30), (1 << 64) - 1, 1 << 64, -1)
    assert [table.nearest(at) for at in nowhere] == [None] * len(nowhere)


def test_names_that_end_alike_and_names_that_there_are_twice(tmp_path: Path) -> None:
    """Linkers keep a name that ends another one only once."""
    strings = b"\0xstart\0twice\0"
    rows = [(2, 0x12, TEXT), (1, 0x12, TEXT + 1), (8, 0x02, TEXT + 2), (8, 0x12, TEXT + 3)]
    table = bytes(24) + b"".join(struct.pack("<IBBHQQ", name, info, 0, 1, at, 0) for name, info, at in rows)
    path = tmp_path / "kernel"
    path.write_bytes(elf(sections=[Sect(".symtab", 2, table, link=2, entsize=24), Sect(".strtab", 3, strings)]))
    assert [Symbols(path).address(name) for name in ("start", "xstart", "twice")] == [TEXT, TEXT + 1, TEXT + 3]


def test_what_cannot_be_read_has_no_symbols(tmp_path: Path) -> None:
    good = elf(sections=symbol_sections({"start": TEXT}))
    path = tmp_path / "file"
    for cut in (*range(0, len(good), 7), len(good) - 1):
        path.write_bytes(good[:cut])
        table = Symbols(path)
        assert table.address("start") is None or cut >= 64
        assert table.nearest(TEXT) is None
    for nothing in (None, tmp_path, tmp_path / "none"):
        assert (len(Symbols(nothing)), Symbols(nothing).address("start"), Symbols(nothing).nearest(TEXT)) == (
            0,
            None,
            None,
        )


def test_the_sections_of_the_kernel_made_here_are_read() -> None:
    assert [s.name for s in read_sections(parse_elf(memoryview(kernel())))][1:4] == [".text", ".data", ".data..percpu"]
