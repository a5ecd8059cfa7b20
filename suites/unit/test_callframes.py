"""``.debug_frame`` by hand: what each call frame instruction says of a frame (DWARF 4, section 6.4.2), and what is
refused."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from elf_builder import Sect, elf

from harness.callframes import Expression, FromCfa, Register, Row, Rule, Table
from harness.dwarf import Ended
from harness.unwind import Frame, Unwinder

START, SIZE = 0x1000, 0x100
RSP, RIP = 7, 16
DEF_CFA = bytes([0x0C, RSP, 8])
RETURN = Rule(FromCfa(-8), True)
INITIAL = DEF_CFA + bytes([0x80 | RIP, 1])

Made = Callable[..., Path]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A file whose table covers SIZE bytes from START on by these instructions."""

    def make(code: bytes, text: bytes = b"\0", initial: bytes = INITIAL, word: int = 8) -> Path:
        cie = b"\x01" + text + bytes([1, 0x78, RIP]) + bytes(text.startswith(b"z")) + initial  # 1 and -8: the units
        place = struct.pack("<QQ" if word == 8 else "<II", START, SIZE)
        fde = place + bytes(text.startswith(b"z")) + code
        table = b"".join(
            struct.pack("<II", len(body) + 4, identity) + body for identity, body in ((0xFFFFFFFF, cie), (0, fde))
        )
        (tmp_path / "file").write_bytes(elf(sections=[Sect(".debug_frame", 1, table)]))
        return tmp_path / "file"

    return make


def row(path: Path, address: int = START, word: int = 8) -> Row:
    found = Table(path, word).row(address)
    assert found is not None
    return found[0]


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        (b"\x83\x02", Rule(FromCfa(-16), True)),  # offset
        (b"\x05\x03\x02", Rule(FromCfa(-16), True)),  # offset_extended
        (b"\x11\x03\x7e", Rule(FromCfa(16), True)),  # offset_extended_sf
        (b"\x14\x03\x02", Rule(FromCfa(-16), False)),  # val_offset
        (b"\x15\x03\x7e", Rule(FromCfa(16), False)),  # val_offset_sf
        (b"\x09\x03\x06", Rule(Register(6), False)),  # register
        (b"\x10\x03\x02\x77\x08", Rule(Expression(b"\x77\x08"), True)),  # expression
        (b"\x16\x03\x02\x77\x08", Rule(Expression(b"\x77\x08"), False)),  # val_expression
        (b"\x07\x03", None),  # undefined
    ],
)
def test_where_a_register_is_saved(made: Made, code: bytes, rule: Rule | None) -> None:
    found = row(made(code))
    assert found.saved == {3: rule, RIP: RETURN}
    assert found.cfa == Register(RSP, 8)


@pytest.mark.parametrize(
    ("code", "cfa"),
    [
        (b"\x0c\x06\x10", Register(6, 16)),  # def_cfa
        (b"\x0d\x06", Register(6, 8)),  # def_cfa_register
        (b"\x0e\x20", Register(RSP, 32)),  # def_cfa_offset
        (b"\x12\x06\x7e", Register(6, 16)),  # def_cfa_sf
        (b"\x13\x7c", Register(RSP, 32)),  # def_cfa_offset_sf
        (b"\x0f\x02\x77\x08", Expression(b"\x77\x08")),  # def_cfa_expression
        (b"\x00\x2e\x08", Register(RSP, 8)),  # nop, GNU_args_size
    ],
)
def test_where_the_frame_is(made: Made, code: bytes, cfa: Register | Expression) -> None:
    found = row(made(code))
    assert found.cfa == cfa
    assert found.saved == {RIP: RETURN}


@pytest.mark.parametrize("again", [b"\xc3", b"\x06\x03"], ids=["restore", "restore_extended"])
def test_what_was_so_at_first_is_so_again(made: Made, again: bytes) -> None:
    """Of a register that the CIE says nothing of, that is the caller's own value."""
    first = INITIAL + b"\x83\x02"
    assert row(made(b"\x83\x04" + again, initial=first)).saved[3] == Rule(FromCfa(-16), True)
    assert row(made(b"\x83\x04" + again)).saved == {RIP: RETURN}
    assert row(made(b"\x08\x03", initial=first)).saved == {RIP: RETURN}  # same_value


def test_a_state_is_remembered(made: Made) -> None:
    found = row(made(b"\x0a\x83\x02\x0e\x20\x0b"))
    assert (found.cfa, found.saved) == (Register(RSP, 8), {RIP: RETURN})


@pytest.mark.parametrize(
    ("advance", "word"),
    [(b"\x44", 8), (b"\x02\x04", 8), (b"\x03\x04\0", 8), (b"\x04\x04\0\0\0", 8), (b"\x04\x04\0\0\0", 4),
     (b"\x01" + struct.pack("<Q", START + 4), 8), (b"\x01" + struct.pack("<I", START + 4), 4)],
)  # fmt: skip
def test_from_which_address_on(made: Made, advance: bytes, word: int) -> None:
    path = made(advance + b"\x0e\x20", word=word)
    assert row(path, START + 3, word).cfa == Register(RSP, 8)
    assert row(path, START + 4, word).cfa == Register(RSP, 32)
    assert Table(path, word).row(START - 1) is None
    assert Table(path, word).row(START + SIZE) is None


def test_an_interrupted_frame_says_so(made: Made) -> None:
    """By the S of .eh_frame's augmentation: what it was interrupted at is no place after a call."""
    found = Table(made(b"\x0e\x20", text=b"zS\0"), 8).row(START)
    assert found is not None
    assert (found[0].cfa, found[1]) == (Register(RSP, 32), True)


@pytest.mark.parametrize(
    "code",
    [b"\x3f", b"\x0b", b"\x0a" * 17, b"\x0e" + b"\x80" * 12, b"\x0e", b"\x0f\x7f\x77"],
    ids=["no instruction", "nothing remembered", "too much remembered", "too long a number", "cut", "cut block"],
)
def test_what_is_not_understood_is_the_end(made: Made, code: bytes) -> None:
    path = made(code)
    with pytest.raises(Ended):
        Table(path, 8).row(START)
    registers = dict.fromkeys(("rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp"), 0x8000)
    registers |= dict.fromkeys((f"r{n}" for n in range(8, 16)), 0) | {"rip": START}
    assert list(Unwinder(path).frames(registers, lambda at, size: bytes(size))) == [Frame(START, False)]


def test_another_augmentation_is_not_understood(made: Made) -> None:
    with pytest.raises(Ended):
        Table(made(b"", text=b"eh\0"), 8).row(START)
