"""The log of a Linux guest, read out of its memory with nothing but symbols: what ``dmesg`` would print.

Two formats, each a table of layouts for 64-bit kernels:

- Linux 5.10 and later, the ring buffer of kernel/printk/printk_ringbuffer.h. A ring of descriptors, one a record, in
  the order of their ids; beside it a ring of ``printk_info`` with the same indices; the text is in a third ring, each
  block behind the id of its descriptor. scripts/gdb/linux/dmesg.py reads it in the same way.
- Linux 3.5 to 5.9, ``struct printk_log`` of kernel/printk/printk.c: records of varying length, one behind the other.

The guest may be in the middle of writing, or its memory may be garbage: all numbers are checked before they are used,
and no more than ``MOST`` records are looked at.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from stub.gdb.model import TargetError
from stub.image.faults import printable

Read = Callable[[int, int], bytes]
"""Up to so many bytes at a virtual address; fewer where memory ends."""
AddressOf = Callable[[str], int | None]
"""A symbol's address (``stub.gdb.symbols.Symbols.address``); None where there is no such symbol."""

MOST = 1 << 16
TEXT_LIMIT = 1 << 16  # text_len has 16 bits
KERNEL_HALF = 0xFFFF800000000000


class Record(NamedTuple):
    """One printk: nanoseconds since the boot, and what was said."""

    time_ns: int
    text: bytes


def read_log(address_of: AddressOf, read: Read, last: int | None = None) -> list[str]:
    """The log's lines, oldest first, as dmesg shows them; only the newest ``last`` of them if given.

    TargetError where there is no such log, or none that makes sense.
    """
    memory = _Memory(read)
    ring, plain = address_of("prb"), address_of("log_buf")
    if ring is not None:
        records = _ring(memory, ring)
    elif plain is not None:
        records = _plain(memory, address_of, plain)
    else:
        raise TargetError("no log: the guest's symbols have neither prb nor log_buf (Linux 3.5 and later have)")
    lines: list[str] = []
    for record in records:  # newest first
        lines += reversed(list(_lines(record)))
        if last is not None and len(lines) >= last:
            break
    return lines[:last][::-1]


def _lines(record: Record) -> Iterator[str]:
    """As ``print_syslog`` and ``record_print_text`` have it (kernel/printk/printk.c): each line has the time."""
    seconds, rest = divmod(record.time_ns, 10**9)
    for line in record.text.decode("utf-8", "backslashreplace").split("\n"):
        shown = "\t".join(printable(piece, TEXT_LIMIT) for piece in line.split("\t"))
        yield f"[{seconds:5}.{rest // 1000:06}] {shown}"


class _Memory:
    """Memory that must be there."""

    def __init__(self, read: Read) -> None:
        self.read = read

    def bytes(self, address: int, size: int, what: str) -> bytes:
        data = self.read(address, size) if KERNEL_HALF <= address < (1 << 64) - size else b""
        if len(data) != size:
            raise TargetError(f"the log makes no sense: {what} is said to be at {address:#x}, where no memory is")
        return data

    def unpack(self, layout: struct.Struct, address: int, what: str) -> tuple[int, ...]:
        return layout.unpack(self.bytes(address, layout.size, what))

    def number(self, address: int | None, size: int, what: str) -> int:
        if address is None:
            raise TargetError(f"no log: the guest's symbols lack {what}")
        return int.from_bytes(self.bytes(address, size, what), "little")


# -- Linux 5.10 and later: kernel/printk/printk_ringbuffer.h

# struct printk_ringbuffer begins with struct prb_desc_ring: count_bits, descs, infos, head_id, tail_id
DESC_RING = struct.Struct("<I4xQQQQ")
# struct prb_data_ring: size_bits, data (head_lpos and tail_lpos follow)
DATA_RING = struct.Struct("<I4xQ")
# where it is in printk_ringbuffer; Linux 6.8 put last_finalized_seq before it
DATA_RING_PLACES = (40, 48)
# struct prb_desc: state_var, text_blk_lpos.begin, text_blk_lpos.next
DESC = struct.Struct("<QQQ")
# struct printk_info: seq, ts_nsec, text_len, facility, flags and level, caller_id (dev_info follows)
INFO = struct.Struct("<QQHBBI")
INFO_SIZE = 88
# state_var: the id, and above it two bits of enum desc_state
STATE_SHIFT, ID_MASK = 62, (1 << 62) - 1
COMMITTED, FINALIZED = 1, 2
BLOCK_ID_SIZE = 8
COUNT_BITS, SIZE_BITS = range(1, 27), range(5, 32)


