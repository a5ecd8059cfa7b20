"""A 32-bit PAE guest's start of day, as the domain builder leaves it and as the guest finds it (xg_dom_x86.c)."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from stub.abi import arch_x86 as arch
from stub.abi.xen import Hypercall, StartInfo32
from stub.domain.builder import build, hypercall_page
from stub.domain.config import DomainConfig
from stub.domain.domain import Domain
from stub.engine.base import CS, DS, ES, RETIRED, RIP, RSI, RSP, SS
from stub.errors import ConfigError
from stub.gdb import monitor
from stub.image import load_image
from stub.machine import Machine
from stub.memory import entries as e
from stub.memory.formats import PAE
from stub.memory.frames import L1, L2, L3, PINNED, XEN_L2
from stub.memory.guest import GuestFault
from stub.memory.mappings import mappings
from stub.memory.walker import FrameArray, walk
from stub.units import MIB, PAGE_SIZE
from suites.unit import elf_builder as elf

pytestmark = pytest.mark.usefixtures("pv_engine")

BASE = 0xC0000000
START = 0x100000  # of the kernel, above BASE
CODE = BASE + START
WORD = CODE + 0x800


def call(number: Hypercall, *arguments: int) -> bytes:
    """A hypercall: ``int $0x82`` with the number in eax and at most three arguments in ebx, ecx and edx."""
    loads = (
        bytes([opcode]) + struct.pack("<I", value & 0xFFFFFFFF)
        for opcode, value in zip(b"\xbb\xb9\xba", arguments, strict=False)
    )
    return b"\xb8" + struct.pack("<I", number) + b"".join(loads) + b"\xcd\x82"


SHUTDOWN = call(Hypercall.sched_op, 2, WORD)


def kernel(folder: Path, code: bytes, base: int = BASE, **notes: bytes | str | int | None) -> Path:
    """A 32-bit kernel that runs ``code``, with zeros at WORD."""
    path = folder / "kernel"
    load = elf.Load(START, code.ljust(0x800, b"\xcc") + bytes(16), vaddr=base + START)
    wanted = {"PAE_MODE": "yes", "VIRT_BASE": base, "ENTRY": base + START, **notes}
    path.write_bytes(elf.elf([load], elf.xen_notes(**wanted), bits=32))
    return path


def domain(path: Path, memory: int = 32) -> Domain:
    return build(load_image(path), DomainConfig(kernel=path, memory=memory))


def test_one_root_and_the_tables_up_to_the_end_of_the_address_space(tmp_path: Path) -> None:
    """The kernel's GiB is the last: one L2, with Xen's part in it. The root is an L3, pinned."""
    made = domain(kernel(tmp_path, b""))
    frames, words = made.frames, made.ram.words
    assert made.layout.tables_by_level == {3: 1, 2: 1, 1: 2}
    assert (frames.type[made.root], frames.flags[made.root] & PINNED) == (L3, PINNED)
    entries = words[made.root * 512 : made.root * 512 + 4].tolist()
    assert entries[:3] == [0, 0, 0]
    assert entries[3] & 0xFFF == e.P | e.RW | e.US
    last = entries[3] >> 12
    assert (frames.type[last], frames.flags[last] & XEN_L2) == (L2, XEN_L2)
    assert frames.type[words[last * 512] >> 12] == L1


def test_lower_bases_get_a_table_for_each_gib_behind_them(tmp_path: Path) -> None:
    """The last L2 has to be there; libxc makes all from the kernel's on."""
    layouts = {base: domain(kernel(tmp_path, b"", base)).layout for base in (0, 0x40000000, 0x80000000)}
    assert [layout.tables_by_level[2] for layout in layouts.values()] == [4, 3, 2]


def test_all_is_mapped_and_tables_read_only(tmp_path: Path) -> None:
    """From VIRT_BASE on, for the kernel alone; the M2P of 4-byte entries is in Xen's part."""
    made = domain(kernel(tmp_path, b""))
    found = mappings(FrameArray(made.ram.table), PAE, made.root << 12)
    own = found.only(found.vaddr < np.uint64(arch.HYPERVISOR_VIRT_START_PAE))
    assert [int(own.vaddr[0]), int(own.vaddr[-1]) + PAGE_SIZE] == [BASE, BASE + 4 * MIB]
    assert own.frame.tolist() == made.p2m[: len(own)].tolist()
    tables = made.layout.tables
    read_only = np.flatnonzero(own.rights & np.uint64(e.RW) == 0)
    assert read_only.tolist() == list(range(tables.pfn, tables.pfn + tables.pages))
    assert not (found.rights & np.uint64(e.US)).any()
    step = walk(FrameArray(made.ram.table), PAE, made.root << 12, arch.MACH2PHYS_VIRT_START_PAE + 4 * int(made.p2m[5]))
    assert made.ram.bytes[step.maddr : step.maddr + 4].cast("I")[0] == 5


def test_start_info_and_the_list_of_frames_have_narrow_words(tmp_path: Path) -> None:
    made = domain(kernel(tmp_path, b""))
    layout = made.layout
    made.guest.root = made.area.monitor << 12
    info = StartInfo32.unpack_from(made.guest.read(layout.start_info.vaddr, StartInfo32.size))
    assert info.magic.rstrip(b"\0") == b"xen-3.0-x86_32p"
    assert (info.nr_pages, info.shared_info) == (8192, made.area.shared_info << 12)
    assert (info.pt_base, info.nr_pt_frames) == (layout.tables.vaddr, layout.tables.pages)
    assert (info.console_mfn, info.store_mfn) == tuple(int(made.p2m[s.pfn]) for s in (layout.console, layout.xenstore))
    assert layout.p2m.pages == 8
    listed = np.frombuffer(made.guest.read(info.mfn_list, 4 * 8192), dtype="<u4")
    assert listed.tolist() == made.p2m.tolist()


