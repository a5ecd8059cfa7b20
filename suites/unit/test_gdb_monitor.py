"""The debugger's monitor commands: the table, each command on a real machine, and gdb's own script in a real gdb."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.guests import Guest
from stub.abi.xen import Hypercall, MmuUpdate
from stub.domain.config import DomainConfig
from stub.gdb import monitor
from stub.gdb.extension import PATH
from stub.gdb.monitor import registry, tables, values
from stub.hypervisor.grants import Active
from stub.memory import entries as e
from stub.memory.frames import GUEST, FrameTable
from stub.memory.guest import GuestFault, GuestMemory
from stub.memory.ram import Ram
from stub.trace.reader import read
from stub.trace.text import line
from stub.units import PAGE_SIZE, U64
from suites.boot.small_guest import CODE, DATA_OFFSET, SPIN, call, kernel, shutdown

ROOT = Path(__file__).resolve().parents[2]
GDB = shutil.which("gdb")
FAULT = "this is a fault of pvstub"
SYMBOLS = {"start": CODE, "data": CODE + DATA_OFFSET}


def names() -> monitor.Names:
    def name_of(address: int) -> tuple[str, int] | None:
        return ("start", address - CODE) if CODE <= address < CODE + PAGE_SIZE else None

    return monitor.Names(SYMBOLS.get, name_of)


# A few hypercalls, one of them refused, then nothing for ever.
CODE_OF_THE_GUEST = (
    call(Hypercall.stack_switch, 0xE02B, CODE + 0xF00)
    + call(Hypercall.update_va_mapping, CODE, 0x50 << 12 | e.P, 0)
    + call(Hypercall.xen_version, 0, 0)
    + SPIN
)


@pytest.fixture
def context(tmp_path: Path) -> Iterator[monitor.Context]:
    """A guest that spins, 32 MiB, with MFNs that are its PFNs but for the first megabyte."""
    from stub.machine import Machine

    with Machine(DomainConfig(kernel=kernel(tmp_path, CODE_OF_THE_GUEST), memory=32, cmdline="one two")) as machine:
        machine.run(deadline_ns=10_000)
        yield monitor.Context(machine, names())


def ask(context: monitor.Context, command: str) -> str:
    answer = monitor.run(context, command)
    assert FAULT not in answer
    assert answer.endswith("\n")
    return answer


# -- the table


OWED = """xen p2m, xen m2p, xen vtop, xen pte, xen ptable, xen whomaps, xen memmap, xen domain, xen vcpu, xen traps,
xen gdt, xen evtchn, xen grants, xen xenstore, xen hypercalls, xen branches, xen branches keep, info version,
info registers, info mem, info tlb, info cpus, help"""


def test_every_promised_command_is_there() -> None:
    assert not {tuple(name.split()) for name in OWED.replace("\n", " ").split(", ")} - set(monitor.COMMANDS)


def test_help_is_made_of_the_table(context: monitor.Context) -> None:
    text = ask(context, "help")
    for row in monitor.COMMANDS.values():
        assert row.usage in text
        assert row.help in text
    assert ask(context, "") == text
    one = ask(context, "help xen vtop")
    assert one.startswith("monitor xen vtop VA [cr3 N]\n")
    assert "as CR3 holds it" in one
    assert ask(context, "h x vt") == one
    family = ask(context, "help info").splitlines()
    assert len(family) == sum(name[0] == "info" for name in monitor.COMMANDS)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, ...], registry.Command]:
    empty: dict[tuple[str, ...], registry.Command] = {}
    monkeypatch.setattr(registry, "COMMANDS", empty)
    return empty


def test_a_command_may_be_registered_once(table: object) -> None:
    @registry.command("xen one", "first")
    def first(_: monitor.Context) -> str:
        return ""

    with pytest.raises(ValueError, match="twice"):
        registry.command("xen one [N]", "second")(lambda _, n=0: "")
    with pytest.raises(ValueError, match="no parameter n"):
        registry.command("xen two N", "its handler takes nothing")(lambda _: "")
    with pytest.raises(ValueError, match="no name"):
        registry.command("VA", "")
    with pytest.raises(ValueError, match="one name"):
        registry.command("xen three N [n N]", "")


def test_the_grammar_of_a_row(table: object, context: monitor.Context) -> None:
    """Choices, options in any order, words with a dash, the rest of the line."""

    @registry.command("xen wp -m MADDR [LENGTH] [once] [cr3 N]", "")
    def machine_memory(_: monitor.Context, **given: object) -> str:
        return str(sorted(given.items()))

    @registry.command("xen wp -i PORT", "")
    def port(_: monitor.Context, port: int) -> str:
        return f"port {port}"

    @registry.command("xen guest-traps show|hide [TEXT...]", "", {"TEXT": values.text})
    def guest_traps(_: monitor.Context, choice: str, text: str = "") -> str:
        return f"{choice} {text!r}"

    def run(words: str) -> str:
        return registry.execute(context, words)

    assert run("xen wp -i 0x3f8") == "port 1016"
    assert run("xen wp -m 0x1000") == "[('maddr', 4096)]"
    assert run("xen wp -m 1 cr3 2 once 8") == "[('cr3', 2), ('length', 8), ('maddr', 1), ('once', 'once')]"
    assert run("xen guest hi a  b c") == "hide 'a b c'"
    for wrong, why in (
        ("xen wp -m", "MADDR is missing"),
        ("xen wp -m 1 2 once cr3", "cr3 needs N"),
        ("xen wp -m 1 2 3", "'3' is one word too many"),
        ("xen wp", "what of it"),
        ("xen guest-traps maybe", "none of show, hide"),
        ("xen guest-traps", "show|hide is missing"),
    ):
        with pytest.raises(monitor.MonitorError, match=re.escape(why)):
            run(wrong)


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("xen v", "'v' may be vcpu, vtop"),
        ("xen vtpo 1", "did you mean vtop?"),
        ("zzz", "there is no 'zzz'"),
        ("xen", "what of it?"),
        ("info", "what of it?"),
        ("xen vtop", "VA is missing\nusage: monitor xen vtop VA [cr3 N]"),
        ("xen vtop 1 2", "'2' is one word too many\nusage: "),
        ("xen vtop 1 cr3", "cr3 needs N"),
        ("xen vtop 09", "'09' is no number"),
        ("xen vtop nosuch", "no number, $register or known symbol"),
        ("xen vtop $rix", "$rix is no register"),
        ("xen vtop 0x10000000000000000", "more than 64 bits"),
        ("xen vtop 1++2", "no number"),
        ("xen m2p 0xffffffff", "beyond machine memory"),
        ("xen whomaps 0xffffffffff", "beyond machine memory"),
        ("xen ptable 0x100000000", "beyond machine memory"),
        ("xen ptable 0x101", "no page table now"),
        ("xen pte 1 level 5", "there are 1 to 4"),
        ("xen vcpu 1", "vCPU 1: there are 1"),
        ("xen xenstore /no/such", "there is no such node"),
        ("help xen nosuch", "there is no 'nosuch'"),
    ],
)
def test_nonsense_gets_a_line(context: monitor.Context, typed: str, says: str) -> None:
    assert says in ask(context, typed)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("17", 17),
        ("017", 15),
        ("0x17", 23),
        ("0b11", 3),
        ("0xffUL", 255),
        ("0", 0),
        ("-1", U64),
        ("~0", U64),
        ("0x1000+0x10-1", 0x100F),
        ("start", CODE),
        ("start+0x800", CODE + DATA_OFFSET),
        ("data-start", DATA_OFFSET),
    ],
)
def test_numbers(context: monitor.Context, text: str, value: int) -> None:
    assert values.number(context, text) == value


def test_registers_are_numbers(context: monitor.Context) -> None:
    words = context.machine.registers()
    assert CODE <= words["rip"] < CODE + PAGE_SIZE
    for name in ("rip", "rsp", "cr3", "gs_base"):
        assert values.number(context, f"${name}") == words[name]
    assert values.number(context, "$pc") == words["rip"]
    assert values.number(context, "$eax") == words["rax"] & 0xFFFFFFFF
    assert values.number(context, "$sp-8") == words["rsp"] - 8 & U64


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.sampled_from([word for name in monitor.COMMANDS for word in name]),
            st.sampled_from(["cr3", "level", "$rip", "$cr3", "0x1000", "-1", "~0", "1+", "start", "0", "3"]),
            st.integers(0, U64).map(hex),
            st.text(max_size=8),
        ),
        max_size=6,
    ).map(" ".join)
)
def test_whatever_is_typed_gets_an_answer(context: monitor.Context, typed: str) -> None:
    ask(context, typed)


def test_a_fault_in_a_command_is_shown_and_does_no_more(context: monitor.Context) -> None:
    context.symbols = monitor.Names(lambda _: [][0], lambda _: [][0])
    assert FAULT in monitor.run(context, "xen vtop start")


# -- addresses


def test_vtop_is_the_translation_that_the_hypervisor_makes(context: monitor.Context) -> None:
    domain = context.xen.domain
    maddr = domain.guest.locate(CODE + 0x123)
    text = ask(context, "xen vtop start+0x123")
    assert text.count("type l") == 4
    assert f"machine {maddr:#x}  pseudo-physical {(domain.m2p(maddr >> 12) << 12) + 0x123:#x}  kernel rwx\n" in text
    assert text == ask(context, f"xen vtop {CODE + 0x123:#x} cr3 $cr3")
    assert "in use, the kernel's" in text


def test_vtop_says_where_a_walk_ends(context: monitor.Context) -> None:
    assert "ends here: the L4 entry is not present" in ask(context, "xen vtop 0")
    assert "not a canonical address" in ask(context, "xen vtop 0x800000000000")
    root = context.xen.vcpu.kernel_root
    assert ask(context, f"xen vtop start cr3 {root}") == ask(context, f"xen vtop start cr3 {root << 12}")
    assert "beyond machine memory" in ask(context, "xen vtop start cr3 0x7fffffff000")
    assert "not an L4 table to Xen" in ask(context, "xen vtop start cr3 0x101000")
    assert "user r--" in ask(context, "xen vtop 0xffff800000000000"), "the M2P table"
    assert "Xen rwx" in ask(context, "xen vtop 0xffff820000000000"), "the GDT"


def test_vtop_in_user_mode_points_to_the_kernels_root(context: monitor.Context) -> None:
    xen = context.xen
    xen.domain.guest.root = 0x101 << 12
    xen.ram_bytes[0x101000:0x102000] = bytes(PAGE_SIZE)
    hint = f"mapped under the kernel's root: monitor xen vtop {CODE:#x} cr3 {xen.vcpu.kernel_root << 12:#x}"
    assert hint in ask(context, "xen vtop start")


def test_p2m_and_m2p_agree_for_every_frame(context: monitor.Context) -> None:
    domain = context.xen.domain
    for pfn in (0, 1, 0x1000, domain.layout.nr_pages - 1):
        mfn = int(domain.p2m[pfn])
        text = ask(context, f"xen p2m {pfn}")
        assert "the tables agree" in text
        assert text.count(f"mfn {mfn:#x}") == 2
        back = ask(context, f"xen m2p {mfn}")
        assert "the tables agree" in back
        assert f"pfn {pfn:#x}" in back
    assert "all of them agree" in ask(context, "xen p2m")


def test_tables_that_do_not_agree(context: monitor.Context) -> None:
    domain = context.xen.domain
    mfn, other = int(domain.p2m[5]), int(domain.p2m[6])
    domain.area.m2p[mfn] = 6
    assert f"do NOT agree: m2p has pfn 0x6 for mfn {mfn:#x}" in ask(context, "xen p2m 5")
    assert f"do NOT agree: the list has mfn {other:#x} for pfn 0x6" in ask(context, f"xen m2p {mfn}")
    assert "1 do NOT agree with m2p" in ask(context, "xen p2m")
    domain.area.m2p[mfn] = U64
    assert "do NOT agree: m2p has nothing" in ask(context, "xen p2m 5")
    assert "nothing" in ask(context, f"xen m2p {mfn}")
    domain.area.m2p[mfn] = 5
    domain.frames.owner[mfn] = 0
    assert "the frame is free's" in ask(context, "xen p2m 5")
    assert "the list ends at pfn" in ask(context, "xen p2m 0x100000")


def place_info(context: monitor.Context, **values: int) -> None:
    from stub.abi.arch_x86 import ArchSharedInfo64
    from stub.abi.xen import SharedInfo64

    at = context.xen.domain.area.shared_info * PAGE_SIZE + SharedInfo64.offset("arch")
    ArchSharedInfo64.pack_into(context.xen.ram_bytes, at, **values)


def test_the_guests_own_list_by_address(context: monitor.Context) -> None:
    """p2m_vaddr: here at the kernel's data, whose numbers are 32 bits wide."""
    at = CODE + DATA_OFFSET
    words, maddr = context.xen.domain.ram.words, context.xen.domain.guest.locate(CODE + DATA_OFFSET)
    marks = (1 << 62 | 3, 1 << 63 | 0x77, U64, int(context.xen.domain.p2m[3]))
    for i, value in enumerate(marks):
        words[(maddr >> 3) + i] = value
    place_info(context, max_pfn=4, p2m_vaddr=at, p2m_cr3=context.xen.vcpu.kernel_root << 12, p2m_generation=9)
    assert "identity 0x3" in ask(context, "xen p2m 0")
    assert f"p2m_vaddr {at:#x}" in ask(context, "xen p2m 0")
    assert "foreign mfn 0x77" in ask(context, "xen p2m 1")
    assert "invalid" in ask(context, "xen p2m 2")
    assert "the tables agree" in ask(context, "xen p2m 3")
    assert "the list ends at pfn 0x4" in ask(context, "xen p2m 4")
    assert "1 frames, 1 identity, 1 invalid, 1 foreign" in ask(context, "xen p2m")
    place_info(context, p2m_vaddr=0x1000)
    assert "is not mapped at 0x1000" in ask(context, "xen p2m 0")


