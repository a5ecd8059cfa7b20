"""The benchmarks' own arithmetic, parsing and tables; what they measure is not measured here."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from benchmarks import machine, memory, shares, traps
from benchmarks.__main__ import MEASURES, main
from benchmarks.commands import Setting, child, pvstub, qemu
from benchmarks.process import Unexpected, printed_by, to_end, to_line
from benchmarks.samples import Sample, Series, alternate, orders, ratio
from benchmarks.table import HEADINGS, Row, Section, spread, verdict
from harness.catalogue import CatalogueImage
from stub.image import load_image


def series(*seconds: float) -> Series:
    """CPU time half of wall time."""
    return Series(tuple(Sample(value, value / 2) for value in seconds))


# -- statistics


def test_the_ratio_is_the_median_of_each_rounds_own() -> None:
    """A machine that slows down for a round slows both: no ratio of medians."""
    assert ratio([1.0, 20.0, 3.0], [1.0, 10.0, 1.0]) == 2.0


def test_series_are_compared_round_by_round() -> None:
    each = (series(3.0, 5.0) - series(1.0, 1.0)) / 2
    assert each.wall == (1.0, 2.0)
    assert each.cpu == (0.5, 1.0)
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        series(1.0, 2.0) - series(1.0)


def test_the_order_turns_round() -> None:
    assert [list(order) for order in orders(2, 3)] == [[0, 1], [1, 0], [0, 1]]
    taken: list[str] = []

    def action(name: str) -> Sample:
        taken.append(name)
        return Sample(len(taken), 0)

    a, b = alternate(2, lambda: action("a"), lambda: action("b"))
    assert taken == ["a", "b", "b", "a"]
    assert (a.wall, b.wall) == ((1, 4), (2, 3))


# -- tables


def test_a_row_against_a_peer() -> None:
    row = Row("boot", series(3.0, 3.0, 6.0), series(2.0, 3.0, 3.0), target=1.4)
    cells = dict(zip(HEADINGS[:4], row.cells(), strict=False))
    assert cells == {
        "measure": "boot",
        "pvstub": "3.00 s (3.00 to 6.00)",
        "peer": "3.00 s (2.00 to 3.00)",
        "ratio": "1.50",
    }
    assert row.cells()[-2:] == ["≤ 1.40", "**missed**"]
    assert len(row.cells()) == len(HEADINGS)


def test_a_row_alone_is_held_against_its_time() -> None:
    row = Row("call", series(1.5e-6), unit="µs", target=2e-6)
    assert row.cells() == ["call", "1.50 µs", "", "", "0.75 µs", "", "", "≤ 2.00 µs", "met"]
    assert verdict(1, None) == ""
    assert spread((0.1, 0.2, 0.3), "ms") == "200 ms (100 to 300)"


def test_a_section_is_markdown() -> None:
    text = Section("Calls", "What it is.", [Row("call", series(1.0))], ["The end."]).markdown()
    assert text.startswith("## Calls\n\nWhat it is.\n\n| measure |")
    assert text.endswith("|\n\nThe end.")
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1


# -- commands and processes


def test_commands_keep_their_runs_in_the_scratch_folder(tmp_path: Path) -> None:
    setting = Setting(1, tmp_path)
    assert pvstub(setting, "x", "--quiet")[1:] == ["boot", "x", "--quiet", "--run", str(tmp_path / "run")]
    script = child(setting, "without_log", "x", first="log")
    assert Path(script[1]).is_file()
    assert script[2:5] == ["log", "boot", "x"]
    image = CatalogueImage("x", Path("k"), Path("r"), "console=hvc0", 256, "1", {}, {})
    line = " ".join(qemu(image))
    assert "-accel tcg -m 256 " in line
    assert line.endswith("-kernel k -initrd r -append console=ttyS0")


def test_a_command_is_measured_to_its_line_and_killed() -> None:
    seen: list[int] = []
    began = time.perf_counter()
    code = "import os; os.write(1, b'one, the li'); os.write(1, b'ne'); import signal; signal.pause()"
    sample = to_line([sys.executable, "-c", code], b"the line", seen.append)
    assert 0 < sample.wall <= time.perf_counter() - began
    assert sample.cpu > 0
    assert not Path("/proc", str(seen[0])).exists()


def test_a_command_that_does_something_else_is_an_error() -> None:
    with pytest.raises(Unexpected, match=r"(?s)no 'never'.*it said:\nbroken"):
        to_line([sys.executable, "-c", "import sys; sys.exit('broken')"], b"never")
    with pytest.raises(Unexpected, match="exit status 4"):
        to_end([sys.executable, "-c", "import sys; sys.exit(4)"])


def test_what_a_command_prints() -> None:
    assert printed_by([sys.executable, "-c", "print(1.5, 2)"]) == b"1.5 2\n"
    with pytest.raises(Unexpected, match="exit status 4"):
        printed_by([sys.executable, "-c", "import sys; sys.exit(4)"])


def test_children_see_no_python_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    to_end([sys.executable, "-c", "import sys; sys.exit(sys.dont_write_bytecode)"])


# -- what the machine says


def test_the_machine_is_described_without_names() -> None:
    assert machine.cpu_model("processor\t: 0\nmodel name\t: A CPU @ 2GHz\nflags\t: x\n") == "A CPU @ 2GHz"
    assert machine.memory_gib("MemTotal:        8388608 kB\nMemFree: 1 kB\n") == 8.0
    assert machine.qemu_version("QEMU emulator version 7.2.22 (Debian 1:7.2)\n") == "7.2.22"


SMAPS = """\
55d0-55d1 r-xp 00000000 fe:01 12 /usr/bin/python3
Rss:                   4 kB
10000000-30000000 rwxp 00000000 00:00 0
Size:             524288 kB
Rss:               90000 kB
40000000-60000000 rw-p 00000000 00:00 0
Rss:                   8 kB
70000000-80400000 rw-p 00000000 00:00 0
Size:             266240 kB
Rss:               81000 kB
Pss:               81000 kB
"""


def test_the_guests_own_memory_is_found() -> None:
    """Neither the translated code's buffer, which is executable, nor a larger reservation."""
    assert memory.guest_rss(SMAPS, 256) == 81000
    assert memory.peak_rss("VmPeak:\t 9 kB\nVmHWM:\t  120 kB\n") == 120
    with pytest.raises(ValueError, match="1024 MiB"):
        memory.guest_rss(SMAPS, 1024)


