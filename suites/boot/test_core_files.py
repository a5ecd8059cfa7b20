"""Core files: Xen's format, read back against the guest's memory, and by readelf and gdb."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from small_guest import CODE, SPIN, kernel, shutdown

from harness import catalogue, small_guests
from harness.gdb import Gdb
from harness.symbols import executable
from stub.abi.arch_x86 import CpuUserRegs32, CpuUserRegs64, VcpuGuestContext32, VcpuGuestContext64, VGCF_in_kernel
from stub.domain.config import DomainConfig
from stub.errors import UsageError
from stub.machine import Machine
from stub.memory.frames import GUEST
from stub.trace.core import XC_CORE_MAGIC
from suites.unit.elf_builder import PSTART, Load, elf, xen_notes

pytestmark = pytest.mark.usefixtures("pv_engine")

PAGE = 4096


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A guest that goes round in a circle."""
    with Machine(DomainConfig(kernel=kernel(tmp_path, SPIN), memory=32)) as made:
        made.run(deadline_ns=1000)
        yield made


@pytest.fixture
def core(machine: Machine, tmp_path: Path) -> ELFFile:
    """Its core file."""
    machine.dump_core(tmp_path / "core")
    return ELFFile(BytesIO((tmp_path / "core").read_bytes()))


def content(core: ELFFile, name: str) -> bytes:
    data: bytes = core.get_section_by_name(name).data()
    return data


def test_header(core: ELFFile) -> None:
    """docs/misc/dump-core-format.txt, "Elf header" and "Sections"."""
    assert (core["e_type"], core["e_machine"], core.elfclass) == ("ET_CORE", "EM_X86_64", 64)
    names = [section.name for section in core.iter_sections()]
    assert {".note.Xen", ".xen_prstatus", ".xen_shared_info", ".xen_p2m", ".xen_pages"} <= set(names)


