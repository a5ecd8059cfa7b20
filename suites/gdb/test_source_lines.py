"""A kernel with DWARF: gdb shows its source, steps by line, and knows arguments and variables."""

from __future__ import annotations

import pytest
from own_guest import SOURCES, line_of

from harness.gdb import Gdb

pytestmark = pytest.mark.guest(cmdline="chain")


def test_a_breakpoint_by_name_and_by_line(gdb: Gdb) -> None:
    assert "sections.c, line" in gdb.execute("break inner")
    stop = gdb.cont()
    assert stop["frame"]["fullname"] == str(SOURCES / "sections.c")
    gdb.execute("delete")
    line = line_of("sections.c", "return n * factorial(n - 1);")
    gdb.execute(f"tbreak sections.c:{line}")
    stop = gdb.cont()
    assert (stop["frame"]["func"], int(stop["frame"]["line"])) == ("factorial", line)


def test_list(gdb: Gdb) -> None:
    listed = gdb.execute("list middle")
    assert "volatile struct point point = {x, 7};" in listed
    assert "int x;" in gdb.execute("ptype struct point")
    assert f"Line {line_of('sections.c', 'APART int outer') + 1} of" in gdb.execute("info line outer")


def test_next_and_step(gdb: Gdb) -> None:
    """`next` goes over a call, `step` into it, line by line."""
    gdb.execute("tbreak outer")
    gdb.cont()
    first = line_of("sections.c", "int result = middle(x + 1, 10);")
    stop = _resume(gdb, "-exec-next")
    while int(stop["frame"]["line"]) <= first:
        stop = _resume(gdb, "-exec-next")
    assert stop["frame"]["func"] == "outer"
    assert gdb.evaluate("result") == "211"
    gdb.execute("tbreak factorial")
    gdb.cont()
    depth = 1
    for _ in range(20):
        stop = _resume(gdb, "-exec-step")
        if stop["frame"]["args"][0]["value"] == "5":
            depth = 2
            break
    assert depth == 2
    assert stop["frame"]["func"] == "factorial"


def _resume(gdb: Gdb, command: str) -> dict[str, object]:
    gdb.command(command)
    return gdb.wait_stop()


def test_locals_and_arguments(gdb: Gdb) -> None:
    gdb.execute(f"tbreak sections.c:{line_of('sections.c', 'return scaled;')}")
    stop = gdb.cont()
    assert stop["frame"]["func"] == "inner"
    shown = gdb.execute("info locals")
    assert "product = 21" in shown
    assert "scaled = 210" in shown
    assert gdb.evaluate("*point") == "{x = 3, y = 7}"
    gdb.execute("up")
    assert "point = {x = 3, y = 7}" in gdb.execute("info locals")
    backtrace = gdb.execute("backtrace")
    frames = [line for line in backtrace.splitlines() if line.startswith("#")]
    assert [frame.split(" (")[0].split()[-1] for frame in frames] == [
        "inner", "middle", "outer", "chain", "run_sections", "start", "_start"
    ]  # fmt: skip
    assert "outer (x=" in backtrace
    assert "names=names@entry=0x" in backtrace
    assert '"chain"' in backtrace


def test_assembly_has_lines_too(gdb: Gdb) -> None:
    gdb.execute("tbreak do_syscall")
    gdb.execute("tbreak *_start")
    assert "entry.S" in gdb.execute("info line *_start")
    assert "lea stack_top(%rip), %rsp" in gdb.execute("list _start")


@pytest.mark.guest(cmdline="loop")
def test_a_backtrace_ends_at_the_way_in(gdb: Gdb) -> None:
    """A trap's entry says that nothing is known behind it; gdb says no more than that."""
    gdb.execute("tbreak on_event")
    assert gdb.cont()["frame"]["func"] == "on_event"
    frames = gdb.execute("backtrace").splitlines()
    assert "on_event" in frames[0]
    assert "event_callback" in frames[1]
    assert len(frames) == 2
