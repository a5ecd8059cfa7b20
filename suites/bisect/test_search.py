"""The search for the first bad point: simulated histories, against plain ``git bisect run`` too, and its rules."""

from __future__ import annotations

import json
import math

import pytest
from histories import HELD_OUT, History, made, plain, searched

from harness.bisect.search import Boot, Found, Refused, Result, Rules, Search
from stub.errors import UsageError

HISTORIES = 200
# With as many, plain bisection is right in about 99 % of the histories whose bad points pass three times in ten.
RETRIES = 5


def told(points: int, *results: tuple[int, str], **rules: float) -> Search:
    search = Search(Rules(points, **rules))  # type: ignore[arg-type]
    for point, word in results:
        search.told(Result(point, word))  # type: ignore[arg-type]
    return search


def test_simulated_histories(record_property: pytest.Function) -> None:
    """On histories that nothing was tuned on. Plain bisection believes the ends; ours boots them."""
    right = boots = plain_right = plain_boots = 0
    for seed in HELD_OUT[:HISTORIES]:
        history = made(seed)
        step, _ = searched(history)
        right += isinstance(step, Found) and set(step.candidates) == history.answer()
        boots += history.boots
        again = made(seed)
        plain_right += plain(again, RETRIES) == again.answer()
        plain_boots += again.boots
    figures = {
        "right": right / HISTORIES, "boots": boots / HISTORIES,
        "plain right": plain_right / HISTORIES, "plain boots": plain_boots / HISTORIES,
    }  # fmt: skip
    for name, value in figures.items():
        record_property(name, round(value, 3))  # type: ignore[operator]
    print(figures)
    assert right >= 0.995 * HISTORIES
    assert right >= plain_right
    assert boots < 0.9 * plain_boots


def test_what_passes_two_times_in_three_is_found_where_plain_bisection_is_lost() -> None:
    right = plain_right = 0
    for seed in HELD_OUT[:100]:
        history = made(seed, pass_rate=2 / 3, size=64)
        step, _ = searched(history)
        right += isinstance(step, Found) and set(step.candidates) == history.answer()
        again = made(seed, pass_rate=2 / 3, size=64)
        plain_right += plain(again, RETRIES) == again.answer()
    assert right >= 95
    assert plain_right <= 80


def test_several_bad_ranges_are_refused_or_one_true_border_is_found() -> None:
    refused = 0
    for seed in range(60):
        history = made(seed, pass_rate=0.0, several=True)
        step, _ = searched(history)
        if isinstance(step, Refused):
            assert step.word == "several-bad-ranges"
            refused += 1
        else:
            assert isinstance(step, Found)
            assert history.is_bad(step.first_bad)
            assert not history.is_bad(step.last_good)
    assert refused >= 30


@pytest.mark.parametrize("count", [2, 4, 8])
def test_boots_side_by_side_take_fewer_rounds(count: int) -> None:
    rounds = {1: 0, count: 0}
    for seed in range(12):
        for at_once in rounds:
            history = made(seed, pass_rate=0.1)
            search = Search(Rules(history.size))
            while isinstance(step := search.step(at_once), Boot):
                assert 1 <= len(step.points) <= max(2, at_once)
                rounds[at_once] += 1
                for point in step.points:
                    search.told(Result(point, history.boot(point), phase=step.phase))
            assert isinstance(step, Found)
            assert set(step.candidates) == history.answer()
    assert rounds[count] < rounds[1]


def test_a_state_saved_at_any_step_goes_on_the_same() -> None:
    history, twin = made(7, pass_rate=0.2), made(7, pass_rate=0.2)
    whole, _ = searched(history)
    search = Search(Rules(twin.size))
    while isinstance(step := search.step(), Boot):
        for point in step.points:
            search.told(Result(point, twin.boot(point), phase=step.phase))
        search = Search.restored(json.loads(json.dumps(search.state())))
    assert step == whole


@pytest.mark.parametrize(
    "damage", [{}, {"rules": {"points": "x"}}, {"rules": {"points": 4}, "results": [{"point": 9}]}]
)
def test_a_damaged_state_is_refused(damage: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="saved search is damaged"):
        Search.restored(damage)


def test_the_ends_are_booted_first() -> None:
    assert told(100).step() == Boot((99, 0), "ends")


def test_a_good_end_that_fails() -> None:
    step = told(100, (99, "bad"), (0, "bad")).step()
    assert step == Refused("good-end-fails", "the good end fails: 1 of 1 boot failed")