def test_notes(core: ELFFile) -> None:
    """The four that must be there: none, header, Xen's version and the format's."""
    data, notes, at = content(core, ".note.Xen"), {}, 0
    while at < len(data):
        name_size, size, kind = struct.unpack_from("<III", data, at)
        assert data[at + 12 : at + 16] == b"Xen\0"
        assert name_size == 4
        notes[kind] = data[at + 16 : at + 16 + size]
        at += 16 + -(-size // 4) * 4
    assert sorted(notes) == [0x2000000, 0x2000001, 0x2000002, 0x2000003]
    assert struct.unpack("<4Q", notes[0x2000001]) == (XC_CORE_MAGIC, 1, 32 << 8, PAGE)
    version = notes[0x2000002]
    assert len(version) == 16 + 16 + 144 + 1024 + 64 + 8 + 8
    assert struct.unpack_from("<QQ", version) == (4, 17)
    assert b"xen-3.0-x86_64 " in version
    assert struct.unpack_from("<QQ", version, len(version) - 16) == (0xFFFF800000000000, PAGE)
    assert notes[0x2000003] == struct.pack("<Q", 1)


def test_every_page_is_what_the_guest_has(machine: Machine, core: ELFFile) -> None:
    """.xen_p2m names the PFN and the MFN of each page of .xen_pages."""
    p2m = list(struct.iter_unpack("<QQ", content(core, ".xen_p2m")))
    pages = content(core, ".xen_pages")
    assert [pfn for pfn, _ in p2m] == list(range(32 << 8))
    domain = machine.xen.domain
    for number, (pfn, mfn) in enumerate(p2m):
        assert domain.m2p(mfn) == pfn
        assert domain.frames.owner[mfn] == GUEST
        assert pages[number * PAGE : (number + 1) * PAGE] == domain.ram.bytes[mfn * PAGE : (mfn + 1) * PAGE]
    shared = domain.area.shared_info * PAGE
    assert content(core, ".xen_shared_info") == domain.ram.bytes[shared : shared + PAGE]


def test_vcpu_context(machine: Machine, core: ELFFile) -> None:
    """XEN_DOMCTL_getvcpucontext."""
    context = VcpuGuestContext64.unpack_from(content(core, ".xen_prstatus"))
    registers = CpuUserRegs64.unpack_from(context.user_regs)
    now = machine.registers()
    for name in ("rip", "rsp", "rsi", "cs", "ss", "rflags"):
        assert getattr(registers, name) == now[name]
    assert registers.rip == CODE
    assert registers.saved_upcall_mask == 1
    assert context.flags & VGCF_in_kernel
    assert context.ctrlreg[3] == now["cr3"]


def test_32_bit_guest(tmp_path: Path) -> None:
    """The file stays one of 64 bits; the context is a 32-bit guest's, in the room of the larger (xc_core.c)."""
    base = 0xC0000000
    notes = xen_notes(VIRT_BASE=base, ENTRY=base + PSTART, PAE_MODE="yes")
    path = tmp_path / "small32"
    path.write_bytes(elf([Load(PSTART, SPIN.ljust(64, b"\xcc"), vaddr=base + PSTART)], notes, bits=32))
    with Machine(DomainConfig(kernel=path, memory=32)) as made:
        made.run(deadline_ns=1000)
        made.dump_core(tmp_path / "core")
        now = made.registers()
    core = ELFFile(BytesIO((tmp_path / "core").read_bytes()))
    assert (core.elfclass, core["e_machine"]) == (64, "EM_X86_64")
    status = content(core, ".xen_prstatus")
    assert len(status) == core.get_section_by_name(".xen_prstatus")["sh_entsize"] == VcpuGuestContext64.size
    assert not any(status[VcpuGuestContext32.size :])
    context = VcpuGuestContext32.unpack_from(status)
    registers = CpuUserRegs32.unpack_from(context.user_regs)
    assert (registers.eip, registers.esp, registers.cs) == (base + PSTART, now["rsp"], now["cs"])
    assert context.flags & VGCF_in_kernel
    loads = [segment for segment in core.iter_segments() if segment["p_type"] == "PT_LOAD"]
    code = next(s for s in loads if s["p_vaddr"] <= registers.eip < s["p_vaddr"] + s["p_memsz"])
    assert code.data()[registers.eip - code["p_vaddr"] :].startswith(SPIN)
    parameters = content(core, ".note.Xen").index(struct.pack("<IQI", 0, PAGE, 0))  # not two of 64 bits
    assert parameters > content(core, ".note.Xen").index(b"xen-3.0-x86_32p")


def test_segments_show_virtual_memory(machine: Machine, core: ELFFile) -> None:
    """What gdb reads: each PT_LOAD is what the guest finds at its addresses."""
    loads = [segment for segment in core.iter_segments() if segment["p_type"] == "PT_LOAD"]
    assert loads
    guest = machine.xen.domain.guest
    for segment in loads:
        assert segment.data() == guest.read(segment["p_vaddr"], segment["p_filesz"])
        assert segment["p_filesz"] == segment["p_memsz"]
    code = next(segment for segment in loads if segment["p_vaddr"] <= CODE < segment["p_vaddr"] + segment["p_memsz"])
    assert code["p_flags"] & 1


def test_pages_of_zeros_take_no_room(machine: Machine, tmp_path: Path) -> None:
    machine.dump_core(tmp_path / "core")
    found = (tmp_path / "core").stat()
    assert found.st_size > 32 << 20
    assert found.st_blocks * 512 < 8 << 20


def test_core_that_cannot_be_written(machine: Machine, tmp_path: Path) -> None:
    for path in (tmp_path / "gone" / "core", tmp_path):
        with pytest.raises(UsageError, match="cannot write the core"):
            machine.dump_core(path)
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_core_after_the_kernels_tables_are_gone(tmp_path: Path) -> None:
    """The registers and pages are there whatever the guest did to itself."""
    with Machine(DomainConfig(kernel=kernel(tmp_path, shutdown(3)), memory=32)) as machine:
        machine.run()
        machine.xen.vcpu.kernel_root = 0
        machine.dump_core(tmp_path / "core")
    assert ELFFile(BytesIO((tmp_path / "core").read_bytes())).num_sections() == 8


def test_gdb_shows_where_a_32_bit_guest_crashed(tmp_path: Path) -> None:
    """By the guest's own symbols: its frames, registers and memory; readelf names every note."""
    guest = small_guests.build(small_guests.TESTS / "pae" / "frames", 32)
    with Machine(DomainConfig(kernel=guest, memory=small_guests.MEMORY, cmdline="null_handler")) as machine:
        verdict = machine.run()
        now = machine.registers()
        machine.dump_core(tmp_path / "core")
    assert verdict is not None
    assert verdict.kind == "crash"
    with Gdb(symbols=guest) as gdb:
        gdb.execute(f"core-file {tmp_path / 'core'}")
        trace = gdb.execute("backtrace")
        order = [trace.index(name) for name in ("run_null_handler", "kit_start", "_start ()")]
        assert order == sorted(order)
        assert "frames.c" in trace
        for name, value in (("eip", "rip"), ("esp", "rsp"), ("ebp", "rbp"), ("cs", "cs"), ("gs", "gs")):
            assert int(gdb.execute(f"output/x ${name}"), 16) == now[value], name
        assert int(gdb.execute("output/x $mxcsr"), 16) == 0x1F80
        assert "xen-3.0-x86_32p" in gdb.execute("output start_info->magic")
    command = ["readelf", "--wide", "--headers", "--notes", str(tmp_path / "core")]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert shown.stderr == ""
    for text in ("CORE (Core file)", "NT_PRSTATUS", "NT_PRXFPREG", "LOAD"):
        assert text in shown.stdout


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The core of a Debian kernel that panicked."""
    folder = tmp_path_factory.mktemp("crashed")
    image = catalogue.load("debian-cloud")
    config = DomainConfig(
        kernel=image.kernel, ramdisk=image.ramdisk, memory=256, cmdline="console=hvc0 pvstub=crash",
        on_crash="coredump-destroy",
    )  # fmt: skip
    with Machine(config, folder) as machine:
        verdict = machine.run()
    assert verdict is not None
    assert verdict.kind == "crash"
    return folder / "core"


def test_readelf_reads_linuxs_core(crashed: Path) -> None:
    shown = subprocess.run(
        ["readelf", "--wide", "--headers", "--notes", str(crashed)], capture_output=True, text=True, check=True
    )
    assert shown.stderr == ""
    for text in ("CORE (Core file)", ".xen_pages", "NT_PRSTATUS", "LOAD"):
        assert text in shown.stdout


def test_gdb_shows_where_linux_panicked(crashed: Path) -> None:
    """A backtrace from the hypercall to the program that asked for the crash, and memory of all kinds."""
    with Gdb(symbols=executable("debian-cloud")) as gdb:
        gdb.execute(f"core-file {crashed}")
        trace = gdb.execute("backtrace")
        names = [line.split(" in ")[1].split(" (")[0] for line in trace.splitlines() if " in " in line]
        assert names[0] == "xen_hypercall_pv"
        assert names.index("panic") < names.index("sysrq_handle_crash") < names.index("do_syscall_64")
        assert "Linux version" in gdb.execute("x/s (char *)&linux_banner")
        assert "Cannot access" not in gdb.execute("x/4xg $rsp")
        assert "sysrq" in gdb.execute("x/2i sysrq_handle_crash")
