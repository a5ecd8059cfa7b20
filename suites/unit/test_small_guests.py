"""Small test guests: how they are found and built, what they print, and that the kit's checks see what they are for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness import small_guests
from harness.guests import Guest
from harness.small_guests import Check, Outcome, Variation
from stub.errors import UsageError

SELF = {variation.id: variation for variation in small_guests.find("self", small_guests.BOTH)}
WIDTHS = pytest.mark.parametrize("bits", small_guests.BOTH)


# -- found and built


def test_variations_are_found(tmp_path: Path) -> None:
    """In the order of the files, with their stories; what is not in the first column is none."""
    (tmp_path / "b.c").write_text('CRASHING_VARIATION(last,\n    "Unhandled: vec 6", "a trap")\n{\n}\n')
    (tmp_path / "a.c").write_text('VARIATION(one, "first")\n{\n}\n /* VARIATION(two, "in a comment") */\n')
    assert small_guests.variations(tmp_path) == [
        Variation(tmp_path, "one", "first", None),
        Variation(tmp_path, "last", "a trap", "Unhandled: vec 6"),
    ]
    assert small_guests.variations(tmp_path)[0].id == f"{tmp_path.name}-one"


def test_a_test_is_for_the_widths_that_it_names(tmp_path: Path) -> None:
    """What stands between #if BITS == … and #endif is for guests of that width; other conditions do not count."""
    (tmp_path / "a.c").write_text("""
#if BITS == 64
VARIATION(wide, "64 bits")
#if X
VARIATION(wide_too, "x")
#endif
#else
VARIATION(narrow, "32 bits")
#endif
#ifdef ANYTHING
VARIATION(both, "any")
#else
#endif
""")
    names = {bits: [v.name for v in small_guests.variations(tmp_path, [bits])] for bits in small_guests.BOTH}
    assert names == {64: ["wide", "wide_too", "both"], 32: ["narrow", "both"]}
    found = small_guests.variations(tmp_path, small_guests.BOTH)
    assert [v.id.removeprefix(tmp_path.name) for v in found] == [
        "-wide",
        "-wide_too",
        "-both",
        "-narrow-32",
        "-both-32",
    ]


