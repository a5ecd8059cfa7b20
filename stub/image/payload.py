"""Decompression of what a kernel file wraps. One table, one bound.

Data after the compressed stream is legal: Linux appends the uncompressed size (4 bytes, little endian) to what the
compressor wrote. No stream may grow past ``limit``, whatever it claims.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from stub.image.faults import Fault
from stub.units import GIB, MIB

PAYLOAD_LIMIT = GIB
LZMA_MEMORY = 512 * MIB
ZSTD_WINDOW = 128 * MIB
LZ4_BLOCK = 8 * MIB
LZ4_LEGACY = b"\x02\x21\x4c\x18"
FETCH_AGAIN = "fetch or build the kernel again"


class Compression(NamedTuple):
    """A row: its name, the bytes it starts with, and what undoes it, None when we cannot."""

    name: str
    magic: bytes
    decompress: Callable[[memoryview, int], bytes | memoryview] | None


def damaged(name: str, detail: str) -> NoReturn:
    """The fault of every stream that cannot be what its compressor wrote."""
    raise Fault(f"damaged {name} payload ({detail})", FETCH_AGAIN)


def too_big(name: str, limit: int) -> NoReturn:
    """The fault of a stream that would not fit."""
    raise Fault(f"{name} payload grows past {limit // MIB} MiB", "no kernel is that large; " + FETCH_AGAIN)


def _gzip(data: memoryview, limit: int) -> bytes:
    stream = zlib.decompressobj(31)
    try:
        out = stream.decompress(data, limit)
        finished = stream.eof or (len(out) < limit and not stream.unconsumed_tail)
    except zlib.error as error:
        damaged("gzip", str(error))
    return _whole("gzip", out, stream.eof, finished, limit)


def _bzip2(data: memoryview, limit: int) -> bytes:
    import bz2

    stream = bz2.BZ2Decompressor()
    try:
        out = stream.decompress(data, limit)
    except (OSError, ValueError) as error:
        damaged("bzip2", str(error))
    return _whole("bzip2", out, stream.eof, stream.needs_input, limit)


def _lzma(name: str, form: str) -> Callable[[memoryview, int], bytes]:
    def decompress(data: memoryview, limit: int) -> bytes:
        import lzma

        stream = lzma.LZMADecompressor(format=getattr(lzma, form), memlimit=LZMA_MEMORY)
        try:
            out = stream.decompress(data, limit)
        except lzma.LZMAError as error:
            damaged(name, str(error))
        return _whole(name, out, stream.eof, stream.needs_input, limit)

    return decompress


def _whole(name: str, out: bytes, ended: bool, starved: bool, limit: int) -> bytes:
    """``out`` if the stream ended by itself; else whichever of the two faults it is."""
    if ended:
        return out
    if starved:
        damaged(name, "the stream ends early")
    too_big(name, limit)


def _zstd(data: memoryview, limit: int) -> bytes:
    import zstandard

    stream = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).decompressobj()
    parts: list[bytes] = []
    total = 0
    step = 2048  # one RLE block of 4 bytes yields 128 KiB: a small step keeps the worst case at 64 MiB
    try:
        for place in range(0, len(data), step):
            parts.append(stream.decompress(data[place : place + step]))
            total += len(parts[-1])
            if total > limit:
                too_big("zstd", limit)
            if stream.eof:
                return b"".join(parts)
    except zstandard.ZstdError as error:
        damaged("zstd", str(error))
    damaged("zstd", "the stream ends early")


def _lz4(data: memoryview, limit: int) -> bytes:
    """The legacy frame: magic, then blocks of a 32-bit length and up to 8 MiB of content each."""
    import lz4.block

    codec: Any = lz4.block  # it re-exports its names in a way that mypy does not accept
    parts: list[bytes] = []
    total, place = 0, len(LZ4_LEGACY)
    while len(data) - place > 4:
        (size,) = struct.unpack_from("<I", data, place)
        if size == int.from_bytes(LZ4_LEGACY, "little"):  # frames may follow one another
            place += 4
            continue
        block = data[place + 4 : place + 4 + size]
        if not size or len(block) < size:
            damaged("lz4", "the stream ends early")
        try:
            parts.append(codec.decompress(block, uncompressed_size=LZ4_BLOCK))
        except codec.LZ4BlockError as error:
            damaged("lz4", str(error))
        place += 4 + size
        total += len(parts[-1])
        if total > limit:
            too_big("lz4", limit)
    return b"".join(parts)


def _none(data: memoryview, limit: int) -> memoryview:
    return data


COMPRESSIONS = (
    Compression("none", b"\x7fELF", _none),
    Compression("gzip", b"\x1f\x8b", _gzip),
    Compression("xz", b"\xfd7zXZ\0", _lzma("xz", "FORMAT_XZ")),
    Compression("zstd", b"\x28\xb5\x2f\xfd", _zstd),
    Compression("lz4", b"\x02\x21", _lz4),
    Compression("bzip2", b"BZh", _bzip2),
    Compression("lzma", b"\x5d\0", _lzma("lzma", "FORMAT_ALONE")),
    Compression("lzo", b"\x89LZO", None),
)


def compression_of(data: memoryview) -> Compression | None:
    """The row whose magic ``data`` starts with."""
    head = bytes(data[:8])
    return next((row for row in COMPRESSIONS if head.startswith(row.magic)), None)


def decompress(row: Compression, data: memoryview, limit: int = PAYLOAD_LIMIT) -> bytes | memoryview:
    """What ``data`` holds. Raises ``Fault`` when it is damaged, too large or of a kind we do not read."""
    if row.decompress is None:
        raise Fault(f"{row.name} payload, which pvstub does not read", "build the kernel with another CONFIG_KERNEL_*")
    return row.decompress(data, limit)


def declared_size(data: memoryview) -> int:
    """The uncompressed size that Linux puts in a payload's last four bytes; for gzip, gzip's own."""
    return int(struct.unpack_from("<I", data, len(data) - 4)[0]) if len(data) >= 4 else 0