def test_the_guests_own_list_by_frames(context: monitor.Context) -> None:
    """pfn_to_mfn_frame_list_list: a frame of frames of frames."""
    words, p2m = context.xen.domain.ram.words, context.xen.domain.p2m
    top, middle, last = (int(p2m[pfn]) for pfn in (0x300, 0x301, 0x302))
    words[top * 512], words[middle * 512] = middle, last
    words[last * 512 + 7] = int(p2m[7])
    words[middle * 512 + 1] = 1 << 40
    place_info(context, max_pfn=0x800, pfn_to_mfn_frame_list_list=top)
    text = ask(context, "xen p2m 7")
    assert "the tables agree" in text
    assert f"pfn_to_mfn_frame_list_list mfn {top:#x}" in text
    assert "which is none" in ask(context, f"xen p2m {512 + 1}")
    ask(context, "xen p2m")


def test_pte(context: monitor.Context) -> None:
    domain = context.xen.domain
    root, plain = context.xen.vcpu.kernel_root, int(domain.p2m[0x300])
    text = ask(context, f"xen pte {plain << 12 | e.P | e.RW | e.A | e.NX:#x}")
    assert "P RW A NX\n" in text
    assert f"mfn {plain:#x} pfn 0x300" in text
    assert "is stored as" in text
    assert "KERNEL" in text
    assert "needs the frame as writable, and it is l4" in ask(context, f"xen pte {root << 12 | 3:#x}")
    assert "Xen refuses" not in ask(context, f"xen pte {root << 12 | 1:#x}")
    assert "not present" in ask(context, "xen pte 0x1000")
    assert "PWT PCD" in ask(context, f"xen pte {plain << 12 | 1 | e.PWT | e.PCD:#x}")
    assert "not the domain's" in ask(context, "xen pte 0x1 level 2")


