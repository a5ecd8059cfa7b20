"""Assertions on page tables, and the command that shows a run's snapshots."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from table_builder import DATA, HEAP, KERNEL, MEM, TEXT, XEN_VA, Machine, guest, space_of

from harness.pagetables import PageTables
from harness.pagetables_command import main
from stub.errors import UsageError
from stub.memory import entries as e
from stub.memory.formats import FORMATS, LEGACY, RAW
from stub.trace.pagetables import ranges, store, walks
from stub.trace.pagetables.moments import Root

# -- assertions


TABLES = PageTables(lambda: pytest.fail("no guest is asked"))


def test_assertions_that_hold() -> None:
    snapshot = guest().snapshot()
    TABLES.assert_unmapped(0, 0x10000, of=snapshot)
    TABLES.assert_unmapped(XEN_VA, of=snapshot)
    TABLES.assert_mapped(TEXT, 3 * 4096, "kernel r-x", of=snapshot)
    TABLES.assert_read_only(TEXT, 3 * 4096, of=snapshot)
    TABLES.assert_no_writable_code(of=snapshot)
    TABLES.assert_no_writable_mapping(64, of=snapshot)
    assert dict(TABLES.table_census(of=snapshot)) == {4: 1, 3: 2, 2: 2, 1: 3}
    assert dict(TABLES.page_census(of=snapshot)) == {4096: 47}
    assert TABLES.walk(TEXT, of=snapshot).maddr == 10 << 12
    assert [each.start for each in TABLES.ranges(of=snapshot)][:1] == [HEAP]
    assert len(TABLES.whomaps(pfn=0x64, of=snapshot)) == 1


def failure(check: str, *args: object, **options: object) -> str:
    with pytest.raises(AssertionError) as error:
        getattr(TABLES, check)(*args, **options)
    return str(error.value)


def test_assertions_that_fail_show_the_first_address_walked() -> None:
    machine = guest()
    machine.map(machine.roots[0].maddr, TEXT + 0x5000, 15, KERNEL | e.RW)
    snapshot = machine.snapshot()
    text = failure("assert_unmapped", TEXT - 0x1000, 0x4000, of=snapshot)
    assert text.startswith(
        f"3 pages are mapped, of {TEXT - 0x1000:#x}-{TEXT + 0x3000:#x}, which should not be; the first is {TEXT:#x}:"
    )
    assert " L1 mfn " in text
    text = failure("assert_mapped", TEXT, 0x5000, of=snapshot)
    assert text.startswith("2 pages are not mapped")
    assert "ends here: the L1 entry is not present" in text
    assert "mapped, but not kernel r--" in failure("assert_mapped", TEXT, 4096, "kernel r--", of=snapshot)
    assert failure("assert_read_only", DATA, of=snapshot).startswith("a page is writable")
    assert f"{TEXT + 0x5000:#x}-{TEXT + 0x6000:#x} kernel rwx" in failure("assert_no_writable_code", of=snapshot)
    assert "mfn 0x14 can be written to" in failure("assert_no_writable_mapping", 20, of=snapshot)
    assert "not at the address that is its pfn's" in failure("assert_identity", HEAP, of=snapshot)


def test_wrong_questions_get_a_line() -> None:
    snapshot = guest().snapshot()
    for check, args in (
        ("assert_unmapped", (1,)),
        ("assert_unmapped", (0, 0)),
        ("assert_unmapped", (0x7FFFFFFFF000, 0x2000)),
        ("assert_mapped", (TEXT, 4096, "r-x")),
        ("assert_identity", (TEXT, 4096, "gfn")),
        ("walk", (1 << 47,)),
    ):
        with pytest.raises(UsageError):
            getattr(TABLES, check)(*args, of=snapshot)
    with pytest.raises(UsageError):
        TABLES.whomaps(of=snapshot)
    with pytest.raises(UsageError):
        TABLES.space("kernel", of=space_of(snapshot))


def test_a_loaders_identity_map() -> None:
    """Page 0 unmapped to catch null pointers, the rest at its own address: by PFN, through small and large pages."""
    machine = Machine()
    root = machine.root(RAW)
    for page in range(1, 512):
        machine.map(root, page << 12, page, e.P | e.RW, fmt=RAW)
    for large in range(1, 8):
        machine.map(root, large << 21, large << 9, e.P | e.RW, fmt=RAW, page=1 << 21)
    raw = space_of(machine.snapshot(), f"raw:{root:#x}")
    TABLES.assert_unmapped(0, of=raw)
    TABLES.assert_identity(0x1000, (1 << 24) - 0x1000, "mfn", of=raw)
    machine.map(root, 0x123000, 7, e.P | e.RW, fmt=RAW)
    raw = space_of(machine.snapshot(), f"raw:{root:#x}")
    assert f"it is {0x123000:#x}" in failure("assert_identity", 0x1000, 0x200000, "mfn", of=raw)


def test_a_loaders_tables_with_pfns_in_them() -> None:
    machine = Machine()
    where = {int(pfn): mfn for mfn, pfn in enumerate(machine.m2p)}
    for level, pfn in ((4, 30), (3, 31), (2, 32), (1, 33)):
        target = pfn + 1 if level > 1 else 5
        machine.table[where[pfn], 5 if level == 1 else 0] = target << 12 | e.P | e.RW
    machine.roots.append(Root(where[30] << 12, "raw"))
    kept = [where[pfn] for pfn in (30, 31, 32, 33)]
    for mfn, level in zip(kept, (4, 3, 2, 1), strict=True):
        machine.frames.type[mfn], machine.frames.type_count[mfn] = level, 1
    space = space_of(machine.snapshot(), f"raw:{where[30] << 12:#x}", by_pfn=True)
    assert space.walk(0x5000).maddr == 0x5000
    TABLES.assert_identity(0x5000, of=space)
    assert list(walks.lines(space, 0x5000))[-1] == f"machine {where[5] << 12:#x}  pseudo-physical 0x5000  kernel rwx"
    assert [(each.pfns, each.mfns) for each in space.ranges()] == [((5, 5), ())]


def test_a_mirror_of_32_bit_tables_in_64_bit_ones() -> None:
    """What a 64-bit loader does with its 32-bit tables: 0x1000 is also 0xffffffff00001000."""
    machine = Machine()
    old, new = machine.root(LEGACY), machine.root(RAW)
    high = 0xFFFFFFFF00000000
    for page in (1, 2, 3, 600):
        machine.map(old, page << 12, page % 60, e.P | e.RW, fmt=LEGACY)
        machine.map(new, high + (page << 12), page % 60, e.P | e.RW, fmt=RAW)
        machine.map(new, page << 12, page % 60, e.P | e.RW, fmt=RAW)
    snapshot = machine.snapshot()
    one, two = space_of(snapshot, f"legacy:{old}"), space_of(snapshot, f"raw:{new}")
    TABLES.assert_mirrored(0, high, 1024 << 12, of=one, other=two)
    TABLES.assert_mirrored(0, high, 1024 << 12, of=two)
    assert one.mappings.frame.tolist() == two.mappings.frame.tolist()[:4], "the same list of frames"
    machine.map(new, high + (2 << 12), 9, e.P | e.RW, fmt=RAW)
    two = space_of(machine.snapshot(), f"raw:{new}")
    text = failure("assert_mirrored", 0, high, 1024 << 12, of=one, other=two)
    assert text.startswith(f"1 of 1024 pages differ from their twins; the first is {2 << 12:#x}:")
    machine.map(new, high + (2 << 12), 2, e.P, fmt=RAW)
    two = space_of(machine.snapshot(), f"raw:{new}")
    assert "the first is 0x2000" in failure("assert_mirrored", 0, high, 1024 << 12, of=one, other=two)


# -- the command


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with two snapshots."""
    machine = guest()
    keeper = store.Keeper(tmp_path)
    keeper.keep(machine.snapshot(virtual_ns=10, hypercalls=1))
    machine.map(machine.roots[0].maddr, DATA, 20, KERNEL | e.NX)
    keeper.keep(machine.snapshot(virtual_ns=20, hypercalls=2))
    return tmp_path


