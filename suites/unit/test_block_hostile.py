"""Whatever a guest puts into its ring, its pages and its directory: an answer for each request, and nothing held."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stub.abi import blkif as abi
from stub.abi import xenbus
from stub.devices.block.images import SECTOR
from suites.unit.fake_frontend import PORT, Frontend, Memory, pattern

SECTORS = 64
PROTOCOLS = st.sampled_from([xenbus.XEN_IO_PROTO_ABI_X86_64, xenbus.XEN_IO_PROTO_ABI_X86_32])
NUMBERS = st.one_of(st.integers(0, 9), st.integers(0, 300), st.integers(0, (1 << 64) - 1))


@st.composite
def slots(draw: st.DrawFn) -> bytes:
    """A request's bytes: any at all, or such as are right in part."""
    raw = bytearray(draw(st.binary(min_size=112, max_size=112)))
    if draw(st.booleans()):
        raw[0] = draw(st.sampled_from([0, 1, 2, 3, 5, 6, 6]))
        raw[1] = draw(st.sampled_from([0, 1, 2, 11, 12, 255]))
        raw[2:4] = draw(st.sampled_from([1, 2, 255, 256, 257])).to_bytes(2, "little")
        at = draw(st.sampled_from([12, 16]))
        raw[at : at + 8] = draw(NUMBERS).to_bytes(8, "little")
        first = draw(st.sampled_from([20, 24, 28]))
        raw[first : first + 8] = abi.BlkifRequestSegment.pack(
            gref=draw(st.integers(0, 5)), first_sect=draw(st.integers(0, 8)), last_sect=draw(st.integers(0, 8))
        )
    return bytes(raw)


@given(st.data(), PROTOCOLS, st.booleans(), st.booleans(), st.lists(slots(), max_size=8))
def test_any_request_is_answered(
    data: st.DataObject, protocol: bytes, writable: bool, persistent: bool, asked: list[bytes]
) -> None:
    image = Memory(SECTORS * SECTOR)
    image.content[:] = pattern(SECTORS)
    frontend = Frontend(image, protocol, writable=writable)
    frontend.connect(feature_persistent=int(persistent))
    for ref in range(5):
        frontend.grant(ref, data.draw(st.binary(max_size=64)), readonly=ref == 4)
    for slot in asked:
        frontend.put(slot[: frontend.layout.request.size])
    frontend.vbd.service()
    assert int.from_bytes(frontend.rings[0][8:12], "little") == len(asked)
    assert len(frontend.guest.notes) <= len(asked)
    assert len(image.content) == SECTORS * SECTOR
    assert writable or image.content == pattern(SECTORS)
    kept = sum(grant.mapped > 0 for grant in frontend.guest.grants.values())
    assert persistent or (kept, frontend.mapped()) == (1, 1)
    frontend.say(state=6)
    assert frontend.mapped() == 0


@given(st.lists(st.tuples(st.integers(0, 15), st.integers(0, (1 << 32) - 1)), max_size=12))
def test_any_indexes_are_survived(writes: list[tuple[int, int]]) -> None:
    frontend = Frontend(Memory(SECTORS * SECTOR))
    frontend.connect()
    for at, value in writes:
        frontend.rings[0][4 * at : 4 * at + 4] = value.to_bytes(4, "little")
        for _ in range(3):
            frontend.vbd.service()
    frontend.say(state=6)
    assert frontend.mapped() == 0


NODES = ("state", "ring-ref", "ring-ref0", "ring-page-order", "event-channel", "protocol", "feature-persistent")
VALUES = st.one_of(
    st.binary(max_size=24),
    st.sampled_from([b"1", b"3", b"4", b"5", b"6", b"0", b"-1", b"100", str(PORT).encode(), b"x86_32-abi", b"1\0"]),
    st.just("²".encode()),
)


@given(st.lists(st.tuples(st.sampled_from(NODES), VALUES), max_size=20))
def test_any_directory_is_survived(writes: list[tuple[str, bytes]]) -> None:
    frontend = Frontend(Memory(SECTORS * SECTOR))
    frontend.connect()
    for node, value in writes:
        frontend.guest.nodes[f"{frontend.front}/{node}"] = value
        frontend.vbd.frontend_changed()
        assert frontend.node("state") in (b"2", b"4", b"5", b"6")
    frontend.say(state=6)
    assert (frontend.mapped(), frontend.guest.ports[PORT]) == (0, None)
