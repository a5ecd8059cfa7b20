"""Page tables of running guests: snapshots at a moment, walks and ranges of them, what changed, and the command."""

from __future__ import annotations

import gc
import hashlib
import re
import struct
import weakref
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from harness.console import GuestConsole
from harness.debugging import DebugServer
from harness.guests import Guest
from harness.pagetables import PageTables
from harness.pagetables_command import main
from stub import cli
from stub.abi.xen import Hypercall
from stub.domain.config import DomainConfig
from stub.errors import UsageError
from stub.gdb import monitor
from stub.machine import Machine
from stub.memory import entries as e
from stub.memory.frames import GUEST, L1, L4
from stub.trace.pagetables import diff, ranges, reverse, store, walks
from stub.trace.pagetables.moments import Moment, Root
from stub.trace.pagetables.space import AddressSpace
from stub.trace.reader import read
from stub.trace.records import HypercallRecord
from stub.units import PAGE_SIZE
from suites.boot.small_guest import CODE, SPIN, call, kernel, shutdown

pytestmark = pytest.mark.usefixtures("pv_engine")

VERSION = call(Hypercall.xen_version, 0, 0)
PAGE = CODE + 0x10000  # behind the kernel, mapped and unused
MOMENTS = [Moment.parse(f"at={when}") for when in ("hypercall:2", "hypercall:5", "12ns", "end")]


def remap(flags: int, mfn: int) -> bytes:
    return call(Hypercall.update_va_mapping, PAGE, mfn << 12 | flags, 0)


def machine(folder: Path, code: bytes, *moments: Moment, run: str = "run", **options: object) -> Machine:
    config = DomainConfig(kernel=kernel(folder, code), memory=32, **options)  # type: ignore[arg-type]
    return Machine(config, folder / run, snapshots=moments)


def of(made: Machine) -> PageTables:
    return PageTables(lambda: made)


def calls(folder: Path) -> list[HypercallRecord]:
    return [record for record in read(folder) if isinstance(record, HypercallRecord)]


@pytest.fixture
def spinning(tmp_path: Path) -> Iterator[Machine]:
    """A guest that does nothing."""
    with machine(tmp_path, SPIN) as made:
        made.run(deadline_ns=1000)
        yield made


# -- moments


def test_snapshots_are_taken_at_their_moments(tmp_path: Path) -> None:
    with machine(tmp_path, VERSION * 7 + shutdown(0), *MOMENTS) as made:
        assert made.run() is not None
        assert [moment.text for moment in made.snapshots.waiting] == ["end"]
    kept = [store.load(path) for path in store.listed(tmp_path / "run").values()]
    facts = {snapshot.facts.moment: snapshot.facts for snapshot in kept}
    assert list(store.listed(tmp_path / "run")) == [1, 2, 3, 4]
    assert (facts["hypercall:2"].hypercalls, facts["hypercall:5"].hypercalls) == (2, 5)
    assert facts["end"].hypercalls == len(calls(tmp_path / "run")) == 8
    assert 12 <= facts["12ns"].virtual_ns < 20
    assert facts["hypercall:2"].rip == CODE + 2 * len(VERSION), "behind the second hypercall"


