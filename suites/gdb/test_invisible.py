"""The guest cannot tell that it is debugged: its console, and all it asked of Xen, are those of an undisturbed run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import pytest
from clients import Client, GdbClient, RawClient, go
from own_guest import build

from harness.debugger import Debugger
from harness.debugging import DebugServer, symbols_of
from harness.gdb import Gdb
from harness.guests import Guest
from stub.machine import Machine

LINUX = "debian-cloud"


class Run(NamedTuple):
    """What a guest did, as far as it and the world can tell."""

    console: str
    hypercalls: str
    retired: int
    virtual_ns: int


def run_of(guest: Guest) -> Run:
    """A run that is over."""
    machine = guest.machine
    assert isinstance(machine, Machine)
    assert machine.verdict is not None
    return Run(bytes(machine.console.output).decode(), machine.log.digest(), machine.retired, machine.now_ns)


def undisturbed(guest: Guest) -> Run:
    """The same guest, left alone."""
    alone = guest()
    alone.wait("poweroff")
    run = run_of(alone)
    alone.close()
    return run


@contextmanager
def raw(guest: Guest) -> Iterator[Debugger]:
    """Our client on a guest."""
    with DebugServer(guest) as server, Debugger(server.address) as debugger:
        yield debugger


def to_the_end(debugger: Debugger, most: int = 1 << 30) -> int:
    """Continue from each stop to the next; how many there were. After ``most`` all stop points go."""
    stops = 0
    while not debugger.cont().ended:
        stops += 1
        if stops == most:
            debugger.clear()
    return stops


# -- our own guest


@pytest.mark.guest(cmdline="")
def test_a_hundred_breakpoints_in_everything(client: Client, guest: Guest, at: Mapping[str, int]) -> None:
    """All functions of the guest, its handlers among them, up to some hundred stops; then to the end."""
    names = ["on_trap", "on_event", "event_callback", "leave", "at_leave_iret", "map", "visit", "user_code",
             "syscall_callback", "debugged_code", "put_debugged", "trap_1", "trap_3", "trap_14", "trap_128",
             *(name for name in at if name.startswith(("at_", "behind_", "put_", "get_")))]  # fmt: skip
    addresses = {at[name] for name in names}
    addresses |= {at["sled"] + 9990 + n for n in range(10)} | {at["paged_code"] + n for n in range(0, 32, 4)}
    addresses |= set(range(at["_start"], at["_start"] + 32))
    assert len(addresses) >= 100
    for address in sorted(addresses):
        client.break_at(address)
    hits = set()
    for _ in range(300):
        if go(client).kind != "break":
            break
        hits.add(client.register("rip"))
    client.clear()
    assert len(hits) > 50
    assert go(client).status == 0
    assert run_of(guest) == undisturbed(guest)


@pytest.mark.guest(cmdline="")
def test_watchpoints_on_everything(debugger: Debugger, guest: Guest, at: Mapping[str, int]) -> None:
    """All of its data, its stack and the page that it shares with Xen."""
    debugger.watch(at["wide"], 4096)
    debugger.awatch(at["eight"], 8)
    debugger.awatch(at["stack_top"] - 4096, 4096)
    debugger.awatch(at["shared_page"], 64)
    debugger.awatch(at["target"], 64)
    debugger.rwatch(at["paged_code_page"], 4096)
    debugger.awatch(at["debugged"], 4)
    assert to_the_end(debugger, 3000) >= 3000
    assert run_of(guest) == undisturbed(guest)


@pytest.mark.guest(cmdline="spots ports registers data late twice spaces user refused batch traps")
def test_every_single_instruction_stepped(debugger: Debugger, guest: Guest) -> None:
    """From the first to the last."""
    steps = 0
    while not debugger.step(1).ended:
        steps += 1
    assert steps > 5000
    assert run_of(guest) == undisturbed(guest)


@pytest.mark.guest(cmdline="")
def test_thousands_of_steps_of_gdb(gdb: Gdb, guest: Guest) -> None:
    for count in (1000, 1, 2000):
        gdb.command(f"-exec-step-instruction {count}")
        gdb.wait_stop()
    gdb.execute("tbreak traps")
    gdb.cont()
    gdb.command("-exec-step-instruction 1500")
    gdb.wait_stop()
    assert gdb.cont()["reason"] == "exited-normally"
    assert run_of(guest) == undisturbed(guest)


@pytest.mark.guest(cmdline="")
def test_interrupts_and_looks_all_over(debugger: Debugger, guest: Guest, at: Mapping[str, int]) -> None:
    """Stopped wherever it is, read up and down, and every kind of catch set: still the same run."""
    for command in ("catch hypercall sched_op", "catch upcall", "catch page-type", "wp -i 0x3f8", "guest-traps show",
                    "stop retired 5000", "stop retired 70001", f"stop at {at['visit']:#x}"):  # fmt: skip
        assert "stop " in debugger.monitor(f"xen {command}")
    stops = 0
    while not debugger.cont().ended:
        stops += 1
        debugger.read_registers()
        debugger.read_memory(at["wide"], 8192)
        debugger.monitor("xen domain")
        debugger.monitor("xen vcpu")
    assert stops > 30
    assert run_of(guest) == undisturbed(guest)


@pytest.mark.guest(cmdline="traps")
def test_its_own_traps_are_its_own(client: Client, guest: Guest) -> None:
    """``int3``, single steps and debug registers work as ever, and the debugger sees nothing of them."""
    seen = go(client)
    assert (seen.kind, seen.status) == ("ended", 0)
    console = run_of(guest).console
    for line in ("int3 3", "steps 13", "debug hits 5", "debug writes 4"):
        assert line in console


@pytest.mark.guest(cmdline="traps")
def test_its_own_traps_under_a_debugger_that_stops_there(client: Client, guest: Guest, at: Mapping[str, int]) -> None:
    """Breakpoints where the guest has its own, and steps through its steps."""
    for name in ("debugged_code", "behind_int3", "trap_1", "put_debugged", "at_single_steps"):
        client.break_at(at[name])
    if isinstance(client, RawClient):  # gdb jumps over an int3 that it finds at a breakpoint of its own
        client.break_at(at["at_int3"])
    client.watch("awatch", at["debugged"], 4)
    stops = 0
    while go(client).kind != "ended":
        stops += 1
        for _ in range(3):
            client.step()
    assert stops > 20
    assert run_of(guest) == undisturbed(guest)


@pytest.mark.guest(cmdline="traps")
def test_its_own_traps_are_shown_if_asked(client: Client, guest: Guest, at: Mapping[str, int]) -> None:
    """The stop is at the instruction that is about to trap into the guest, or right behind it."""
    assert "guest-traps" in client.monitor("xen guest-traps show")
    for _ in range(3):
        seen = go(client)
        assert "int3" in seen.text
        assert client.register("rip") == at["behind_int3"]
    for _ in range(13):
        seen = go(client)
        assert "step" in seen.text
        assert at["at_single_steps"] < client.register("rip") <= at["behind_single_steps"]
    client.monitor("xen guest-traps hide")
    assert go(client).status == 0
    assert run_of(guest) == undisturbed(guest)


# -- Linux


@pytest.mark.guest(LINUX)
def test_linux_with_a_hundred_breakpoints(guest: Guest) -> None:
    """In functions of its kernel, hit a few hundred times on the way up, then left alone."""
    alone = undisturbed(guest)
    symbols = symbols_of(guest)
    with DebugServer(guest, symbols) as server, Debugger(server.address) as debugger:
        names = [name for name, _ in server_symbols(server) if name in WANTED or name.startswith("xen_")]
        addresses = {address for name, address in server_symbols(server) if name in names}
        chosen = sorted(addresses)[:: max(1, len(addresses) // 120)][:140]
        assert len(chosen) >= 100
        for address in chosen:
            debugger.break_at(address)
        assert to_the_end(debugger, 1500) >= 100
    assert run_of(guest) == alone


WANTED = frozenset({"start_kernel", "rest_init", "do_initcalls", "schedule", "do_syscall_64", "asm_exc_page_fault"})


def server_symbols(server: DebugServer) -> list[tuple[str, int]]:
    """Functions of the kernel."""
    from elftools.elf.elffile import ELFFile

    assert server.target.executable is not None
    with server.target.executable.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        return [(s.name, s["st_value"]) for s in table.iter_symbols() if s["st_info"]["type"] == "STT_FUNC"]


@pytest.mark.guest(LINUX)
def test_linux_with_watchpoints_and_steps(guest: Guest) -> None:
    """jiffies watched, thousands of single steps in the middle of it all, interrupts now and then."""
    alone = undisturbed(guest)
    symbols = symbols_of(guest)
    with DebugServer(guest, symbols) as server, Debugger(server.address) as debugger:
        addresses = dict(server_symbols(server))
        debugger.step(500)
        debugger.break_at(addresses["start_kernel"])
        assert debugger.cont().kind == "swbreak"
        debugger.clear()
        debugger.step(3000)
        debugger.watch(debugger.register("rsp") & -4096, 4096)
        for _ in range(200):
            assert debugger.cont().kind == "watch"
        debugger.clear()
        debugger.monitor("xen catch upcall")
        for _ in range(20):
            debugger.cont()
            debugger.step(50)
        debugger.monitor("xen delete 1")
        for _ in range(5):
            debugger.resume()
            debugger.interrupt()
            debugger.step(200)
        assert to_the_end(debugger) == 0
    assert run_of(guest) == alone


@pytest.mark.guest(LINUX)
def test_linux_with_gdb(guest: Guest) -> None:
    alone = undisturbed(guest)
    symbols = symbols_of(guest)
    assert symbols is not None
    with DebugServer(guest, symbols) as server, Gdb(symbols=symbols) as gdb:
        gdb.connect(server.address)
        for name in ("start_kernel", "xen_start_kernel", "rest_init", "kernel_init", "do_exit"):
            gdb.execute(f"break {name}")
        hits = 0
        while gdb.cont()["reason"] == "breakpoint-hit" and hits < 20:
            hits += 1
            gdb.execute("backtrace 8")
            gdb.command("-exec-step-instruction 100")
            gdb.wait_stop()
        assert hits >= 4
        if gdb.evaluate("$_exitcode") == "void":
            gdb.execute("delete")
            gdb.cont()
    assert run_of(guest) == alone


def test_the_guests_of_these_tests_are_the_same(guest: Guest) -> None:
    """The comparison is one: two undisturbed runs are alike, another command line makes another run."""
    first = undisturbed(guest(cmdline="chain"))
    assert first == undisturbed(guest(cmdline="chain"))
    assert first != undisturbed(guest(cmdline="calls"))
    assert build().is_file()
    assert RawClient is not GdbClient
