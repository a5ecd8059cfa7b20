"""XenStore as guests use it: small guests of our own over the ring, and Linux's xenbus.

The tests of the first kind are the folders of ``images/tests/xenstore``; each variation is a boot.
"""

from __future__ import annotations

import pytest

from harness import small_guests
from harness.console import GuestConsole
from harness.guests import Guest
from harness.small_guests import Variation
from harness.xenstore import XenStore

VARIATIONS = small_guests.find("xenstore", (64, 32))


@pytest.mark.parametrize("variation", VARIATIONS, ids=lambda variation: variation.id)
def test_small_guests(variation: Variation, guest: Guest, subtests: pytest.Subtests) -> None:
    """Each check of one boot, and the result line at its end."""
    small_guests.judge(variation, small_guests.run(variation, guest), subtests)


@pytest.mark.guest("debian-cloud", memory=96, extra="pvstub=shell")
def test_linux_and_its_toolstack(guest: Guest, console: GuestConsole, xenstore: XenStore) -> None:
    """What Linux watches and announces; a request to shut down is acknowledged; a sysrq is carried out."""
    assert xenstore.watches() == {}
    xenstore.wait("control/feature-poweroff", "1")
    console.expect_exact("# ")
    assert set(xenstore.watches()) == {"memory/target", "control/shutdown", "control/sysrq", "backend", "device", "cpu"}
    assert xenstore.read("control/feature-reboot") == "1"
    assert xenstore.list("device") == ["suspend"]
    with xenstore.changes("control") as seen:
        xenstore.write("control/shutdown", "halt-and-catch-fire")
        console.expect_exact("Ignoring shutdown request: halt-and-catch-fire")
        xenstore.write("control/sysrq", "o")
        assert xenstore.wait("control/sysrq", "") == ""
    assert seen[0] == "/local/domain/1/control/shutdown"
    assert "/local/domain/1/control/sysrq" in seen
    console.expect_exact("sysrq: Power Off")
    guest.wait("poweroff", timeout=10)


@pytest.mark.guest("debian-cloud", memory=128, extra="pvstub=shell")
def test_linux_gives_memory_back(guest: Guest, console: GuestConsole, xenstore: XenStore) -> None:
    """The balloon follows memory/target, in KiB."""
    console.expect_exact("# ")
    before = guest.hypercalls.count("memory_op:decrease_reservation rc>=0")
    xenstore.write("memory/target", 120 * 1024)
    guest.run(20)
    machine = guest.machine
    owned = int((machine.xen.domain.frames.np_owner == 1).sum())
    assert guest.hypercalls.count("memory_op:decrease_reservation rc>=0") > before
    assert 119 * 256 <= owned <= 121 * 256
