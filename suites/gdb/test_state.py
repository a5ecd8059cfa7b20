"""Registers and memory: read, written, and what the guest makes of it."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import pytest
from clients import Client, GdbClient, RawClient, go, go_to

from harness.debugger import Debugger
from harness.debugging import DebugServer
from harness.gdb import Gdb, GdbError


def output(server: DebugServer) -> str:
    """The guest's console so far."""
    return bytes(server.machine.console.output).decode()


@pytest.mark.guest(cmdline="registers")
def test_x87_and_sse_registers(debug_server: DebugServer, client: Client, at: Mapping[str, int]) -> None:
    """As the guest left them; and the guest has what is written."""
    go_to(client, at["at_registers"])
    if isinstance(client, GdbClient):
        assert client.gdb.evaluate("$xmm3.v2_double[0]") == "2.5"
        assert client.gdb.evaluate("$st0").startswith("3.14159265358979")
        client.gdb.execute("set $xmm3.v2_double[0] = 6.5")
        client.gdb.execute("set $st0 = 1.5")
        client.gdb.execute("set $rbx = 77")
    else:
        assert client.register("xmm3") & (1 << 64) - 1 == double(2.5)
        assert client.register("st0") == 0x4000_C90FDAA22168C235
        client.set_register("xmm3", double(6.5))
        client.set_register("st0", 0x3FFF_C000000000000000)
        client.set_register("rbx", 77)
    assert go(client).status == 0
    assert f"rbx 77\r\nxmm3 {double(6.5)}\r\nst0 {0xC000000000000000}\r\n" in output(debug_server)


def double(value: float) -> int:
    """Its bits."""
    return int.from_bytes(struct.pack("<d", value), "little")


@pytest.mark.guest(cmdline="registers")
def test_registers_of_all_kinds_by_both_packets(debugger: Debugger, at: Mapping[str, int]) -> None:
    """g and p agree; what is written by P is read by both; segments and control registers cannot be had."""
    debugger.break_at(at["at_registers"])
    debugger.cont()
    everything = debugger.read_registers()
    assert set(everything) == set(debugger.layout)
    assert {name: debugger.register(name) for name in everything} == everything
    for n, name in enumerate(("r8", "r15", "xmm0", "xmm15", "st3", "mxcsr", "fs_base", "gs_base", "k_gs_base")):
        value = 0x1F80 if name == "mxcsr" else 0x123450 + n
        debugger.write_register(name, value)
        assert debugger.register(name) == value
        assert debugger.read_registers()[name] == value
    debugger.write_register("cs", everything["cs"])
    for name in ("cs", "cr3", "mode"):
        with pytest.raises(Exception, match="cannot be changed"):
            debugger.write_register(name, everything[name] + 8)


@pytest.mark.guest(cmdline="calls")
def test_memory_is_written(debug_server: DebugServer, client: Client, at: Mapping[str, int]) -> None:
    """Code too: the guest runs what was written, also where it had run the code before."""
    assert client.read(at["total"], 8) == bytes(8)
    go_to(client, at["add"])
    assert client.register("rdi") == 2
    code = client.read(at["add"], 4)
    client.break_at(at["add"])
    client.set_register("rdi", 40)
    assert go(client).kind == "break"
    client.clear()
    client.write(at["add"], b"\xb8\x2a\x00\x00\x00\xc3")  # mov $42, %eax; ret
    assert client.read(at["add"], 4) != code
    assert go(client).status == 0
    assert "add 43\r\nadd 42\r\n" in output(debug_server)


@pytest.mark.guest(cmdline="loop")
def test_code_is_written_in_the_middle_of_a_loop(
    debug_server: DebugServer, client: Client, at: Mapping[str, int]
) -> None:
    """Translated code and all: `counted` adds no more from the call on at which it was changed."""
    if isinstance(client, GdbClient):
        client.gdb.execute("tbreak counted if n == 100")
        client.gdb.cont()
        client.gdb.execute("set var total = 5")
        client.gdb.execute("set var *(unsigned char *) counted = 0xc3")
    else:
        assert isinstance(client, RawClient)
        client.monitor("xen stop retired 20000")
        client.debugger.cont()
        go_to(client, at["counted"])
        client.write(at["total"], (5).to_bytes(8, "little"))
        client.write(at["counted"], b"\xc3")
    assert go(client).status == 0
    assert "total 5\r\n" in output(debug_server)


