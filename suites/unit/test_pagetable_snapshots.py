"""Snapshots of page tables: when they are taken, what is kept and read back, what two of them differ in."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table_builder import DATA, FRAMES, HEAP, KERNEL, TEXT, USER, Machine, guest, space_of

from stub.errors import UsageError
from stub.memory import entries as e
from stub.memory.formats import LONG, RAW
from stub.trace.pagetables import census, diff, store
from stub.trace.pagetables.moments import Moment, Root
from stub.trace.pagetables.snapshot import Snapshot

# -- when


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("at=hypercall:1000", Moment("hypercall:1000", hypercalls=1000)),
        ("at=2.5s", Moment("2.5s", virtual_ns=2_500_000_000)),
        ("at=1.000000001", Moment("1.000000001", virtual_ns=1_000_000_001)),
        ("at=20ms", Moment("20ms", virtual_ns=20_000_000)),
        ("at=7ns", Moment("7ns", virtual_ns=7)),
        ("at=end", Moment("end", end=True)),
        ("at=end,root=pae:0x5020", Moment("end", end=True, roots=(Root(0x5020, "pae", ("asked for",)),))),
    ],
)
def test_moments(text: str, moment: Moment) -> None:
    assert Moment.parse(text) == moment


@pytest.mark.parametrize(
    "text",
    ["", "now", "at=", "at=1h", "at=-1s", "at=hypercall:", "at=hypercall:0", "at=hypercall:x", "end", "at=end,root=0x5",
     "at=end,root=six:5", "at=end,5", "at=end,root=raw:0x10000000000000", "at=99999999999999999999s"],
)  # fmt: skip
def test_what_is_no_moment_gets_a_line(text: str) -> None:
    with pytest.raises(UsageError) as error:
        Moment.parse(text)
    assert "\n" not in str(error.value)


# -- what is kept


def test_a_snapshot_is_read_back_as_it_was_kept(tmp_path: Path) -> None:
    machine = guest()
    machine.roots.append(Root(machine.new(RAW, 4) << 12, "raw", ("asked for",)))
    keeper = store.Keeper(tmp_path)
    kept = keeper.keep(machine.snapshot(virtual_ns=5, hypercalls=6, retired=7, rip=1 << 63))
    assert kept.facts.number == 1
    assert keeper.keep(machine.snapshot()).facts.number == 2
    assert list(store.listed(tmp_path)) == [1, 2]
    read = store.load(store.path_of(tmp_path, 1))
    assert (read.facts, dict(read.identity), read.roots) == (kept.facts, dict(kept.identity), kept.roots)
    for name in ("np_owner", "np_type", "np_flags", "np_type_count", "np_refs", "m2p"):
        np.testing.assert_array_equal(getattr(read.frames, name), getattr(kept.frames, name))
    np.testing.assert_array_equal(read.tables.mfns, kept.tables.mfns)
    np.testing.assert_array_equal(read.tables.content, kept.tables.content)
    assert store.encode(read) == store.path_of(tmp_path, 1).read_bytes(), "equal runs give equal files"
    assert not list(store.listed(tmp_path / "nowhere"))
    store.Keeper(tmp_path)
    assert not store.listed(tmp_path), "the snapshots of an earlier run in the folder are gone"


def test_what_is_kept_does_not_change_with_the_guest() -> None:
    machine = guest()
    before = machine.snapshot()
    machine.table[:] = 0
    machine.frames.np_type[:] = 0
    machine.m2p[:] = 0
    assert space_of(before).walk(TEXT).maddr == 10 << 12
    assert before.frames.pfn(10) == 50


def test_only_tables_are_kept_and_all_of_them() -> None:
    machine = guest()
    snapshot = machine.snapshot()
    assert snapshot.tables.mfns.tolist() == list(range(64, machine.next))
    assert not space_of(snapshot).walk(0x1000).found
    assert space_of(snapshot, f"{70:#x}").root.maddr == 70 << 12
    with pytest.raises(UsageError, match="mfn 0xa is no table of this snapshot"):
        snapshot.root("0xa")
    for wrong in ("user", "nonsense", "-1", "long:x", "five:5"):
        with pytest.raises(UsageError):
            snapshot.root(wrong)


BODY = store.encode(guest().snapshot())


@given(st.integers(0, len(BODY) - 1), st.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_damage_is_found_or_harmless(at: int, change: int) -> None:
    """A changed byte is refused with a line, or lies in the header's texts and is read as another text or number."""
    data = bytearray(BODY)
    data[at] ^= change
    _loads_or_is_refused(bytes(data))


@given(st.integers(0, len(BODY) - 1))
def test_a_cut_file_is_refused(length: int) -> None:
    with pytest.raises(UsageError):
        _load(BODY[:length])


@given(st.binary(max_size=200), st.integers(0, 250))
def test_noise_is_refused(noise: bytes, length: int) -> None:
    with pytest.raises(UsageError):
        _load(struct.pack("<8sII", b"PVTABLES", 1, length) + noise)


def _load(data: bytes) -> Snapshot:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return store.load(Path(file.name))


def _loads_or_is_refused(data: bytes) -> None:
    try:
        snapshot = _load(data)
    except UsageError as error:
        if "\n" in str(error):
            raise AssertionError("more than a line") from error
        return
    list(census.lines(space_of(snapshot, f"long:{64 << 12}")))


# -- differences


