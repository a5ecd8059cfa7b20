"""Stops that only a hypervisor can offer: ``monitor xen catch``, ``xen stop``, ``xen wp``, and the crash."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
from clients import Client, go, go_to
from own_guest import TWICE

from harness.debugger import Debugger
from harness.debugging import DebugServer
from harness.guests import Guest
from stub.abi.errno import EBUSY, ENOSYS


@pytest.mark.guest(cmdline="batch refused")
def test_catch_hypercall(client: Client, guest: Guest) -> None:
    """It stands before the call, whose registers are there to be looked at; a multicall's entries count."""
    assert "hypercall multicall" in client.monitor("xen catch hypercall multicall")
    seen = go(client)
    assert "stop 1: hypercall multicall" in seen.text
    assert client.register("rax") == 13
    assert client.register("rsi") == 2
    assert client.read(client.register("rip") - 2, 2) == b"\x0f\x05"
    entries = client.register("rdi")
    assert client.read(entries + 8, 8) == bytes(8)
    client.monitor("xen delete 1")
    client.monitor("xen catch hypercall xen_version 9999")
    seen = go(client)
    assert "hypercall xen_version operation 9999" in seen.text
    assert client.read(entries + 8, 4)[2] == 4, "the multicall was made: its first result is Xen's version"
    client.monitor("xen delete 2")
    assert go(client).status == 0
    guest.hypercalls.assert_order(["update_va_mapping rc<0", "multicall"])


@pytest.mark.guest(cmdline="batch")
def test_catch_one_operation_of_a_multicall(debugger: Debugger) -> None:
    debugger.monitor("xen catch hypercall sched_op yield")
    assert debugger.cont().notes == ("stop 1: hypercall sched_op SCHEDOP_yield",)
    assert debugger.register("rax") == 13
    while "stop" in "".join((stop := debugger.cont()).notes) and debugger.register("rax") != 13:
        assert debugger.register("rdi") == 0, "only yields are shown"
    assert stop.exited == 0


@pytest.mark.guest(cmdline="batch refused")
def test_catch_a_result(client: Client, at: Mapping[str, int]) -> None:
    """It stands behind the call, with the result in RAX."""
    client.monitor("xen catch hypercall update_va_mapping result -EBUSY")
    client.monitor(f"xen catch hypercall xen_version result {-ENOSYS}")
    seen = go(client)
    assert "update_va_mapping that gives -EBUSY" in seen.text
    assert client.register("rax") == -EBUSY & (1 << 64) - 1
    seen = go(client)
    assert "xen_version that gives -ENOSYS" in seen.text
    assert client.register("rax") == -ENOSYS & (1 << 64) - 1
    assert go(client).status == 0


@pytest.mark.guest(cmdline="loop")
def test_catch_upcall(client: Client, at: Mapping[str, int]) -> None:
    """The guest stands where the event finds it; a step leads into its callback."""
    client.monitor("xen catch upcall")
    for _ in range(3):
        seen = go(client)
        assert "upcall" in seen.text
        rip, rsp = client.register("rip"), client.register("rsp")
        assert rip != at["event_callback"]
        assert client.register("event_pending")
        client.step()
        assert client.register("rip") == at["event_callback"]
        frame = client.read(client.register("rsp"), 48)
        assert int.from_bytes(frame[16:24], "little") == rip
        assert int.from_bytes(frame[40:48], "little") == rsp
    client.monitor("xen delete 1")
    assert go(client).status == 0


@pytest.mark.guest(cmdline="refused")
def test_catch_page_type(client: Client, at: Mapping[str, int]) -> None:
    """A refused change of page tables says why, right behind the call."""
    client.monitor("xen catch page-type")
    seen = go(client)
    assert re.search(r"page-type: .*frame 0x[0-9a-f]+ writable", seen.text)
    assert client.register("rax") == -EBUSY & (1 << 64) - 1
    assert go(client).status == 0


@pytest.mark.guest(cmdline="crash")
def test_catch_crash(client: Client, guest: Guest, at: Mapping[str, int]) -> None:
    """Before it is torn down, its last state is open to inspection; continuing lets it end."""
    client.monitor("xen catch crash")
    seen = go(client)
    assert "Unhandled: vec 6" in seen.text
    assert client.register("rip") == at["crash_here"]
    assert client.register("rbx") == 42
    assert client.read(at["crash_here"], 2) == b"\x0f\x0b"
    assert "crash_here" in client.monitor("xen vcpu") or client.monitor("xen domain")
    seen = go(client)
    assert (seen.kind, seen.status) == ("ended", 3)
    assert guest.verdict is not None
    assert guest.verdict.kind == "crash"


@pytest.mark.guest(cmdline="crash")
def test_a_crash_that_nobody_catches(client: Client) -> None:
    assert go(client).status == 3


@pytest.mark.guest(cmdline="spaces")
def test_stop_in_one_address_space(client: Client, at: Mapping[str, int]) -> None:
    """Two roots have the same code at the same address: it is hit under one of them only."""
    go_to(client, at["visit"])
    first = client.register("cr3")
    assert client.register("rdi") == 1
    client.monitor(f"xen stop at {at['visit']:#x} cr3 {first:#x}")
    for _ in range(2):
        assert "stop 1" in go(client).text
        assert client.register("rip") == at["visit"]
        assert (client.register("rdi"), client.register("cr3")) == (1, first)
    client.monitor("xen delete 1")
    go_to(client, at["visit"])
    second = client.register("cr3")
    assert (client.register("rdi"), second != first) == (100, True)
    assert go(client).status == 0


