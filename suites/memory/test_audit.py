"""The audit: it finds nothing in guests that run, and each thing that is broken on purpose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.guests import Guest
from stub.domain.config import DomainConfig
from stub.hypervisor.audit import INVARIANTS, OF_THE_GUEST, audit
from stub.hypervisor.xen import Hypervisor
from stub.machine import Machine
from stub.memory import entries as e
from stub.memory.frames import FREE, L1, L2, L4, PINNED, WRITABLE
from suites.boot.small_guest import SPIN, call, kernel, shutdown

pytestmark = pytest.mark.usefixtures("pv_engine")

EVERY = 1000


@pytest.fixture
def xen(tmp_path: Path) -> Iterator[Hypervisor]:
    """The hypervisor of a guest that stands at its first instructions."""
    with Machine(DomainConfig(kernel=kernel(tmp_path, SPIN), memory=32)) as made:
        assert made.run(deadline_ns=1000) is None
        assert audit(made.xen, guest=True) == []
        yield made.xen


def tables_of(xen: Hypervisor, level: int) -> list[int]:
    """The guest's tables of this level."""
    frames = xen.domain.frames
    return [mfn for mfn in range(frames.frames) if frames.type[mfn] == level and frames.type_count[mfn]]


def entry_of(xen: Hypervisor, level: int, wanted: Callable[[int], bool]) -> int:
    """The word index of a present entry of a level."""
    words = xen.domain.ram.words
    places = (mfn * e.ENTRIES + slot for mfn in tables_of(xen, level) for slot in range(e.ENTRIES))
    return next(at for at in places if words[at] & e.P and wanted(words[at]))


def read_only_table(xen: Hypervisor) -> Callable[[int], bool]:
    """Whether an entry maps a page table."""
    frames = xen.domain.frames
    return lambda entry: frames.type[entry >> 12 & e.FRAME_MASK] == L1


def _writable_table(xen: Hypervisor) -> None:
    xen.domain.ram.words[entry_of(xen, L1, read_only_table(xen))] |= e.RW


def _foreign_frame(xen: Hypervisor) -> None:
    at = entry_of(xen, L1, lambda entry: not entry & e.RW)
    xen.domain.ram.words[at] = xen.domain.ram.words[at] & ~e.ADDRESS_MASK | xen.domain.area.empty_root << 12


def _cached_otherwise(xen: Hypervisor) -> None:
    xen.domain.ram.words[entry_of(xen, L1, lambda _: True)] |= e.PCD


def _data_as_table(xen: Hypervisor) -> None:
    xen.domain.ram.words[tables_of(xen, L2)[0] * e.ENTRIES + 511] = int(xen.domain.p2m[0]) << 12 | e.P | e.RW | e.US


def _xens_slot(xen: Hypervisor) -> None:
    xen.domain.ram.words[tables_of(xen, L4)[0] * e.ENTRIES + e.XEN_FIRST_SLOT + 3] = 1


def _pinned_data(xen: Hypervisor) -> None:
    xen.domain.frames.flags[int(xen.domain.p2m[0])] |= PINNED


def _a_reference_more(xen: Hypervisor) -> None:
    xen.domain.frames.refs[int(xen.domain.p2m[0])] += 1


def _a_type_less(xen: Hypervisor) -> None:
    frames = xen.domain.frames
    mfn = next(i for i in range(frames.frames) if frames.type[i] == WRITABLE and frames.type_count[i] > 1)
    frames.type_count[mfn] -= 1


def _free_and_owned(xen: Hypervisor) -> None:
    xen.domain.frames.free[int(xen.domain.p2m[0])] = None


def _leaked(xen: Hypervisor) -> None:
    xen.domain.frames.owner[int(xen.domain.p2m[0])] = FREE


def _another_pfn(xen: Hypervisor) -> None:
    xen.domain.area.m2p[int(xen.domain.p2m[5])] = 6


def _channel_with_one_end(xen: Hypervisor) -> None:
    events = xen.events
    local, remote = (events.ports[number] for number in (1, 2))
    local.peer = remote


