"""What a vCPU does and since when, and the time pages that the guest reads (common/sched/core.c, arch/x86/time.c)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from stub.abi.xen import VIRQ_TIMER
from stub.hypervisor import traps
from stub.hypervisor.clock import SECOND
from stub.hypervisor.vcpu import VCPU_INFO_TIME
from stub.memory.guest import GuestFault

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

_RUNSTATE = {64: struct.Struct("<I4xQ4Q"), 32: struct.Struct("<IQ4Q")}  # struct vcpu_runstate_info
RUNNING, BLOCKED = 0, 2
TIME_UPDATE = SECOND
"""How often the guest's time information is written anew, though nothing else asks for it: ns."""


def update_time(xen: Hypervisor) -> None:
    """Refresh the guest's time information."""
    xen.clock.write_time_info(xen.vcpu.info_at + VCPU_INFO_TIME)
    if xen.time_area:
        at = xen.vcpu.info_at + VCPU_INFO_TIME
        try:
            xen.domain.guest.write(xen.time_area, bytes(xen.ram_bytes[at : at + 32]))
        except GuestFault:
            xen.time_area = 0


def wake(xen: Hypervisor) -> None:
    """Let a blocked vCPU run."""
    vcpu = xen.vcpu
    if vcpu.blocked:
        account(xen, RUNNING)
        vcpu.blocked, vcpu.polling = False, frozenset()
        xen.clock.arm("poll", None)
        traps.reload_selectors(xen)


def event_came(xen: Hypervisor) -> bool:
    """Whether an event came for a blocked vCPU since it blocked (vcpu_mark_events_pending), masked or not."""
    return bool(xen.ram_bytes[xen.vcpu.info_at]) and not xen.vcpu.was_pending


# Timers that wake a blocked vCPU whatever is bound; the others raise VIRQ_TIMER.
_WAKES_ANYWAY = frozenset({"poll", "backends", "watchdog 1", "watchdog 2"})
_WAKES = _WAKES_ANYWAY | {"singleshot", "periodic"}


def sleeps_for_good(xen: Hypervisor) -> bool:
    """Whether nothing that is due could wake the blocked vCPU."""
    wakes = _WAKES if xen.events.virq_port(VIRQ_TIMER) else _WAKES_ANYWAY
    return wakes.isdisjoint(xen.clock.timers)


def sleep(xen: Hypervisor) -> None:
    """Note that the vCPU is blocked from now on."""
    if xen.vcpu.runstate != BLOCKED:
        account(xen, BLOCKED)


def account(xen: Hypervisor, state: int) -> None:
    """Charge the time since the last change, and enter ``state``."""
    vcpu, now = xen.vcpu, xen.clock.now
    vcpu.runstate_times[vcpu.runstate] += now - vcpu.runstate_since
    vcpu.runstate, vcpu.runstate_since = state, now
    if vcpu.runstate_at and state == RUNNING:
        write(xen)


def current(xen: Hypervisor) -> bytes:
    """A vcpu_runstate_info."""
    vcpu, now = xen.vcpu, xen.clock.now
    times = list(vcpu.runstate_times)
    times[vcpu.runstate] += now - vcpu.runstate_since
    return _RUNSTATE[xen.width.bits].pack(vcpu.runstate, vcpu.runstate_since, *times)


def write(xen: Hypervisor) -> None:
    """Refresh the area that the guest registered."""
    try:
        xen.domain.guest.write(xen.vcpu.runstate_at, current(xen))
    except GuestFault:
        return


_JUMPS = 64  # before the caller looks at its limits


def pass_time(xen: Hypervisor) -> bool:
    """While the vCPU is blocked, jump from timer to timer until one wakes it; False when the caller must decide."""
    clock = xen.clock
    if xen.realtime or xen.console.has_input:
        return False
    sleep(xen)
    for _ in range(_JUMPS):
        if sleeps_for_good(xen) or clock.next_event > clock.horizon:
            return False
        clock.jump_to(clock.next_event)
        xen.fire_timers()
        if not xen.vcpu.blocked or xen.pause:
            return not xen.vcpu.blocked
    return False
