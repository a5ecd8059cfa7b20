"""Breakpoints of both kinds: many, conditional, in user code, where nothing is mapped yet, where two addresses meet."""

from __future__ import annotations

import struct
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from clients import Client, go, go_to
from own_guest import LATE, TWICE

from harness.debugger import Debugger
from harness.debugging import DebugServer
from harness.gdb import Gdb
from harness.guests import Guest
from suites.unit.elf_builder import VIRT_BASE, Load, Sect, elf

MANY = 10_000
PATIENCE_S = 60.0  # for all of them, on a slow machine
USER_CODE = """
static volatile int rounds;
int __attribute__((noipa)) user_round(int n) { return rounds += n; }
void _start(void) {
    rounds = 0; /* the page is there from now on, so that no fault comes between two hits */
    for (int i = 1; i <= 3; i++) user_round(i);
    __asm__ volatile("syscall" : : "a"(60), "D"(rounds));
}
"""


@pytest.mark.guest(cmdline="many")
def test_ten_thousand_breakpoints(debugger: Debugger, at: Mapping[str, int]) -> None:
    """Each instruction of a long row has one; those that are reached are hit, each once and in order."""
    begun = time.monotonic()
    sled = at["sled"]
    for address in range(sled, sled + MANY):
        debugger.break_at(address)
    for address in range(sled + MANY - 10, sled + MANY):
        assert debugger.cont().kind == "swbreak"
        assert debugger.register("rip") == address
    assert debugger.cont().exited == 0
    assert time.monotonic() - begun < PATIENCE_S


def named_alike(path: Path, address: int) -> None:
    """A file of symbols that has MANY functions of one name: one command of gdb sets a breakpoint in each."""
    rows = [bytes(24), *(struct.pack("<IBBHQQ", 1, 2, 0, 1, address + n, 1) for n in range(MANY))]
    code = b"\x90" * MANY
    sections = [
        Sect(".text", 1, code, flags=6, address=address),
        Sect(".symtab", 2, b"".join(rows), link=3, entsize=24),
        Sect(".strtab", 3, b"\0here\0"),
    ]
    path.write_bytes(elf([Load(address - VIRT_BASE, code, vaddr=address, flags=5)], sections=sections))


@pytest.mark.guest(cmdline="many")
@pytest.mark.pv_needs("watches")
def test_ten_thousand_breakpoints_of_gdb(gdb: Gdb, at: Mapping[str, int], tmp_path: Path) -> None:
    """gdb's own lists of breakpoints take most of the time."""
    begun = time.monotonic()
    named_alike(tmp_path / "names", at["sled"])
    gdb.execute("set breakpoint always-inserted on")
    gdb.execute(f"symbol-file {tmp_path / 'names'}")
    assert f"({MANY} locations)" in gdb.execute("break here")
    for n in (MANY - 10, MANY - 9):
        stop = gdb.cont()
        assert stop["reason"] == "breakpoint-hit"
        assert int(stop["frame"]["addr"], 16) == at["sled"] + n
    gdb.execute("delete")
    assert gdb.cont()["reason"] == "exited-normally"
    assert time.monotonic() - begun < PATIENCE_S


@pytest.mark.parametrize("hardware", [False, True], ids=["software", "hardware"])
@pytest.mark.guest(cmdline="chain data")
def test_both_kinds(client: Client, at: Mapping[str, int], hardware: bool) -> None:
    """The code in memory stays as it is."""
    code = client.read(at["inner"], 16)
    client.break_at(at["inner"], hardware=hardware)
    client.break_at(at["put_word"], hardware=hardware)
    for name in ("inner", "put_word"):
        assert go(client).kind == "break"
        assert client.register("rip") == at[name]
        assert client.read(at["inner"], 16) == code
    assert go(client).status == 0


@pytest.mark.guest(cmdline="chain")
def test_the_stop_reply_names_the_kind(debugger: Debugger, at: Mapping[str, int]) -> None:
    debugger.break_at(at["inner"])
    debugger.break_at(at["factorial"], hardware=True)
    assert debugger.cont().kind == "swbreak"
    assert debugger.cont().kind == "hwbreak"
    debugger.clear(at["factorial"])
    assert debugger.cont().exited == 0


def condition(register: int, value: int) -> bytes:
    """Agent bytecode: ``register == value`` (GDB manual, F.2)."""
    return b"\x26" + struct.pack(">H", register) + b"\x25" + struct.pack(">Q", value) + b"\x13\x27"


@pytest.mark.guest(cmdline="loop")
def test_a_condition_is_evaluated_in_the_stub(debugger: Debugger, at: Mapping[str, int]) -> None:
    """Of ten thousand calls the one is shown that is asked for, at the speed of the stub and not of a round trip."""
    rdi = debugger.layout["rdi"].number
    debugger.break_at(at["counted"], condition=condition(rdi, 7777))
    begun = time.monotonic()
    assert debugger.cont().kind == "swbreak"
    assert debugger.register("rdi") == 7777
    assert debugger.cont().exited == 0
    assert time.monotonic() - begun < 5


