"""watch, rwatch and awatch of 1 to 4,096 bytes: the access is named exactly, and old and new value are right."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from clients import Client, go, go_to

from harness.debugger import Debugger, DebuggerError
from harness.debugging import DebugServer
from harness.gdb import Gdb
from harness.guests import Guest
from stub.domain.config import ENGINE_VARIABLE

pytestmark = pytest.mark.guest(cmdline="data")
VALUES = {
    "byte": (1, 1, 0x11),
    "word": (2, 2, 0x2222),
    "four": (4, 3, 0x33333333),
    "eight": (8, 4, 0x4444444444444444),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_write(client: Client, at: Mapping[str, int], name: str) -> None:
    size, old, new = VALUES[name]
    assert client.read(at[name], size) == old.to_bytes(size, "little")
    client.watch("watch", at[name], size)
    seen = go(client)
    assert (seen.kind, seen.address) == ("watch", at[name])
    assert client.read(at[name], size) == new.to_bytes(size, "little")
    assert at[f"put_{name}"] < client.register("rip") < at[f"put_{name}"] + 16
    assert go(client).status == 0


@pytest.mark.parametrize("name", VALUES)
def test_gdb_shows_old_and_new(gdb: Gdb, name: str) -> None:
    _, old, new = VALUES[name]
    gdb.execute(f"watch {name}")
    stop = gdb.cont()
    assert stop["reason"] == "watchpoint-trigger"
    values = stop["value"]
    assert [int(values[which].split()[0], 0) for which in ("old", "new")] == [old, new]
    assert stop["frame"]["func"] == f"put_{name}"


@pytest.mark.pv_needs("watches")
def test_a_read(client: Client, at: Mapping[str, int]) -> None:
    """Reads, and writes are not shown."""
    client.watch("rwatch", at["eight"], 8)
    seen = go(client)
    assert (seen.kind, seen.address) == ("rwatch", at["eight"])
    assert at["get_eight"] < client.register("rip") < at["get_eight"] + 16
    assert go(client).status == 0


def test_any_access(client: Client, at: Mapping[str, int]) -> None:
    client.watch("awatch", at["byte"], 1)
    for name in ("get_byte", "put_byte"):
        seen = go(client)
        assert (seen.kind, seen.address) == ("awatch", at["byte"])
        assert at[name] < client.register("rip") < at[name] + 16
    assert go(client).status == 0


@pytest.mark.pv_needs("watches")
def test_four_thousand_bytes(debugger: Debugger, at: Mapping[str, int]) -> None:
    """Each write to the array is shown with its own address; what lies beside it is not."""
    array = at["wide"] + 8
    debugger.watch(array, 4096)
    addresses = [array, array + 1000, array + 4095, array, *range(array + 2000, array + 2016)]
    for address in addresses:
        stop = debugger.cont()
        assert (stop.kind, stop.address - array) == ("watch", address - array)
    assert debugger.read_memory(array, 4) == bytes([5, 6, 7, 8])  # the upper half of what was written across its start
    assert debugger.cont().exited == 0


@pytest.mark.pv_needs("watches")
def test_four_thousand_bytes_of_gdb(gdb: Gdb) -> None:
    gdb.execute("watch wide.bytes")
    for name, offset in (("put_wide", 0), ("put_wide", 1000), ("put_wide", 4095), ("put_across", 0)):
        stop = gdb.cont()
        assert stop["reason"] == "watchpoint-trigger"
        assert stop["frame"]["func"] == name
        if name == "put_wide":
            assert gdb.evaluate(f"wide.bytes[{offset}]").split()[0] == str({0: 5, 1000: 6, 4095: 7}[offset])


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 100, 4096])
@pytest.mark.pv_needs("watches")
def test_any_size(debugger: Debugger, at: Mapping[str, int], size: int) -> None:
    """The last byte of a watched range counts, the one behind it does not."""
    array = at["wide"] + 8
    debugger.watch(array + 4096 - size, size)
    stops = []
    while not (stop := debugger.cont()).ended:
        stops.append(stop.address - array)
    assert 4095 in stops
    assert min(stops) >= 4096 - size
    assert max(stops) == 4095


@pytest.mark.pv_needs("watches")
def test_several_at_once(client: Client, at: Mapping[str, int]) -> None:
    """A stop for each, in the guest's order, each with its own kind and address."""
    client.watch("watch", at["byte"], 1)
    client.watch("rwatch", at["eight"], 8)
    client.watch("watch", at["four"], 4)
    client.watch("awatch", at["wide"] + 8 + 4095, 1)
    expected = [
        ("watch", at["byte"]),
        ("watch", at["four"]),
        ("rwatch", at["eight"]),
        ("awatch", at["wide"] + 8 + 4095),
        ("awatch", at["wide"] + 8 + 4095),
    ]
    for kind, address in expected:
        seen = go(client)
        assert (seen.kind, seen.address) == (kind, address)
    assert go(client).status == 0


def test_the_instruction_that_wrote_is_done(client: Client, at: Mapping[str, int]) -> None:
    """RIP is behind it, and continuing does not do it again."""
    client.watch("watch", at["sink"], 8)
    kinds = []
    while (seen := go(client)).kind == "watch":
        kinds.append(int.from_bytes(client.read(at["sink"], 8), "little"))
    assert seen.status == 0
    # get_byte adds 1, get_eight eight's value, get_wide 7
    assert kinds == [1, 1 + 0x4444444444444444, 8 + 0x4444444444444444]


def test_a_watch_of_gdb_with_a_condition(gdb: Gdb, at: Mapping[str, int]) -> None:
    gdb.execute("watch wide.bytes[1000] if wide.bytes[1000] == 6")
    stop = gdb.cont()
    assert stop["frame"]["func"] == "put_wide"
    assert gdb.evaluate("wide.bytes[1000]").startswith("6")


@pytest.mark.pv_needs("watches")
def test_stepping_over_a_watched_write(client: Client, at: Mapping[str, int]) -> None:
    go_to(client, at["put_word"])
    client.watch("watch", at["word"], 2)
    for _ in range(8):
        seen = client.step()
        if seen.kind != "step":
            break
    assert (seen.kind, seen.address) == ("watch", at["word"])
    client.clear()
    assert go(client).status == 0


def test_what_the_engine_cannot_watch_is_refused(
    guest: Guest, at: Mapping[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it is asked for; the guest goes on, and what was set before is watched."""
    monkeypatch.setenv(ENGINE_VARIABLE, "qemu")
    with DebugServer(guest) as server, Debugger(server.address) as debugger:
        debugger.watch(at["eight"], 8)
        debugger.watch(at["eight"], 8)
        with pytest.raises(DebuggerError, match="4 aligned pieces of 8 bytes at most"):
            debugger.watch(at["wide"], 4096)
        assert "virtual addresses only" in debugger.monitor("xen wp -m 0x1000 len 8")
        assert debugger.cont().address == at["eight"]
        assert debugger.cont().exited == 0
