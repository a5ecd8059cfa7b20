"""A run's results as KTAP and Markdown, the artefacts of its failures, and the digests in JUnit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.guest_results import FAILED, PASSED, SKIPPED, parse
from harness.run_reports import Row, ktap, markdown, rows

FACTS = (("pv run", "/runs/a"), ("pv digest console", "ab12"), ("pv guest console (tail)", "one\n```\ntwo"))


def report(nodeid: str, outcome: str, when: str = "call", longrepr: object = None, facts: tuple = ()) -> object:
    return SimpleNamespace(
        nodeid=nodeid, outcome=outcome, when=when, longrepr=longrepr, user_properties=facts, duration=0.5
    )


def test_rows_are_the_worst_of_their_phases() -> None:
    stats = {
        "passed": [report("b", "passed"), report("a", "passed")],
        "": [report("a", "passed", "setup"), report("a", "passed", "teardown", facts=FACTS)],
        "failed": [report("a", "failed", longrepr="\nAssertionError: no prompt\nmore")],
        "skipped": [report("c", "skipped", longrepr=("f", 1, "Skipped: no image"))],
        "warnings": [SimpleNamespace(message="none of ours")],
    }
    assert rows(stats) == [
        Row("a", FAILED, "AssertionError: no prompt", 2.0, FACTS),
        Row("b", PASSED, "", 0.5, ()),
        Row("c", SKIPPED, "no image", 0.5, ()),
    ]


def test_ktap_is_what_our_own_reader_reads() -> None:
    tests = [
        Row("t.py::a[#1]", FAILED, "why", 1.0, FACTS),
        Row("b", PASSED, "", 1.0, ()),
        Row("c", SKIPPED, "x", 0, ()),
    ]
    text = ktap(tests)
    assert text.splitlines()[:5] == [
        "KTAP version 1",
        "1..3",
        "# why",
        "# pv run: /runs/a",
        "# pv digest console: ab12",
    ]
    found = parse(text)
    assert found.wrong == ()
    assert [(result.name, result.outcome) for result in found.results] == [
        ("t.py::a[1]", FAILED), ("b", PASSED), ("c", SKIPPED),
    ]  # fmt: skip


def subtest(name: str, outcome: str, why: str = "") -> object:
    found = report("t", outcome, longrepr=f"Failed: {name}: {why}")
    found.context = SimpleNamespace(msg=name, kwargs={})  # type: ignore[attr-defined]
    return found


def test_subtests_are_nested_and_say_why() -> None:
    stats = {
        "subtests passed": [subtest("adds", "passed")],
        "failed": [
            subtest("divides", "failed", "by zero"),
            report("t", "failed", longrepr="contains 1 failed subtest"),
        ],
    }
    (row,) = rows(stats)
    assert row.reason == "divides: by zero"
    assert ktap([row]).splitlines()[3:] == [
        "    KTAP version 1",
        "    1..2",
        "    ok 1 adds",
        "    not ok 2 divides # by zero",
        "not ok 1 t",
    ]
    found = parse(ktap([row]))
    assert found.wrong == ()
    assert [(result.name, result.reason) for result in found.results if result.outcome == FAILED] == [
        ("t/divides", "by zero"), ("t", "no reason given"),
    ]  # fmt: skip
    assert "* failed: ` divides `: by zero" in markdown([row])


def test_failures_that_are_expected_are_no_skips() -> None:
    expected = report("x", "skipped")
    expected.wasxfail = "reason: known since May"  # type: ignore[attr-defined]
    (row,) = rows({"xfailed": [expected]})
    assert ktap([row]).endswith("not ok 1 x # XFAIL known since May\n")
    assert parse(ktap([row])).results[0].outcome == PASSED
    assert markdown([row]).startswith("## pvstub: 0 failed, 0 passed, 0 skipped, 1 failed as expected\n")


def test_a_summary_says_how_to_replay() -> None:
    text = markdown([Row("t", FAILED, "why", 1.0, (("pv artefact", "/ci/left/t-1.zip"),))])
    assert "* on another machine: ` pvstub replay t-1.zip `, of the artefacts" in text
    assert "* artefact: ` none: it has no folder `" in markdown(
        [Row("t", FAILED, "why", 1.0, (("pv artefact", "none: it has no folder"),))]
    )


def test_markdown_holds_what_guests_print() -> None:
    text = markdown([Row("t.py::a[x|y]", FAILED, "<b>no</b> prompt", 1.0, FACTS), Row("b", PASSED, "", 1.0, ())])
    assert text.startswith("## pvstub: 1 failed, 1 passed, 0 skipped\n")
    assert "| t.py::a\\[x\\|y\\] | \\<b\\>no\\</b\\> prompt | 1.0 |" in text
    assert "````text\none\n```\ntwo\n````" in text, "a fence that the console cannot close"
    assert markdown([]) == "## pvstub: 0 failed, 0 passed, 0 skipped\n\n"


def test_a_run_writes_them(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.syspath_prepend(Path(__file__).parent)
    pytester.makeconftest(
        """
        import pytest
        from fake_machine import FakeLaunch

        @pytest.fixture
        def pv_launch():
            return FakeLaunch
        """
    )
    pytester.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.guest("x")
        def test_fails(guest):
            guest.wait("reboot")

        def test_passes():
            pass
        """
    )
    options = ("--pv-ktap=out.ktap", "--pv-summary=summary.md", "--pv-artefacts=left", "--junitxml=out.xml")
    result = pytester.runpytest_inprocess("-p", "harness.plugin", *options)
    result.assert_outcomes(passed=1, failed=1)
    text = pytester.path.joinpath("out.ktap").read_text()
    assert "not ok 1 test_it.py::test_fails" in text
    assert "ok 2 test_it.py::test_passes" in text
    shown = pytester.path.joinpath("summary.md").read_text()
    assert "pvstub: 1 failed, 1 passed" in shown
    assert "pvstub: init is up" in shown, "the console's tail"
    assert "pytest test_it.py::test_fails" in shown, "how to see it again"
    assert list(pytester.path.joinpath("left").iterdir()) == [], "a machine that is none of ours leaves no file"
    assert "a machine of the test" in pytester.path.joinpath("out.xml").read_text()
