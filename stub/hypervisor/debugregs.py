"""The guest's debug registers (arch/x86/pv/misc-hypercalls.c, traps.c: set_debugreg, pv_read_debug).

The CPU's own are never used: a breakpoint is a stop point of the engine, a data breakpoint a watch on the machine
memory behind the address. Both stay in the engine once set, and a hit counts only while DR7 has it enabled.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from stub.abi.arch_x86 import HYPERVISOR_VIRT_END, HYPERVISOR_VIRT_START
from stub.abi.errno import EINVAL, ENODEV, EPERM
from stub.abi.x86_defns import X86_CR4_DE, X86_EFLAGS_RF, X86_EFLAGS_TF
from stub.engine.base import RFLAGS, RIP, WATCH_ADDRESS, WATCH_SIZE, WATCH_WRITE
from stub.hypervisor import traps
from stub.memory.guest import GuestFault
from stub.units import PAGE_MASK, U64, is_canonical

if TYPE_CHECKING:
    from stub.hypervisor.vcpu import Vcpu
    from stub.hypervisor.xen import Hypervisor

_DR6_FORCED = 0xFFFF0FF0
_DR6_ZEROS = 0x1000
_DR7_FORCED = 0x400
_DR7_ZEROS = 0xD800
_DR7_GD = 1 << 13


def _number(vcpu: Vcpu, number: int) -> int:
    """DR4 and DR5 stand for DR6 and DR7 unless CR4.DE is set."""
    if number in (4, 5):
        return -ENODEV if vcpu.cr4 & X86_CR4_DE else number + 2
    return number if number < 8 else -ENODEV


def write_debug(xen: Hypervisor, number: int, value: int) -> int:
    """set_debugreg: 0 or a negative error number."""
    vcpu = xen.vcpu
    number = _number(vcpu, number)
    if number < 0:
        return number
    if number < 4:
        if not is_canonical(value) or HYPERVISOR_VIRT_START <= value < HYPERVISOR_VIRT_END:
            return -EPERM
    elif value >> 32:
        return -EINVAL
    elif number == 6:
        value = value & ~_DR6_ZEROS | _DR6_FORCED
    else:
        value = value & ~_DR7_ZEROS | _DR7_FORCED
        if value & _DR7_GD:
            return -EPERM
        for i in range(4):
            if value >> 2 * i & 3 and value >> 16 + 4 * i & 3 == 2 and not vcpu.cr4 & X86_CR4_DE:
                return -EPERM
    vcpu.debug[number] = value
    if number != 6:
        arm(xen)
    return 0


def read_debug(vcpu: Vcpu, number: int) -> int:
    """The register's value, or a negative error number."""
    number = _number(vcpu, number)
    return number if number < 0 else vcpu.debug[number]


_EXECUTE, _WRITE, _ACCESS = 0, 1, 3  # DR7's R/W field
_LENGTHS = (1, 2, 8, 4)
_MAX_STOP_POINTS = 4096  # the engine keeps each for good
NOTHING = (U64, U64)
_DR6_SINGLE_STEP = 1 << 14


def enabled(vcpu: Vcpu) -> Iterator[tuple[int, int, int, int]]:
    """(number, kind, address, length) of each breakpoint that DR7 enables."""
    control = vcpu.debug[7]
    for number in range(4):
        if control >> 2 * number & 3:
            field = control >> 16 + 4 * number
            yield number, field & 3, vcpu.debug[number], _LENGTHS[field >> 2 & 3]


def arm(xen: Hypervisor) -> None:
    """Have the engine stop where the enabled breakpoints lie.

    A data breakpoint is on a virtual address, whose frame may change under it (copy on write): the engine is asked
    for all accesses at its place in the page, and each is looked at.
    """
    mask, value = NOTHING
    for _, kind, address, length in enabled(xen.vcpu):
        if kind == _EXECUTE:
            if address not in xen.stop_points:
                if len(xen.stop_points) >= _MAX_STOP_POINTS:
                    xen.note(f"breakpoint at {address:#x}: it was not set, {_MAX_STOP_POINTS} others were before")
                    continue
                xen.stop_points.add(address)
                xen.engine.stop_at(address)
            continue
        place = address & PAGE_MASK & ~(length - 1)
        if (mask, value) == NOTHING:
            mask, value = PAGE_MASK & ~(length - 1), place
        else:  # several: only the bits in which they agree
            mask &= ~(place ^ value) & ~(length - 1)
            value &= mask
    if (mask, value) != xen.watched:
        xen.watched = (mask, value)
        xen.engine.watch(mask, value)


def at_stop_point(xen: Hypervisor) -> None:
    """The CPU is about to run an instruction that has a stop point: #DB if the breakpoint is enabled."""
    words, vcpu = xen.words, xen.vcpu
    if xen.resume_at == words[RIP]:
        xen.resume_at = None
        return
    for number, kind, address, _ in enabled(vcpu):
        if kind == _EXECUTE and address == words[RIP]:
            vcpu.debug[6] |= 1 << number
            words[RFLAGS] |= X86_EFLAGS_RF
            traps.inject(xen, 1)
            return


def _watched(xen: Hypervisor) -> int:
    """Which enabled data breakpoints the instruction's access touched, as DR6 shows them."""
    words = xen.words
    first, size, write = words[WATCH_ADDRESS], words[WATCH_SIZE], words[WATCH_WRITE]
    words[WATCH_SIZE] = 0
    hits = 0
    for number, kind, address, length in enabled(xen.vcpu):
        if not size or kind == _EXECUTE or (kind == _WRITE and not write):
            continue
        try:
            maddr = xen.domain.guest.locate(address & ~(length - 1))
        except GuestFault:
            continue
        if maddr < first + size and first < maddr + length:
            hits |= 1 << number
    return hits


def debug_trap(xen: Hypervisor) -> None:
    """#DB from the CPU: a watched access was made, or the guest steps."""
    words, vcpu = xen.words, xen.vcpu
    steps = words[RFLAGS] & X86_EFLAGS_TF
    hits = _watched(xen)
    if not steps and not hits:
        return
    vcpu.debug[6] |= hits | (_DR6_SINGLE_STEP if steps else 0)
    traps.inject(xen, 1)
