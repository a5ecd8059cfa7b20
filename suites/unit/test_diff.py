"""``pvstub diff``: what counts as the same, the first divergence with its context, statuses and JSON."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from elf_builder import Sect, elf, symbol_sections

from harness.diff.command import main
from stub.abi import xen
from stub.abi.errno import EINVAL
from stub.abi.event_channel import EVTCHNOP_bind_virq, EVTCHNOP_send
from stub.domain.builder import LOW_FRAMES, shuffled
from stub.trace.writer import HypercallLog

TEXT = 0xFFFF_FFFF_8100_0000
DIRECT = 0xFFFF_8880_0000_0000
MEMORY = 32
PAGES = MEMORY << 8


class Boot:
    """A log of a boot, written call by call; PFNs are turned into the machine frames of its seed."""

    def __init__(self, folder: Path, seed: int = 0, kernel: str = "ab", step: int = 1000, text: int = TEXT) -> None:
        folder.mkdir()
        identity = {"bits": 64, "memory": MEMORY, "seed": seed, "p2m": "shuffle", "kernel": kernel, "domain": 1}
        self.log = HypercallLog(folder / "hypercalls", identity=identity)
        self.frames = [int(mfn) + LOW_FRAMES for mfn in shuffled(PAGES, seed)]
        self.time, self.step = 0, step
        self.log.start(0, text, 0, PAGES)

    def call(self, name: str, *args: int, rc: int = 0, payload: bytes = b"", rip: int = TEXT) -> Boot:
        self.time += self.step
        self.log.hypercall(self.time, rip, xen.Hypercall[name], *(*args, 0, 0, 0, 0, 0)[:5], rc, payload, b"")
        return self

    def map(self, pfn: int, flags: int = 0x63) -> Boot:
        """The mmu_update that maps a frame, in slot 3 of the table in frame 9."""
        request = struct.pack("<QQ", self.frames[9] << 12 | 3 << 3, self.frames[pfn] << 12 | flags)
        return self.call("mmu_update", TEXT + 0x100, 1, 0, xen.DOMID_SELF, payload=request)

    def end(self, kind: str = "poweroff") -> None:
        self.log.end(self.time + self.step, TEXT, kind, "", 0)
        self.log.close()


Made = Callable[..., Boot]
Diff = Callable[..., tuple[int, str, str]]


@pytest.fixture
def boot(tmp_path: Path) -> Made:
    return lambda name, **options: Boot(tmp_path / name, **options)


@pytest.fixture
def diff(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Diff:
    monkeypatch.setenv("PVSTUB_CACHE", str(tmp_path / "cache"))

    def run(*options: str) -> tuple[int, str, str]:
        status = main([str(tmp_path / "good"), str(tmp_path / "bad"), *options])
        return status, *capsys.readouterr()

    return run


def test_another_seed_and_other_times_are_the_same_boot(boot: Made, diff: Diff) -> None:
    for name, seed, step in (("good", 0, 1000), ("bad", 7, 1500)):
        made = boot(name, seed=seed, step=step)
        made.map(20).map(21).call("set_trap_table", TEXT).end()
    status, out, err = diff()
    assert status == 0
    assert out.splitlines()[2:] == ["seed: GOOD 0, BAD 7", "the same: 5 events"]
    assert err == ""


def test_the_first_divergence_with_what_is_around_it(boot: Made, diff: Diff) -> None:
    boot("good").call("set_trap_table", TEXT).map(20).map(21).map(22).end()
    boot("bad", seed=1).call("set_trap_table", TEXT).map(20).map(21, flags=0x61).map(22).end()
    status, out, _ = diff("--context", "1")
    assert status == 1
    marks = [line[0] for line in out.splitlines() if "d1v0" in line]
    assert marks == [" ", "-", "+", " "], "one equal event on either side of it"
    assert "the same for 3 events; then:" in out
    assert "GOOD mmu_update count=1 foreigndom=0x7ff0 MMU_NORMAL_PT_UPDATE flags=0x63 [pfn 0x9+0x18, pfn 0x15]" in out
    assert "asked: GOOD flags=0x63, BAD flags=0x61" in out
    assert out.splitlines()[-1].startswith("behind it they go on alike")


def test_an_answer_is_compared_too(boot: Made, diff: Diff) -> None:
    boot("good").call("set_trap_table", TEXT).end()
    boot("bad").call("set_trap_table", TEXT, rc=-EINVAL).end()
    status, out, _ = diff()
    assert (status, "answer: GOOD 0x0, BAD -EINVAL" in out) == (1, True)


def test_what_the_schedule_moves_is_left_out_unless_asked_for(boot: Made, diff: Diff) -> None:
    boot("good").call("stack_switch", 0xE02B, 0x1000).map(20).call("event_channel_op", EVTCHNOP_send, 0x10).end()
    boot("bad").map(20).call("iret").end()
    assert diff()[0] == 0
    assert diff("--schedule")[0] == 1


def test_a_filter_says_what_is_compared(boot: Made, diff: Diff) -> None:
    boot("good").map(20).call("vm_assist", 0, 4).end()
    boot("bad").map(21).call("vm_assist", 0, 4).end()
    assert diff("--filter", "vm_assist")[0] == 0
    assert diff("--filter", "hypercall")[0] == 1


def test_a_run_that_ends_early_or_otherwise(boot: Made, diff: Diff) -> None:
    boot("good").map(20).map(21).end()
    boot("bad").map(20).end("crash")
    status, out, _ = diff()
    assert status == 1
    assert "+ [   0.000002000] d1v0 domain ends: crash" in out
    assert "they do not meet again" in out


def test_other_kernels_are_compared_roughly(boot: Made, diff: Diff) -> None:
    """What moves when a kernel is built anew is no divergence; whose frame it is, is."""
    boot("good").map(20).call("update_va_mapping", DIRECT + 0x5000, 0).end()
    boot("bad", kernel="cd").map(24).call("update_va_mapping", DIRECT + 0x9000, 0).end()
    status, out, _ = diff()
    assert (status, "places compared roughly" in out) == (0, True)
    status, out, _ = diff("--places", "exact")
    assert (status, "where: GOOD pfn 0x14, BAD pfn 0x18" in out) == (1, True)


def test_places_by_symbol(boot: Made, diff: Diff, tmp_path: Path) -> None:
    """A function is the same one wherever the two kernels have it."""
    for name, kernel, at in (("good", "ab", TEXT), ("bad", "cd", TEXT + 0x40)):
        code = Sect(".text", 1, bytes(256), address=at, flags=6)
        table, names = symbol_sections({"start": at, "upcall": at + 16})  # which are in section 1
        table.link = 3
        (tmp_path / f"{name}.elf").write_bytes(elf(sections=[code, table, names]))
        boot(name, kernel=kernel, text=at).call("set_callbacks", at + 16, at, at, rip=at + 4).end()
    options = ["--symbols", str(tmp_path / "good.elf"), "--symbols-bad", str(tmp_path / "bad.elf")]
    assert diff(*options)[0] == 0
    status, out, _ = diff(options[0], options[1])
    assert status == 1
    assert "where: GOOD start, BAD upcall+0x30" in out
    assert f"at {TEXT:#x} start" in out


def test_aligned_behind_calls_that_only_one_has(boot: Made, diff: Diff) -> None:
    good, bad = boot("good"), boot("bad")
    for number in range(40):
        good.map(100 + number)
        if number == 10:
            bad.map(7).map(8)
        bad.map(100 + number)
    good.call("event_channel_op", EVTCHNOP_bind_virq, 0).end()
    bad.end()
    status, out, _ = diff("--json")
    found = json.loads(out)
    assert (status, found["same"], found["equal"]) == (1, False, 11)
    divergence = found["divergence"]
    assert [line["good"] is None for line in divergence["after"][:3]] == [True, True, False]
    assert (divergence["met"], divergence["more"]) == (True, 1)
    assert divergence["bad"]["record"]["name"] == "mmu_update"
    assert divergence["bad"]["event"]["where"][1] == "pfn 0x7"


def test_boots_that_never_meet_again(boot: Made, diff: Diff) -> None:
    good, bad = boot("good"), boot("bad")
    for number in range(800):
        good.map(100 + number)
        bad.map(2000 + number)
    good.end()
    bad.end()
    status, out, _ = diff()
    assert (status, "they do not meet again" in out) == (1, True)
    assert len(out.splitlines()) < 200


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere", "bad"], "cannot read the hypercall log"),
        (["good", "bad", "--context", "-1"], "give 0 or more"),
        (["good", "bad", "--filter", "mmu_updaet"], "did you mean mmu_update?"),
        (["good", "bad", "--symbols", "nowhere"], "no such file of symbols"),
        (["good"], "the following arguments are required: BAD"),
    ],
)
def test_trouble(
    boot: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str],
    says: str,
) -> None:  # fmt: skip
    boot("good").end()
    boot("bad").end()
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


def test_a_log_that_was_cut_is_compared_as_far_as_it_goes(boot: Made, diff: Diff) -> None:
    boot("good").map(20).end()
    boot("bad").map(20).log.close()
    status, _, err = diff()
    assert (status, "no end yet" in err) == (1, True)
