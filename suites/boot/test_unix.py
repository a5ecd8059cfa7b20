"""The Solaris-like unix of our own (images/unix/README.md) starts as it says: console, page tables, hypercall log."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import pytest

from harness.guests import Guest
from harness.own_guests import unix
from stub.abi.errno import EINVAL
from stub.abi.xen import Hypercall
from stub.hypervisor.audit import audit
from stub.image.inspect import describe
from stub.memory import entries as e

PAGE, BASE = 4096, 0x4000_0000
FOREIGN = 0x800
XENS_START = {64: 0xFFFF_8000_0000_0000, 32: 0xF580_0000}


class Width(NamedTuple):
    """Of a kernel: where it is linked, and how many of its probes find no table."""

    bits: int
    text: int
    data: int
    shared: int
    probes: int
    census: dict[int, int]


WIDTHS = {
    64: Width(64, 0xFFFF_FFFF_FB80_0000, 0xFFFF_FFFF_FBC0_0000, 0xFFFF_FFFF_FC00_0000, 5, {4: 1, 3: 2, 2: 2, 1: 10}),
    32: Width(32, 0xF400_0000, 0xF440_0000, 0xF480_0000, 3, {3: 1, 2: 4, 1: 11}),  # one of these is Xen's
}
QUIET = "/platform/i86xpv/kernel/amd64/unix"
LOUD = f"{QUIET} -B prom_debug=true,kbm_debug=true"


@pytest.fixture(params=[64, 32], ids=lambda bits: f"{bits}-bit")
def width(request: pytest.FixtureRequest) -> Width:
    """Every test is for both."""
    return WIDTHS[request.param]


@pytest.fixture
def started(guest: Guest, width: Width) -> Any:
    """Calls that start it: a guest with its kernel file and these parameters."""
    return lambda **changes: guest(f"unix{width.bits}", **changes)


def ranges(text: str, pattern: str) -> list[range]:
    """The ranges of addresses that a console's lines name."""
    return [range(int(a, 16), int(b, 16)) for a, b in re.findall(pattern, text)]


def test_its_file_is_what_xen_needs_to_know(width: Width) -> None:
    """Three segments, of which only the third runs where it is linked, and one string for Xen."""
    report = describe(unix(width.bits))
    assert report["bootable"]
    assert report["notes"] == []
    assert report["parms"]["source"] == "__xen_guest"
    assert report["parms"]["hypercall_page"] is None
    rows = [(row["first_pfn"], row["runs_where_linked"], row["holds_entry"]) for row in report["segments"]]
    assert rows == [("0x400", False, False), ("0x800", False, False), ("0xc00", True, True)]
    assert report["parms"]["entry"] == "0x40c00000"
    assert report["guest"] == "pvstub"


def test_it_says_little_unless_it_is_asked(started: Any, width: Width) -> None:
    """prom_debug and kbm_debug add lines, each its own; the rest is the same."""
    texts = {}
    for words in ("", "-B prom_debug=true", "-B kbm_debug=true", "-B prom_debug=true,kbm_debug=true"):
        guest = started(cmdline=f"{QUIET} {words}".strip())
        guest.wait("poweroff", timeout=1)
        texts[words] = guest.console.text.replace("\r", "").splitlines()
    quiet, prom, kbm, both = texts.values()
    assert [line.split()[0] for line in quiet] == ["pvstub", "kernel", "data", "time", str(width.probes)]
    assert quiet[0] == f"pvstub unix Release 1 {width.bits}-bit"
    assert quiet[3] == "time of day 1700000000"
    assert {line.split()[0] for line in prom} - {line.split()[0] for line in quiet} == {"dboot:", "property"}
    assert {line.split()[0] for line in kbm} - {line.split()[0] for line in quiet} == {"kbm:"}
    assert len(both) > len(prom) > len(kbm) - 5 > len(quiet) - 5


