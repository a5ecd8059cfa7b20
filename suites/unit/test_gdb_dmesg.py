"""The log of a Linux guest out of its memory: rings made by hand, whole, wrapped, half-written and senseless."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from stub.gdb.dmesg import read_log
from stub.gdb.model import TargetError

PRB, RING, DESCS, INFOS, DATA = (0xFFFF888000000000 + i * 0x100000 for i in range(5))
RESERVED, COMMITTED, FINALIZED, REUSABLE = range(4)
FIRST_ID = (1 << 62) - 3  # ids count on from near their end: the first few wrap


class Memory:
    """Pieces of memory at addresses, and nothing between them."""

    def __init__(self, pieces: dict[int, bytes]) -> None:
        self.pieces = {at: bytearray(data) for at, data in pieces.items()}
        self.reads = 0

    def read(self, address: int, size: int) -> bytes:
        self.reads += 1
        for at, data in self.pieces.items():
            if at <= address < at + len(data):
                return bytes(data[address - at : address - at + size])
        return b""


@dataclass
class Ring:
    """A printk_ringbuffer of 2^5 records and 2^9 bytes of text, as Linux 5.10 (``since_6_8``: 6.8) lays it out."""

    since_6_8: bool = False
    bits: int = 5
    size_bits: int = 9
    at: int = 0
    ids: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.descs = bytearray(24 << self.bits)
        self.infos = bytearray(88 << self.bits)
        self.data = bytearray(1 << self.size_bits)

    def add(self, text: bytes, time_ns: int = 0, state: int = FINALIZED, *, length: int | None = None) -> None:
        """printk: the block is placed as data_alloc does it, at the ring's beginning if the end is too near."""
        seq = len(self.ids)
        number = FIRST_ID + seq & (1 << 62) - 1
        self.ids.append(number)
        begin = end = 3
        if text:
            size = 8 + len(text) + 7 & ~7
            begin, end = self.at, self.at + size
            room, place = 1 << self.size_bits, self.at
            if end // room != begin // room:
                place = end // room * room
                end = place + size
            block = struct.pack("<Q", number) + text
            self.data[place % room : place % room + len(block)] = block
            self.at = end
            self._forget(end - room)
        index = number % (1 << self.bits)
        struct.pack_into("<QQQ", self.descs, index * 24, state << 62 | number, begin, end)
        size = len(text) if length is None else length
        struct.pack_into("<QQHBBI", self.infos, index * 88, FIRST_ID + seq, time_ns, size, 0, 6 << 5, 0)

    def _forget(self, tail: int) -> None:
        """Descriptors of text that is overwritten are to be used again (data_push_tail)."""
        for at in range(0, len(self.descs), 24):
            state, begin, _ = struct.unpack_from("<QQQ", self.descs, at)
            if begin < tail:
                struct.pack_into("<Q", self.descs, at, state & (1 << 62) - 1 | REUSABLE << 62)

    def memory(self) -> Memory:
        count = min(len(self.ids), 1 << self.bits)
        head, tail = self.ids[-1], self.ids[-count]
        extra = struct.pack("<Q", 7) if self.since_6_8 else b""
        ring = struct.pack("<I4xQQQQ", self.bits, DESCS, INFOS, head, tail) + extra
        ring += struct.pack("<I4xQQQ", self.size_bits, DATA, self.at, 0) + bytes(8)
        return Memory({PRB: struct.pack("<Q", RING), RING: ring, DESCS: self.descs, INFOS: self.infos, DATA: self.data})

    def log(self, last: int | None = None) -> list[str]:
        return read_log({"prb": PRB}.get, self.memory().read, last)


@pytest.mark.parametrize("since_6_8", [False, True])
def test_records_as_dmesg_shows_them(since_6_8: bool) -> None:
    ring = Ring(since_6_8)
    ring.add(b"Linux version 6.1.0", 0)
    ring.add(b"two\nlines", 12_345_678_901)
    ring.add(b"", 99_999_000_000_000)
    ring.add("tab\tescape\x1b[31m é \xff".encode()[:-2] + b"\xff", 1)
    assert ring.log() == [
        "[    0.000000] Linux version 6.1.0",
        "[   12.345678] two",
        "[   12.345678] lines",
        "[99999.000000] ",
        "[    0.000000] tab\tescape\\x1b[31m é \\xff",
    ]
    assert ring.log(2) == ring.log()[-2:]
    assert ring.log(0) == []
    assert ring.log(100) == ring.log()


def test_both_rings_go_round() -> None:
    """Texts of every length; the newest that are still there come out, whole, in their order."""
    ring = Ring()
    for i in range(500):
        ring.add(b"%d " % i + b"x" * (i % 40), i * 10**9)
        shown = ring.log()
        newest = [f"[{k:5}.000000] {k} {'x' * (k % 40)}" for k in range(i + 1)]
        assert shown == newest[-len(shown) :]
        assert len(shown) >= min(i + 1, 5)


def test_what_is_being_written_is_left_out() -> None:
    ring = Ring()
    for state in (FINALIZED, RESERVED, COMMITTED, REUSABLE):
        ring.add(b"state %d" % state, 0, state)
    assert ring.log() == ["[    0.000000] state 2", "[    0.000000] state 1"]


