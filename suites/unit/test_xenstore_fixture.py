"""The fixture ``xenstore``: what it reads and writes, and how it waits, on a guest that only spins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.guests import Guest
from harness.xenstore import XenStore, XenStoreTimeout
from stub.abi import sched
from stub.abi.xen import Hypercall
from stub.devices.xenstore import StoreError
from stub.domain.config import DomainConfig
from stub.machine import Machine
from suites.boot.small_guest import SPIN, call, kernel, shutdown

HOME = "/local/domain/1"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Machine(DomainConfig(kernel=kernel(tmp_path, SPIN), memory=32, name="spinner")) as made:
        yield made


@pytest.fixture
def store(machine: Machine) -> XenStore:
    return XenStore(lambda: machine, 0.001)


def test_reading_and_writing(store: XenStore) -> None:
    assert store.home == HOME
    assert store.read("name") == store.read(f"{HOME}/name") == "spinner"
    assert store.read("none") is None
    assert "control" in store.list()
    store.write("data/a/b", 5)
    store.write("data/a/c", b"\xff", "n1,r0")
    assert store.tree("data") == {"": "", "a": "", "a/b": "5", "a/c": "\ufffd"}
    assert store.permissions("data/a/c") == "n1,r0"
    assert store.tree("/")["local/domain/1/name"] == "spinner"
    store.rm("data/a")
    assert store.list("data") == []
    with pytest.raises(StoreError, match="EINVAL"):
        store.read("a path")
    assert store.watches() == {}


def test_changes_are_noted_while_the_block_lasts(store: XenStore) -> None:
    with store.changes("data") as seen:
        store.write("data/a", "1")
        store.write("name", "other")
        store.rm("data/a")
    store.write("data/b", "1")
    assert seen == [f"{HOME}/data/a", f"{HOME}/data/a"]


def test_waiting_stops_at_the_change(store: XenStore, machine: Machine) -> None:
    """What changes the value here is a callback of another value, that the waiting itself sets off."""
    store.write("data/a", "here")
    assert store.wait("data/a") == "here"
    assert store.wait("data/a", "here") == "here"
    assert store.wait("data/none", lambda value: value is None) is None
    assert machine.now_ns == 0, "nothing had to run"
    store.dom0.watch("@releaseDomain", lambda _: store.write("data/gone", "yes"))
    store.rm("data/gone")
    machine.xen.clock.arm("backends", 1000)
    machine.xen.xenstore.service = lambda: store.write("data/b", "set") or False  # type: ignore[method-assign,func-returns-value]
    assert store.wait("data/b", "set", timeout=1) == "set"
    assert 1000 <= machine.now_ns < 100_000
    machine.xen.clock.arm("backends", machine.now_ns + 1000)
    assert store.wait_for_change("data", timeout=1) == f"{HOME}/data/b"
    assert machine.xen.xenstore.store.dom0.watches[1:] == []


def test_what_does_not_come(store: XenStore, machine: Machine) -> None:
    store.write("data/a", "1")
    with pytest.raises(XenStoreTimeout) as caught:
        store.wait("data/a", "2")
    assert str(caught.value) == (
        f"{HOME}/data/a did not come to be '2': it is '1'\n"
        "the guest is still running; virtual time 0.001 s\n"
        f"in {HOME}/data:\n  a = '1'"
    )
    with pytest.raises(XenStoreTimeout, match="not there"):
        store.wait("data/none")
    with pytest.raises(XenStoreTimeout, match="data did not change"):
        store.wait_for_change("data")
    assert machine.now_ns == 3_000_000
    assert store.dom0.watches == []


def test_a_guest_that_ends(tmp_path: Path) -> None:
    with Machine(DomainConfig(kernel=kernel(tmp_path, shutdown(0)), memory=32)) as machine:
        store = XenStore(lambda: machine, 1)
        with pytest.raises(XenStoreTimeout, match="the guest ended: poweroff"):
            store.wait("data/a")
        assert store.read("name") == "guest", "it can still be looked at"


def test_a_value_wakes_who_was_blocked_for_good(tmp_path: Path) -> None:
    """A deadlock is none any more when the toolstack writes what the guest watches."""
    block = call(Hypercall.sched_op, sched.SCHEDOP_block, 0)
    stop = call(Hypercall.vcpu_op, 7, 0)  # VCPUOP_stop_periodic_timer
    with Machine(DomainConfig(kernel=kernel(tmp_path, stop + block + shutdown(0)), memory=32)) as machine:
        verdict = machine.run()
        assert verdict is not None
        assert verdict.kind == "deadlock"
        store = XenStore(lambda: machine, 1)
        store.write("data/a", "1")
        assert machine.run() is verdict, "nobody watches it"
        wire = machine.xen.xenstore.wire
        wire.first_event(wire.add_watch("data", "t"))
        verdict = machine.run()
        assert verdict is not None
        assert verdict.kind == "crash", "it woke for the event, and has no callback for it"


def test_of_a_guest_in_a_test(guest: Guest, tmp_path: Path) -> None:
    running = guest(kernel(tmp_path, SPIN), memory=32)
    assert running.xenstore.read("memory/static-max") == "32768"
    assert running.xenstore.wait("domid", "1") == "1"


@pytest.mark.parametrize(("code", "kind"), [(shutdown(0), "poweroff"), (shutdown(3), "crash"), (b"\x0f\x0b", "crash")])
def test_a_back_end_is_told_of_the_end(tmp_path: Path, code: bytes, kind: str) -> None:
    """@releaseDomain, once, whether the guest shut down, said that it crashed, or was crashed."""
    with Machine(DomainConfig(kernel=kernel(tmp_path, code), memory=32)) as machine:
        told: list[str] = []
        XenStore(lambda: machine, 1).dom0.watch("@releaseDomain", told.append)
        told.clear()
        verdict = machine.run()
        assert verdict is not None
        assert verdict.kind == kind
        assert told == ["@releaseDomain"]
