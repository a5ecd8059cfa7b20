"""Results that guests print: KTAP, nested and in a kernel log, and the lines of small test guests."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.guest_results import FAILED, PASSED, SKIPPED, Result, failed, parse

KTAP = """\
[    0.100000] KTAP version 1
[    0.100001] 1..2
[    0.100002]     KTAP version 1
[    0.100003]     # Subtest: memory
[    0.100004]     1..3
[    0.100005]     ok 1 alloc: a page
[    0.100006]     not ok 2 free
[    0.100007]     ok 3 swap # SKIP no swap here
[    0.100008] not ok 1 memory
[    0.100009] random: crng init done
[    0.100010] ok 2 - console # TODO later
"""


def test_nested_ktap_in_a_kernel_log() -> None:
    found = parse(KTAP.replace("\n", "\r\n").encode())
    assert found.wrong == ()
    assert found.results == (
        Result("memory/alloc: a page", PASSED, ""),
        Result("memory/free", FAILED, "no reason given"),
        Result("memory/swap", SKIPPED, "no swap here"),
        Result("memory", FAILED, "no reason given"),
        Result("console", PASSED, "later"),
    )
    assert [result.name for result in failed(found.results)] == ["memory/free", "memory"]


def test_lines_of_a_small_guest() -> None:
    found = parse("ok a page fault\r\nnot ok CR2: 0 instead of 4096\r\nTest result: FAILURE: 1 of 2 checks\r\n")
    assert found.wrong == ()
    assert found.results == (
        Result("a page fault", PASSED, ""),
        Result("CR2", FAILED, "0 instead of 4096"),
        Result("result", FAILED, "FAILURE: 1 of 2 checks"),
    )


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("Test result: SUCCESS\n", PASSED),
        ("Test result: SKIP: no such thing\n", SKIPPED),
        ("Test result: ERROR\n", FAILED),
        ("Test result: FAILURE\n", FAILED),
    ],
)
def test_the_last_line(text: str, outcome: str) -> None:
    assert [result.outcome for result in parse(text).results] == [outcome]
    assert parse(text).wrong == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ok one\n", "did not get to its end"),
        ("Test result: SUCCESS so far\n", "did not get to its end"),
        ("Test result: SUCCESS\nTest result: SUCCESS\n", "2 last lines"),
        ("KTAP version 1\n1..3\nok 1 one\n", "1 results, but 3 were planned"),
        ("KTAP version 1\n1..1\n  1..2\n  ok 1 a\nok 1 parent\n", "parent: 1 results, but 2 were planned"),
        ("KTAP version 1\n1..1\n  ok 1 a\n", "whose own test has none"),
    ],
)
def test_output_that_is_cut_or_wrong(text: str, says: str) -> None:
    assert says in " ".join(parse(text).wrong)


def test_a_plan_of_nothing_is_a_skip() -> None:
    assert parse("KTAP version 1\n1..0 # SKIP no device\n").results == (Result("all", SKIPPED, "no device"),)


def test_they_become_subtests(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.syspath_prepend(Path(__file__).parent)
    pytester.makeconftest(
        f"""
        import pytest
        from fake_machine import FakeLaunch, verdict

        class Tests(FakeLaunch):
            @property
            def script(self):
                text = {{"ktap": {KTAP!r}, "none": "hello\\n", "cut": "ok one\\n"}}[self.spec.image]
                return ((0.1, text), (1.0, verdict("poweroff")))

        @pytest.fixture
        def pv_launch():
            return Tests
        """
    )
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.guest("ktap")
        def test_ktap(guest_results):
            assert len(guest_results().results) == 5

        @pytest.mark.parametrize("kind", ["none", "cut"])
        def test_without(guest, guest_results, kind):
            guest_results(guest(kind))
        """
    )
    result = pytester.runpytest_inprocess("-p", "harness.plugin", "-rA")
    result.stdout.fnmatch_lines_random(
        [
            "SUBFAILED*memory/free*test_ktap*",
            "SUBFAILED*[[]memory]*test_ktap*",
            "*did not get to its end*",
        ]
    )