def test_a_difference_in_words() -> None:
    machine = guest()
    root = machine.roots[0].maddr
    before = machine.snapshot(1)
    for i in range(42):
        machine.map(root, DATA + i * 4096, 20 + i, KERNEL | e.NX)
        machine.frames.type_count[20 + i] = 0
    machine.map(root, TEXT, 10, KERNEL | e.NX)
    machine.map(root, TEXT + 0x1000, 14, KERNEL | e.A)
    machine.map(root, HEAP, 3, USER | e.RW | e.NX)
    machine.write(LONG, space_of(before).walk(HEAP).steps[-1].table, 1, 0)
    machine.map(root, HEAP + 0x7000, 7, USER | e.RW)
    machine.map(root, TEXT + 0x2000, 12, USER)
    found = diff.compare(*diff.same_root(before, machine.snapshot(2)))
    text = str(found).splitlines()
    assert " 42 pages became read-only" in text
    assert f"    {DATA:#x}-{DATA + 42 * 4096:#x}  42 pages  kernel rw- -> kernel r--" in text
    assert " 1 page was mapped" in text
    assert " 1 page was unmapped" in text
    assert " 1 page moved to another frame" in text
    assert " 1 page became non-executable" in text
    assert " 1 page passed to user code" in text
    assert " 1 page lost its dirty mark" in text
    assert " 3 pages lost their accessed mark" in text
    assert " 42 frames of type writable became none" in text
    assert found.count("became read-only") == 42
    assert found.count("became writable") == 0
    with pytest.raises(ValueError, match="no kind of change"):
        found.count("became red")
    assert diff.as_object(found)["frames"] == [{"before": "writable", "after": "none", "count": 42}]


def test_the_way_back_is_the_reverse() -> None:
    machine = guest()
    before = machine.snapshot()
    machine.map(machine.roots[0].maddr, HEAP + 4096, 9, USER | e.RW | e.NX)
    machine.map(machine.roots[0].maddr, HEAP + 8192, 9, USER)
    after = machine.snapshot()
    there, back = diff.compare(*diff.same_root(before, after)), diff.compare(*diff.same_root(after, before))
    pairs = (("were mapped", "were unmapped"), ("became writable", "became read-only"),
             ("became non-executable", "became executable"))  # fmt: skip
    for what, reverse_ in pairs:
        assert there.count(what) == back.count(reverse_) == 1
    assert str(diff.compare(*diff.same_root(after, after))).endswith("\n nothing changed")


def test_the_same_guest_on_other_frames_is_compared_by_pfn() -> None:
    """Another seed: PFN n is in another frame, and nothing has changed."""
    one, two = Machine(), Machine()
    two.identity["seed"] = 1
    two.m2p = np.arange(FRAMES, dtype=np.uint64) * np.uint64(77) % np.uint64(FRAMES)
    for machine in (one, two):
        where = {int(pfn): mfn for mfn, pfn in enumerate(machine.m2p)}
        root = machine.root(LONG, "in use", "kernel")
        for pfn in (1, 2, 3):
            machine.map(root, TEXT + pfn * 4096, where[pfn], KERNEL)
    found = diff.compare(*diff.same_root(one.snapshot(), two.snapshot()))
    assert not found.changes
    again = diff.compare(space_of(one.snapshot()), space_of(one.snapshot()))
    assert not again.changes


def test_new_root_tables_are_told() -> None:
    machine = guest()
    before = machine.snapshot()
    added = machine.root(LONG, "pinned")
    assert f" root tables 1 new: {added:#x}" in diff.lines(diff.compare(*diff.same_root(before, machine.snapshot())))


def test_large_pages_and_small_ones_compare() -> None:
    """A page of 2 MiB split into small ones is the same memory with the same rights."""
    machine = Machine()
    large, small = machine.root(RAW), machine.root(RAW)
    machine.map(large, 1 << 21, 0, e.P | e.RW, fmt=RAW, page=1 << 21)
    for i in range(512):
        machine.map(small, (1 << 21) + i * 4096, i, e.P | e.RW, fmt=RAW)
    snapshot = machine.snapshot()
    found = diff.compare(space_of(snapshot, f"raw:{large}"), space_of(snapshot, f"raw:{small}"))
    assert {change.what for change in found.changes} == {"changed in caching, size or being global"}


PAGES = st.dictionaries(
    st.integers(0, 40), st.tuples(st.integers(0, 30), st.booleans(), st.booleans(), st.booleans()), max_size=25
)


@given(PAGES, PAGES)
@settings(max_examples=60, deadline=None)
def test_every_change_is_counted(
    old: dict[int, tuple[int, bool, bool, bool]], new: dict[int, tuple[int, bool, bool, bool]]
) -> None:
    """Page by page: frame, writable, never executed, a user's; against what two dictionaries say."""
    spaces = []
    for pages in (old, new):
        machine = Machine()
        root = machine.root(LONG, "in use")
        for page, (mfn, write, never, user) in pages.items():
            flags = (e.RW if write else 0) | (e.NX if never else 0)
            machine.map(root, HEAP + page * 4096, mfn, flags | (USER if user else KERNEL))
        spaces.append(space_of(machine.snapshot()))
    found = diff.compare(*spaces)
    both = [(old[page], new[page]) for page in old.keys() & new.keys()]
    assert found.count("were mapped") == len(new.keys() - old.keys())
    assert found.count("were unmapped") == len(old.keys() - new.keys())
    assert found.count("moved to another frame") == sum(a[0] != b[0] for a, b in both)
    assert found.count("became read-only") == sum(a[1] and not b[1] for a, b in both)
    assert found.count("became writable") == sum(b[1] and not a[1] for a, b in both)
    assert found.count("became non-executable") == sum(b[2] and not a[2] for a, b in both)
    assert found.count("became executable") == sum(a[2] and not b[2] for a, b in both)
    assert found.count("passed to user code") == sum(b[3] and not a[3] for a, b in both)
    assert found.count("passed to the kernel") == sum(a[3] and not b[3] for a, b in both)
    assert (str(found).splitlines()[2:] == [" nothing changed"]) == (old == new)
