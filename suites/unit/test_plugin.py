"""The pytest plugin, run by pytest itself on machines that play a script."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from stub.domain.config import ENGINE_VARIABLE

FAKE = Path(__file__).with_name("fake_machine.py")
PLUGIN = ("-p", "harness.plugin")
CONFTEST = """
import pytest
from fake_machine import FakeLaunch

@pytest.fixture
def pv_launch():
    return FakeLaunch
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder whose tests run on fake machines, warnings as errors, with no plugin but those that a test names."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    shutil.copy(FAKE, pytester.path)
    pytester.makeconftest(CONFTEST)
    pytester.makeini("[pytest]\naddopts = --strict-markers --strict-config\nfilterwarnings = error\n")
    pytester.syspathinsert()
    return pytester


def run(suite: pytest.Pytester, *args: str) -> pytest.RunResult:
    """In this process, with the plugin and no other."""
    return suite.runpytest_inprocess(*PLUGIN, *args)


def test_marker_and_factory_forms(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        import pytest

        pytestmark = pytest.mark.guest("debian-cloud", memory=64)

        def test_marker(guest, console):
            console.expect("init is up")
            assert (guest.spec.image, guest.memory, guest.spec.seed) == ("debian-cloud", 64, 7)
            assert guest.now == 0.5
            assert guest.wait("poweroff").kind == "poweroff"

        @pytest.mark.guest(memory=96, extra="quiet")
        def test_closer_marker(guest):
            assert (guest.spec.image, guest.memory, guest.spec.extra) == ("debian-cloud", 96, "quiet")

        def test_factory(guest):
            one, two = guest(memory=32), guest("other", seed=3)
            two.console.expect("Linux")
            one.wait("poweroff")
            assert (one.memory, two.memory, two.spec.image, two.spec.seed) == (32, 64, "other", 3)
            assert one.run_directory != two.run_directory
            assert two.verdict is None and two.run(0.75) is None and two.now == 0.75

        def test_lazy(guest, console, hypercalls, pv_launch):
            assert guest._machine is None

        @pytest.mark.parametrize("size", [pytest.param(n, marks=pytest.mark.guest(memory=n)) for n in (32, 48)])
        def test_parameters(guest, size):
            assert guest.memory == size
        """
    )
    result = run(suite, "--pv-seed=7")
    result.assert_outcomes(passed=6)


def test_a_failure_shows_the_guest(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        import pytest

        @pytest.mark.guest("debian-cloud")
        def test_it(guest, console):
            console.expect("pvstub: init is pu", timeout=0.75)

        @pytest.mark.guest("debian-cloud")
        def test_verdict(guest):
            guest.wait("reboot")

        @pytest.mark.guest("debian-cloud")
        def test_passes(guest):
            guest.wait()
        """
    )
    result = run(suite, "--junitxml=out.xml", "--pv-seed=9")
    result.assert_outcomes(failed=2, passed=1)
    result.stdout.fnmatch_lines(
        [
            ">       console.expect(*",
            "E       *ConsoleTimeout: no match after 0.750 virtual seconds of waiting for 'pvstub: init is pu'",
            "E       the guest is still running: virtual time 0.750 s, at rip 0xffffffff81000000",
            "E       closest console line (94% alike): pvstub: init is up",
            "-* guest console (tail) *-",
            "Linux version 6.1",
            "pvstub: init is up",
            "-* last hypercalls *-",
            "-* registers *-",
            "*rip ffffffff81000000*",
            "-* rerun *-",
            "pytest test_a_failure_shows_the_guest.py::test_it --pv-seed=9",
            "pvstub boot debian-cloud --memory=128",
            "*(this run: /*",
            "E       *WrongVerdict: expected reboot but at 1.000 s: poweroff: the guest powered off",
        ]
    )
    result.stdout.no_fnmatch_line("*harness/*")
    cases = {case.get("name"): case for case in ElementTree.parse(suite.path / "out.xml").iter("testcase")}
    properties = {
        name: {item.get("name"): item.get("value", "") for item in case.iter("property")}
        for name, case in cases.items()
    }
    failed = properties["test_it"]
    assert "pvstub: init is up" in failed["pv guest console (tail)"]
    assert failed["pv boot"] == "pvstub boot debian-cloud --memory=128"
    assert (Path(failed["pv run"]) / "console.log").read_text().startswith("Linux version")
    assert properties["test_passes"] == {
        "pv verdict": "poweroff",
        "pv boot": "pvstub boot debian-cloud --memory=128",
    }


def test_a_failure_at_the_end_shows_the_guest_too(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        import pytest

        @pytest.fixture
        def late():
            yield
            assert False, "found out late"

        @pytest.mark.guest("debian-cloud")
        def test_it(late, guest):
            guest.wait()
        """
    )
    result = run(suite)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*found out late*", "pvstub: init is up", "*rip ffffffff81000000*"])


def test_run_folders_of_passed_tests_go_unless_asked_for(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        import pytest
        seen = []

        @pytest.mark.guest("debian-cloud")
        def test_one(guest):
            guest.wait()
            seen.append(guest.run_directory)
            assert guest.run_directory.exists()

        def test_two(request):
            assert seen[0].exists() == bool(request.config.getoption("pv_runs"))
        """
    )
    run(suite, "--pv-runs=kept").assert_outcomes(passed=2)
    assert [log.read_text()[:5] for log in suite.path.glob("kept/test_one-*/console.log")] == ["Linux"]
    run(suite).assert_outcomes(passed=2)


