"""What a ``Struct`` promises: fields land where they are declared, and nothing else is touched."""

from __future__ import annotations

import struct

import pytest

from stub.abi.layout import Struct, Twin

MIXED = Struct("Mixed", 32, kind=(0, "B"), size=(4, "I"), words=(8, "3H"), text=(16, "4s"), status=(22, "h"))
UNION = Struct("Union", 16, tag=(0, "I"), whole=(8, "Q"), low=(8, "I"), high=(12, "I"))


def test_pack_zeroes_what_is_not_named_and_unpack_reads_it_back() -> None:
    packed = MIXED.pack(kind=7, words=(1, 2, 3), text=b"xen", status=-11)
    assert packed.hex() == "0700000000000000010002000300000078656e000000f5ff" + "00" * 8
    record = MIXED.unpack_from(packed)
    assert tuple(record) == (7, 0, (1, 2, 3), b"xen\0", -11)
    assert (record.kind, record.size, record.words, record.status) == (7, 0, (1, 2, 3), -11)
    assert record._replace(size=5).size == 5


def test_pack_into_writes_only_the_named_fields() -> None:
    page = bytearray(b"\xaa" * 64)
    MIXED.pack_into(page, 16, size=0x11223344)
    assert page == b"\xaa" * 20 + b"\x44\x33\x22\x11" + b"\xaa" * 40


def test_members_of_a_union_are_views_of_the_same_bytes() -> None:
    record = UNION.unpack_from(UNION.pack(tag=1, low=0x2, high=0x3))
    assert (record.tag, record.whole, record.low, record.high) == (1, 0x3_0000_0002, 2, 3)
    assert UNION.unpack_from(UNION.pack(whole=1 << 63)).high == 1 << 31


def test_array_of_structures() -> None:
    point = Struct("Point", 8, x=(0, "H"), y=(4, "i"))
    page = b"pad" + b"".join(point.pack(x=i, y=-i) for i in range(3))
    assert [tuple(record) for record in point.unpack_array(page, 3, 3)] == [(0, 0), (1, -1), (2, -2)]
    with pytest.raises(struct.error):
        point.unpack_array(page, 4, 3)
    with pytest.raises(struct.error):
        MIXED.unpack_from(bytes(31))
    assert [record.high for record in UNION.unpack_array(bytes(32), 2)] == [0, 0]
    assert point.unpack_array(b"", 0) == []


def test_offsets_and_unknown_fields() -> None:
    assert MIXED.offset("status") == 22
    with pytest.raises(KeyError):
        MIXED.offset("nothing")
    with pytest.raises(KeyError):
        MIXED.pack(nothing=1)


@pytest.mark.parametrize(("values", "fault"), [({"kind": 256}, struct.error), ({"words": (1, 2)}, struct.error)])
def test_a_value_that_does_not_fit_is_refused(values: dict[str, object], fault: type[Exception]) -> None:
    with pytest.raises(fault):
        MIXED.pack(**values)


def test_a_field_past_the_end_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Short\.b ends at 12, past the 8 bytes of Short"):
        Struct("Short", 8, a=(0, "Q"), b=(8, "I"))


def test_a_guest_has_its_own_of_two_layouts() -> None:
    wide, narrow = Struct("Word64", 8, value=(0, "Q")), Struct("Word32", 4, value=(0, "I"))
    word = Twin(wide, narrow)
    assert (word.name, word.of(64), word.of(32)) == ("Word", wide, narrow)
    assert (MIXED.of(64), MIXED.of(32)) == (MIXED, MIXED)
    with pytest.raises(ValueError, match="Word32 and Word64 are no twins"):
        Twin(narrow, wide)