PERF = """\
 10.500000:      7f6100000001 (/usr/lib/libpython3.11.so.1.0)
 10.400000:  ffffffff815a1446 ([kernel.kallsyms])
 10.600000:      7f6100000002 (/tmp/perf-77.map)
 10.700000:      7f6100000003 (/x/unicorn/lib/libunicorn.so.2)
 10.800000:      7f6100000004 (/x/stub/engine/unicorn/_core.abi3.so)
 10.900000:      7f6100000005 (/usr/lib/libpython3.11.so.1.0)
 11.000000:  ffffffff815a1446 ([kernel.kallsyms])
 11.100000:      7f6100000006 (//anon)
"""


def test_a_profile_is_shared_out() -> None:
    """All before the first sample in translated code is start-up, whatever it was in."""
    found = shares.shares(shares.samples(PERF))
    assert found == {
        shares.STARTUP: 2 / 8,
        shares.TRANSLATED: 2 / 8,
        shares.ENGINE: 2 / 8,
        shares.HYPERVISOR: 1 / 8,
        shares.KERNEL: 1 / 8,
    }
    assert shares.shares([]) == dict.fromkeys(shares.PARTS, 0)


# -- the guests and the command


@pytest.mark.parametrize("row", traps.MEASURES, ids=lambda row: row[0])
def test_the_guests_are_kernels(tmp_path: Path, row: tuple[str, str, tuple[str, ...], float]) -> None:
    image = load_image(traps.assemble(tmp_path, row[1], 1, row[2]))
    assert image.parms.guest_os == "benchmark"
    assert any(segment.vaddr <= image.entry < segment.vaddr + segment.filesz for segment in image.segments)


def test_a_wrong_word_names_the_measures(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["speed"])
    assert caught.value.code == 2
    assert f"no measure speed; there are {', '.join(MEASURES)}" in capsys.readouterr().err
