"""The registers as gdb sees them, and that a real gdb takes both descriptions."""

from __future__ import annotations

import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from fake_target import FakeTarget

from stub.engine.base import CR3, NAMES, RFLAGS, RIP
from stub.gdb.features import description

GDB = shutil.which("gdb")
BITS = pytest.mark.parametrize("bits", [64, 32])


@BITS
def test_the_description_is_the_table(bits: int) -> None:
    table = description(bits)
    tree = ElementTree.fromstring(table.xml)
    found = [(reg.get("name"), int(reg.get("bitsize", "")), int(reg.get("regnum", ""))) for reg in tree.iter("reg")]
    assert found == [(reg.name, reg.bits, n) for n, reg in enumerate(table.registers)]
    assert len({name for name, _, _ in found}) == len(found)


@BITS
def test_every_type_is_defined_or_gdbs_own(bits: int) -> None:
    own = {"data_ptr", "code_ptr", "i387_ext", "int", "ieee_single", "ieee_double"}
    own |= {f"{sign}int{size}" for sign in ("", "u") for size in (8, 16, 32, 64, 128)}
    for feature in ElementTree.fromstring(description(bits).xml).iter("feature"):
        defined = {element.get("id") for element in feature if element.get("id")}
        used = {element.get("type") for element in feature.iter() if element.tag in ("reg", "field", "vector")}
        assert used - {None} <= own | defined, feature.get("name")


def test_gdbs_numbers() -> None:
    numbers = description(64).number_of
    assert [numbers[name] for name in ("rax", "rbp", "rsp", "rip", "eflags", "st0", "xmm0", "fs_base")] == [
        0, 6, 7, 16, 17, 24, 40, 57,
    ]  # fmt: skip
    numbers = description(32).number_of
    assert [numbers[name] for name in ("eax", "esp", "ebp", "eip", "eflags", "st0", "xmm0", "mxcsr")] == [
        0, 4, 5, 8, 9, 16, 32, 40,
    ]  # fmt: skip


def test_words_are_read_from_the_engines_file_but_not_control_registers() -> None:
    table = description(64)
    assert table.word_of[table.number_of["eflags"]] == RFLAGS
    assert CR3 not in table.word_of.values()
    for n, word in description(32).word_of.items():
        name = description(32).registers[n].name
        assert NAMES[word] in (name, "r" + name[1:])


@BITS
def test_all_registers_are_those_read_one_by_one(bits: int) -> None:
    table = description(bits)
    target = FakeTarget(bits)
    for at in range(len(NAMES)):
        target.words[at] = (0x0123456789ABCDEF * (at + 1)) & (1 << 64) - 1

    def read(name: str) -> int:
        return 7 if name == "cr8" else target.read_register(name)

    one_by_one = b"".join(table.pack(n, table.read(n, target.words, read)) for n in range(len(table)))
    assert table.pack_all(target.words, read) == one_by_one
    unpacked = dict(table.unpack_all(one_by_one))
    assert list(unpacked) == [register.name for register in table.registers]
    assert unpacked[table.pc] == target.words[RIP] & (1 << bits) - 1


def test_a_short_packet_of_registers_gives_those_that_are_whole() -> None:
    assert list(description(64).unpack_all(bytes(20))) == [("rax", 0), ("rbx", 0)]


@BITS
def test_expedited_registers(bits: int) -> None:
    target = FakeTarget(bits)
    text = description(bits).expedited(target.words)
    fields = [field.split(b":") for field in text.split(b";")[:-1]]
    names = [description(bits).registers[int(number, 16)].name for number, _ in fields]
    assert names == (["rip", "rsp", "rbp"] if bits == 64 else ["eip", "esp", "ebp"])
    assert all(len(value) == bits // 4 for _, value in fields)


@pytest.mark.skipif(GDB is None, reason="no gdb here")
@BITS
def test_a_real_gdb_takes_it(bits: int, tmp_path: Path) -> None:
    """The file read by ``set tdesc filename``: no warning, and every register with our size."""
    file = tmp_path / "target.xml"
    file.write_bytes(description(bits).xml)
    architecture = "i386:x86-64" if bits == 64 else "i386"
    commands = [f"set tdesc filename {file}", f"set architecture {architecture}", "maint print registers"]
    options = [part for command in commands for part in ("-ex", command)]
    done = subprocess.run([str(GDB), "-q", "-nx", "-batch", *options], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    rows = {words[0]: words for words in map(str.split, done.stdout.splitlines()) if len(words) > 4}
    for register in description(bits).registers:
        assert int(rows[register.name][4]) == register.size
    assert rows["cr0"][5] == "cr0"
    assert rows["mode"][5] == "vcpu_mode"