@pytest.mark.parametrize("text", ["int main;\n", 'VARIATION(a, "x")\nVARIATION(a, "y")\n'])
def test_a_test_has_variations_of_different_names(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.c").write_text(text)
    with pytest.raises(UsageError, match="no two of one name"):
        small_guests.variations(tmp_path)


@pytest.mark.parametrize("text", ['VARIATION(a, "one" "two")\n', "VARIATION(a)\n", "CRASHING_VARIATION(a, STORY)\n"])
def test_no_variation_is_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.c").write_text('VARIATION(first, "x")\n' + text)
    with pytest.raises(UsageError, match="cannot be read"):
        small_guests.variations(tmp_path)


def test_a_group_has_tests() -> None:
    with pytest.raises(UsageError, match=r"nowhere: no test guests there"):
        small_guests.find("nowhere")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that is empty."""
    monkeypatch.setenv("PVSTUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def written(folder: Path, text: str) -> Path:
    """A test of one file: its folder."""
    test = folder / "group" / "test"
    test.mkdir(parents=True, exist_ok=True)
    (test / "test.c").write_text(text)
    return test


def build(folder: Path, text: str) -> Path:
    """Its kernel."""
    return small_guests.build(written(folder, text))


def test_what_gcc_says_is_shown(tmp_path: Path, own_cache: Path) -> None:
    with pytest.raises(UsageError, match=r"(?s)gcc cannot build test-group-test:\n.*test\.c:2:.*undeclared"):
        build(tmp_path, '#include "kit.h"\nVARIATION(one, "x") { check(nothing, "a", "b"); }\n')


def test_a_missing_gcc_is_named(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"gcc is not installed"):
        build(tmp_path, '#include "kit.h"\n')


def test_a_guest_is_built_once(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And again when its source changes."""
    text = '#include "kit.h"\nVARIATION(one, "x") { check(1, "a", "b"); }\n'
    first = build(tmp_path, text).read_bytes()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build(tmp_path, text).read_bytes() == first
    with pytest.raises(UsageError, match=r"gcc is not installed"):
        build(tmp_path, text + "/* changed */\n")


def test_the_test_of_the_page_is_right(tmp_path: Path, own_cache: Path, guest: Guest) -> None:
    """The one that docs/small-guests.md shows; its checks and no others."""
    page = small_guests.TESTS.parent.parent / "docs" / "small-guests.md"
    (text,) = re.findall(r"^```c\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    seen = {}
    for variation in small_guests.variations(written(tmp_path, text)):
        outcome = small_guests.run(variation, guest)
        assert small_guests.verdict_of(variation, outcome) is None
        seen[variation.name] = [check.name for check in outcome.checks]
    assert seen == {"read": ["a page fault", "CR2"], "root": ["writable", "read-only"]}


# -- what they print


@pytest.mark.parametrize(
    ("console", "outcome"),
    [
        ("ok one\r\nTest result: SUCCESS\r\n", Outcome((Check("one", None),), (("SUCCESS", ""),))),
        ("not ok two words: -1 instead of -22\r\n", Outcome((Check("two words", "-1 instead of -22"),), ())),
        ("not ok three\n", Outcome((Check("three", "no reason given"),), ())),
        ("Test result: ERROR: unexpected trap 14\r\n", Outcome((), (("ERROR", "unexpected trap 14"),))),
        ("it is ok one\nTest result: GOOD\nTest result: SUCCESS so far\n", Outcome((), ())),
    ],
)
def test_consoles_are_read(console: str, outcome: Outcome) -> None:
    """The lines that the kit prints, and what only looks like one."""
    assert small_guests.parse(console) == outcome


@pytest.mark.parametrize(
    ("crash", "console", "wrong"),
    [
        (None, "ok one\nTest result: SUCCESS\n", None),
        (None, "Test result: SKIP: no such thing\n", None),
        (None, "Test result: SUCCESS\n", "SUCCESS, but a check failed or none was made"),
        (None, "not ok one: 1\nTest result: SUCCESS\n", "SUCCESS, but a check failed or none was made"),
        (None, "ok one\nok one\nTest result: SUCCESS\n", "two checks are called 'one'"),
        (None, "ok one\n", "0 result lines instead of one"),
        (None, "ok one\nTest result: SUCCESS\nTest result: SUCCESS\n", "2 result lines instead of one"),
        (None, "not ok one: 1\nTest result: FAILURE: 1 of 1 checks\n", "FAILURE: 1 of 1 checks"),
        ("Unhandled", "ok one\n", None),
        ("Unhandled", "ok one\nTest result: SUCCESS\n", "it printed (('SUCCESS', ''),)"),
    ],
)
def test_results_are_judged(crash: str | None, console: str, wrong: str | None) -> None:
    """What a whole boot comes to."""
    variation = Variation(small_guests.TESTS, "one", "", crash)
    assert small_guests.verdict_of(variation, small_guests.parse(console)) == wrong


# -- the kit, in guests that are wrong on purpose

# Variation → how each of its checks ends: a pattern of the reason, None for one that is right.
ENDS: dict[str, dict[str, str | None]] = {
    "audit-result": {"another error": "-22 instead of -1", "no error": "0 instead of -22.*"},
    "audit-entry": {
        "a new entry": "-22 as it should be, but a page table changed",
        "a flag": "-22 as it should be, but a page table changed",
        "the CPU's flags": None,
        "but for those": None,
    },
    "audit-other_changes": {
        "a content": ".* but a watched page changed",
        "a type": ".* but a watched page's type changed",
        "a size": ".* but the reservation's size changed",
        "a count": ".* but a count of 3 instead of 0",
        "another count": ".* but a count of 3 instead of 2",
        "a number": ".* but the M2P changed",
    },
    "audit-left_over": {
        "a type": "-22 .*instead of 0.*",
        "a reference": "-22 .*instead of 0.*",
        "no type": None,
        "no reference": None,
    },
    "audit-traps": {
        "none": "no trap",
        "another one": "trap 6, .* instead of 14, 2, 0x10",
        "another address": "trap 14, code 2, CR2 0x18 instead of 14, 2, 0x10",
        "another code": "trap 14, code 2, .* instead of 14, 3, .*",
        "in another place": "the trap is at .*",
        "the right one": None,
    },
}

# Variation → the result line.
RESULTS = {
    "results-skipped": ("SKIP", "there is nothing to test, for 2 reasons"),
    "results-nothing": ("ERROR", "nothing was checked"),
    "results-set_up": ("ERROR", r"map\(HOLE, 0\) gave -22 \(results\.c, line \d+\)"),
    "results-trap": ("ERROR", r"unexpected trap 14, rip 0x(ffffffff80|c0)1\w+, code 2, CR2 0x40"),
    "results-user_trap": ("ERROR", "unexpected trap 3, .*"),
    "results-prints": ("SUCCESS", ""),
    "results-traps": ("SUCCESS", ""),
    "results-time": ("SUCCESS", ""),
    "results-entries": ("SUCCESS", ""),
}


@WIDTHS
@pytest.mark.parametrize("name", ENDS)
def test_a_change_does_not_pass_for_a_refusal(name: str, bits: int, guest: Guest) -> None:
    outcome = small_guests.run(SELF[name + small_guests.suffix(bits)], guest)
    assert [check.name for check in outcome.checks] == list(ENDS[name])
    for check in outcome.checks:
        wanted = ENDS[name][check.name]
        assert (check.reason is None) == (wanted is None), check
        assert wanted is None or re.fullmatch(wanted, check.reason or ""), check
    failures = sum(check.reason is not None for check in outcome.checks)
    assert outcome.results == (("FAILURE", f"{failures} of {len(outcome.checks)} checks"),)


@WIDTHS
@pytest.mark.parametrize("name", RESULTS)
def test_result_lines(name: str, bits: int, guest: Guest) -> None:
    outcome = small_guests.run(SELF[name + small_guests.suffix(bits)], guest)
    (result,) = outcome.results
    assert result[0] == RESULTS[name][0]
    assert re.fullmatch(RESULTS[name][1], result[1])
    assert all(check.reason is None for check in outcome.checks)


@WIDTHS
def test_a_crash_that_is_asked_for(bits: int, guest: Guest) -> None:
    crash = SELF["results-crash" + small_guests.suffix(bits)]
    outcome = small_guests.run(crash, guest)
    assert small_guests.verdict_of(crash, outcome) is None
    assert outcome.checks == (Check("before it", None),)
    with pytest.raises(AssertionError, match="crashed for another reason: Unhandled: vec 6"):
        small_guests.run(crash._replace(crash="Unhandled: vec 14"), guest)


def test_a_long_console_is_whole(guest: Guest) -> None:
    """Longer than its ring; and every format."""
    running = guest(small_guests.build(SELF["results-prints"].folder), memory=small_guests.MEMORY, cmdline="prints")
    running.wait("poweroff", timeout=small_guests.TIMEOUT)
    lines = running.console.text.splitlines()
    assert lines[0] == "-1 -2 -3 4 abc def 10000000000 00017 00000012 0x1000 text c %"
    assert lines[1:201] == [f"line {i} of a long console, longer than the ring is" for i in range(200)]


def test_the_guests_of_the_kit_are_all_run() -> None:
    names = {*ENDS, *RESULTS, "results-crash"}
    assert set(SELF) == {name + small_guests.suffix(bits) for name in names for bits in small_guests.BOTH}
