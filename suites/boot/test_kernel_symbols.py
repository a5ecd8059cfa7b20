"""What Debian's kernels have for a debugger without a debug package: symbols, callers, the log."""

from __future__ import annotations

import io
import re
import struct
from pathlib import Path

import pytest
from elftools.dwarf.callframe import FDE, CallFrameInfo
from elftools.dwarf.dwarf_expr import DWARFExprParser
from elftools.dwarf.structs import DWARFStructs

from harness.guests import Guest
from harness.symbols import executable
from stub.gdb import monitor
from stub.gdb.dmesg import read_log
from stub.gdb.symbols import Symbols
from stub.image.elf import parse_elf, read_sections
from stub.units import U64

IMAGES = ("debian-amd64", "debian-cloud")
RBP, RSP, RIP = 6, 7, 16
NAMES = "rax rdx rcx rbx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip".split()  # noqa: SIM905 - DWARF's order
# Where the kernel's own unwinder would stop, too.
ROOTS = {"startup_xen", "ret_from_fork", "ret_from_fork_asm"}


def symbols_of(image: str) -> Symbols:
    path = executable(image)
    assert path is not None
    return Symbols(path)


@pytest.mark.parametrize("image", IMAGES)
def test_a_stripped_kernel_has_symbols(image: str) -> None:
    symbols = symbols_of(image)
    assert len(symbols) > 80_000
    for name in ("start_kernel", "startup_xen", "jiffies", "prb", "linux_banner", "schedule"):
        address = symbols.address(name)
        assert address is not None, name
        assert address >= 0xFFFFFFFF81000000, name
        near = symbols.nearest(address + 1)
        assert near is not None
        assert (symbols.address(near[0]), near[1]) == (address, 1)


@pytest.mark.guest("debian-cloud")
def test_they_are_where_the_kernel_runs(guest: Guest) -> None:
    """PV kernels are not moved: before the first instruction, too, the text of linux_banner is at its address."""
    symbols = symbols_of("debian-cloud")
    assert guest.now == 0
    assert symbols.nearest(guest.machine.xen.domain.image.entry) == ("startup_xen", 0)
    banner = symbols.address("linux_banner")
    assert banner is not None
    assert guest.machine.xen.domain.guest.read(banner, 14) == b"Linux version "


class Unwinder:
    """Callers by .debug_frame alone, as a debugger finds them, but written for this test."""

    def __init__(self, path: Path, guest: Guest) -> None:
        data = path.read_bytes()
        sections = {section.name: section for section in read_sections(parse_elf(memoryview(data)))}
        # What runs until the kernel has patched itself; objtool makes no entries for it (tools/objtool/check.c).
        early = sections[".altinstr_aux"]
        self.unknown = range(early.address, early.address + early.size)
        place = sections[".debug_frame"]
        self.section = data[place.offset : place.offset + place.size]
        self.read = guest.machine.xen.domain.guest.read_u64
        self.structs = DWARFStructs(little_endian=True, dwarf_format=32, address_size=8)
        self.first = next(at for at, cie, *_ in self.entries() if cie != 0xFFFFFFFF)

    def entries(self):
        at = 0
        while at < len(self.section):
            size, cie, start, length = struct.unpack_from("<IIQQ", self.section[at : at + 24].ljust(24, b"\0"))
            yield at, cie, start, length
            at += size + 4

    def rules(self, pc: int):
        """The row for an address and whether it is a signal's; None where nothing is known."""
        for at, cie, start, length in self.entries():
            if at >= self.first and start <= pc < start + length:
                (size,) = struct.unpack_from("<I", self.section, at)
                section = self.section[: self.first] + self.section[at : at + size + 4]
                *_, fde = CallFrameInfo(io.BytesIO(section), len(section), 0, self.structs).get_entries()
                assert isinstance(fde, FDE)
                return [row for row in fde.get_decoded().table if row["pc"] <= pc][-1], cie != 0
        return None

    def value(self, expression: list[int], frame: dict[int, int]) -> int:
        stack: list[int] = []
        for op in DWARFExprParser(self.structs).parse_expr(expression):
            match op.op_name:
                case "DW_OP_breg6" | "DW_OP_breg7":
                    stack.append(frame[int(op.op_name[-1])] + op.args[0])
                case "DW_OP_deref":
                    stack.append(self.read(stack.pop() & U64))
                case "DW_OP_plus_uconst":
                    stack.append(stack.pop() + op.args[0])
                case name:
                    raise AssertionError(name)
        return stack.pop() & U64

    def callers(self, frame: dict[int, int]) -> list[int]:
        """The addresses from the innermost frame on."""
        found, exact = [frame[RIP]], True
        while (known := self.rules(frame[RIP] - (not exact))) is not None:
            row, exact = known
            cfa = row["cfa"]
            at = frame[cfa.reg] + cfa.offset & U64 if cfa.expr is None else self.value(cfa.expr, frame)
            outer = {**frame, RSP: at}
            for register, where in row.items():
                if isinstance(register, int) and where.type == "OFFSET":
                    outer[register] = self.read(at + where.arg & U64)
                elif isinstance(register, int) and where.type == "EXPRESSION":
                    outer[register] = self.read(self.value(where.arg, frame))
            if RIP in row and row[RIP].type == "UNDEFINED":
                break
            frame = outer
            found.append(frame[RIP])
        return found