@pytest.mark.guest(cmdline="loop")
def test_any_of_several_conditions(debugger: Debugger, at: Mapping[str, int]) -> None:
    rdi = debugger.layout["rdi"].number
    debugger.break_at(at["counted"], condition=[condition(rdi, 30), condition(rdi, 9000)], hardware=True)
    for n in (30, 9000):
        assert debugger.cont().kind == "hwbreak"
        assert debugger.register("rdi") == n
    debugger.break_at(at["counted"], hardware=True)  # the same again, without a condition
    assert debugger.cont().kind == "hwbreak"
    assert debugger.register("rdi") == 9001


@pytest.mark.parametrize("where", ["target", "host"])
@pytest.mark.guest(cmdline="loop")
def test_conditions_of_gdb(gdb: Gdb, where: str) -> None:
    """Evaluated by gdb itself, each hit is a round trip: a small number will do."""
    gdb.execute(f"set breakpoint condition-evaluation {where}")
    gdb.execute(f"break counted if n == {7777 if where == 'target' else 300} && total > 100")
    stop = gdb.cont()
    assert stop["reason"] == "breakpoint-hit"
    assert stop["frame"]["args"][0]["value"] == ("7777" if where == "target" else "300")
    assert gdb.evaluate("total") == str(3 * sum(range(int(gdb.evaluate("n")))))


@pytest.mark.guest(cmdline="late")
def test_an_address_that_is_not_mapped_yet(client: Client, at: Mapping[str, int]) -> None:
    with pytest.raises(Exception, match=r"no memory|Unable to read|Cannot access"):
        client.read(LATE, 1)
    client.break_at(LATE + 4)
    assert go(client).kind == "break"
    assert client.register("rip") == LATE + 4
    assert client.register("rax") == 39
    assert client.read(LATE, 8) == client.read(at["paged_code"], 8)
    assert go(client).status == 0


@pytest.mark.guest(cmdline="twice")
def test_a_page_at_two_addresses(client: Client, at: Mapping[str, int]) -> None:
    """A breakpoint is at an address, whatever other address has the same memory."""
    client.break_at(TWICE)
    for _ in range(3):
        assert go(client).kind == "break"
        assert client.register("rip") == TWICE
        assert client.register("rdi") == 2
    client.clear()
    assert go(client).status == 0


@pytest.mark.guest(cmdline="twice")
def test_both_addresses_of_a_page(client: Client, at: Mapping[str, int]) -> None:
    client.break_at(TWICE)
    client.break_at(at["paged_code"])
    for _ in range(3):
        for address in (at["paged_code"], TWICE):
            assert go(client).kind == "break"
            assert client.register("rip") == address
    assert go(client).status == 0


@pytest.mark.guest(cmdline="user")
def test_user_mode_of_our_own_guest(client: Client, at: Mapping[str, int]) -> None:
    go_to(client, at["user_code"])
    assert client.register("mode") == 1
    assert client.register("rdi") == 40
    client.step()
    assert client.register("rdi") == 41
    go_to(client, at["syscall_callback"])
    assert client.register("mode") == 0
    assert go(client).status == 0


@pytest.fixture(scope="session")
def user_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A static program with symbols for a Linux guest's user mode, where no other program of it has its code."""
    folder = tmp_path_factory.mktemp("user")
    source, program = folder / "user.c", folder / "user"
    source.write_text(USER_CODE)
    subprocess.run(
        ["gcc", "-O1", "-g", "-static", "-nostdlib", "-ffreestanding", "-fno-pic", "-no-pie", "-fno-stack-protector",
         "-Wl,--build-id=none,-Ttext-segment=0x31000000", "-o", program, source], check=True, capture_output=True,
    )  # fmt: skip
    return program


def test_user_code_of_linux(guest: Guest, user_program: Path) -> None:
    """Set from the first instruction on, before there is a user mode at all; hit in the program only."""
    booting = guest("debian-cloud", extra="pvstub=exec", files={"/pvstub/main": user_program})
    with DebugServer(booting) as server, Gdb(symbols=user_program) as gdb:
        gdb.connect(server.address)
        gdb.execute("break user_round")
        for n in (1, 2, 3):
            stop = gdb.cont()
            assert stop["frame"]["func"] == "user_round"
            assert stop["frame"]["args"][0]["value"] == str(n)
            assert gdb.evaluate("$mode") in ("user", "1")
        assert "_start" in gdb.execute("backtrace")
        gdb.execute("detach")
    booting.console.expect_line("^pvstub: exit status 6$")


@pytest.mark.guest(cmdline="chain")
def test_gdbs_own_breakpoint_at_the_current_instruction(client: Client, at: Mapping[str, int]) -> None:
    """Continuing from a breakpoint does not hit it again before it was passed."""
    client.break_at(at["_start"])
    client.break_at(at["factorial"])
    for _ in range(6):
        assert go(client).kind == "break"
        assert client.register("rip") == at["factorial"]
    assert go(client).status == 0