@pytest.mark.guest(cmdline="chain")
def test_memory_that_is_not_there_or_not_to_be_written(client: Client, at: Mapping[str, int]) -> None:
    """Across an end of memory, what is there is read; tables can only be read."""
    root = client.register("cr3")
    for address in (0, 0x1000, 0xFFFFFFFFFFFFFFF8, 0x8000_0000_0000_0000):
        with pytest.raises(Exception, match=r"no memory|Unable to read|Cannot access"):
            client.read(address, 8)
    with pytest.raises(Exception, match=r"nothing is mapped|[Cc]ould not write|Cannot access"):
        client.write(0x1000, b"x")
    assert root
    table = int.from_bytes(client.read(client.register("rsi") + 88, 8), "little")  # pt_base
    before = client.read(table, 4096)
    with pytest.raises(Exception, match=r"holds tables|[Cc]ould not write|Cannot access"):
        client.write(table, bytes(8))
    assert client.read(table, 4096) == before
    client.write(at["wide"], bytes(range(256)) * 16)
    assert client.read(at["wide"], 4096) == bytes(range(256)) * 16


@pytest.mark.guest(cmdline="chain")
def test_machine_memory(debugger: Debugger, at: Mapping[str, int]) -> None:
    """The same bytes at their machine address."""
    debugger.write_memory(at["wide"], b"here it is")
    answer = debugger.monitor(f"xen vtop {at['wide']:#x}")
    mfn = int(answer.lower().rpartition("mfn 0x")[2].split()[0].strip(",;:"), 16)
    with debugger.machine_memory():
        assert debugger.read_memory(mfn * 4096, 10) == b"here it is"
        debugger.write_memory(mfn * 4096, b"HERE")
    assert debugger.read_memory(at["wide"], 10) == b"HERE it is"


@pytest.mark.guest(cmdline="calls data")
def test_gdb_calls_functions_of_the_guest(debug_server: DebugServer, gdb: Gdb) -> None:
    """At a place in the middle of things; and everything goes on as if nothing had been."""
    gdb.execute("break add")
    gdb.cont()
    before = gdb.execute("info registers rip rsp rdi rsi eflags rbx")
    gdb.execute("delete")
    assert gdb.execute("print add(2, 3)").strip().endswith("= 5")
    assert gdb.execute("print factorial(5)").strip().endswith("= 120")
    gdb.execute("call put_word(0x4321)")
    assert gdb.evaluate("word") == str(0x4321)
    assert gdb.execute("info registers rip rsp rdi rsi eflags rbx") == before
    assert gdb.cont()["reason"] == "exited-normally"
    assert "add 5\r\nadd 50\r\n" in output(debug_server)


@pytest.mark.guest(cmdline="calls")
def test_a_call_that_meets_a_breakpoint(gdb: Gdb) -> None:
    gdb.execute("tbreak add")
    gdb.cont()
    gdb.execute("break factorial if n == 2")
    with pytest.raises(GdbError, match="stopped while in a function called from GDB"):
        gdb.execute("print factorial(4)")
    assert "<function called from gdb>" in gdb.execute("backtrace")
    gdb.execute("delete")
    gdb.cont()  # the call ends, and gdb takes its frame away
    assert "add (a=" in gdb.execute("frame")
    assert gdb.cont()["reason"] == "exited-normally"


@pytest.mark.guest(cmdline="calls")
def test_a_return_forced_by_gdb(debug_server: DebugServer, gdb: Gdb) -> None:
    gdb.execute("tbreak add")
    gdb.cont()
    gdb.execute("return (int) 1000")
    assert gdb.cont()["reason"] == "exited-normally"
    assert "add 1000\r\nadd 50\r\n" in output(debug_server)


@pytest.mark.guest(cmdline="spots")
def test_the_guest_jumps_where_it_is_told(debug_server: DebugServer, client: Client, at: Mapping[str, int]) -> None:
    go_to(client, at["at_int80"])
    client.set_register("rip", at["behind_int80"])
    client.set_register("rax", 4321)
    assert go(client).status == 0
    assert "int80 4321\r\n" in output(debug_server)


@pytest.mark.guest(cmdline="user")
def test_registers_of_user_mode(client: Client, at: Mapping[str, int]) -> None:
    """Written there, seen by the kernel in the system call."""
    go_to(client, at["at_user_syscall"])
    assert client.register("mode") == 1
    client.set_register("rdi", 99)
    client.step()
    assert client.register("rip") == at["syscall_callback"]
    assert client.register("rdi") == 99
