"""Framing of the remote protocol (GDB manual, E.1): whatever the bytes and however they are cut."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from fake_target import checksummed
from hypothesis import given
from hypothesis import strategies as st

from stub.gdb.packet import Ack, Bad, Framer, Interrupt, Nack, Packet, TooLong, checksum, decode, encode, escape

RUNS = st.lists(
    st.tuples(
        st.sampled_from([b"0", b"f", b"\0", b"#", b"$", b"*", b"}", b"+", b"-", b"ab", b"\x03"]), st.integers(1, 400)
    )
).map(lambda runs: b"".join(byte * length for byte, length in runs))
DATA = st.binary() | RUNS


def spelled_out(body: bytes) -> bytes:
    """Runs undone as the manual says, one byte after the other."""
    out = bytearray()
    at = 0
    while at < len(body):
        if body[at + 1 : at + 2] == b"*":
            out += body[at : at + 1] * (body[at + 2] - 28)
            at += 3
        else:
            out.append(body[at])
            at += 1
    return bytes(out)


def chunks(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(places)]


def test_one_packet() -> None:
    assert Framer().feed(b"$m0,4#fd") == [Packet(b"m0,4")]


def test_the_manuals_example_of_a_run() -> None:
    assert Framer().feed(checksummed(b"0* ")) == [Packet(b"0000")]


def test_what_stands_outside_packets() -> None:
    assert Framer().feed(b"+-\x03noise$#00+") == [Ack(), Nack(), Interrupt(), Packet(b""), Ack()]


def test_an_interrupt_byte_inside_a_packet_is_data() -> None:
    assert Framer().feed(checksummed(b"X0,1:\x03")) == [Packet(b"X0,1:\x03")]


@pytest.mark.parametrize("sum_", [b"00", b"zz", b"+1", b" f", b"0x"])
def test_a_wrong_checksum(sum_: bytes) -> None:
    assert Framer().feed(b"$m0,4#" + sum_ + b"$#00") == [Bad(sum_), Packet(b"")]


@pytest.mark.parametrize("sum_", [b"fd", b"FD", b"fD", b"Fd"])
def test_a_checksum_in_any_case(sum_: bytes) -> None:
    assert Framer().feed(b"$m0,4#" + sum_) == [Packet(b"m0,4")]


def test_a_packet_that_was_cut_off_gives_way_to_the_next() -> None:
    assert Framer().feed(b"$m0,$m0,4#fd") == [Packet(b"m0,4")]


@pytest.mark.parametrize("size", [15, 16])
def test_a_packet_of_the_promised_size_is_taken(size: int) -> None:
    assert Framer(16).feed(checksummed(b"x" * size)) == [Packet(b"x" * size)]


@pytest.mark.parametrize("size", [17, 18, 19, 1000])
@pytest.mark.parametrize("step", [1, 7, 2000])
def test_a_longer_one_is_dropped_and_the_next_is_whole(size: int, step: int) -> None:
    framer = Framer(16)
    stream = checksummed(b"x" * size) + b"$#00"
    events = [event for at in range(0, len(stream), step) for event in framer.feed(stream[at : at + step])]
    assert events == [TooLong(), Packet(b"")]


def test_nothing_grows_with_a_packet_that_never_ends() -> None:
    framer = Framer(1000)
    framer.feed(b"$")
    for _ in range(100):
        assert framer.feed(b"x" * 500) == []
        assert len(framer._buffer) <= 1000 + 500 + 4


def test_nothing_grows_with_noise() -> None:
    framer = Framer()
    framer.feed(b"x" * 100_000)
    assert not framer._buffer


def test_runs_cannot_make_a_packet_too_long() -> None:
    assert Framer(1000).feed(checksummed(b"0*~" * 300)) == [TooLong()]
    assert decode(b"0*~" * 10, 980) == b"0" * 980
    assert decode(b"0*~" * 10, 979) is None


@pytest.mark.parametrize("raw", [b"*", b"**", b"a*", b"a*\x1f", b"a*\x7f"])
def test_a_star_that_repeats_nothing_stands_for_itself(raw: bytes) -> None:
    assert decode(raw) == raw


def test_any_byte_may_come_escaped() -> None:
    assert decode(b"}a}\x03}]") == b"A#}"


@given(DATA)
def test_escaped_data_cannot_be_taken_for_the_end_of_a_packet(data: bytes) -> None:
    assert not set(b"#$*") & set(escape(data))
    assert decode(escape(data), 1 << 20) == data


@given(DATA, st.booleans())
def test_what_is_encoded_comes_back(data: bytes, rle: bool) -> None:
    assert Framer(1 << 20).feed(encode(data, rle=rle)) == [Packet(data)]


@given(DATA)
def test_runs_are_those_of_the_manual(data: bytes) -> None:
    body = encode(data)[1:-3]
    assert spelled_out(body) == escape(data)
    assert len(body) <= len(escape(data))
    counts = [match[1] for match in re.finditer(rb"\*(.)", body, re.DOTALL)]
    assert all(0x20 <= count[0] <= 0x7E and count not in b"#$+-" for count in counts)


@pytest.mark.parametrize("length", range(1, 210))
def test_every_length_of_run(length: int) -> None:
    data = b"a1" * 300 + b"0" * length + b"b" + b"0" * 1200
    packet = encode(data)
    assert spelled_out(packet[1:-3]) == data
    assert Framer().feed(packet) == [Packet(data)]


@pytest.mark.parametrize("length", range(1025, 1225))
def test_data_that_is_one_run(length: int) -> None:
    packet = encode(b"f" * length)
    assert spelled_out(packet[1:-3]) == b"f" * length
    assert len(packet) < 60


def test_zero_pages_shrink() -> None:
    assert len(encode(bytes(0x10000).hex().encode())) < 5000


def test_what_has_no_runs_is_left_alone() -> None:
    data = bytes(range(64, 96)) * 100
    assert encode(data, rle=True) == encode(data, rle=False)


@given(st.binary(max_size=600))
def test_sums(data: bytes) -> None:
    assert checksum(data) == sum(data) % 256


PIECES = st.lists(
    st.one_of(
        st.binary(max_size=30),
        st.sampled_from([b"+", b"-", b"\x03", b"$", b"#", b"#00", b"$x#78", b"}", b"*", b"$" + b"y" * 70 + b"#00"]),
        st.binary(max_size=40).map(encode),
    ),
    max_size=20,
).map(b"".join)


@given(PIECES, st.lists(st.integers(0, 1000), max_size=10))
def test_any_bytes_in_any_pieces_give_the_same_events(data: bytes, cuts: list[int]) -> None:
    whole = Framer(64).feed(data)
    framer = Framer(64)
    events = []
    for chunk in chunks(data, cuts):
        events += framer.feed(chunk)
        assert len(framer._buffer) <= 64 + len(chunk) + 4
    assert events == whole