def test_the_callers_errors_are_one_line(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        import pytest
        from harness.guests import ImageLaunch

        @pytest.mark.guest("x", memroy=3)
        def test_parameter(guest): ...

        @pytest.mark.pv_limits(walls=3)
        def test_limit(guest): ...

        @pytest.mark.guest(memory=1 << 20)
        def test_memory(guest):
            guest.wait()

        class TestReal:
            @pytest.fixture
            def pv_launch(self):
                return ImageLaunch

            def test_no_image(self, guest):
                guest.wait()

            def test_wrong_image(self, guest):
                guest("debian-clod").wait()
        """
    )
    result = run(suite, "--pv-memory-budget=4096")
    result.assert_outcomes(errors=2, failed=3)
    result.stdout.fnmatch_lines_random(
        [
            "*UsageError: guest(memroy=…): no such parameter; there are image, memory, *",
            "*UsageError: *::test_limit: pv_limits takes virtual=, wall=, instructions=, memory= only",
            "*UsageError: *::test_memory: a guest of 1048576 MiB never fits the memory budget of 4096 MiB: *",
            "*UsageError: no image: name one, *",
            "*:23: ImageError: debian-clod: no such image or file; did you mean debian-cloud?",
        ]
    )
    result.stdout.no_fnmatch_line("*harness/*")
    run(suite, "--pv-seed=x", "-k", "test_memory").stdout.fnmatch_lines(["*--pv-seed=x: give a whole number*"])


def test_limits_reach_the_machine_and_settings_have_twins(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite.makepyfile(
        """
        import pytest

        @pytest.mark.guest("x")
        @pytest.mark.pv_limits(wall=5, instructions=10)
        def test_it(guest):
            guest.machine
            assert (guest.launch.limits.virtual, guest.launch.limits.wall) == (90.0, 5)
            assert guest.launch.limits.instructions == 10
            assert guest.console.timeout == 7.0
            assert guest.spec.seed == 17
        """
    )
    suite.makeini("[pytest]\npv_timeout = 7\npv_seed = 16\n")
    monkeypatch.setenv("PVSTUB_SEED", "0x11")
    monkeypatch.setenv("PVSTUB_WALL_LIMIT", "30")
    run(suite, "--pv-virtual-limit=90").assert_outcomes(passed=1)


def test_inert_when_unused(suite: pytest.Pytester) -> None:
    suite.makeconftest("")
    suite.makepyfile(
        """
        import sys

        def test_nothing_is_imported(tmp_path_factory):
            ours = {name for name in sys.modules if name.split(".")[0] in ("harness", "stub")}
            assert ours == {"harness", "harness.plugin", "harness.settings", "stub", "stub.errors"}
            assert not {"unicorn", "numpy", "pexpect", "capstone", "elftools", "rich"} & set(sys.modules)
            assert not list(tmp_path_factory.getbasetemp().glob("pv*"))
        """
    )
    suite.runpytest_subprocess(*PLUGIN).assert_outcomes(passed=1)


def test_workers_share_memory_and_a_killed_one_leaves_its_console(suite: pytest.Pytester) -> None:
    pytest.importorskip("xdist", reason="pytest-xdist comes with pvstub[dev]")
    suite.makepyfile(
        """
        import os, time, pytest
        from pathlib import Path

        pytestmark = pytest.mark.guest("debian-cloud", memory=1024)

        @pytest.mark.parametrize("number", range(6))
        def test_budget(guest, number, tmp_path_factory):
            guest.console.expect("init is up")
            running = tmp_path_factory.getbasetemp().parent / "running"
            running.mkdir(exist_ok=True)
            mine = running / str(os.getpid())
            mine.touch()
            assert len(list(running.iterdir())) == 1
            guest.run(0.25)
            mine.unlink()

        def test_dies(guest, console):
            console.expect("init is up")
            os.kill(os.getpid(), 9)
        """
    )
    result = suite.runpytest_subprocess(*PLUGIN, "-p", "xdist", "-n2", "--pv-memory-budget=1500", "--junitxml=out.xml")
    result.assert_outcomes(passed=6, failed=1)
    result.stdout.fnmatch_lines(
        [
            "worker 'gw?' crashed while running '*::test_dies'",
            "-* guest console (tail) *-",
            "Linux version 6.1",
            "pvstub: init is up",
            "-* rerun *-",
            "pvstub boot debian-cloud --memory=1024",
        ]
    )
    assert "pvstub: init is up" in (suite.path / "out.xml").read_text()


@pytest.mark.parametrize(
    ("engine", "tests"),
    [
        ("both", ["test_alone", "test_guest[unicorn]", "test_own[qemu]", "test_own[unicorn]", "test_watch[unicorn]"]),
        ("qemu", ["test_alone", "test_own"]),
        ("unicorn", ["test_alone", "test_guest", "test_own", "test_watch"]),
    ],
)
def test_the_engines_of_a_run(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, engine: str, tests: list[str]
) -> None:
    """On both: a test with a guest, and one that boots by itself and asks for the engine; what one lacks is skipped."""
    monkeypatch.setenv(ENGINE_VARIABLE, "unicorn")  # the plugin changes it, in this process
    suite.makepyfile(
        """
        import os
        import pytest

        def test_alone():
            pass

        @pytest.mark.pv_needs("identity")
        def test_guest(guest):
            guest.wait("poweroff")

        @pytest.mark.usefixtures("pv_engine")
        def test_own(pv_engine):
            assert os.environ["PVSTUB_ENGINE"] == pv_engine

        @pytest.mark.pv_needs("watches")
        def test_watch(pv_engine):
            assert pv_engine == "unicorn"
        """
    )
    result = run(suite, "-v", "-rs", f"--pv-engine={engine}")
    said = result.stdout.str()
    assert sorted(re.findall(r"::(\S+) PASSED", said)) == tests
    assert ("the qemu engine has no watches" in said) == (engine != "unicorn")
    result.assert_outcomes(passed=len(tests), skipped=0 if engine == "unicorn" else 2)
