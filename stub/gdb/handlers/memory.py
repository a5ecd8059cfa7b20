"""m M x X, qSearch:memory, qCRC: memory, in the address space that ``Qqemu.PhyMemMode`` chose (``session.space``).

What is longer than a packet is answered in part; whoever asked comes back for the rest.
"""

from __future__ import annotations

import zlib
from binascii import hexlify
from collections.abc import Iterator
from typing import TYPE_CHECKING

from stub.gdb.handlers.registry import BadRequest, number, packet, pair, unhex
from stub.gdb.model import TargetError

if TYPE_CHECKING:
    from stub.gdb.session import Session

_PIECE = 1 << 20
_LONGEST = 1 << 30  # bytes of one search or checksum; nothing else is done meanwhile
_END = 1 << 64
_SHORTEST_REQUEST, _WORTH_IT = 7, 0x2000  # letters; bytes

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _read(session: Session, address: int, size: int) -> bytes:
    data = session.target.read_memory(address, min(size, _END - address), session.space)
    if not data and size:
        raise TargetError(f"there is no memory at {address:#x}")
    return data


@packet("m")
def read_hexadecimal(session: Session, args: bytes) -> bytes:
    """Never the empty answer, which would mean that the packet is unknown."""
    address, size = pair(args)
    if not size:
        raise BadRequest("a read of 0 bytes")
    return hexlify(_read(session, address, min(size, session.packet_size // 2)))


def following(request: bytes) -> bytes:
    """After a large read: the request for as much behind it, as gdb writes one. Else nothing."""
    if request[:1] not in (b"m", b"x") or len(request) < _SHORTEST_REQUEST:
        return b""
    try:
        address, size = pair(request[1:])
    except BadRequest:
        return b""
    if size < _WORTH_IT or address + 2 * size > _END:
        return b""
    return b"%b%x,%x" % (request[:1], address + size, size)


@packet("x", "binary-upload+")
def read_binary(session: Session, args: bytes) -> bytes:
    """As gdb 16 knows it: ``b`` and the bytes. Escapes may double them, and the packet's size holds for that."""
    address, size = pair(args)
    return b"b" + _read(session, address, min(size, session.packet_size // 2 - 1))


@packet("M")
def write_hexadecimal(session: Session, args: bytes) -> bytes:
    """Address, length, data."""
    where, _, digits = args.partition(b":")
    return _write(session, where, unhex(digits))


@packet("X")
def write_binary(session: Session, args: bytes) -> bytes:
    """The same; with no data at all it is how gdb asks whether we know the packet."""
    where, _, data = args.partition(b":")
    return _write(session, where, data)


def _write(session: Session, where: bytes, data: bytes) -> bytes:
    address, size = pair(where)
    if size != len(data):
        raise BadRequest(f"{len(data)} bytes came where {size} were announced")
    if address + size > _END:
        raise BadRequest("the end is past the last address")
    if data:
        session.target.write_memory(address, data, session.space)
    return b"OK"


def _pieces(session: Session, address: int, size: int) -> Iterator[bytes]:
    """A range bit by bit; TargetError where it is longer than it may be, or memory ends inside it."""
    if size > _LONGEST:
        raise TargetError(f"{size:#x} bytes are too many at once: ask for {_LONGEST:#x} at most")
    end = address + size
    while address < end:
        data = _read(session, address, min(_PIECE, end - address))
        yield data
        address += len(data)


@packet("qSearch:memory")
def search(session: Session, args: bytes) -> bytes:
    """Where the pattern is first: ``1,address``, or ``0``. A find is good even if memory ends behind it."""
    parts = args.split(b";", 2)
    if len(parts) != 3:
        raise BadRequest("an address, a length and a pattern are needed")
    address, size, pattern = number(parts[0]), number(parts[1]), parts[2]
    if not pattern:
        raise BadRequest("the pattern is empty")
    at, tail = address, b""
    for piece in _pieces(session, address, size):
        data = tail + piece
        found = data.find(pattern)
        if found >= 0:
            return b"1,%x" % (at + found)
        tail = data[max(len(data) - len(pattern) + 1, 0) :]
        at += len(data) - len(tail)
    return b"0"


@packet("qCRC")
def checksum(session: Session, args: bytes) -> bytes:
    """CRC-32 of polynomial 0x04c11db7, most significant bit first, all ones at first and not inverted at last.

    zlib's is the same with the bits of each byte, and of the result, the other way round, and inverted at last.
    """
    address, size = pair(args)
    crc = 0
    for piece in _pieces(session, address, size):
        crc = zlib.crc32(piece.translate(_REVERSED), crc)
    return b"C%x" % int(f"{crc ^ 0xFFFFFFFF:032b}"[::-1], 2)