def test_looking_changes_nothing(tmp_path: Path) -> None:
    """The same run, byte for byte, with snapshots and without; and equal runs keep equal snapshots."""
    code = VERSION * 3 + remap(0, 0) + VERSION * 3 + shutdown(0)
    digests = []
    for run, moments in (("bare", []), ("one", MOMENTS), ("two", MOMENTS)):
        with machine(tmp_path, code, *moments, run=run) as made:
            made.run()
        digests.append(hashlib.sha256((tmp_path / run / "hypercalls").read_bytes()).hexdigest())
    assert len(set(digests)) == 1
    first, second = (sorted((tmp_path / run / store.FOLDER).iterdir()) for run in ("one", "two"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert len(first) == len(MOMENTS)


def test_entries_of_a_multicall_are_counted_and_it_is_not_cut(tmp_path: Path) -> None:
    with machine(tmp_path, SPIN) as made:
        made.run(deadline_ns=1000)
        entry = struct.pack("<8Q", Hypercall.xen_version, *[0] * 7)
        made.xen.domain.guest.write(PAGE, entry * 4)
        code = VERSION + call(Hypercall.multicall, PAGE, 4) + VERSION + SPIN
        made.xen.domain.guest.write(CODE + 0x100, code)
        made.xen.words[16] = CODE + 0x100
        made.xen.engine.flush_code(made.xen.domain.guest.locate(CODE), PAGE_SIZE)
        taken = of(made).at_hypercall(3)
        assert taken.facts.hypercalls == 6, "one, the multicall's four, and the multicall itself"
        assert of(made).at_hypercall(7).facts.hypercalls == 7
        with pytest.raises(UsageError, match="hypercall 7 has been made: the guest has made 7"):
            of(made).at_hypercall(7)


def test_a_test_stops_the_guest_at_a_hypercall_and_goes_on(tmp_path: Path) -> None:
    with machine(tmp_path, VERSION * 6 + shutdown(0)) as made:
        tables = of(made)
        assert tables.at_hypercall(4).facts.hypercalls == made.log.made == 4
        assert made.xen.words[16] == CODE + 4 * len(VERSION)
        assert made.verdict is None
        with pytest.raises(
            AssertionError, match=r"there was no hypercall:1000: at .* s poweroff: the guest powered off"
        ):
            tables.at_hypercall(1000)
        assert not made.snapshots.waiting
    assert len(calls(tmp_path / "run")) == 7


def test_a_test_stops_the_guest_at_a_time(spinning: Machine) -> None:
    taken = of(spinning).at_time(0.000123)
    assert 123_000 <= taken.facts.virtual_ns == spinning.now_ns < 124_000
    assert taken.facts.moment == "0.000123s"
    with pytest.raises(UsageError, match=r"0.0001s has passed: it is 0.000123"):
        of(spinning).at_time(0.0001)


def test_a_moment_that_never_comes_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = kernel(tmp_path, VERSION + shutdown(0))
    words = ["boot", str(image), "--memory", "32", "--run", str(tmp_path / "run")]
    assert cli.main([*words, "--snapshot", "at=hypercall:99", "--snapshot", "at=end,root=legacy:0x5000"]) == 0
    assert "pvstub: no snapshot at=hypercall:99: the run ended before\n" in capsys.readouterr().err
    (path,) = store.listed(tmp_path / "run").values()
    assert store.load(path).roots[-1] == Root(0x5000, "legacy", ("asked for",))
    assert cli.main([*words, "--snapshot", "when=end"]) == 2
    assert capsys.readouterr().err.startswith("pvstub: --snapshot when=end: write at=hypercall:N")


def test_a_guest_that_boots_again_is_watched_on(tmp_path: Path) -> None:
    """Hypercalls are counted over all boots."""
    moments = [Moment.after(2), Moment.after(5)]
    config = DomainConfig(kernel=kernel(tmp_path, VERSION + shutdown(1)), memory=32, on_reboot="restart")
    with Machine(config, tmp_path / "run", snapshots=moments) as made:
        while made.boots < 4:
            made.turn()
    facts = [store.load(path).facts for path in store.listed(tmp_path / "run").values()]
    assert [(each.hypercalls, each.boot) for each in facts] == [(2, 1), (5, 3)]


def test_a_machine_that_is_closed_is_freed_at_once(tmp_path: Path) -> None:
    """Its memory is large: it must not wait for the garbage collector."""
    made = machine(tmp_path, VERSION * 7 + shutdown(0), *MOMENTS)
    made.run()
    made.close()
    of_it = weakref.ref(made), weakref.ref(made.xen)
    gc.disable()
    try:
        del made
        assert [each() for each in of_it] == [None, None]
    finally:
        gc.enable()


# -- a small guest's tables


def test_what_a_guest_changes_is_told_in_words(tmp_path: Path) -> None:
    with machine(tmp_path, SPIN) as made:
        mfn = made.xen.domain.guest.locate(PAGE) >> 12
    code = VERSION + remap(e.P | e.A, mfn) + remap(e.P | e.RW | e.NX, mfn) + remap(0, 0) + SPIN
    with machine(tmp_path, code) as made:
        tables = of(made)
        taken = [tables.at_hypercall(number) for number in (1, 2, 3, 4)]
        text = [str(tables.diff(*pair)) for pair in pairwise(taken)]
        tables.assert_unmapped(PAGE)
        tables.assert_read_only(PAGE, of=taken[1])
        tables.assert_mapped(PAGE, PAGE_SIZE, "kernel rw-", of=taken[2])
    assert " 1 page became read-only" in text[0]
    assert f"    {PAGE:#x}-{PAGE + PAGE_SIZE:#x}  1 page  kernel rwx -> kernel r-x" in text[0]
    assert " 1 page became writable" in text[1]
    assert " 1 page became non-executable" in text[1]
    assert " 1 page was unmapped" in text[2]


def test_walks_and_ranges_are_what_the_guest_reaches(spinning: Machine) -> None:
    tables, domain = of(spinning), spinning.xen.domain
    space = tables.space()
    for each in space.ranges():
        for place in (each.start, each.end - 1, (each.start + each.end) // 2):
            assert space.walk(place).maddr == domain.guest.locate_any(place)
    region = domain.layout.region
    tables.assert_mapped(region.vaddr, region.pages * PAGE_SIZE)
    tables.assert_mapped(domain.layout.tables.vaddr, domain.layout.tables.pages * PAGE_SIZE, "kernel r-x")
    assert dict(tables.table_census()) == dict(sorted(domain.layout.tables_by_level.items(), reverse=True))
    assert dict(tables.page_census())[PAGE_SIZE] == len(space.mappings)


def test_tables_that_the_guest_has_only_built_are_read_raw(spinning: Machine) -> None:
    """Three formats, in ordinary memory, as a loader builds them: Xen knows nothing of them."""
    domain = spinning.xen.domain
    free = [int(domain.p2m[pfn]) for pfn in range(domain.layout.nr_pages - 8, domain.layout.nr_pages)]
    words, halves = domain.ram.table, domain.ram.table.view("<u4")
    halves[free[0], 1] = 0x400000 | e.P | e.PSE
    halves[free[0], 0] = free[1] << 12 | e.P | e.RW
    halves[free[1], 5] = free[7] << 12 | e.P | e.RW
    words[free[2], 0] = free[3] << 12 | e.P
    words[free[3], 0] = free[4] << 12 | e.P | e.RW
    words[free[4], 5] = free[7] << 12 | e.P | e.RW | e.NX
    words[free[5], 511] = free[2] << 12 | e.P
    tables = of(spinning)
    legacy, pae = (f"{name}:{free[at] << 12:#x}" for name, at in (("legacy", 0), ("pae", 2)))
    assert tables.walk(0x5678, legacy).maddr == (free[7] << 12) + 0x678
    assert tables.walk(0x400000, legacy).size == 1 << 22
    assert tables.walk(0x5678, pae).access == "kernel rw-"
    assert tables.table_census(legacy) == {2: 1, 1: 1}
    assert tables.table_census(pae) == {3: 1, 2: 1, 1: 1}
    kept = tables.snapshot(legacy, pae)
    tables.assert_mirrored(0x5000, 0x5000, PAGE_SIZE, of=kept, root=pae, other=tables.space(pae, of=kept))
    assert [each.format.name for each in tables.whomaps(free[7], of=kept)] == ["pae", "legacy"]


def test_a_debuggers_port_is_asked(tmp_path: Path, guest: Guest, capsys: pytest.CaptureFixture[str]) -> None:
    small = guest(kernel(tmp_path, SPIN), memory=32)
    small.run(0.000001)
    with DebugServer(small) as server:
        status = main(["live", server.address, "walk", hex(CODE)])
        out, err = capsys.readouterr()
        assert (status, err) == (0, "")
        assert "kernel rwx" in out
        assert main(["live", server.address, "census", "--root", "raw:0x1000"]) == 0
        assert "asked for" in capsys.readouterr().out
    assert len(store.listed(small.run_directory)) == 2


def test_the_monitor_keeps_a_snapshot(spinning: Machine, tmp_path: Path) -> None:
    context = monitor.Context(spinning)
    answer = monitor.run(context, "xen snapshot")
    (path,) = store.listed(tmp_path / "run").values()
    assert answer.endswith(f"kept in {path}\n")
    assert "write FORMAT:MADDR" in monitor.run(context, "xen snapshot nonsense")


# -- a stock kernel


@pytest.mark.guest("debian-cloud", extra="pvstub=shell loglevel=4")
def test_a_booted_linux(guest: Guest, pagetables: PageTables) -> None:
    early = pagetables.at_hypercall(1000)
    assert early.facts.hypercalls >= 1000
    guest.console.expect_exact("/ # ")
    kept = pagetables.snapshot()
    lines = list(ranges.lines(AddressSpace(kept, kept.root()), "ptdump"))
    assert len(lines) > 20
    _agrees_with_the_hypervisor(guest, kept)
    _is_a_linux(pagetables, kept)
    _became_read_only(pagetables, early, kept)


def _agrees_with_the_hypervisor(guest: Guest, kept: diff.Snapshot) -> None:
    domain = guest.machine.xen.domain  # type: ignore[attr-defined]
    space, rng = AddressSpace(kept, kept.root()), np.random.default_rng(7)
    mapped = space.mappings
    for at in rng.integers(0, len(mapped), 500).tolist():
        vaddr = int(mapped.vaddr[at])
        assert space.walk(vaddr).maddr == domain.guest.locate_any(vaddr)
    context = monitor.Context(guest.machine)  # type: ignore[arg-type]
    for pfn in rng.integers(0, domain.layout.nr_pages, 1000).tolist():
        mfn = int(kept.frames.p2m[pfn])
        assert kept.frames.pfn(mfn) == pfn
        if pfn % 50 == 0:
            live = [line.split("; L4")[0] for line in monitor.run(context, f"xen whomaps {mfn}").splitlines()]
            told = [line.split("; L4")[0] for line in reverse.lines(kept, mfn)][1:]
            assert set(told) <= set(live), "the snapshot and the guest have the same mappings"


def _is_a_linux(pagetables: PageTables, kept: diff.Snapshot) -> None:
    pagetables.assert_mapped(0xFFFFFFFF81000000, 0x800000, "kernel r-x", of=kept)
    pagetables.assert_unmapped(0, 0x10000, of=kept)
    pagetables.assert_unmapped(0xFFFF_8080_0000_0000, 1 << 30, of=kept)
    types = kept.frames.types_now()
    tables = np.flatnonzero((types >= L1) & (types <= L4) & (kept.frames.np_owner == GUEST)).tolist()
    assert len(tables) > 100
    for mfn in tables[::17]:
        found = pagetables.whomaps(mfn, of=kept)
        assert any(each.row.leaf for each in found), "its kernel sees it"
        assert not any(each.writable for each in found), "and does not write to it"
    text = "\n".join(walks.lines(AddressSpace(kept, kept.root()), 0xFFFFFFFF81000000))
    assert re.search(r"the guest meant [0-9a-f]{16}  P", text)
    assert "pseudo-physical 0x1000000  kernel r-x" in text


def _became_read_only(pagetables: PageTables, early: diff.Snapshot, kept: diff.Snapshot) -> None:
    found = pagetables.diff(early, kept)
    text = [
        change for change in found.changes if change.what == "became read-only" and change.start == 0xFFFFFFFF81000000
    ]
    assert text
    assert text[0].pages > 1000
    assert f" {found.count('became read-only'):,} pages became read-only" in str(found)
    assert found.frames[("none", "writable")] > 1000


@pytest.mark.guest("debian-cloud", memory=128)
def test_looking_at_linux_changes_nothing(guest: Guest) -> None:
    """To the same virtual time with looks on the way and without: the same log."""
    plain, watched = guest(), guest()
    for number in (1, 500, 3000):
        watched.pagetables.at_hypercall(number)
    watched.pagetables.at_time(0.3)
    digests = []
    for each in (plain, watched):
        each.machine.run(deadline_ns=600_000_000)
        digests.append((each.machine.log.digest(), each.now))  # type: ignore[attr-defined]
    assert digests[0] == digests[1]


@pytest.mark.guest("debian-amd64", extra="loglevel=8")
def test_linux_and_we_find_no_writable_code(guest: Guest, console: GuestConsole, pagetables: PageTables) -> None:
    """Its own check of all mappings, and ours at the same moment."""
    console.expect("Checked W\\+X mappings: passed")
    pagetables.assert_no_writable_code()
