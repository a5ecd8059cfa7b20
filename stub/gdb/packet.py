"""Packets of the remote protocol as bytes: framing, checksums, escapes, run-length encoding. No I/O, no meaning.

GDB manual, appendix E.1 "Overview": ``$data#cc``, ``cc`` the sum of the data's bytes modulo 256; ``}`` announces a byte
XORed with 0x20; ``c*n`` is ``c`` and ``n`` - 29 more of it. Outside of packets: ``+`` and ``-`` acknowledge, 0x03
interrupts, anything else is noise. Megabytes of memory pass here, so no byte is looked at by Python code.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

PACKET_SIZE = 0x200000
"""The longest data of a packet, either way, that we promise to take (and give): a mebibyte of memory in hex digits."""

_STRAY = re.compile(rb"[$+\-\x03]")
_ESCAPES = ((b"}\x03", b"#"), (b"}\x04", b"$"), (b"}\n", b"*"), (b"}]", b"}"))  # the last one last
_ESCAPED = re.compile(rb"}(.)", re.DOTALL)
_REPEATED = re.compile(rb"(.)\*([ -~])", re.DOTALL)
_LONGEST = 98  # '~' is 126, and 126 - 29 + 1 bytes is what it stands for
_DIGITS = sorted(set("0123456789abcdefABCDEF"))
_SUMS = {(high + low).encode(): int(high + low, 16) for high in _DIGITS for low in _DIGITS}

_BY_HAND = 256  # bytes up to which sum() is quicker than numpy
_SHORT = 1024  # bytes up to which looking for runs takes longer than reading them
_WORTH = 4  # a packet is rebuilt if that saves this part of it

# Lengths of 7, 8, 15 and 17 would be the counts '#', '$', '+' and '-'; somewhat less is not.
_LENGTHS = np.arange(_LONGEST + 1)
_LENGTHS[[7, 8, 15, 17]] = 6, 6, 14, 16


@dataclass(slots=True)  # not frozen, which takes time
class Packet:
    """A packet whose checksum was right, its escapes and runs undone."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Interrupt:
    """The byte 0x03 outside a packet."""


@dataclass(frozen=True, slots=True)
class Ack:
    """The other side has our last packet."""


@dataclass(frozen=True, slots=True)
class Nack:
    """The other side wants our last packet again."""


@dataclass(frozen=True, slots=True)
class Bad:
    """A packet whose checksum was wrong."""

    checksum: bytes


@dataclass(frozen=True, slots=True)
class TooLong:
    """A packet of more than the promised size; its bytes are gone."""


Event = Packet | Interrupt | Ack | Nack | Bad | TooLong

_SINGLES: dict[int, Event] = {0x03: Interrupt(), ord("+"): Ack(), ord("-"): Nack()}


def checksum(data: bytes | bytearray) -> int:
    """The sum of the bytes, modulo 256."""
    if len(data) <= _BY_HAND:
        return sum(data) & 0xFF
    return int(np.add.reduce(np.frombuffer(data, np.uint8), dtype=np.uint8))


def _shortened(byte: bytes, left: int) -> bytes:
    """A run of this many bytes in as few as can be."""
    whole, left = divmod(left, _LONGEST)
    if left < 4:
        return byte + (b"*~" + byte) * whole + byte * (left - 1) if left else (byte + b"*~") * whole
    length = int(_LENGTHS[left])
    return (byte + b"*~") * whole + byte + b"*" + bytes([length + 28]) + byte * (left - length)


