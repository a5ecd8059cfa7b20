"""The guest cannot tell that it is debugged: its console, and all it asked of Xen, are those of an undisturbed run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import pytest
from clients import Client, RawClient, go
from elftools.elf.elffile import ELFFile
from own_guest import LATE, TWICE

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


def to_the_end(debugger: Debugger, most: int = 1 << 30) -> int:
    """Continue from each stop to the next; how many there were. After ``most`` all stop points go."""
    stops = 0
    while not debugger.cont().ended:
        stops += 1
        if stops == most:
            debugger.clear()
    return stops


# -- our own guest

FUNCTIONS = (
    "on_trap", "on_event", "event_callback", "leave", "map", "visit", "user_code", "syscall_callback",
    "debugged_code", "put_debugged", "trap_1", "trap_3", "trap_14", "trap_128", "counted", "inner", "factorial",
    "add", "outer", "middle", "say", "tell", "start", "run_sections", "spots", "ports", "loop", "chain",
    "calls", "registers", "many", "data", "late", "twice", "spaces", "user", "refused", "batch", "traps", "wait",
)  # fmt: skip


def everywhere(at: Mapping[str, int]) -> set[int]:
    """Functions of the guest, its handlers, its odd instructions (gdb jumps over an int3 under a breakpoint)."""
    kinds = tuple(name for name in at if name.startswith(("at_", "behind_", "put_", "get_", "do_")))
    addresses = {at[name] for name in (*FUNCTIONS, *kinds) if name in at and name != "at_int3"}
    addresses |= {at["sled"] + 9990 + n for n in range(10)} | {at["paged_code"], LATE, TWICE, LATE + 4}
    # the first instructions of the way in: lea, xor, mov, call
    return addresses | {at["_start"] + n for n in (0, 7, 9, 12)} | {at["at_single_steps"] + n for n in range(10)}


@pytest.mark.guest(cmdline="")
@pytest.mark.pv_needs("watches")
def test_a_hundred_breakpoints_in_everything(debugger: Debugger, guest: Guest, at: Mapping[str, int]) -> None:
    """Nearly all are hit, each some times."""
    addresses = everywhere(at)
    assert len(addresses) >= 100
    for address in addresses:
        debugger.break_at(address, hardware=address % 2 == 0)
    hits: Counter[int] = Counter()
    while not debugger.cont().ended:
        rip = debugger.register("rip")
        hits[rip] += 1
        if hits[rip] == 5:
            debugger.clear(rip)
    assert len(hits) > 95
    assert run_of(guest) == undisturbed(guest)


@pytest.mark.guest(cmdline="")
@pytest.mark.pv_needs("watches")
def test_a_hundred_breakpoints_of_gdb(gdb: Gdb, guest: Guest, at: Mapping[str, int]) -> None:
    """Each is hit once."""
    gdb.execute("set breakpoint always-inserted on")
    for address in everywhere(at):
        gdb.command(f"-break-insert -t *{address:#x}")
    hits = 0
    while gdb.cont()["reason"] == "breakpoint-hit":
        hits += 1
    assert hits > 95
    assert run_of(guest) == undisturbed(guest)


@pytest.mark.guest(cmdline="")
@pytest.mark.pv_needs("watches")
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


@pytest.mark.guest(cmdline="spots ports registers late spaces user batch traps")
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
@pytest.mark.pv_needs("watches")
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


def functions(server: DebugServer) -> dict[str, int]:
    """The kernel's, by name."""
    assert server.target.executable is not None
    with server.target.executable.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        return {s.name: s["st_value"] for s in table.iter_symbols() if s["st_info"]["type"] == "STT_FUNC"}


@pytest.mark.guest(LINUX)
@pytest.mark.pv_needs("watches")
def test_linux_with_a_hundred_breakpoints(guest: Guest) -> None:
    """In functions that set up the kernel's parts, in some for its life with Xen, and in the busiest."""
    alone = undisturbed(guest)
    with DebugServer(guest, symbols_of(guest)) as server, Debugger(server.address) as debugger:
        addresses = functions(server)
        names = [name for name in sorted(addresses) if name.endswith("_init") or name.startswith("xen_")]
        chosen = {addresses[name] for name in (*names[:: len(names) // 130], "schedule", "do_syscall_64", "do_exit")}
        assert len(chosen) >= 100
        for address in chosen:
            debugger.break_at(address)
        hits: Counter[int] = Counter()
        while not debugger.cont().ended:
            rip = debugger.register("rip")
            hits[rip] += 1
            if hits[rip] == 20:
                debugger.clear(rip)
        assert len(hits) > 50
    assert run_of(guest) == alone


@pytest.mark.guest(LINUX)
@pytest.mark.pv_needs("watches")
def test_linux_with_everything_else(guest: Guest) -> None:
    """gdb at its functions; watchpoints, steps, catches and interrupts by the thousand; then left alone."""
    alone = undisturbed(guest)
    symbols = symbols_of(guest)
    with DebugServer(guest, symbols) as server:
        addresses = functions(server)
        with Gdb(symbols=symbols) as gdb:
            gdb.connect(server.address)
            for name in ("start_kernel", "xen_start_kernel", "rest_init", "kernel_init"):
                gdb.execute(f"break {name}")
            for _ in range(4):
                assert gdb.cont()["reason"] == "breakpoint-hit"
                gdb.execute("backtrace 8")
                gdb.command("-exec-step-instruction 200")
                gdb.wait_stop()
            gdb.execute("detach")
        with Debugger(server.address) as debugger:
            debugger.step(3000)
            debugger.watch(debugger.register("rsp") & -4096, 4096)
            for _ in range(200):
                assert debugger.cont().kind == "watch"
            debugger.clear()
            debugger.break_at(addresses["do_exit"])
            assert debugger.cont().kind == "swbreak"
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


def test_the_guests_of_these_tests_are_the_same(guest: Guest) -> None:
    """The comparison is one: two undisturbed runs are alike, another command line makes another run."""
    first = undisturbed(guest(cmdline="chain"))
    assert first == undisturbed(guest(cmdline="chain"))
    assert first != undisturbed(guest(cmdline="calls"))