def ask(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    status = main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert (status, err) == (0, "")
    return out


def test_every_action(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = ask(capsys, run, "list").splitlines()
    assert both == ask(capsys, run).splitlines()
    assert [line.split(" at ")[0] for line in both] == ["snapshot 1", "snapshot 2"]
    assert "kernel r-x" in ask(capsys, run, "walk", hex(TEXT))
    assert ask(capsys, run, "ranges", "--style", "mem", "--snapshot", 1) == MEM
    assert ask(capsys, run, "--snapshot", 1, "ranges", "--style", "mem") == MEM
    assert "Xrwx" in ask(capsys, run, "ranges", "--style", "mem", "--xen")
    assert f"mapped at {DATA:#x}" in ask(capsys, run, "whomaps", "0x14")
    assert ask(capsys, run, "whomaps", "--pfn", "0x64") == ask(capsys, run, "whomaps", "20")
    assert " 1 page became read-only" in ask(capsys, run, "diff", 1, 2)
    assert ask(capsys, run, "diff", store.path_of(run, 1), 2) == ask(capsys, run, "diff", 1, 2)
    assert "tables: L4 1, L3 2" in ask(capsys, run, "census")
    assert ask(capsys, store.path_of(run, 2), "census") == ask(capsys, run, "census")
    assert ask(capsys, run, "map", "--svg", run / "a.svg", "--png", run / "a.png") == ""
    assert (run / "a.svg").read_text().startswith("<svg")
    assert (run / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("words", [["list"], ["walk", "0x400000"], ["ranges"], ["whomaps", "20"], ["diff", "1", "2"], ["census"]])  # fmt: skip  # noqa: E501
def test_json(run: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert json.loads(ask(capsys, run, *words, "--json"))
    assert json.loads(ask(capsys, run, "--json", *words))


@pytest.mark.parametrize(
    "words",
    [
        ["RUN", "walk"],
        ["RUN", "walk", "x"],
        ["RUN", "walk", "0x800000000000"],
        ["RUN", "walk", "0x10000000000000000"],
        ["RUN", "walk", "0", "--snapshot", "3"],
        ["RUN", "walk", "0", "--snapshot", "RUN"],
        ["RUN", "walk", "0", "--root", "raw:zero"],
        ["RUN", "walk", "0", "--root", "user"],
        ["RUN", "ranges", "--style", "none"],
        ["RUN", "whomaps"],
        ["RUN", "whomaps", "1", "--pfn", "2"],
        ["RUN", "whomaps", "0x100000"],
        ["RUN", "whomaps", "--pfn", "0x100000"],
        ["RUN", "diff", "1"],
        ["RUN", "diff", "1", "9"],
        ["RUN", "map"],
        ["RUN", "map", "--svg", "/nowhere/at/all.svg"],
        ["RUN", "fly"],
        ["/nowhere", "list"],
        ["/dev/null", "list"],
        ["/etc/passwd", "list"],
        ["/tmp", "walk", "0"],
        ["live"],
        ["live", "unix:/nowhere", "census"],
        ["live", "127.0.0.1:1", "census"],
        [],
    ],
)
def test_nonsense_gets_a_line_and_status_2(words: list[str], run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word.replace("RUN", str(run)) for word in words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"pvstub pagetables: .+\n", err)


def test_a_damaged_snapshot_gets_a_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = store.path_of(run, 2)
    path.write_bytes(path.read_bytes()[:-20])
    assert main([str(run), "census"]) == 2
    assert "damaged snapshot" in capsys.readouterr().err


def test_help_names_every_format_style_and_action(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    for name in (*FORMATS, *ranges.STYLES, "list", "walk", "ranges", "whomaps", "diff", "census", "map", "live"):
        assert re.search(rf"\b{name}\b", text), name
