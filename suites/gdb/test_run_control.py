"""Start, stop and step: both debuggers, from the first instruction to the last."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest
from clients import Client, go, go_to

from harness.debugger import Debugger
from harness.debugging import DebugServer
from harness.gdb import Gdb
from harness.guests import Guest
from stub.domain.layout import plan
from stub.image import load_image

QUICK_S = 0.1  # from the request to the stop


@pytest.mark.guest(cmdline="chain")
def test_the_first_instruction(client: Client, guest: Guest, at: Mapping[str, int]) -> None:
    """Registers are those of the start of day (PV-ABI 3.6), and nothing has run."""
    layout = plan(load_image(guest.launch.kernel), guest.memory * 256, 0)
    assert client.register("rip") == at["_start"]
    assert client.register("rsp") == layout.stack.vaddr + 4096
    assert client.register("rsi") == layout.start_info.vaddr
    assert all(client.register(name) == 0 for name in ("rax", "rbx", "rcx", "rdx", "rdi", "rbp", "r8", "r15"))
    assert client.register("cs") == 0xE033
    assert client.register("ss") == 0xE02B
    assert client.register("eflags") & 0x3FFFF == 0x202
    assert client.register("fctrl") == 0x37F
    assert client.register("mxcsr") == 0x1F80
    assert client.register("retired") <= 1  # the engine counts its way in
    assert client.register("event_mask") == 1
    assert client.register("mode") == 0
    client.step()
    assert client.register("rsp") == at["stack_top"]
    assert go(client).status == 0


@pytest.mark.guest("debian-cloud")
def test_attaching_to_a_guest_that_runs(guest: Guest, debug_server: DebugServer) -> None:
    """It stands still while somebody is there, and goes on where it was."""
    with Debugger(debug_server.address) as debugger:
        debugger.detach()
    guest.console.expect_line("Linux version")
    for _ in range(3):
        with Debugger(debug_server.address) as debugger:
            assert debugger.last_stop.signal == 5 or debugger.last_stop.signal == 2
            retired = debugger.register("retired")
            assert retired > 0
            assert debugger.step().signal == 5
            assert debugger.register("retired") > retired
            debugger.detach()
        guest.run(0.05)
    with Gdb() as gdb:
        gdb.connect(debug_server.address)
        assert int(gdb.evaluate("$retired")) > retired
        gdb.execute("detach")
    guest.console.expect_line("Memory: ")


@pytest.mark.guest("debian-cloud", extra="pvstub=shell")
def test_control_c_at_any_moment(debugger: Debugger) -> None:
    """While it boots, and when it waits for ever: the stop comes at once."""
    times = []
    for pause in (0.0, 0.05, 0.2, 0.5, 0.0, 0.7, 1.0, 0.01):
        debugger.resume()
        time.sleep(pause)
        asked = time.monotonic()
        assert debugger.interrupt().signal == 2
        times.append(time.monotonic() - asked)
    assert sorted(times)[len(times) // 2] < QUICK_S, times


@pytest.mark.guest(cmdline="spin")
def test_control_c_in_a_guest_that_spins_with_events_masked(client: Client, at: Mapping[str, int]) -> None:
    times = []
    for _ in range(5):
        client.resume()
        time.sleep(0.1)
        asked = time.monotonic()
        assert client.interrupt().kind == "interrupt"
        times.append(time.monotonic() - asked)
        assert at["spin"] <= client.register("rip") < at["spin"] + 64
        assert client.register("event_mask") == 1
    assert min(times) < QUICK_S, times
    spun = int.from_bytes(client.read(at["spun"], 8), "little")
    client.resume()
    time.sleep(0.05)
    client.interrupt()
    assert int.from_bytes(client.read(at["spun"], 8), "little") > spun


@pytest.mark.guest(cmdline="spin")
def test_an_interrupt_that_comes_with_the_request_to_continue(debugger: Debugger) -> None:
    for _ in range(20):
        debugger.resume()
        assert debugger.interrupt(timeout=10).signal == 2


# Each spot: from its label one step leads to another, with these registers then.
STEPS: Mapping[str, tuple[str, Mapping[str, int]]] = {
    "syscall": ("behind_syscall", {"rax": 4 << 16 | 17}),
    "int80": ("trap_128", {"rax": 21}),
    "iret": ("behind_iret", {"rax": 1234, "rcx": 0x11, "r11": 0x22}),
    "load": ("trap_14", {}),
    "skipped_load": ("trap_14", {"cr2": 0x20000000}),
    "cpuid": ("behind_cpuid", {"rax": 0x40000005, "rbx": 0x566E6558, "rcx": 0x65584D4D, "rdx": 0x4D4D566E}),
    "rdtsc": ("behind_rdtsc", {}),
    "movs": ("at_movs", {"rcx": 63}),
    "stos": ("at_stos", {"rcx": 23}),
    "pushf": ("behind_pushf", {}),
    "popf": ("behind_popf", {}),
    "out": ("behind_out", {}),
    "in": ("behind_in", {"rax": 0xFF}),
    "leave_iret": ("behind_int80", {"rax": 42}),
    "user_iret": ("user_code", {"mode": 1, "rdi": 40}),
    "user_syscall": ("syscall_callback", {"mode": 0, "rdi": 42}),
    "int3": ("trap_3", {}),
}


@pytest.mark.guest(cmdline="spots ports user traps")
def test_a_step_over_each_kind_of_exit(client: Client, guest: Guest, at: Mapping[str, int]) -> None:
    """RIP, registers and memory are right, and nothing of the step is left in the guest."""
    for name in ("syscall", "int80", "leave_iret", "iret", "load", "skipped_load", "cpuid", "rdtsc", "movs", "stos",
                 "pushf", "popf", "out", "in", "user_iret", "user_syscall", "int3"):  # fmt: skip
        go_to(client, at[f"at_{name}"])
        retired, time_before = client.register("retired"), client.register("virtual_time")
        seen = client.step()
        assert seen.kind == "step", name
        place, registers = STEPS[name]
        assert client.register("rip") == at[place], name
        assert {register: client.register(register) for register in registers} == registers, name
        assert client.register("retired") - retired <= 1, name
        assert client.register("virtual_time") >= time_before
        assert not client.register("eflags") & 0x100
        if name == "int80":
            frame = client.read(client.register("rsp"), 56)
            assert int.from_bytes(frame[16:24], "little") == at["behind_int80"]
        if name == "rdtsc":
            assert client.register("rdx") << 32 | client.register("rax")
        if name == "movs":
            assert client.read(at["target"], 8) == bytes([1] + [0] * 7)
        if name == "stos":
            assert client.read(at["target"], 4) == bytes([0x5A, 0, 0, 0])
        if name == "pushf":
            assert not client.read(client.register("rsp") + 1, 1)[0] & 1
    assert go(client).status == 0


@pytest.mark.guest(cmdline="spots")
def test_a_range_is_stepped_through_in_one_request(debugger: Debugger, at: Mapping[str, int]) -> None:
    """As gdb does for ``next``; a string instruction's turns are in its range."""
    debugger.break_at(at["at_movs"])
    debugger.cont()
    stop = debugger.step_range(at["at_movs"], at["behind_movs"])
    assert (stop.signal, stop.kind) == (5, "")
    assert debugger.register("rip") == at["behind_movs"]
    assert debugger.read_memory(at["target"], 64)[56] == 8