def test_a_length_beyond_the_text_is_cut() -> None:
    ring = Ring()
    ring.add(b"short", length=65535)
    assert ring.log() == ["[    0.000000] short" + "\\x00" * (512 - 8 - 5)]


def test_before_the_first_record() -> None:
    """As the kernel's image has it: one descriptor, which was never used (DESC0_SV)."""
    ring = Ring()
    ring.add(b"", 0, REUSABLE)
    assert ring.log() == []


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (PRB, b"\0" * 8, "the ring buffer is said to be at 0x0, where no memory is"),
        (PRB, struct.pack("<Q", 1 << 63), "where no memory is"),
        (RING, b"\xff" * 4, "is no ring buffer"),
        (RING + 40, b"\0" * 4, "is no ring buffer"),
        (RING + 8, b"\xff" * 8, "a descriptor is said to be at"),
        (RING + 16, b"\0" * 8, "a record's printk_info is said to be at"),
        (RING + 48, struct.pack("<Q", DATA + 0x80000), "a record's text is said to be at"),
        (INFOS, b"\1" * 88 * 32, "where record"),
    ],
)
def test_senseless_memory(place: int, value: bytes, said: str) -> None:
    ring = Ring()
    ring.add(b"text")
    memory = ring.memory()
    for at, data in memory.pieces.items():
        if at <= place < at + len(data):
            data[place - at : place - at + len(value)] = value
    with pytest.raises(TargetError, match=said):
        read_log({"prb": PRB}.get, memory.read)


def test_no_garbage_makes_it_fail_otherwise_or_take_long() -> None:
    source = random.Random(1)
    for _ in range(300):
        ring = Ring()
        for i in range(40):
            ring.add(b"x" * i)
        memory = ring.memory()
        for _ in range(8):
            data = source.choice(list(memory.pieces.values()))
            at = source.randrange(len(data))
            data[at : at + 8] = source.randbytes(len(data[at : at + 8]))
        try:
            assert len(read_log({"prb": PRB}.get, memory.read)) <= 32
        except TargetError as error:
            assert "makes no sense" in str(error)  # noqa: PT017 - or it is read, both may be
        assert memory.reads < 1000


# -- Linux 3.5 to 5.9

LOG_SYMBOLS = {"log_buf": PRB, "log_buf_len": PRB + 8, "log_first_idx": PRB + 12, "log_next_idx": PRB + 16}


def plain(records: Sequence[tuple[int, bytes]], header: int = 16, size: int = 512, first: int = 0) -> Memory:
    """A log_buf; a record that does not fit before its end goes to its beginning, behind an empty one."""
    data, at = bytearray(size), first
    for time_ns, text in records:
        length = header + len(text) + 3 & ~3
        if at + length + 16 > size:
            data[at : at + 16] = bytes(min(16, size - at))
            at = 0
        data[at : at + length] = bytes(length)
        struct.pack_into("<QHHHBB", data, at, time_ns, length, len(text), 0, 0, 6 << 5)
        data[at + header : at + header + len(text)] = text
        at += length
    return Memory({PRB: struct.pack("<QIII", DATA, size, first, at), DATA: bytes(data)})


@pytest.mark.parametrize("header", [16, 20])
@pytest.mark.parametrize("first", [0, 400])
def test_the_older_log(header: int, first: int) -> None:
    """With and without caller_id (CONFIG_PRINTK_CALLER); from its beginning and around its end."""
    texts = [b"x" * i for i in range(10)]
    memory = plain([(i * 10**6, text) for i, text in enumerate(texts)], header, first=first)
    lines = [f"[    0.{i * 1000:06}] {text.decode()}" for i, text in enumerate(texts)]
    assert read_log(LOG_SYMBOLS.get, memory.read) == lines
    assert read_log(LOG_SYMBOLS.get, memory.read, 3) == lines[-3:]
    assert read_log(LOG_SYMBOLS.get, plain([]).read) == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda m: m.pieces[PRB].__setitem__(slice(16, 20), b"\xff" * 4), "the end at 0xffffffff"),
        (lambda m: m.pieces[DATA].__setitem__(8, 3), "does not fit its length"),
        (lambda m: m.pieces[DATA].__setitem__(slice(8, 10), b"\xff\xff"), "does not fit its length"),
        (lambda m: m.pieces.pop(DATA), "where no memory is"),
    ],
)
def test_the_older_log_damaged(damage: Callable[[Memory], object], said: str) -> None:
    memory = plain([(0, b"text")] * 3)
    damage(memory)
    with pytest.raises(TargetError, match=said):
        read_log(LOG_SYMBOLS.get, memory.read)


def test_an_older_log_that_never_ends() -> None:
    """All zeros say for ever that the next record is at the beginning."""
    memory = Memory({PRB: struct.pack("<QIII", DATA, 512, 0, 64), DATA: bytes(512)})
    assert read_log(LOG_SYMBOLS.get, memory.read) == []


def test_no_symbols_no_log() -> None:
    with pytest.raises(TargetError, match="neither prb nor log_buf"):
        read_log({}.get, Memory({}).read)
    with pytest.raises(TargetError, match="lack log_next_idx"):
        read_log({**LOG_SYMBOLS, "log_next_idx": None}.get, plain([]).read)
