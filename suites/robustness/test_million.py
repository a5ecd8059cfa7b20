"""A million hypercalls, stores and privileged instructions that a hostile guest makes up from its seeds.

That is the 64-bit guest; of the 32-bit one it is half a million, and with ``PVSTUB_WHOLE_MILLION`` set in the
environment a million, too.

Each seed is a boot. It may end only as the guest itself announced it: in no Python exception, no crash that Xen would
not crash the domain for, no run without end. Nothing that Xen keeps may have changed, nor grown.
"""

from __future__ import annotations

import gc
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hostile_rounds import AUDIT_EVERY, FOLDER, Outcome, live, machine

from harness import small_guests
from harness.guests import Guest
from harness.small_guests import Variation
from stub.abi.xen import Hypercall
from stub.hypervisor.audit import audit
from stub.hypervisor.registry import HYPERCALLS
from stub.hypervisor.xen import Hypervisor

pytestmark = pytest.mark.usefixtures("pv_engine")

ROUNDS = 8000
WHOLE = bool(os.environ.get("PVSTUB_WHOLE_MILLION"))
SEEDS = {64: 112, 32: 112 if WHOLE else 56}  # by the guest's bits
BATCHES = {64: 16, 32: 14}
EVERY_BATCH = [(bits, batch) for bits in small_guests.BOTH for batch in range(BATCHES[bits])]
ATTEMPTS = 9000  # in each seed, at the least; the rounds that switch roots make several calls
MIB = 1 << 20
GROWTH = 48 * MIB  # that stays behind all guests of a process after the first two; one alone has 36 MiB of memory
PEAK = 128 * MIB  # by which the process may grow at any moment: two guests, one not yet cleared away, and their code
LONGEST = 2.0  # CPU seconds for one hypercall with its audit: the longest are lists, of which Xen does a part at a time
NAMED = [v for v in small_guests.find("hostile", small_guests.BOTH) if v.folder != FOLDER]

_resident: list[int] = []  # bytes after each guest of this process


def resident() -> int:
    """The memory that this process has now, in bytes, once the guests that are gone are cleared away."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module", autouse=True)
def bounded() -> Iterator[None]:
    """No guest makes the process larger than ``PEAK`` allows."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < PEAK


@pytest.fixture(scope="module")
def kernel() -> Path:
    return small_guests.build(FOLDER)


def test_the_batches_come_to_a_million() -> None:
    assert SEEDS[64] * ATTEMPTS >= 1_000_000
    assert SEEDS[32] * ATTEMPTS >= (1_000_000 if WHOLE else 500_000)
    assert all(SEEDS[bits] % BATCHES[bits] == 0 for bits in small_guests.BOTH)


@pytest.mark.parametrize(("bits", "batch"), EVERY_BATCH)
def test_hostile_rounds(bits: int, batch: int) -> None:
    """A batch of seeds, one after the other; a failure names the seed."""
    kernel = small_guests.build(FOLDER, bits)
    for seed in range(batch, SEEDS[bits], BATCHES[bits]):
        outcome = live(kernel, seed, ROUNDS)
        _resident.append(resident())
        _judge(seed, outcome)
    assert _resident[-1] - min(_resident[:2]) < GROWTH


def _judge(seed: int, outcome: Outcome) -> None:
    """Whether the guest did as much as it should have, and whether the log has all of it."""
    assert outcome.attempts >= ATTEMPTS, f"seed {seed}: {outcome}"
    assert outcome.logged >= outcome.totals["calls"], f"seed {seed}: {outcome}"
    assert 0.2 < outcome.totals["refused"] / outcome.totals["calls"] < 0.8, f"seed {seed}: neither all good nor all bad"
    assert outcome.longest < LONGEST, f"seed {seed}"


@pytest.mark.parametrize("bits", small_guests.BOTH)
def test_a_seed_is_the_same_run_every_time(bits: int) -> None:
    kernel = small_guests.build(FOLDER, bits)
    digests = set()
    for _ in range(2):
        with machine(kernel, seed=1, rounds=500) as made:
            made.run()
            digests.add(made.log.digest())
    assert len(digests) == 1


def _descriptors_anywhere(xen: Hypervisor, maddr: int, value: int, *_: int) -> int:
    if maddr >> 12 < xen.domain.frames.frames:
        xen.domain.ram.words[maddr >> 3] = value
    return 0


def _a_stray_word(xen: Hypervisor, *_: int) -> int:
    xen.domain.ram.words[xen.domain.area.zero * 512] += 1
    return 0


def _a_stray_entry(xen: Hypervisor, *_: int) -> int:
    xen.domain.area.map_page(15, xen.vcpu.kernel_root)
    return 0


@pytest.mark.parametrize(
    ("harm", "seen"),
    [
        (_descriptors_anywhere, "an invariant is broken"),
        (_a_stray_word, "was written to"),
        (_a_stray_entry, "of the per-domain area leads to frame"),
    ],
)
def test_what_a_hypercall_breaks_is_seen(
    kernel: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[..., int], seen: str
) -> None:
    """The same with a hypercall that does harm: the audit or the comparison of the frames finds it."""
    monkeypatch.setitem(HYPERCALLS, Hypercall.update_descriptor, harm)
    with pytest.raises(AssertionError, match=seen):
        live(kernel, 0, 500)


@pytest.mark.parametrize("variation", NAMED, ids=lambda variation: variation.id)
def test_hostile(variation: Variation, guest: Guest, subtests: pytest.Subtests) -> None:
    """Lists of 2^31 items and more, and pointers that lead nowhere, to each hypercall that takes one."""
    running = small_guests.prepare(variation, guest(audit=AUDIT_EVERY))
    outcome = small_guests.finish(variation, running)
    with subtests.test("the audit finds nothing"):
        assert audit(running.machine.xen) == []
    small_guests.judge(variation, outcome, subtests)