@pytest.mark.guest(cmdline="loop")
def test_steps_do_not_land_in_an_event_upcall(debugger: Debugger, at: Mapping[str, int]) -> None:
    """Timer events come every 5 µs of the guest's time; each is served between two steps."""
    debugger.break_at(at["counted"])
    debugger.cont()
    debugger.clear()
    ticks = debugger.read_memory(at["ticks"], 8)
    handlers = range(at["trap_1"], at["leave"])
    while debugger.read_memory(at["ticks"], 8) == ticks:
        for _ in range(250):
            debugger.step()
            assert debugger.last_stop.registers[debugger.layout["rip"].number] not in handlers


@pytest.mark.guest(cmdline="chain")
def test_finish_until_and_tbreak(gdb: Gdb, at: Mapping[str, int]) -> None:
    gdb.execute("tbreak inner")
    assert gdb.cont()["frame"]["func"] == "inner"
    backtrace = gdb.execute("backtrace")
    assert [name for name in ("inner", "middle", "outer", "chain", "run_sections", "start") if name in backtrace] == [
        "inner", "middle", "outer", "chain", "run_sections", "start"
    ]  # fmt: skip
    assert "scale=scale@entry=10" in backtrace
    gdb.command("-exec-finish")
    stop = gdb.wait_stop()
    assert stop["reason"] == "function-finished"
    assert stop["return-value"] == "210"
    assert stop["frame"]["func"] == "middle"
    gdb.execute("up")
    assert "outer" in gdb.execute("frame")
    gdb.command("-exec-until chain")  # to the caller, or the function's next call
    assert gdb.wait_stop()["frame"]["func"] in ("outer", "chain")
    gdb.execute("tbreak factorial if n == 3")
    stop = gdb.cont()
    assert (stop["frame"]["func"], stop["frame"]["args"][0]["value"]) == ("factorial", "3")
    assert gdb.execute("backtrace").count("in factorial") == 3
    assert gdb.execute("info breakpoints").startswith("No breakpoints")
    gdb.command("-exec-finish")
    assert gdb.wait_stop()["return-value"] == "6"
    assert gdb.cont()["reason"] == "exited-normally"


@pytest.mark.guest(cmdline="loop")
def test_thousands_of_steps_from_gdb(gdb: Gdb, at: Mapping[str, int]) -> None:
    gdb.execute("break counted if n == 5")
    gdb.cont()
    gdb.execute("delete")
    before = int(gdb.evaluate("$retired"))
    gdb.command("-exec-step-instruction 2000")
    assert gdb.wait_stop()["reason"] == "end-stepping-range"
    assert int(gdb.evaluate("$retired")) - before >= 2000
    assert gdb.cont()["reason"] == "exited-normally"


@pytest.mark.guest(cmdline="chain")
def test_both_clients_say_how_it_ended(client: Client) -> None:
    seen = go(client)
    assert (seen.kind, seen.status) == ("ended", 0)