@pytest.mark.guest(cmdline="spaces")
def test_stop_in_the_other_address_space(debugger: Debugger, at: Mapping[str, int]) -> None:
    """By the MFN of the root table, before it is ever used as one."""
    answer = debugger.monitor(f"xen vtop {at['second_root']:#x}")
    mfn = int(re.findall(r"mfn 0x([0-9a-f]+)|MFN 0x([0-9a-f]+)", answer)[-1][0] or "0", 16)
    debugger.monitor(f"xen stop at {at['visit']:#x} cr3 {mfn:#x}")
    for _ in range(3):
        assert debugger.cont().notes
        assert debugger.register("rdi") == 100
        assert debugger.register("cr3") == mfn << 12
    assert debugger.cont().exited == 0


@pytest.mark.guest(cmdline="twice")
@pytest.mark.pv_needs("watches")
def test_watch_machine_memory(client: Client, at: Mapping[str, int]) -> None:
    """Written by another address than the one that it was looked up by."""
    answer = client.monitor(f"xen vtop {at['aliased']:#x}")
    frames = re.findall(r"0x([0-9a-f]+)", answer)
    mfn = next(int(text, 16) for text in reversed(re.findall(r"(?i)mfn 0x([0-9a-f]+)", answer)))
    assert frames
    client.monitor(f"xen wp -m {mfn * 4096 + 24:#x}")
    seen = go(client)
    assert f"8 bytes at machine address {mfn * 4096 + 24:#x} ({TWICE + 24:#x}) were written" in seen.text
    assert client.read(at["aliased"] + 24, 8)[0] == 77
    client.monitor("xen delete 1")
    client.monitor(f"xen wp -m {mfn * 4096 + 24:#x} len 8 access r")
    seen = go(client)
    assert f"({at['aliased'] + 24:#x}) were read" in seen.text
    assert go(client).status == 0


@pytest.mark.guest(cmdline="ports")
def test_watch_a_port(client: Client, at: Mapping[str, int]) -> None:
    """Behind the instruction, with what went through."""
    client.monitor("xen wp -i 0x3f8")
    seen = go(client)
    assert "0x41 was written to port 0x3f8" in seen.text
    assert client.register("rip") == at["behind_out"]
    seen = go(client)
    assert "0xff was read from port 0x3f8" in seen.text
    assert client.register("rip") == at["behind_in"]
    assert client.register("rax") == 0xFF
    assert go(client).status == 0


@pytest.mark.guest(cmdline="loop")
def test_stop_at_a_count_of_instructions(client: Client, guest: Guest) -> None:
    """Exactly there; the same place in each run."""
    places = []
    for count in (1_000, 20_001, 20_002, 60_000):
        client.monitor(f"xen stop retired {count}")
        assert f"{count:,} instructions retired" in go(client).text
        assert client.register("retired") == count
        places.append(client.register("rip"))
    assert go(client).status == 0
    again = guest()
    with DebugServer(again) as server, Debugger(server.address) as debugger:
        for count, place in zip((1_000, 20_001, 20_002, 60_000), places, strict=True):
            debugger.monitor(f"xen stop retired {count}")
            debugger.cont()
            assert (debugger.register("retired"), debugger.register("rip")) == (count, place)


@pytest.mark.guest(cmdline="chain")
@pytest.mark.pv_needs("branches")
def test_the_last_branches(client: Client, at: Mapping[str, int]) -> None:
    """How the guest got where it stopped, on its own way and by way of Xen."""
    assert "begin with" in client.monitor("xen branches")
    client.monitor("xen branches keep")
    client.break_at(at["inner"])
    go(client)
    calls = client.monitor("xen branches 2").splitlines()
    assert calls[-1].endswith(f"->  {at['inner']:#x} <inner>")
    client.monitor("xen branches drop")
    assert "begin with" in client.monitor("xen branches")


@pytest.mark.guest(cmdline="chain")
def test_the_list_of_them(client: Client) -> None:
    assert "none" in client.monitor("xen stops")
    client.monitor("xen catch hypercall mmu_update")
    client.monitor("xen wp -i 0x60")
    client.monitor("xen stop retired 1000000000")
    listed = client.monitor("xen stops")
    assert [line.split(":")[0] for line in listed.splitlines() if line] == ["stop 1", "stop 2", "stop 3"]
    client.monitor("xen delete 2")
    assert "port" not in client.monitor("xen stops")
    assert "no stop 2" in client.monitor("xen delete 2")
    for wrong in (
        "catch hypercall no_such",
        "wp -i 0x12345",
        "wp -m 0xffffffffffff",
        "stop retired 0",
        "catch nothing",
    ):
        assert client.monitor(f"xen {wrong}").strip()
        assert "Traceback" not in client.monitor(f"xen {wrong}")
    assert client.monitor("xen stops").count("stop ") == 2


@pytest.mark.guest("debian-cloud", extra="pvstub=crash")
@pytest.mark.pv_splats("panic", "oops", "bug")
def test_linux_at_its_crash(guest: Guest) -> None:
    """Its panic ends in SHUTDOWN_crash: caught, and the backtrace leads to panic."""
    from harness.debugging import symbols_of
    from harness.gdb import Gdb

    symbols = symbols_of(guest)
    assert symbols is not None
    with DebugServer(guest, symbols) as server, Gdb(symbols=symbols) as gdb:
        gdb.connect(server.address)
        gdb.execute("monitor xen catch crash")
        stop = gdb.cont()
        assert stop["signal-name"] == "SIGABRT"
        assert "panic" in gdb.execute("backtrace")
        assert "Kernel panic" in gdb.execute("monitor xen dmesg")
        assert gdb.cont()["exit-code"] == "03"