# -- page tables


def test_ptable(context: monitor.Context) -> None:
    root = context.xen.vcpu.kernel_root
    top = ask(context, f"xen ptable {root}")
    assert top.startswith(f"L4 table mfn {root:#x}")
    assert "[1ff]" in top
    l3 = int(context.xen.domain.ram.table[root, 511]) >> 12 & e.FRAME_MASK
    inner = ask(context, f"xen ptable {l3}")
    assert f"begins at {0xFFFFFF8000000000:#x} under L4 {root:#x} (kernel)" in inner
    l2 = int(context.xen.domain.ram.table[l3, 510]) >> 12 & e.FRAME_MASK
    l1 = int(context.xen.domain.ram.table[l2, 0]) >> 12 & e.FRAME_MASK
    assert "[000-1ff]  512 entries" in ask(context, f"xen ptable {l1}"), "one run"
    assert ask(context, f"xen ptable {l1} level 1") == ask(context, f"xen ptable {l1}")


def test_whomaps_accounts_for_every_reference(context: monitor.Context) -> None:
    domain = context.xen.domain
    interesting = {context.xen.vcpu.kernel_root, int(domain.p2m[domain.layout.console.pfn]), domain.area.shared_info}
    for mfn in interesting | {int(domain.p2m[pfn]) for pfn in range(0, 0x1400, 0x3B)}:
        text = ask(context, f"xen whomaps {mfn}")
        assert "are accounted for" in text, text
    mfn = domain.guest.locate(CODE) >> 12
    assert f"mapped at {CODE:#x}: L1" in ask(context, f"xen whomaps {mfn}")
    context.xen.domain.frames.refs[mfn] += 1
    assert "accounted for: 2 of 3 references" in ask(context, f"xen whomaps {mfn}")
    context.xen.grants.active[9] = Active(1, mfn, uses=[0, 0, 0, 1])
    text = ask(context, f"xen whomaps {mfn}")
    assert "held: grant 9 to domain 1, mapped 0 times, for devices 1 times" in text
    assert "all 3 references" in text
    assert "mapped at 0xffff800000000000 by Xen" in ask(context, f"xen whomaps {domain.area.m2p_word // 512}")
    assert "no page table of the domain maps it" in ask(context, "xen whomaps 0")