@pytest.mark.parametrize(
    ("cmdline", "properties"),
    [
        ("", []),
        ("/unix", ["boot-file=/unix"]),
        ("root=/dev/dsk/c0d0s0 /unix", ["xpv-root=/dev/dsk/c0d0s0", "boot-file=/unix"]),
        ("a=1 b=2 /unix -B c=3,d=4 -k", ["xpv-a=1", "xpv-b=2", "boot-file=/unix", "c=3", "d=4"]),
        ("/unix late=no -B console=ttya", ["boot-file=/unix", "console=ttya"]),
        ("-B x=1", ["x=1"]),
    ],
)
def test_the_command_line_becomes_properties(started: Any, cmdline: str, properties: list[str]) -> None:
    """Leading key=value words, the boot-file, -B: as i86xpv takes them from the domain's configuration."""
    guest = started(cmdline=f"{cmdline} -B prom_debug=true")
    guest.wait("poweroff", timeout=1)
    found = re.findall(r"^property (.*?)\r?$", guest.console.text, re.MULTILINE)
    assert found == [*properties, "prom_debug=true"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"seed": 7},
        pytest.param({"p2m": "identity"}, marks=pytest.mark.pv_needs("identity")),
        {"ramdisk": bytes(70_000), "memory": 96},
    ],
)
def test_its_tables_are_those_that_it_meant(started: Any, width: Width, changes: dict[str, Any]) -> None:
    """What it says it mapped, page by page, is what the walker finds, and nothing else."""
    guest = started(cmdline=LOUD)(**changes)
    guest.console.expect_line("^time of day")
    text = guest.console.text
    (window,) = ranges(text, r"window (0x\w+)-(0x\w+)")
    (old,) = ranges(text, r"old tables (0x\w+)-(0x\w+)")
    tables = [int(at, 16) for at in re.findall(r"kbm: table .* at (0x\w+)", text)]
    new = range(int(re.findall(r"new from (0x\w+)", text)[0], 16), max(tables) + PAGE)
    meant = {}
    for at in range(window.start, window.stop, PAGE):
        meant[at] = ("kernel r-x" if at in old or at in new else "kernel rwx", (at - BASE) // PAGE)
    for start, stop, pfn, rights in re.findall(r"kbm: map \w+ (0x\w+)-(0x\w+) pfn (0x\w+) (\S+)", text):
        for page, at in enumerate(range(int(start, 16), int(stop, 16), PAGE)):
            meant[at] = (f"kernel {rights}", int(pfn, 16) + page)
    for at in range(width.data, width.data + 2 * PAGE, PAGE):
        del meant[BASE + meant[at][1] * PAGE]  # closed by the kernel
    space = guest.pagetables.space()
    found = {int(at): int(pfn) for at, pfn in zip(space.mappings.vaddr, space.pfns(space.mappings), strict=True)}
    own = (at for at in found if at < XENS_START[width.bits] or at >= width.text)
    mapped = {at: (space.walk(at).access, found[at]) for at in own if not XENS_START[32] <= at < 1 << 32}
    foreign = mapped.pop(width.shared)
    assert mapped == meant
    assert foreign[0] == "kernel rw-"
    census = dict(guest.pagetables.table_census(of=space))
    assert census == width.census
    assert audit(guest.machine.xen) == []


def test_the_foreign_frame_is_marked_and_no_other(started: Any, width: Width) -> None:
    """shared_info has no PFN; the software bit that says so is kept by Xen. Nothing of the guest's own has it."""
    guest = started(cmdline=LOUD)
    guest.console.expect_line("^time of day")
    space = guest.pagetables.space()
    entry = space.walk(width.shared).steps[-1].entry
    assert entry & FOREIGN
    assert entry >> 12 & e.FRAME_MASK == guest.machine.xen.domain.area.shared_info
    marked = space.mappings.vaddr[(space.mappings.entry & FOREIGN) != 0]
    assert marked.tolist() == [width.shared]


def test_failing_probes_are_how_it_finds_missing_tables(started: Any, width: Width) -> None:
    """-EINVAL means no table, and nothing else happened: each is followed by the table, and by the same call again."""
    guest = started(cmdline=QUIET)
    guest.wait("poweroff", timeout=1)
    said = re.search(r"^(\d+) failed probes, (\d+) tables", guest.console.text, re.MULTILINE)
    assert said is not None
    log = guest.hypercalls
    assert log.count("update_va_mapping rc=-EINVAL") == log.count("error") == int(said[1]) == width.probes
    assert log.count("mmu_update") == width.probes
    calls = log.select("update_va_mapping,mmu_update")
    for at, call in enumerate(calls):
        if call.result == -EINVAL:
            following = calls[at + 1 : at + 4]
            assert [each.number for each in following] == [
                Hypercall.update_va_mapping,  # the new table is made read-only
                Hypercall.mmu_update,  # and entered
                Hypercall.update_va_mapping,  # and it is tried again
            ]
            assert following[2].args[:2] == call.args[:2]


def test_it_enters_its_kernel_once_on_tables_of_its_own(started: Any, width: Width) -> None:
    """One new base pointer; the calls before are made from dboot, the others from the kernel's text."""
    guest = started(cmdline=QUIET)
    guest.wait("poweroff", timeout=1)
    log = guest.hypercalls
    assert log.count("mmuext_op:NEW_BASEPTR") == log.count("mmuext_op:UNPIN_TABLE") == 1
    in_kernel = [call.rip >= width.text for call in log.select("hypercall")]
    assert sorted(in_kernel) == in_kernel, "never back in dboot"
    assert 0 < sum(in_kernel) < len(in_kernel)
    assert log.count("page_table_write") == 2, "its data was taken out of the window, by cmpxchg"


def test_the_boot_archive_is_mapped_behind_the_kernel(started: Any) -> None:
    guest = started(cmdline=QUIET, ramdisk=b"ARCHIVE!" + bytes(9000))
    guest.console.expect_line(r"^ramdisk_start=0x40c02000 ramdisk_end=0x40c05000 first word 0x48435241")  # "ARCH"
    guest.wait("poweroff", timeout=1)


def test_it_needs_no_more_than_its_segments_reach(started: Any) -> None:
    """Scratch behind the boot stack, whatever the memory: 512 KiB, as the builder promises."""
    for memory in (32, 48, 512):
        guest = started(cmdline=LOUD)(memory=memory)
        guest.wait("poweroff", timeout=1)
        (scratch,) = ranges(guest.console.text, r"scratch (0x\w+)-(0x\w+)")
        assert len(scratch) == 512 << 10