def _compress(data: bytes) -> bytes:
    """Shorten runs, if there is enough to gain."""
    size = len(data)
    if data == data[:1] * size:
        return _shortened(data[:1], size)
    array = np.frombuffer(data, np.uint8)
    same = array[1:] == array[:-1]
    inside = np.zeros(size + 1, np.bool_)  # where four equal bytes begin, but one place on
    np.logical_and(same[:-2], same[1:-1], out=inside[1:-3])
    inside[1:-3] &= same[2:]
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    starts, lengths = edges[::2], edges[1::2] - edges[::2] + 3
    if _WORTH * (int(lengths.sum()) - 3 * len(lengths)) < size:
        return data
    # Cut runs longer than can be said, then write "*n" behind the first byte of each and leave out the others.
    pieces = -(-lengths // _LONGEST)
    of = np.repeat(np.arange(len(starts)), pieces)
    before = _LONGEST * (np.arange(len(of)) - np.repeat(np.cumsum(pieces) - pieces, pieces))
    starts, lengths = starts[of] + before, np.minimum(lengths[of] - before, _LONGEST)
    said = lengths >= 4
    starts, lengths = starts[said], _LENGTHS[lengths[said]]
    short = array.copy()
    short[starts + 1] = ord("*")
    short[starts + 2] = lengths + 28
    change = np.zeros(size + 1, np.int8)
    change[starts + 3] = 1
    change[starts + lengths] = -1
    return bytes(short[np.cumsum(change[:-1], dtype=np.int8) == 0])


def escape(data: bytes) -> bytes:
    """Binary data as it may stand in a packet."""
    for escaped, byte in reversed(_ESCAPES):
        data = data.replace(byte, escaped)
    return data


def unescape(data: bytes) -> bytes:
    """The other way; any byte may have been escaped."""
    if data.count(b"}") != sum(data.count(escaped) for escaped, _ in _ESCAPES):
        return _ESCAPED.sub(lambda match: bytes([match[1][0] ^ 0x20]), data)
    for escaped, byte in _ESCAPES:
        data = data.replace(escaped, byte)
    return data


def encode(data: bytes, *, rle: bool = True) -> bytes:
    """A packet around the data. ``rle``: shorten runs, if that gains enough (gdb takes some 40 ns for each byte)."""
    if len(data) <= _BY_HAND and data.isalnum():  # as nearly always: nothing to escape
        return b"$%b#%02x" % (data, sum(data) & 0xFF)
    data = escape(data)
    if rle and len(data) > _SHORT:
        data = _compress(data)
    return b"$%b#%02x" % (data, checksum(data))


def decode(data: bytes, limit: int = PACKET_SIZE) -> bytes | None:
    """What stands in a packet, runs and escapes undone; None if that is more than ``limit`` bytes.

    A ``*`` that repeats nothing, or an impossible number of times, stands for itself.
    """
    if b"*" in data:
        if len(data) + sum(count[0] - 31 for _, count in _REPEATED.findall(data)) > 2 * limit:
            return None
        data = _REPEATED.sub(lambda match: match[1] * (match[2][0] - 28), data)
    if b"}" in data:
        data = unescape(data)
    return data if len(data) <= limit else None


def _short_packet(data: bytes, limit: int) -> Packet | None:
    """These bytes, if they are one whole short packet with nothing special in it, as nearly always; quickly."""
    raw = data[1:-3]
    if len(raw) > _BY_HAND or len(raw) > limit or data.find(b"#") != len(data) - 3 or data[:1] != b"$":
        return None
    if b"$" in raw or b"*" in raw or b"}" in raw or _SUMS.get(data[-2:]) != sum(raw) & 0xFF:
        return None
    return Packet(raw)


class Framer:
    """Cuts a stream of bytes into events. Holds less than one packet, and never more than ``limit`` bytes and a few."""

    def __init__(self, limit: int = PACKET_SIZE) -> None:
        self.limit = limit
        self._buffer = bytearray()
        self._searched = 1  # how far the buffer (which starts with a packet's $) is known to hold no #
        self._dropping = False  # inside a packet that is too long

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete."""
        buffer = self._buffer
        if not buffer and not self._dropping:
            short = _short_packet(data, self.limit)
            if short is not None:
                return [short]
        buffer += data
        events: list[Event] = []
        at = 0
        while at < len(buffer):
            first = buffer[at]
            if first != 0x24 and not self._dropping:
                single = _SINGLES.get(first)
                if single is not None:
                    events.append(single)
                    at += 1
                    continue
                stray = _STRAY.search(buffer, at)
                at = stray.start() if stray else len(buffer)
                continue
            end = buffer.find(b"#", at + self._searched)
            if end < 0:
                at = self._keep(at)
                break
            if end + 3 > len(buffer):
                self._searched = end - at
                if end - at > self.limit + 1:
                    at = self._keep(at, end)
                break
            events.append(self._packet(at, end))
            self._searched = 1
            self._dropping = False
            at = end + 3
        del buffer[:at]
        return events

    def _keep(self, at: int, end: int = -1) -> int:
        """Where to go on when the rest of a packet is still to come: from its start, or past what is too long."""
        size = len(self._buffer)
        if self._dropping or size - at > self.limit + 1:
            self._dropping = True
            self._searched = 0
            return size if end < 0 else end
        self._searched = max(size - at, 1)
        return at

    def _packet(self, at: int, end: int) -> Event:
        buffer = self._buffer
        if self._dropping or end - at - 1 > self.limit:
            return TooLong()
        # A $ cannot stand inside a packet: the one before it was cut off.
        start = buffer.rfind(b"$", at, end) + 1
        raw = bytes(buffer[start:end])
        claimed = bytes(buffer[end + 1 : end + 3])
        if _SUMS.get(claimed) != checksum(raw):
            return Bad(claimed)
        decoded = decode(raw, self.limit)
        return TooLong() if decoded is None else Packet(decoded)