def test_info_mem_and_tlb_are_what_a_walk_finds(context: monitor.Context) -> None:
    domain = context.xen.domain
    ranges = [
        (int(m[1], 16), int(m[2], 16), int(m[3], 16), m[4])
        for m in re.finditer(r"^(\w{16})-(\w{16}) (\w{16}) ([u-]r[w-][x-])$", ask(context, "info mem"), re.MULTILINE)
    ]
    assert len(ranges) == len(ask(context, "info mem").splitlines()) > 1
    for start, end, size, rights in ranges:
        assert end - start & U64 == size
        for place in (start, start + size - 1):
            domain.guest.locate_any(place)
        if start < 0xFFFF_8000_0000_0000 or start >= 0xFFFF_8800_0000_0000:
            writable = True
            try:
                domain.guest.locate(start, True)
            except GuestFault:
                writable = False
            assert writable == (rights[2] == "w")
    tlb = ask(context, f"info tlb {CODE:#x} 3").splitlines()
    assert tlb[0] == f"{CODE:016x}: {domain.guest.locate(CODE):016x} ----A--UW"
    assert len(tlb) == 4
    assert tlb[3].startswith("# ")
    everything = ask(context, "info tlb 0 1000000").splitlines()
    assert len(everything) == sum(size for _, _, size, _ in ranges) // PAGE_SIZE


