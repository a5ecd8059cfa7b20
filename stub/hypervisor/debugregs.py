"""The guest's debug registers (arch/x86/pv/misc-hypercalls.c, traps.c: set_debugreg, pv_read_debug)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stub.abi.errno import ENODEV, EPERM, EINVAL
from stub.abi.x86_defns import X86_CR4_DE
from stub.units import is_canonical

if TYPE_CHECKING:
    from stub.hypervisor.vcpu import Vcpu
    from stub.hypervisor.xen import Hypervisor

_DR6_FORCED = 0xFFFF0FF0
_DR6_ZEROS = 0x1000
_DR7_FORCED = 0x400
_DR7_ZEROS = 0xD800
_DR7_GD = 1 << 13
_HOLE = range(0xFFFF_8000_0000_0000, 0xFFFF_8800_0000_0000)


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
        if not is_canonical(value) or value in _HOLE:
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
        xen.debug_registers_changed()
    return 0


def read_debug(vcpu: Vcpu, number: int) -> int:
    """The register's value, or a negative error number."""
    number = _number(vcpu, number)
    return number if number < 0 else vcpu.debug[number]
