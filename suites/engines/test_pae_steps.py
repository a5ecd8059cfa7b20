"""A 32-bit guest stepped instruction by instruction, through its rings, is the guest undisturbed."""

from __future__ import annotations

import pytest

from harness import small_guests
from stub.domain.config import DomainConfig
from stub.machine import Machine

MOST_STEPS = 100_000


def machine(test: str, variation: str) -> Machine:
    kernel = small_guests.build(small_guests.TESTS / "pae" / test, 32)
    return Machine(DomainConfig(kernel=kernel, memory=small_guests.MEMORY, cmdline=variation))


@pytest.mark.parametrize(("test", "variation"), [("frames", "mask"), ("entries", "syscall32"), ("iret", "dropped")])
def test_steps_are_not_seen(test: str, variation: str) -> None:
    """The same instructions and the same log, whether the guest runs or is stepped."""
    with machine(test, variation) as undisturbed:
        assert undisturbed.run().kind == "poweroff"
        wanted = undisturbed.retired, undisturbed.log.digest()
    with machine(test, variation) as stepped:
        xen = stepped.xen
        for _ in range(MOST_STEPS):
            xen.step()
            if xen.verdict is not None:
                break
        assert (stepped.retired, stepped.log.digest()) == wanted


def test_a_deadline_on_a_stack_with_a_base_is_not_seen() -> None:
    """A step to the deadline's jump takes its flag out of what was pushed, wherever the stack is."""
    with machine("selectors", "stack_base") as undisturbed:
        assert undisturbed.run().kind == "poweroff"
        wanted = undisturbed.retired, undisturbed.log.digest()
    with machine("selectors", "stack_base") as stopped:
        at = 0
        while stopped.run(deadline_ns=(at := at + 499)) is None:
            assert at < 10_000_000
        assert (stopped.retired, stopped.log.digest()) == wanted