def test_ptdump_has_xens_part_too(context: monitor.Context) -> None:
    text = ask(context, "xen ptdump")
    assert re.search(r"ffff820000000000-\w+ +72K +Xrwx", text)
    assert re.search(r"ffffffff80000000-ffffffff\w+ +\w+ +krwx +\d+ pfns, scattered|pfn 0x0-", text)
    assert ask(context, "xen ptdump cr3 $cr3") == text


ENTRY = e.P | e.RW | e.US


def test_large_pages() -> None:
    ram = Ram(16)
    ram.table[1, 511] = 2 << 12 | ENTRY | e.NX
    ram.table[2, 0] = 0 << 12 | e.P | e.PSE
    ram.table[2, 1] = 3 << 12 | ENTRY
    ram.table[3, 1] = 0 << 12 | ENTRY | e.PSE
    ram.table[3, 0] = 4 << 12 | ENTRY
    ram.table[4, 511] = 5 << 12 | ENTRY
    ram.table[4, 0] = 1 << 40 | ENTRY  # beyond memory, but a page: the CPU would map it
    ram.table[3, 2] = 1 << 40 | ENTRY  # beyond memory: nothing to look at
    found = tables.mappings(ram, 1)
    base = 0xFFFFFF8000000000
    assert found.vaddr.tolist() == [
        base,
        base + (1 << 30),
        base + (1 << 30) + (511 << 12),
        base + (1 << 30) + (1 << 21),
    ]
    assert found.size.tolist() == [1 << 30, 1 << 12, 1 << 12, 1 << 21]
    assert all(int(rights) & e.NX for rights in found.rights)
    assert [bool(int(rights) & e.RW) for rights in found.rights] == [False, True, True, True]
    assert [run.stop - run.start for run in found.runs()] == [2, 2]


def test_tables_that_map_each_other_are_cut() -> None:
    ram = Ram(8)
    for table in (1, 2, 3):
        ram.table[table, :] = np.uint64(table + 1 << 12 | ENTRY)
    ram.table[4, :] = np.uint64(5 << 12 | ENTRY)
    began = time.monotonic()
    found = tables.mappings(ram, 1)
    assert found.cut
    assert len(found) == tables.MAX_MAPPINGS
    assert time.monotonic() - began < 20
    frames = FrameTable(8)
    frames.np_owner[1:] = GUEST
    for level, table in ((4, 1), (3, 2), (2, 3), (1, 4)):
        frames.type[table], frames.type_count[table] = level, 1
    assert len(tables.places(ram, frames, 1, {4})[4]) == tables.MAX_PLACES


