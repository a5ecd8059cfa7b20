"""The guest's debug registers (arch/x86/pv/misc-hypercalls.c, traps.c: set_debugreg, pv_read_debug).

The CPU's own are never used: a breakpoint is a stop point of the engine, a data breakpoint memory that it watches
(``stops.py``). A hit counts only while DR7 has it enabled.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from stub.abi.arch_x86 import HYPERVISOR_VIRT_END, HYPERVISOR_VIRT_START
from stub.abi.errno import EINVAL, ENODEV, EPERM
from stub.abi.x86_defns import X86_CR4_DE, X86_EFLAGS_RF
from stub.engine.base import (
    EXIT_ERROR_CODE,
    READS,
    RETIRED,
    RFLAGS,
    RIP,
    WATCH2_ADDRESS,
    WATCH2_SIZE,
    WATCH2_WRITE,
    WATCH_ADDRESS,
    WATCH_SIZE,
    WATCH_WRITE,
    WRITES,
    Watch,
)
from stub.hypervisor import traps
from stub.hypervisor.refusals import refuse
from stub.hypervisor.vcpu import DR6_SINGLE_STEP
from stub.units import is_canonical

if TYPE_CHECKING:
    from stub.hypervisor.vcpu import Vcpu
    from stub.hypervisor.xen import Hypervisor

_DR6_FORCED = 0xFFFF0FF0
_DR6_ZEROS = 0x1000
_DR7_FORCED = 0x400
_DR7_ZEROS = 0xD800
_DR7_GD = 1 << 13
_DR7_ENABLES = 0xFF
_EXECUTE, _WRITE, _PORT = 0, 1, 2  # DR7's R/W field; 3 is reads and writes


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
        return refuse(xen, -number, "there is no such debug register")
    if number < 4:
        if not is_canonical(value) or HYPERVISOR_VIRT_START <= value < HYPERVISOR_VIRT_END:
            return refuse(xen, EPERM, f"breakpoint {value:#x} is not canonical, or in Xen's part")
    elif value >> 32:
        return refuse(xen, EINVAL, f"DR{number} {value:#x} has upper bits set")
    elif number == 6:
        value = value & ~_DR6_ZEROS | _DR6_FORCED
    else:
        value = value & ~_DR7_ZEROS | _DR7_FORCED
        if value & _DR7_GD:
            return refuse(xen, EPERM, f"DR7 {value:#x} has GD set")
        kinds = [value >> 16 + 4 * i & 3 for i in range(4)]
        if value & _DR7_ENABLES and _PORT in kinds and not vcpu.cr4 & X86_CR4_DE:  # of any, enabled itself or not
            return refuse(xen, EPERM, f"DR7 {value:#x} has a breakpoint on a port, and CR4.DE is clear")
    vcpu.debug[number] = value
    if number != 6:
        arm(xen)
    return 0


def read_debug(vcpu: Vcpu, number: int) -> int:
    """The register's value, or a negative error number."""
    number = _number(vcpu, number)
    return number if number < 0 else vcpu.debug[number]


_LENGTHS = (1, 2, 8, 4)


def enabled(vcpu: Vcpu) -> Iterator[tuple[int, int, int, int]]:
    """(number, kind, address, length) of each breakpoint on memory that DR7 enables."""
    control = vcpu.debug[7]
    for number in range(4):
        if control >> 2 * number & 3 and control >> 16 + 4 * number & 3 != _PORT:
            field = control >> 16 + 4 * number
            yield number, field & 3, vcpu.debug[number], _LENGTHS[field >> 2 & 3]


def port_hits(vcpu: Vcpu, port: int, size: int) -> int:
    """Which enabled breakpoints on ports an access touches, as DR6 shows them (check_guest_io_breakpoint)."""
    hits, control = 0, vcpu.debug[7]
    for number in range(4):
        field = control >> 16 + 4 * number
        if control >> 2 * number & 3 and field & 3 == _PORT and vcpu.cr4 & X86_CR4_DE:
            start = vcpu.debug[number]
            hits |= (start < port + size and port < start + _LENGTHS[field >> 2 & 3]) << number
    return hits


def arm(xen: Hypervisor) -> None:
    """Have the engine stop where the enabled breakpoints lie."""
    code, data = [], []
    control = xen.vcpu.debug[7]
    xen.vcpu.watches_ports = any(
        control >> 2 * number & 3 and control >> 16 + 4 * number & 3 == _PORT for number in range(4)
    )
    for _, kind, address, length in enabled(xen.vcpu):
        if kind == _EXECUTE:
            code.append(address)
        else:
            first = address & ~(length - 1)
            access = WRITES if kind == _WRITE else READS | WRITES
            data.append(Watch(first, first + length - 1, access, second=True))
    xen.stops.for_guest(code, data)


def at_stop_point(xen: Hypervisor) -> bool:
    """The CPU is about to run an instruction with a stop point: #DB if the guest has it enabled; whether that was."""
    words, vcpu = xen.words, xen.vcpu
    if vcpu.resumed_when == words[RETIRED]:
        return False
    for number, kind, address, _ in enabled(vcpu):
        if kind == _EXECUTE and address == words[RIP]:
            vcpu.debug[6] |= 1 << number
            words[RFLAGS] |= X86_EFLAGS_RF
            traps.inject(xen, 1)
            return True
    return False


def _watched(vcpu: Vcpu, first: int, size: int, write: bool) -> int:
    """Which enabled data breakpoints the access touched, as DR6 shows them."""
    hits = 0
    for number, kind, address, length in enabled(vcpu):
        at = address & ~(length - 1)
        if kind != _EXECUTE and (write or kind != _WRITE) and at < first + size and first < at + length:
            hits |= 1 << number
    return hits


def debug_trap(xen: Hypervisor) -> bool:
    """#DB from the CPU: a watched access, or a step of the guest's or an onlooker's; whether anything came of it."""
    words, vcpu = xen.words, xen.vcpu
    access = words[WATCH_ADDRESS], words[WATCH_SIZE], words[WATCH_WRITE] != 0
    own = words[WATCH2_ADDRESS], words[WATCH2_SIZE], words[WATCH2_WRITE] != 0
    words[WATCH_SIZE] = words[WATCH2_SIZE] = 0
    onlooker = xen.stops.onlooker
    shown = onlooker is not None and bool(access[1]) and onlooker.accessed(*access)
    if shown:
        xen.stand_still()
    steps = words[EXIT_ERROR_CODE]
    hits = _watched(vcpu, *own) if own[1] else 0
    if steps or hits:
        vcpu.debug[6] |= hits | (DR6_SINGLE_STEP if steps else 0)
        traps.inject(xen, 1)
        xen.mid_flight = False
        return True
    return shown
