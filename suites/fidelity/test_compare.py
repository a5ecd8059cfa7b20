"""The comparison finds what it is there to find: each of these changes to our log must show."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from stub.trace.align import TooDifferent, align
from suites.fidelity.allowed import of_engine, unexplained
from suites.fidelity.compare import Comparison, compare
from suites.fidelity.events import Event


def first(events: list[Event], name: str, skip: int = 0) -> int:
    return [number for number, event in enumerate(events) if event.name == name][skip]


def another_result(events: list[Event]) -> None:
    at = first(events, "mmuext_op", 200)
    events[at] = events[at]._replace(answer=("-22",))


def another_result_late(events: list[Event]) -> None:
    at = first(events, "mmu_update", 20_000)
    events[at] = events[at]._replace(answer=("-16",))


def another_port(events: list[Event]) -> None:
    at = first(events, "event_channel_op:EVTCHNOP_bind_virq")
    events[at] = events[at]._replace(answer=("0", "virq=0x0", "vcpu=0x0", "port=0x4"))


def one_call_more(events: list[Event]) -> None:
    at = first(events, "vm_assist:VMASST_CMD_enable")
    events.insert(at, events[at])


def one_call_less(events: list[Event]) -> None:
    del events[first(events, "grant_table_op:GNTTABOP_query_size")]


def two_calls_swapped(events: list[Event]) -> None:
    at = first(events, "set_debugreg", 1)
    events[at], events[at + 1] = events[at + 1], events[at]


def a_wrong_frame(events: list[Event]) -> None:
    at = first(events, "mmu_update", 3000)
    events[at] = events[at]._replace(places=("p1:0", *events[at].places[1:]))


def another_msr_value(events: list[Event]) -> None:
    at = first(events, "rdmsr")
    events[at] = events[at]._replace(answer=("0x0",))


def a_feature_that_xen_hides(events: list[Event]) -> None:
    at = next(number for number, event in enumerate(events) if event.asked[:3] == ("cpuid", "forced", "0x7"))
    eax, ebx, ecx, edx = events[at].answer
    events[at] = events[at]._replace(answer=(eax, f"{int(ebx, 16) | 1 << 7:#x}", ecx, edx))


def a_refused_timer(events: list[Event]) -> None:
    at = first(events, "vcpu_op:VCPUOP_set_singleshot_timer", 5)
    events[at] = events[at]._replace(answer=("-62",))


CHANGES: dict[Callable[[list[Event]], None], str] = {
    another_result: r"mmuext_op .*: -22, Xen 0",
    another_result_late: r"mmu_update .*: -16, Xen 0",
    another_port: r"event_channel_op:EVTCHNOP_bind_virq .*port=0x4, Xen .*port=0x3",
    one_call_more: r"only here: vm_assist:VMASST_CMD_enable type=0x0",
    one_call_less: r"only Xen: grant_table_op:GNTTABOP_query_size .*",
    two_calls_swapped: r"only (here|Xen): set_debugreg reg=0x[12] value=0x0",
    a_wrong_frame: r"place: mmu_update: p.*",
    another_msr_value: r"rdmsr 0x8b: 0x0, Xen 0x1000065",
    a_feature_that_xen_hides: r"cpuid 0x7 ebx bit 7 offered, not by Xen",
    a_refused_timer: r"only here, at any time: vcpu_op:VCPUOP_set_singleshot_timer .* = -62",
}
"""What is changed, and the difference that it must make."""


def test_each_change_shows(recorded: list[Event], ours: list[Event], comparison: Comparison) -> None:
    changed = list(ours)
    for change in CHANGES:
        change(changed)
    differences = compare(recorded, changed).differences
    new = unexplained(differences - comparison.differences, of_engine())
    for change, text in CHANGES.items():
        found = [line for line in new if re.fullmatch(rf"\d+ times: {text}", line)]
        assert found, f"{change.__name__} did not show in {new}"


def test_another_boot_is_no_comparison(recorded: list[Event], ours: list[Event]) -> None:
    with pytest.raises(TooDifferent):
        compare(recorded, ours[: len(ours) // 2])


@pytest.mark.parametrize(
    ("one", "other", "script"),
    [
        ("abc", "abc", "abc"),
        ("abc", "abcde", "abc"),
        ("abcd", "acd", "a-bcd"),
        ("acd", "abcd", "a+bcd"),
        ("abcabba", "cbabac", "-a-bc+bab-ba"),
        ("", "x", ""),
    ],
)
def test_the_shortest_edit_script(one: str, other: str, script: str) -> None:
    """What follows the first sequence's end in the second costs nothing."""
    words = []
    for here, there in align(one, other, 10):
        if here is not None and there is not None:
            assert one[here] == other[there]
            words.append(one[here])
        else:
            words.append(f"-{one[here]}" if here is not None else f"+{other[there or 0]}")
    assert "".join(words) == script