@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.integers(0, 511), st.integers(0, 7), st.sampled_from([1, 3, 5, 7])), max_size=24
    )
)
@settings(max_examples=60, deadline=None)
def test_mappings_are_those_of_the_walk(content: list[tuple[int, int, int, int]]) -> None:
    ram = Ram(8)
    for table, slot, target, flags in content:
        ram.table[table, slot] = target << 12 | flags
    guest = GuestMemory(ram)
    guest.root = 1 << 12
    found = tables.mappings(ram, 1)
    for vaddr, entry in zip(found.vaddr.tolist(), found.entry.tolist(), strict=True):
        assert guest.locate_any(vaddr) == entry & e.ADDRESS_MASK


# -- state


def test_the_domain_and_its_memory(context: monitor.Context) -> None:
    text = ask(context, "xen domain")
    assert '"one two"' in text
    assert "32 MiB: 8192 pages" in text
    assert "none yet" in text
    memory = ask(context, "xen memmap")
    assert f"pfn {context.xen.domain.layout.start_info.pfn:#x}" in memory
    counted = [int(n) for n in re.findall(r"^ (?:none|l[1-4]|seg_desc|writable) +(\d+)", memory, re.MULTILINE)]
    assert sum(counted) == int((context.xen.domain.frames.np_owner == GUEST).sum())


def test_the_vcpu(context: monitor.Context) -> None:
    text = ask(context, "xen vcpu")
    assert "running in kernel mode at" in text
    assert f"sp {CODE + 0xF00:#x}" in text, "stack_switch"
    assert text == ask(context, "xen vcpu 0")
    assert ask(context, "xen traps") == "no trap handler is registered\n"
    assert ask(context, "xen ldt") == "the guest has no LDT\n"
    gdt = ask(context, "xen gdt")
    assert "0xe033  00affb000000ffff  ring 3 code64 XR, base 0x0 limit 0xffffffff, accessed  Xen's" in gdt


def test_descriptors_in_words() -> None:
    assert monitor.cpu.show.descriptor(0x00CFF3000000FFFF) == "ring 3 data32 RW, base 0x0 limit 0xffffffff, accessed"
    assert monitor.cpu.show.descriptor(0x1240_7A34_5678_0FFF) == (
        "ring 3 code32 XR, base 0x12345678 limit 0xfff, not present"
    )
    assert monitor.cpu.show.descriptor(0x0000_8900_0000_0067) == "ring 0 system, TSS, base 0x0 limit 0x67"


def test_events_and_grants(context: monitor.Context) -> None:
    text = ask(context, "xen evtchn")
    assert text.startswith("two-level ABI\nvCPU 0: upcall not pending, masked, selector 0x0\n")
    assert re.search(r"^ 2 +interdomain +domain 0 port 33, console +- +-$", text, re.MULTILINE)
    events = context.xen.events
    events.raise_port(events.ports[2])
    text = ask(context, "xen evtchn")
    assert "upcall pending, masked, selector 0x1" in text
    assert re.search(r"^ 2 +interdomain +domain 0 port 33, console +yes +-$", text, re.MULTILINE)
    grants = ask(context, "xen grants")
    assert "version 1, 1 frames" in grants
    assert "2 entries in use" in grants
    console = int(context.xen.domain.p2m[context.xen.domain.layout.console.pfn])
    assert f"mfn {console:#x}" in grants


def test_the_fifos_queues(context: monitor.Context) -> None:
    """Its blocks, arrays and queues; a queue that the guest made a loop of is shown as far as it goes."""
    events, words = context.xen.events, context.xen.ram_bytes.cast("I")
    port = events.free_port()
    assert port is not None
    events.bind_virq(port, 0, 0)
    events.init_control(0, 0x101000)
    assert "no event word yet" in ask(context, "xen evtchn")
    fifo = events.fifo
    assert fifo is not None
    events.expand_array(fifo, 0x102)
    events.ports[2].priority = 3
    for number in (3, 1, 2):
        events.raise_port(events.ports[number])
    text = ask(context, "xen evtchn")
    assert text.startswith("FIFO ABI\nvCPU 0: upcall pending, masked\n")
    assert "vCPU 0's control block at machine 0x101000: ready 0x88\n" in text
    assert " priority 3: ports 2; tail 2\n priority 7: ports 3 1; tail 1\n" in text
    assert "event array: mfn 0x102\n" in text
    assert re.search(r"^ 3 +virq +VIRQ_TIMER, vCPU 0 +yes +- +linked, next 1$", text, re.MULTILINE)
    assert re.search(r"^ 2 +interdomain +.*console +yes +- +priority 3 linked, next 0$", text, re.MULTILINE)
    words[0x102 * 1024 + 1] |= 3 | 1 << 28
    text = ask(context, "xen evtchn")
    assert " priority 7: ports 3 1 3 1" in text
    assert re.search(r" …; tail 1$", text, re.MULTILINE)
    assert "linked, next 3 busy" in text


