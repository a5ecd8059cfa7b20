"""``pvstub diff --backtrace``: who called where two runs part, found by booting both again up to there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from own_guest import MEMORY, build, symbols

from harness import again, artefact, catalogue
from harness.cache import cache_folder
from harness.diff.backtrace import backtrace
from harness.diff.command import main
from harness.diff.places import Places
from harness.unwind import Unwinder
from stub.domain.config import DomainConfig
from stub.gdb.symbols import Symbols
from stub.machine import Limits, Machine
from stub.trace.reader import LogReader, read
from stub.trace.text import line

pytestmark = pytest.mark.usefixtures("pv_engine")

Run = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Boot our own guest, to its end; the run's folder."""

    def boot(name: str, cmdline: str, **changed: Any) -> Path:
        config = DomainConfig(kernel=build(), memory=MEMORY, cmdline=cmdline, **changed)
        with Machine(config, tmp_path / name) as machine:
            verdict = machine.run()
        assert verdict is not None
        assert verdict.kind == "poweroff"
        return tmp_path / name

    return boot


def names(frames: list[dict[str, str]]) -> list[str]:
    return [frame["symbol"].partition("+")[0] for frame in frames]


def compared(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert main([*map(str, words), "--backtrace", "--json"]) == 1
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["divergence"]
    return found


def test_who_called_in_a_guest_with_symbols(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """One goes off where the other has more to do; by the compiler's own table of where callers are."""
    good, bad = run("good", "nothing"), run("bad", "")
    found = compared(capsys, good, bad)
    assert names(found["good"]["backtrace"]["frames"])[:2] == ["power_off", "start"]
    assert names(found["bad"]["backtrace"]["frames"])[-3:-1] == ["run_sections", "start"]
    assert main([str(good), str(bad), "--backtrace"]) == 1
    out = capsys.readouterr().out
    assert f"    #0  {found['good']['record']['rip']} power_off+" in out
    assert " start+" in out


def test_frame_pointers_do_where_there_is_no_table() -> None:
    """As far as they go: power_off, which never returns, has not kept its caller's."""
    config = DomainConfig(kernel=build(), memory=MEMORY, cmdline="nothing")
    with Machine(config) as machine:
        machine.run()
        registers, read_memory = machine.registers(), machine.xen.domain.guest.read_available
        by_table = [frame.place for frame in Unwinder(build()).frames(registers, read_memory)]
        by_pointers = [frame.place for frame in Unwinder(None).frames(registers, read_memory)]
    start = symbols()["start"]
    assert len(by_table) >= 3
    assert by_pointers == [by_table[0], *by_table[2:]]
    assert start < by_table[1] < start + 0x400


def test_an_artefact_will_do(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The kernel and its symbols are in it."""
    config = DomainConfig(kernel=Path(shutil.copy(build(), tmp_path / "kernel")), memory=MEMORY, cmdline="")
    with Machine(config, tmp_path / "left") as machine:
        machine.run()
        end = machine.now_ns, len(machine.console.output)
    artefact.write(tmp_path / "left.zip", machine, end)
    (tmp_path / "kernel").unlink()
    shutil.rmtree(tmp_path / "left")
    found = compared(capsys, run("good", "nothing"), tmp_path / "left.zip")
    assert names(found["bad"]["backtrace"]["frames"])[-3:-1] == ["run_sections", "start"]


def test_why_there_is_none(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The files have gone, or the log is not what these inputs give."""
    good, bad = run("good", "nothing"), run("bad", "")
    summary = json.loads((good / "summary.json").read_text())
    summary["inputs"]["files"]["kernel"] = str(tmp_path / "gone")
    (good / "summary.json").write_text(json.dumps(summary))
    summary = json.loads((bad / "summary.json").read_text())
    summary["inputs"]["config"]["seed"] = 9
    (bad / "summary.json").write_text(json.dumps(summary))
    found = compared(capsys, good, bad, "--symbols", build())
    assert "is no longer there" in found["good"]["backtrace"]["why"]
    assert "it does not come by there" in found["bad"]["backtrace"]["why"]
    assert found["good"]["backtrace"]["frames"] == []
    assert main([str(good), str(bad), "--backtrace"]) == 1
    assert "is no longer there" in capsys.readouterr().out


def test_a_stock_kernel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Debian's, by its own unwind table: with less memory fewer page tables are filled."""
    image = catalogue.load("debian-cloud")
    for name, extra in (("good", ""), ("bad", " mem=128M")):
        config = DomainConfig(image.kernel, name, image.ramdisk, image.cmdline + extra)
        with Machine(config, tmp_path / name, Limits(virtual_ns=25_000_000), cache=cache_folder() / "kernels") as guest:
            guest.run()
    found = compared(capsys, tmp_path / "good", tmp_path / "bad")
    for side in ("good", "bad"):
        called = names(found[side]["backtrace"]["frames"])
        assert called[0] == "xen_hypercall_pv"
        assert called[-5:] == ["init_mem_mapping", "setup_arch", "start_kernel", "xen_start_kernel", "startup_xen"]


def test_every_kind_of_event(run: Run) -> None:
    """Each one's place is found again: hypercalls, exceptions, privileged instructions, the end."""
    folder = run("tour", "")
    with LogReader(folder) as log:
        places = Places(log.identity, Symbols(build()))
    first = {(record.name, record.subop): record for record in reversed(read(folder))}
    skipped = {"upcall", "console", "note", "start"}
    looked = [record for (name, _), record in first.items() if name not in skipped]
    inputs = again.of_run(folder).inputs
    assert len(looked) > 10
    for record in looked:
        found = backtrace(folder / "hypercalls", record, lambda: inputs, places, cache_folder() / "kernels")
        assert found.frames, f"{line(record)}: {found.why}"
        assert found.frames[0][0] == record.rip


def test_in_a_later_boot_and_after_typing(tmp_path: Path) -> None:
    """Times in the log are each boot's own, and what was typed is typed again on the way."""
    config = DomainConfig(kernel=build(), memory=MEMORY, cmdline="chain reboot", on_reboot="restart")
    folder = tmp_path / "run"
    with Machine(config, folder) as machine:
        while machine.boots < 2:
            machine.turn()
        machine.run(deadline_ns=machine.now_ns + 2_000)
        machine.console.send(b"typed")
        while machine.boots < 4:
            machine.turn()
        machine.interrupt()
    inputs = again.of_run(folder).inputs
    assert [typed.data for typed in inputs.typed] == [b"typed"]
    with LogReader(folder) as log:
        places = Places(log.identity, Symbols(build()))
    calls = [record for record in read(folder) if record.name == "sched_op" and record.subop == "SCHEDOP_shutdown"]
    assert len(calls) == 3
    for record in calls:
        found = backtrace(folder / "hypercalls", record, lambda: inputs, places, cache_folder() / "kernels")
        assert "run_sections" in str(found.frames), found.why
