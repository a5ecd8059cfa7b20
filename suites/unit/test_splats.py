"""Kernel splats on a console, the file of known ones, and how the plugin fails a test for them."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from harness.splats import NAMES, Splat, find, judge, read_known
from stub.errors import UsageError

TODAY = datetime.date(2026, 6, 1)
KNOWN = '[[known]]\npattern = "ring 3 MSR"\nreason = "fixed in 6.2"\nexpires = {}\n'


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("panic", "[    1.0] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"),
        ("oops", "[    1.0] BUG: unable to handle page fault for address: ffffc90000000000"),
        (
            "oops",
            "[    1.0] BUG: kernel NULL pointer dereference, address: 0000000000000000\n[ 1.0] Oops: 0002 [#1] SMP",
        ),
        ("oops", "[    1.0] general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP PTI"),
        ("bug", "[    1.0] kernel BUG at mm/slub.c:4023!"),
        ("bug", "[    1.0] BUG: scheduling while atomic: swapper/0/1/0x00000002"),
        ("warning", "[    1.0] WARNING: CPU: 0 PID: 1 at arch/x86/xen/multicalls.c:102 xen_mc_flush+0x185/0x1b0"),
        ("kasan", "[    1.0] BUG: KASAN: slab-out-of-bounds in kasan_test+0x12/0x20"),
        ("ubsan", "[    1.0] UBSAN: shift-out-of-bounds in lib/x.c:12:3"),
        ("lockdep", "[    1.0] WARNING: possible circular locking dependency detected"),
        ("lockdep", "[    1.0] WARNING: suspicious RCU usage"),
        ("rcu-stall", "[   21.0] rcu: INFO: rcu_preempt self-detected stall on CPU"),
        ("rcu-stall", "[   21.0] rcu: INFO: rcu_sched detected stalls on CPUs/tasks:"),
        ("soft-lockup", "[   22.0] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [swapper/0:1]"),
        ("hung-task", "[  242.0] INFO: task init:1 blocked for more than 120 seconds."),
    ],
)
def test_each_splat_has_its_name(name: str, line: str) -> None:
    found = find(f"[    0.9] all is well\r\n{line}\r\n[    1.1] on it goes\r\n".encode())
    assert name in [splat.name for splat in found]
    assert {splat.name for splat in found} <= {name, "bug"}


def test_what_is_no_splat() -> None:
    harmless = (
        b"[    0.0] Linux version 6.1 (debian) #1 SMP\r\n",
        b"[    0.1] debug: panic_timeout=5 Command line: panic=1 oops=panic\r\n",
        b"[    0.2] rcu: Preemptible hierarchical RCU implementation.\r\n",
        b"[    0.3] warning: a program's own\r\nBUGS: none; INFO: task list is empty\r\n",
        b"[    0.4] debugfs: DEBUG: nothing\r\n",
    )
    assert find(b"".join(harmless)) == []
    assert find(b"") == []


def test_known_ones_are_let_through_until_they_expire(tmp_path: Path) -> None:
    file = tmp_path / "known.toml"
    file.write_text(KNOWN.format("2026-06-01"))
    splats = [Splat("warning", "WARNING: ring 3 MSR"), Splat("warning", "WARNING: another")]
    judged = judge(splats, read_known(file), (), TODAY)
    assert judged.bad == ["warning: WARNING: another"]
    assert judged.let_through == ["warning: WARNING: ring 3 MSR (fixed in 6.2; until 2026-06-01)"]
    judged = judge(splats, read_known(file), (), TODAY + datetime.timedelta(days=1))
    assert judged.bad[0] == "warning: WARNING: ring 3 MSR (known, but expired 2026-06-01: fixed in 6.2)"
    assert judge(splats, (), ["warning"], TODAY) == ([], [])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("known = 1", r"\[\[known\]\] tables"),
        ("[[known]]\npattern = 'x'\nreason = 'y'\n", "all three"),
        (KNOWN.format('"soon"'), "expires is a date"),
        (KNOWN.format("2026-06-01T10:00:00"), "expires is a date"),
        (KNOWN.format("2026-06-01").replace("fixed in 6.2", " "), "the reason is empty"),
        (KNOWN.format("2026-06-01").replace("ring 3 MSR", "("), "pattern '\\('"),
        ("[[known", "no TOML"),
    ],
)
def test_a_file_that_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "known.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=says):
        read_known(file)
    with pytest.raises(UsageError, match="cannot read the known splats"):
        read_known(tmp_path / "nowhere")


CONFTEST = """
import pytest
from fake_machine import FakeLaunch, verdict

class Complains(FakeLaunch):
    script = (
        (0.1, "[    0.1] WARNING: CPU: 0 PID: 1 at arch/x86/xen/mmu_pv.c:1\\r\\n"),
        (0.2, "[    0.2] Kernel panic - not syncing: no init\\r\\n"),
        (1.0, verdict("crash")),
    )

@pytest.fixture
def pv_launch():
    return Complains
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder whose guests complain."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.syspath_prepend(Path(__file__).parent)
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(
        """
        import pytest

        pytestmark = pytest.mark.guest("x")

        def test_says_nothing_of_it(guest):
            guest.wait("crash")

        @pytest.mark.pv_splats("panic")
        def test_expects_a_panic(guest):
            guest.wait("crash")

        @pytest.mark.pv_splats
        def test_expects_anything(guest):
            guest.wait("crash")

        @pytest.mark.pv_splats("paniic")
        def test_misspelt(guest):
            guest.wait("crash")

        def test_before_it(guest):
            guest.run(0.05)
        """
    )
    return pytester


def test_a_splat_fails_the_test_by_name(suite: pytest.Pytester) -> None:
    result = suite.runpytest_inprocess("-p", "harness.plugin", "--strict-markers")
    result.assert_outcomes(passed=2, failed=3)
    result.stdout.fnmatch_lines(
        [
            "*test_says_nothing_of_it*",
            "kernel splat: warning: [[]    0.1] WARNING: CPU: 0 PID: 1 at arch/x86/xen/mmu_pv.c:1",
            "kernel splat: panic: [[]    0.2] Kernel panic - not syncing: no init",
            "*test_expects_a_panic*",
            "kernel splat: warning:*",
            "*test_misspelt*",
            f"*UsageError*pv_splats takes {NAMES[0]}, *",
        ]
    )


def test_known_splats_in_a_suite(suite: pytest.Pytester) -> None:
    suite.path.joinpath("known.toml").write_text(
        '[[known]]\npattern = "mmu_pv.c"\nreason = "ours"\nexpires = 9999-12-31\n'
    )
    result = suite.runpytest_inprocess(
        "-p", "harness.plugin", "--pv-known-splats=known.toml", "--junitxml=out.xml", "-k", "panic or nothing"
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.no_fnmatch_line("*splat: warning*")
    assert "pv known splats" in suite.path.joinpath("out.xml").read_text()