def test_xenstore(context: monitor.Context) -> None:
    home = ask(context, "xen xenstore")
    assert re.match(r'/local/domain/1 +"" +\(n0,r1\)\n/local/domain/1/vm +"/vm/', home)
    assert re.search(r'^/local/domain/1/control/shutdown +"" +\(n1\)$', home, re.MULTILINE)
    assert ask(context, "xen xenstore name") == '/local/domain/1/name  "guest"  (n0,r1)\n'
    assert ask(context, "xen xenstore memory/").count("\n") == 4
    everything = ask(context, "xen xenstore /")
    assert everything.startswith("/ ")
    assert "/local/domain/0/backend/console/1/0/frontend " in everything
    context.xen.xenstore.store.dom0.watch("/local/domain/1/data", lambda path: None)
    assert ask(context, "xen xenstore data").splitlines()[1].split() == [
        *("watch", "/local/domain/1/data", "token", '"1"', "domain", "0")
    ]


def test_what_qemus_users_ask(context: monitor.Context) -> None:
    assert ask(context, "info version").startswith("pvstub ")
    assert ask(context, "info cpus") == "* CPU #0: thread_id=1\n"
    text = ask(context, "info registers")
    words = context.machine.registers()
    found = dict(re.findall(r"([A-Z0-9]+) *=([0-9a-f]+)", text))
    for name in ("rax", "r8", "rip", "cr3", "cr2"):
        assert int(found[name.upper()], 16) == words[name]
    assert "CS64 [-RA]" in text


# -- the log


def test_hypercalls_as_the_trace_prints_them(context: monitor.Context) -> None:
    text = ask(context, "xen hypercalls")
    shown = text.splitlines()
    assert len(shown) == 4
    assert "stack_switch(0xe02b" in shown[0]
    assert "update_va_mapping(" in shown[1]
    assert "= -" in shown[1]
    assert "# " in shown[1], "why it was refused"
    assert "xen_version(" in shown[2]
    assert shown[3] == "(3 are in memory; no run folder keeps more)"
    assert ask(context, "xen hypercalls 1") == shown[2] + "\n"
    assert ask(context, "xen hypercalls 3") == "\n".join(shown[:3]) + "\n"
    assert ask(context, "xen hypercalls 0") == "\n"
    assert "domain starts at" in ask(context, "xen trace 100")


def test_the_last_records_are_those_of_the_log(tmp_path: Path) -> None:
    """Over several windows, multicall entries and notes with them."""
    from stub.trace.format import Kind
    from stub.trace.recent import recent
    from stub.trace.writer import HypercallLog

    with HypercallLog(tmp_path / "hypercalls", identity={"domain": 1, "bits": 64}) as log:
        for i in range(30_000):
            log.nested(i, CODE, Hypercall.mmu_update, 1, 2, 3, 4, 5, 0, MmuUpdate.pack(ptr=i, val=i), b"")
            log.note(i, CODE, f"note {i}")
            log.hypercall(i, CODE, Hypercall.multicall, 1, 2, 3, 4, 5, 0, b"", b"")
            if i % 3 == 0:
                log.exception(i, CODE, 14, 2, 0x1000, 0, CODE, True)
        log.nested(7, CODE, Hypercall.iret, 1, 2, 3, 4, 5, 0, b"", b"")
        last = recent(log, 5000, frozenset(Kind), domain=1, bits=64)
        faults = recent(log, 7, [Kind.EXCEPTION], domain=1, bits=64)
    everything = read(tmp_path)
    assert [line(record) for record in last] == [line(record) for record in everything[-5000:]]
    assert [record.time_ns for record in faults] == [29_997 - 3 * i for i in range(6, -1, -1)]


# -- a stock kernel