class _Ring(NamedTuple):
    records: int
    descs: int
    infos: int
    head: int
    tail: int
    size: int
    data: int


def _ring(memory: _Memory, pointer: int) -> Iterator[Record]:
    ring = _ring_at(memory, memory.number(pointer, 8, "prb"))
    number = min((ring.head - ring.tail & ID_MASK) + 1, ring.records, MOST)
    for distance in range(number):
        record = _ring_record(memory, ring, ring.head - distance & ID_MASK)
        if record is not None:
            yield record


def _ring_at(memory: _Memory, address: int) -> _Ring:
    bits, descs, infos, head, tail = memory.unpack(DESC_RING, address, "the ring buffer")
    for place in DATA_RING_PLACES:
        size_bits, data = memory.unpack(DATA_RING, address + place, "the ring buffer")
        if bits in COUNT_BITS and size_bits in SIZE_BITS and data >= KERNEL_HALF:
            return _Ring(1 << bits, descs, infos, head & ID_MASK, tail & ID_MASK, 1 << size_bits, data)
    raise TargetError(f"the log makes no sense: what is at {address:#x} is no ring buffer of Linux 5.10 or later")


def _ring_record(memory: _Memory, ring: _Ring, number: int) -> Record | None:
    """The record with an id; None if it is being written, or was overwritten."""
    index = number % ring.records
    state, begin, end = memory.unpack(DESC, ring.descs + index * DESC.size, "a descriptor")
    if state & ID_MASK != number or state >> STATE_SHIFT not in (COMMITTED, FINALIZED):
        return None
    seq, time_ns, length, *_ = memory.unpack(INFO, ring.infos + index * INFO_SIZE, "a record's printk_info")
    if seq % ring.records != number % ring.records:
        raise TargetError(f"the log makes no sense: record {seq} is where record {number % ring.records} belongs")
    if begin & 1:  # a record without text (BLK_DATALESS)
        return Record(time_ns, b"")
    # A block that does not fit before the ring's end is at its beginning (get_data).
    for place, room in ((begin % ring.size, ring.size - begin % ring.size), (0, end % ring.size)):
        if room >= BLOCK_ID_SIZE and memory.number(ring.data + place, BLOCK_ID_SIZE, "a record's text") == number:
            size = min(length, room - BLOCK_ID_SIZE)
            return Record(time_ns, memory.bytes(ring.data + place + BLOCK_ID_SIZE, size, "a record's text"))
    return None


# -- Linux 3.5 to 5.9: kernel/printk/printk.c

# struct printk_log: ts_nsec, len, text_len, dict_len, facility, flags and level (and caller_id, of some from 5.1 on)
LOG = struct.Struct("<QHHHBB")
LOG_HEADERS = (16, 20)
LOG_ALIGN = 4


def _plain(memory: _Memory, address_of: AddressOf, pointer: int) -> Iterator[Record]:
    """Each record says only where the next one is: all are found before the newest is known."""
    data = memory.number(pointer, 8, "log_buf")
    size = memory.number(address_of("log_buf_len"), 4, "log_buf_len")
    at = memory.number(address_of("log_first_idx"), 4, "log_first_idx")
    end = memory.number(address_of("log_next_idx"), 4, "log_next_idx")
    found: list[Record] = []
    for _ in range(MOST):
        if at == end:
            break
        if max(at, end) > size - LOG.size:
            raise TargetError(f"the log makes no sense: a record at {at:#x}, the end at {end:#x} of {size:#x} bytes")
        time_ns, length, text, keys, *_ = memory.unpack(LOG, data + at, "a record")
        if not length:  # the rest of the buffer was too small, and is empty
            at = 0
            continue
        header = length - text - keys & -LOG_ALIGN
        if header not in LOG_HEADERS or at + length > size:
            raise TargetError(f"the log makes no sense: the record at {data + at:#x} does not fit its length")
        found.append(Record(time_ns, memory.bytes(data + at + header, text, "a record's text")))
        at += length
    yield from reversed(found)