def test_a_bad_end_that_passes() -> None:
    history = History(50, [(50, 50)], 0.0, set(), made(0).chance)
    step, search = searched(history)
    assert isinstance(step, Refused)
    assert step.word == "bad-end-passes"
    assert search.boots() < 40


def test_with_no_chance_one_contradiction_is_enough() -> None:
    step = told(10, (9, "bad"), (0, "good"), (3, "bad"), (6, "good"), rate=1).step()
    assert isinstance(step, Refused)
    assert step.word == "several-bad-ranges"
    assert "point 3 fails" in step.reason
    assert "point 6 after it passes" in step.reason


def test_with_no_chance_it_is_binary_search() -> None:
    for size in (2, 3, 17, 1000, 4096):
        history = History(size, [(size // 3 or 1, size - 1)], 0.0, set(), made(0).chance)
        step, search = searched(history, rate=1, repeats=1, spots=0)
        assert isinstance(step, Found)
        assert step.candidates == (history.first_bad,)
        assert search.boots() <= 2 + math.ceil(math.log2(size)) + 1


@pytest.mark.parametrize("repeats", [1, 2, 4])
def test_the_final_check_repeats_both_neighbours(repeats: int) -> None:
    """Also where one boot of each would do for the confidence; and what the check finds counts."""
    for first in (1, 20, 49):
        history = History(50, [(first, 49)], 0.0, set(), made(0).chance)
        step, search = searched(history, rate=1, repeats=repeats)
        assert isinstance(step, Found)
        for point, word in ((step.last_good, "good"), (step.first_bad, "bad")):
            assert [result.word for result in search.results if result.point == point] == [word] * max(repeats, 1)
    search = told(8, (7, "bad"), (0, "good"), (4, "bad"), (2, "good"), (3, "good"), rate=0.999, spots=0)
    assert search.step() == Boot((3, 4), "check")
    search.told(Result(3, "bad"))
    wanted = search.step()
    assert isinstance(wanted, Boot)
    assert not {3, 4} & set(wanted.points)


def test_untestable_points_before_the_first_bad_one_stay_candidates() -> None:
    history = History(20, [(9, 19)], 0.0, {7, 8, 9}, made(0).chance)
    step, _ = searched(history)
    assert isinstance(step, Found)
    assert step.candidates == (7, 8, 9, 10)
    assert (step.last_good, step.first_bad) == (6, 10)


def test_an_untestable_end_is_refused() -> None:
    search = Search(Rules(5))
    search.told(Result(4, "skip", "does not build"))
    assert search.step() == Refused("end-untestable", "the bad end cannot be tested: does not build")


def test_trouble_is_not_bad_and_in_the_end_a_skip() -> None:
    search = told(3, (2, "bad"), (0, "good"))
    for _ in range(2):
        search.told(Result(1, "trouble", "disk full"))
        assert 1 not in search.skipped()
    search.told(Result(1, "trouble", "no memory"))
    assert search.skipped() == {1: "trouble 3 times, last: no memory"}
    assert search.boots() == 2


def test_points_that_boot_the_same_are_one() -> None:
    """Of 1,000 commits two change the image: the answer is one of these, after a handful of boots."""
    history = History(1000, [(600, 999)], 0.0, set(), made(0).chance)
    search = Search(Rules(1000))
    while isinstance(step := search.step(), Boot):
        for point in step.points:
            search.identified(point, f"image {(point >= 300) + (point >= 600)}")
            search.told(Result(point, history.boot(point), phase=step.phase))
    assert isinstance(step, Found)
    assert step.candidates == (600,)


def test_the_same_image_that_fails_and_passes_always_is_no_history() -> None:
    search = told(3, (2, "bad"), (0, "good"), rate=1)
    for point in range(3):
        search.identified(point, "one image")
    step = search.step()
    assert isinstance(step, Refused)


@pytest.mark.parametrize(
    "rules", [{"points": 1}, {"points": 5, "confidence": 1}, {"points": 5, "rate": 0}, {"points": 5, "false_bad": 0.7}]
)
def test_rules_that_make_no_sense(rules: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Rules(**rules)  # type: ignore[arg-type]


def test_good_points_that_fail_now_and_then() -> None:
    right = 0
    for seed in range(30):
        history = made(seed, pass_rate=0.0, size=128)
        search = Search(Rules(128, false_bad=0.02))
        while isinstance(step := search.step(), Boot):
            for point in step.points:
                word = history.boot(point)
                noisy = "bad" if word == "good" and history.chance.random() < 0.02 else word
                search.told(Result(point, noisy, phase=step.phase))
        right += isinstance(step, Found) and set(step.candidates) == history.answer()
    assert right >= 28