@pytest.mark.guest("debian-cloud", extra="pvstub=shell loglevel=4")
def test_on_a_booted_linux(guest: Guest) -> None:
    guest.console.expect_exact("/ # ")
    context = monitor.Context(guest.machine)  # type: ignore[arg-type]
    assert "all of them agree" in ask(context, "xen p2m")
    began = time.monotonic()
    mem = ask(context, "info mem")
    assert time.monotonic() - began < 1
    assert re.search(r"^ffffffff81000000-\w{16} \w{16} -r-x$", mem, re.MULTILINE), "the kernel's text"
    assert re.search(r"^ffff888000000000-\w{16} \w{16} -rw-$", mem, re.MULTILINE), "its direct map"
    assert re.search(r"^0000\w{12}-\w{16} \w{16} ur-x$", mem, re.MULTILINE), "a program's text"
    began = time.monotonic()
    domain = context.xen.domain
    for pfn in range(0, domain.layout.nr_pages, 1021):
        mfn = int(domain.p2m[pfn])
        assert "are accounted for" in ask(context, f"xen whomaps {mfn}")
        assert "the tables agree" in ask(context, f"xen m2p {mfn}")
    for mfn in np.flatnonzero((domain.frames.np_type == 4) & (domain.frames.np_type_count > 0)).tolist():
        assert "are accounted for" in ask(context, f"xen whomaps {mfn}")
        assert "L4 table" in ask(context, f"xen ptable {mfn}")
    gdt = context.xen.vcpu.gdt_frames[0]
    assert "held: GDT page 0" in ask(context, f"xen whomaps {gdt}")
    assert "FIFO ABI" in ask(context, "xen evtchn")
    assert "#PF" in ask(context, "xen traps")
    assert "kernel r-x" in ask(context, "xen vtop 0xffffffff81000000")
    assert "pvstub trace" in ask(context, "xen hypercalls 100000")
    assert len(ask(context, "xen exceptions 5").splitlines()) == 5


# -- gdb's own script


def gdb(tmp_path: Path, *commands: str, connected: bool = True) -> str:
    """What a real gdb says to the commands, after it has sourced the script."""
    assert GDB is not None
    image = kernel(tmp_path, shutdown(0))
    stub = f"target remote | {sys.executable} -m suites.unit.gdb_stdio {image}"
    words = [f"source {PATH}", *([stub] if connected else []), *commands]
    ran = subprocess.run(
        [GDB, "-nx", "-batch", *(part for word in words for part in ("-ex", word))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return ran.stdout + ran.stderr


needs_gdb = pytest.mark.skipif(GDB is None, reason="gdb is not installed")


@needs_gdb
@pytest.mark.pv_needs("identity")
def test_the_extension_in_gdb(tmp_path: Path) -> None:
    said = gdb(
        tmp_path,
        "set $here = (char *) 0xffffffff81000123",
        "xen-vtop $here",
        "xen-vtop 0xffffffff81000000 + 0x124 cr3 $cr3_of_nobody",
        "xen-ptdump",
        "xen-hypercalls 3",
        "xen-p2m 0x1000",
        "xen-m2p 0x1000",
        "xen-whomaps 0x800 * 2",
        "xen evtchn",
        "monitor xen extension",
        "help xen-vtop",
        "echo --completion\\n",
        "complete xen v",
        "complete xen-ptdump c",
        "echo --errors\\n",
        "xen-vtop",
        "xen-vtop no_such_symbol",
        "xen-p2m 0x100 +",
        "xen nosuch",
    )
    head, _, rest = said.partition("--completion")
    completion, _, errors = rest.partition("--errors")
    assert "machine 0x1000123  pseudo-physical 0x1000123  kernel rwx" in head
    assert "krwx" in head
    assert "the tables agree" in head
    assert "mapped at 0xffffffff81000000: L1" in head
    assert "two-level ABI" in head
    assert f"{PATH}\n" in said
    assert "Usage: xen-vtop EXPR [cr3 EXPR]" in head
    assert completion.split("\n")[1:-1] == ["xen vcpu", "xen vtop", "xen-ptdump cr3"]
    assert "xen-vtop: an expression is missing" in errors
    assert "No symbol table is loaded" in errors
    assert "there is no 'nosuch'" in errors
    assert "Traceback" not in said
    assert "Python Exception" not in said


@needs_gdb
def test_the_extension_without_a_guest(tmp_path: Path) -> None:
    said = gdb(tmp_path, "xen-hypercalls", "xen-vtop 1", connected=False)
    assert said.count("not connected to pvstub") == 2
    assert "Python Exception" not in said


@needs_gdb
def test_the_extension_paints(tmp_path: Path) -> None:
    text = "[   0.000000001] d1v0 stack_switch(0x0) = -EINVAL (-22)\\n they do NOT agree: mfn 0x12\\n"
    said = gdb(tmp_path, f"python print(repr(painted('{text}')))", "python print(coloured())", connected=False)
    assert r"\x1b[32mstack_switch\x1b[m(0x0) = " in said
    assert r"\x1b[31m-EINVAL (-22)\x1b[m" in said
    assert r"\x1b[36mmfn 0x12\x1b[m" in said
    assert "False" in said, "its output is no terminal here"