def _virq_of_two(xen: Hypervisor) -> None:
    for number in (3, 4):
        xen.events.bind_virq(xen.events.ports[number], 0, 0)


def _events_in_a_frame_not_held(xen: Hypervisor) -> None:
    xen.events.init_control(0, int(xen.domain.p2m[5]) << 12)


BROKEN: list[tuple[str, Callable[[Hypervisor], None], str]] = [
    ("writable", _writable_table, "writable, which is l1"),
    ("targets", _foreign_frame, "which is Xen's"),
    ("targets", _cached_otherwise, "no guest may set: PCD"),
    ("tables", _data_as_table, "which is"),
    ("tables", _xens_slot, "Xen's slots"),
    ("pinned", _pinned_data, "is pinned as"),
    ("counts", _a_reference_more, "references"),
    ("counts", _a_type_less, "type count"),
    ("free", _free_and_owned, "can be had, but is"),
    ("free", _leaked, "is nobody's, and has references"),
    ("channels", _channel_with_one_end, "port 1 leads to"),
    ("channels", _virq_of_two, "port 3 is bound to VIRQ 0"),
    ("channels", _events_in_a_frame_not_held, "is written to for event channels"),
    ("p2m", _another_pfn, "for pfn 0x5"),
]


@pytest.mark.parametrize(("invariant", "break_it", "words"), BROKEN, ids=lambda x: getattr(x, "__name__", None))
def test_what_is_broken_is_found(
    xen: Hypervisor, invariant: str, break_it: Callable[[Hypervisor], None], words: str
) -> None:
    break_it(xen)
    found = audit(xen, guest=True)
    assert any(f.invariant == invariant and words in f.text for f in found), found


def test_each_invariant_is_broken_by_some_test() -> None:
    assert {name for name, _, _ in BROKEN} == set(INVARIANTS | OF_THE_GUEST)


def test_a_free_frame_with_references(xen: Hypervisor) -> None:
    frames = xen.domain.frames
    mfn = int(xen.domain.p2m[0])
    frames.owner[mfn], frames.free[mfn] = FREE, None
    assert any(f.invariant == "free" and "in use" in f.text for f in audit(xen))


def test_twenty_of_a_sort_are_told(xen: Hypervisor) -> None:
    xen.domain.frames.np_refs[xen.domain.p2m[:100]] += 1
    assert [f.text for f in audit(xen)][-1] == "and more"
    assert len(audit(xen)) == 21


def test_a_finding_ends_the_run(tmp_path: Path) -> None:
    """At the next hypercall, with what was found, as a fault of pvstub's own."""
    code = call(17, 0, 0) * 10 + shutdown(0)
    with Machine(DomainConfig(kernel=kernel(tmp_path, code), memory=32), audit=2) as made:
        made.xen.domain.frames.refs[int(made.xen.domain.p2m[0])] += 1
        verdict = made.run()
        assert verdict is not None
        assert (verdict.kind, verdict.exit_status) == ("audit", 1)
        assert verdict.reason.startswith("an invariant is broken after hypercall 2: counts: frame")


def test_an_audit_changes_nothing(tmp_path: Path) -> None:
    digests = set()
    for every in (None, 1):
        code = call(17, 0, 0) * 10 + shutdown(0)
        with Machine(DomainConfig(kernel=kernel(tmp_path, code), memory=32), audit=every) as made:
            made.run()
            digests.add((made.log.digest(), made.retired))
    assert len(digests) == 1


@pytest.mark.guest("debian-cloud", audit=EVERY)
def test_debian_cloud_keeps_all(guest: Guest) -> None:
    guest.wait("poweroff")
    assert audit(guest.machine.xen, guest=True) == []


@pytest.mark.guest("debian-amd64", audit=EVERY)
def test_debian_amd64_keeps_all(guest: Guest) -> None:
    guest.wait("poweroff")
    assert audit(guest.machine.xen, guest=True) == []