@pytest.mark.parametrize("image", ["debian-cloud", "debian-amd64"])
def test_callers_all_the_way_from_anywhere(guest: Guest, image: str) -> None:
    """Wherever the kernel is stopped, every caller is known, to where the kernel or one of its threads begins."""
    booted = guest(image, memory=128)
    symbols = symbols_of(image)
    assert symbols.path is not None
    unwinder = Unwinder(symbols.path, booted)
    ends: set[str] = set()
    for milliseconds in (1, 5, 1300, 1410, 1480, 1503, 1555, 1600, 1666, 1700):
        booted.run(milliseconds / 1000 - booted.now)
        while booted.machine.registers()["rip"] in unwinder.unknown:
            booted.run(1e-6)
        registers = booted.machine.registers()
        found = unwinder.callers({number: registers[name] for number, name in enumerate(NAMES)})
        chain = [symbols.nearest(address - (place > 0)) for place, address in enumerate(found)]
        assert None not in chain, chain
        last = chain[-1]
        assert last is not None
        assert len(chain) > 1, chain
        assert last[0] in ROOTS, chain
        ends.add(last[0])
    assert len(ends) > 1


@pytest.mark.guest("debian-cloud", extra="loglevel=7")
def test_the_log_is_what_the_console_shows(guest: Guest) -> None:
    guest.wait("poweroff")
    symbols = symbols_of("debian-cloud")
    log = read_log(symbols.address, guest.machine.xen.domain.guest.read_available)
    assert re.fullmatch(r"\[    0\.000000\] Linux version 6\..*", log[0])
    shown = re.findall(r"^\[ *\d+\.\d{6}\] .*$", guest.console.text, re.MULTILINE)
    assert len(shown) > 100
    missing = [line for line in shown if line.rstrip("\r") not in log]
    assert not missing


@pytest.mark.guest("debian-cloud", extra="pvstub=exec", files={"/pvstub/main": "#!/bin/sh\nwhile :; do :; done\n"})
def test_the_log_while_user_code_runs(guest: Guest) -> None:
    """Its page tables have nothing of the kernel; the vCPU has the kernel's. Before the first instruction, too."""
    symbols = symbols_of("debian-cloud")
    context = monitor.Context(guest.machine, monitor.Names(symbols.address, symbols.nearest))
    assert monitor.run(context, "xen dmesg") == "no lines\n"
    guest.console.expect_line("^pvstub: init reached$")
    guest.run(0.2)
    while guest.machine.xen.vcpu.kernel_mode:
        guest.run(0.0001)
    log = monitor.run(context, "xen dmesg").splitlines()
    assert "Linux version 6." in log[0]
    assert monitor.run(context, "xen dmesg 2").splitlines() == log[-2:]
    assert "neither prb nor log_buf" in monitor.run(monitor.Context(guest.machine), "xen dmesg")
