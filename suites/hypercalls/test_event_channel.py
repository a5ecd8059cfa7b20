"""Event channels, in both ABIs, as small guests of our own see them; and what the FIFO ABI holds on to, and lets go of.

The tests are the folders of ``images/tests/event-channels``; what is refused is in suites/memory.
"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from harness import small_guests
from harness.guests import Guest
from harness.small_guests import Variation
from stub.abi.errno import ENOSPC
from stub.abi.xen import DOMID_SELF
from stub.domain.config import DomainConfig
from stub.hypervisor.hypercalls import event_channel
from stub.machine import Machine
from suites.boot.small_guest import SPIN, kernel

pytestmark = pytest.mark.usefixtures("pv_engine")

VARIATIONS = small_guests.find("event-channels", small_guests.BOTH)


@pytest.mark.parametrize("variation", VARIATIONS, ids=lambda variation: variation.id)
def test_event_channels(variation: Variation, guest: Guest, subtests: pytest.Subtests) -> None:
    """Each check of one boot, and the result line at its end; no invariant breaks meanwhile."""
    small_guests.judge(variation, small_guests.run(variation, guest(audit=1)), subtests)


def test_a_reset_lets_go_of_the_fifo_pages(tmp_path: Path) -> None:
    """Twice, and the frames' counts are what they were: the guest may make page tables of them again."""
    with Machine(DomainConfig(kernel=kernel(tmp_path, SPIN), memory=32)) as guest:
        guest.run(deadline_ns=1000)
        xen = guest.xen
        frames, memory = xen.domain.frames, xen.domain.guest
        control, array = (int(xen.domain.p2m[-1 - i]) for i in range(2))
        at = xen.domain.layout.stack.vaddr + 0x2000
        before = [(frames.refs[mfn], frames.type_count[mfn]) for mfn in (control, array)]
        for _ in range(2):
            memory.write(at, struct.pack("<QII8x", control, 0, 0))
            assert event_channel.init_control(xen, at) == 0
            memory.write_u64(at, array)
            assert event_channel.expand_array(xen, at) == 0
            assert [(frames.refs[mfn], frames.type_count[mfn]) for mfn in (control, array)] == [
                (refs + 1, types + 1) for refs, types in before
            ]
            memory.write_u64(at, DOMID_SELF)
            assert event_channel.reset(xen, at) == 0
            assert [(frames.refs[mfn], frames.type_count[mfn]) for mfn in (control, array)] == before


@pytest.mark.parametrize("most", [5, 3000])
def test_the_configuration_limits_the_ports(most: int, tmp_path: Path) -> None:
    with Machine(DomainConfig(kernel=kernel(tmp_path, SPIN), memory=32, event_channels=most)) as guest:
        guest.run(deadline_ns=1000)
        xen = guest.xen
        at = xen.domain.layout.stack.vaddr + 0x2000
        xen.domain.guest.write_u64(at, 0)
        answers = [event_channel.bind_ipi(xen, at) for _ in range(most - 2)]
        assert set(answers) == {0}
        assert xen.domain.guest.read_u32(at + 4) == most
        assert event_channel.bind_ipi(xen, at) == -ENOSPC
