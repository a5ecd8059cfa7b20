"""I/O ports: who may use them, and the little that is behind them (arch/x86/pv/emul-priv-op.c, guest_io_read).

The engine does not check the right to use a port; it asks here for each ``in`` and ``out``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stub.abi.x86_defns import X86_EFLAGS_TF, X86_EXC_DB
from stub.engine.base import RAX, RFLAGS, RIP
from stub.hypervisor import traps
from stub.hypervisor.debugregs import port_hits
from stub.hypervisor.vcpu import DR6_SINGLE_STEP
from stub.memory.guest import GuestFault
from stub.units import U64

if TYPE_CHECKING:
    from stub.hypervisor.vcpu import Vcpu
    from stub.hypervisor.xen import Hypervisor


_RTC_INDEX, _PCI_ADDRESS = 0x70, 0xCF8
# prefixes, then in or out with the port in the instruction or in dx
_PORT_ACCESS = re.compile(rb"[\x66\x67\xf2\xf3\x2e\x36\x3e\x26\x64\x65]*[\x40-\x4f]?(?:[\xe4-\xe7].|[\xec-\xef])", re.S)


def iopl_suffices(vcpu: Vcpu) -> bool:
    """iopl_ok: the kernel counts as ring 1, or as ring 0 with the architectural_iopl assist."""
    return vcpu.iopl >= (3 if not vcpu.kernel_mode else 0 if vcpu.architectural_iopl else 1)


def io_allowed(xen: Hypervisor, port: int, size: int) -> bool:
    """guest_io_okay: by the virtual IOPL, else by the I/O bitmap, which is read in the kernel's address space."""
    vcpu, guest = xen.vcpu, xen.domain.guest
    if iopl_suffices(vcpu):
        return True
    if port + size > vcpu.io_bitmap_ports:
        return False
    bits = 0
    for i in range(2):
        try:
            at = guest.locate_from(vcpu.kernel_tables, (vcpu.io_bitmap + port // 8 + i) & U64)
            bits |= xen.ram_bytes[at] << 8 * i
        except GuestFault:
            bits |= 0xFF << 8 * i
    return not bits >> (port & 7) & ((1 << size) - 1)


def _break_at_port(xen: Hypervisor, port: int, size: int, value: int | None) -> None:
    """#DB behind an ``in`` (of ``value``) or ``out`` that a debug register watches; the string forms pass."""
    words, vcpu = xen.words, xen.vcpu
    code = xen.domain.guest.read_available(words[RIP], 15)
    found = _PORT_ACCESS.match(code)
    hits = port_hits(vcpu, port, size)
    if not hits or found is None:
        return
    if value is not None:
        kept = words[RAX] >> 8 * size << 8 * size if size < 4 else 0
        words[RAX] = kept | value
    single_step = DR6_SINGLE_STEP if words[RFLAGS] & X86_EFLAGS_TF else 0
    vcpu.debug[6] |= hits | single_step
    words[RIP] = (words[RIP] + found.end()) & U64
    traps.inject(xen, X86_EXC_DB)


def port_in(xen: Hypervisor, port: int, size: int) -> int | None:
    """What ``in`` reads; None when it is the guest's #GP (guest_io_read).

    A domU sees no device but the RTC's index register and, as 32 bits, PCI's address register.
    """
    if not io_allowed(xen, port, size):
        return None
    value = (1 << 8 * size) - 1
    if port == _PCI_ADDRESS and size == 4:
        value = xen.pci_address
    elif port <= _RTC_INDEX < port + size:
        value ^= (xen.rtc_index ^ 0xFF) << 8 * (_RTC_INDEX - port)
    xen.log.port_io(xen.clock.now, xen.words[RIP], port, size, value, False)
    if xen.vcpu.watches_ports:
        _break_at_port(xen, port, size, value)
    return value


def port_out(xen: Hypervisor, port: int, size: int, value: int) -> bool:
    """``out``; False when it is the guest's #GP."""
    if not io_allowed(xen, port, size):
        return False
    if port == _PCI_ADDRESS and size == 4:
        xen.pci_address = value
    elif port <= _RTC_INDEX < port + size:
        xen.rtc_index = value >> 8 * (_RTC_INDEX - port) & 0xFF
    xen.log.port_io(xen.clock.now, xen.words[RIP], port, size, value, True)
    if xen.vcpu.watches_ports:
        _break_at_port(xen, port, size, None)
    return True