def test_of_xens_part_a_hypercalls_pointer_reads_the_m2p(tmp_path: Path) -> None:
    """As the kernel itself can (access_ok knows 64-bit guests' addresses only); nothing is written there."""
    made = domain(kernel(tmp_path, b""))
    made.guest.root = made.area.monitor << 12
    start = arch.MACH2PHYS_VIRT_START_PAE
    assert made.guest.read_u32(start + 4 * int(made.p2m[5])) == 5
    for address in (start, 0xFFE00000, 0xFFFFFFFF):
        with pytest.raises(GuestFault):
            made.guest.write(address, b"0")
    for address in (0xFFE00000, 0xFFFFFFFF, 1 << 32, 0xFFFF800000000000):
        with pytest.raises(GuestFault):
            made.guest.read(address, 1)


def test_what_does_not_fit_below_xen_is_refused(tmp_path: Path) -> None:
    path = kernel(tmp_path, b"", 0xF5400000)
    assert domain(path).layout.region.pages == 1024
    with pytest.raises(ConfigError, match="past 0xf5800000, where Xen's part begins; use a smaller ramdisk"):
        domain(path, memory=4000)


def test_more_memory_than_its_words_can_name_is_refused(tmp_path: Path) -> None:
    path = kernel(tmp_path, b"")
    with pytest.raises(ConfigError, match="5000 MiB of memory; a 32-bit guest can have 4088 MiB at most"):
        domain(path, memory=5000)


def test_hypercall_pages() -> None:
    """Slot 5 makes call 5; iret leaves eax on the stack and does not come back."""
    page = hypercall_page(32)
    assert page[5 * 32 : 5 * 32 + 8] == b"\xb8\5\0\0\0\xcd\x82\xc3"
    assert page[23 * 32 : 23 * 32 + 8] == b"\x50\xb8\x17\0\0\0\xcd\x82"
    assert len(page) == PAGE_SIZE


def test_the_first_instruction(tmp_path: Path) -> None:
    """In ring 1, on flat segments of that ring; esi has start_info's address."""
    with Machine(DomainConfig(kernel=kernel(tmp_path, b"\xeb\xfe"), memory=32)) as made:
        words, layout = made.xen.words, made.xen.domain.layout
        made.run(deadline_ns=20)
        assert words[RETIRED] >= 20
        assert (words[CS], words[SS], words[DS], words[ES]) == (arch.FLAT_RING1_CS, *3 * (arch.FLAT_RING1_DS,))
        assert (words[RIP], words[RSP], words[RSI]) == (CODE, layout.stack.vaddr + PAGE_SIZE, layout.start_info.vaddr)
        assert made.xen.vcpu.kernel_mode


def test_a_hypercall_and_the_end(tmp_path: Path) -> None:
    """An error is 32 bits wide in eax, and -38 in the log; the same file gives the same log again."""
    code = call(Hypercall.set_segment_base, 0, 0) + b"\xa3" + struct.pack("<I", WORD + 4) + SHUTDOWN
    digests = set()
    for number in range(2):
        with Machine(DomainConfig(kernel=kernel(tmp_path, code), memory=32), tmp_path / f"run{number}") as made:
            assert made.run().kind == "poweroff"
            assert made.xen.domain.guest.read_u32(WORD + 4) == (1 << 32) - 38
            digests.add(made.log.digest())
    assert len(digests) == 1


@pytest.mark.parametrize(
    "code", [b"\xcd\x80", b"\x0f\x0b", b"\xf4", b"\xa1\0\0\0\0"], ids=["int80", "ud2", "hlt", "load"]
)
def test_a_trap_without_a_handler_ends_the_domain(tmp_path: Path, code: bytes) -> None:
    with Machine(DomainConfig(kernel=kernel(tmp_path, code), memory=32)) as made:
        verdict = made.run()
    assert verdict.kind == "crash"
    assert "Unhandled: vec" in verdict.reason


ASKED = {
    "xen domain": "32-bit PV",
    f"xen vtop {CODE:#x}": " L3 mfn",
    "xen vtop 0x100000000": "not an address: it has more than 32 bits",
    "xen ptdump": "krwx",
    "xen vcpu": "running in kernel mode",
    "xen gdt": "ring 1 code32",
    "xen pte 0x500063 level 3": "it is stored as 0x0000000000500067",
    "xen memmap": "the guest's",
    "xen p2m": "all of them agree",
    "info mem": "-rwx",
    "info tlb": "A---W",
    "info registers": "CPL=1",
    "xen traps": "no trap handler is registered",
    "xen xenstore": "memory",
}


def test_a_debugger_is_told_of_its_tables_as_they_are(tmp_path: Path) -> None:
    """Three levels, the kernel's pages known by US; Xen's own slots of the table above are nobody's."""
    with Machine(DomainConfig(kernel=kernel(tmp_path, b"\xeb\xfe"), memory=32)) as made:
        made.run(deadline_ns=20)
        context = monitor.Context(made)
        root = made.xen.domain.root_in_use
        for question, answer in ASKED.items():
            assert answer in monitor.run(context, question), question
        assert f"under L3 {root:#x} (kernel)" in monitor.run(
            context, f"xen ptable {made.xen.domain.ram.words[root * 512 + 3] >> 12:#x}"
        )
        assert "ffff8" not in monitor.run(context, "xen ptdump")
