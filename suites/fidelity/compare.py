"""The recording and our log compared: every difference as one line of text, counted.

What is compared how (``docs/fidelity.md`` says the same for readers):

* The opening, up to the first return from an event upcall, strictly: the same events in the same order.
* After it the order in which timer ticks, threads and console output come differs from run to run, so the events that
  they cause (`SCHEDULED`) are taken out, and the rest is again compared strictly, to the recording's end. Of those
  taken out, each that the recording has must be there with the same answer, and follow the same event of its kind.
* Answers of all events that were laid side by side, in the opening and after it.
* Places (frames and pointers), up to where threads take memory in another order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from stub.trace.align import align
from suites.fidelity.events import Event

LIMIT = 400
"""Differences in order beyond which two boots are not the same boot."""

MEMORY = "mmu_update", "mmuext_op", "update_va_mapping"
MARGIN = 64
"""How much earlier than its first trace a change of turns may have moved memory."""

TICK = "iret", "vcpu_op:VCPUOP_set_singleshot_timer", "xen_version:XENVER_version", "sched_op:SCHEDOP_block"
SWITCH = "rdmsr 0xc0000102", "set_segment_base:SEGBASE_GS_USER", "set_segment_base:SEGBASE_GS_USER_SEL", "stack_switch"
SENDS = ("event_channel_op:EVTCHNOP_send",)
SCHEDULED = frozenset({*TICK, *SWITCH, *SENDS})

_CPUID_REGISTERS = "eax", "ebx", "ecx", "edx"
_FEATURE_WORDS = {
    (0x1, "ecx"), (0x1, "edx"), (0x7, "ebx"), (0x7, "ecx"), (0x7, "edx"),
    (0x8000_0001, "ecx"), (0x8000_0001, "edx"), (0x8000_0008, "ebx"),
}  # fmt: skip


class Comparison(NamedTuple):
    """``differences``: each as a line of text, and how often. The others count the recording's events: ``opening``
    those before the first upcall's return, ``paired`` those that have their like here, schedule apart, in the same
    order; ``placed`` those of them whose places were compared too."""

    differences: Counter[str]
    opening: int
    paired: int
    placed: int


def kind(event: Event) -> str:
    """The event's name, and of ``rdmsr`` the register."""
    return " ".join(event.asked) if event.name == "rdmsr" else event.name


def compare(recorded: Sequence[Event], ours: Sequence[Event]) -> Comparison:
    """All differences; raises ``align.TooDifferent`` where the two are not the same boot."""
    opening = next(number for number, event in enumerate(recorded) if event.name == "iret")
    first = _in_order(recorded[:opening], ours)
    steady = _in_order(*([event for event in side if kind(event) not in SCHEDULED] for side in (recorded, ours)))
    placed = steady.pairs[: max(0, steady.parted - MARGIN)]
    differences = first.differences | steady.differences  # what both have seen counts once
    differences.update(text for pair in placed for text in _places(*pair))
    differences.update(_scheduled(recorded, ours))
    return Comparison(differences, opening, len(steady.pairs), len(placed))


def compare_whole(recorded: Sequence[Event], ours: Sequence[Event]) -> Counter[str]:
    """All differences of two short boots that no schedule touches: all events, in the same order, places too."""
    ordered = _in_order(recorded, ours)
    differences = ordered.differences
    differences.update(text for pair in ordered.pairs for text in _places(*pair))
    compared = len(ordered.pairs) + sum(times for text, times in differences.items() if text.startswith("only here"))
    differences.update(f"only here, behind the end: {' '.join(event.asked)}" for event in ours[compared:])
    return differences


class _Ordered(NamedTuple):
    """``pairs``: events laid side by side; before number ``parted`` of them the guest used its memory alike."""

    differences: Counter[str]
    pairs: list[tuple[Event, Event]]
    parted: int


def _in_order(recorded: Sequence[Event], ours: Sequence[Event]) -> _Ordered:
    differences: Counter[str] = Counter()
    pairs: list[tuple[Event, Event]] = []
    parted = None
    for side in align([event.asked for event in recorded], [event.asked for event in ours], LIMIT):
        if side.first is not None and side.second is not None:
            pairs.append((recorded[side.first], ours[side.second]))
            differences.update(_answers(*pairs[-1]))
            continue
        single, where = (recorded[side.first], "Xen") if side.first is not None else (ours[side.second or 0], "here")
        differences[f"only {where}: {' '.join(single.asked)}"] += 1
        if parted is None and single.name in MEMORY:
            parted = len(pairs)
    return _Ordered(differences, pairs, len(pairs) if parted is None else parted)


def _answers(theirs: Event, mine: Event) -> Iterator[str]:
    if theirs.answer == mine.answer:
        return
    what = " ".join(theirs.asked)
    if theirs.name != "cpuid":
        yield f"{what}: {' '.join(mine.answer)}, Xen {' '.join(theirs.answer)}"
        return
    leaf = int(theirs.asked[2], 16)
    for register, a, b in zip(_CPUID_REGISTERS, theirs.answer, mine.answer, strict=True):
        if a == b:
            continue
        if (leaf, register) not in _FEATURE_WORDS:
            yield f"{what} {register}: {b}, Xen {a}"
            continue
        hidden, shown = int(a, 16) & ~int(b, 16), int(b, 16) & ~int(a, 16)
        for word, text in ((hidden, "not offered"), (shown, "offered, not by Xen")):
            for bit in range(32):
                if word >> bit & 1:
                    yield f"cpuid {leaf:#x} {register} bit {bit} {text}"


def _places(theirs: Event, mine: Event) -> Iterator[str]:
    for a, b in zip(theirs.places, mine.places, strict=True):
        if a == b:
            continue
        frame, _, slot = a.partition(":")
        if slot and frame == b.partition(":")[0]:
            yield f"place: other slot in table {frame}"
        else:
            yield f"place: {theirs.name}: {frame}"


def _scheduled(recorded: Sequence[Event], ours: Sequence[Event]) -> Iterator[str]:
    """Of what follows the schedule: kinds with their answers, and which follows which in a switch of threads."""
    mine, theirs = ({(e.asked, e.answer) for e in side if kind(e) in SCHEDULED} for side in (ours, recorded))
    for asked, answer in sorted(theirs ^ mine):
        where = "only Xen" if (asked, answer) in theirs else "only here"
        yield f"{where}, at any time: {' '.join(asked)} = {' '.join(answer)}"
    after, before = ({*pairwise(kind(e) for e in side if kind(e) in SWITCH)} for side in (ours, recorded))
    for first, second in sorted(after ^ before):
        where = "only Xen" if (first, second) in before else "only here"
        yield f"{where}, in a switch: {second} after {first}"
