"""Segment descriptors as Xen lets a guest have them (xen/arch/x86/pv/descriptor-tables.c, check_descriptor)."""

from __future__ import annotations

from stub.abi.arch_x86 import FIRST_RESERVED_GDT_ENTRY
from stub.abi.widths import WIDTHS, Width

_S, _P, _L, _G, _DPL = 1 << 44, 1 << 47, 1 << 53, 1 << 55, 3 << 45
_TYPE, _CALL_GATE = 0xF << 40, 0xC << 40
_RESERVED_IN_GATE = {64: 0xFF << 32, 32: 0xE0 << 32}
_SELECTOR = 0xFFFF << 16  # of a gate
_LIMIT = 0xF << 48 | 0xFFFF


def checked(descriptor: int, bits: int = 64) -> int | None:
    """The 8-byte descriptor as a guest of ``bits`` gets it, or None for one that Xen refuses.

    What is not present passes as it is, the rest with a privilege level that is the guest kernel's at least. Code and
    data pass, but for 64-bit code of a 32-bit guest. Of system descriptors only two do: type 0, the second half of a
    call gate, and a call gate to code that a guest may run. Its own level becomes 0, so that using it is a #GP, and
    goes where the selector has its RPL.
    """
    if not descriptor & _P or not descriptor & (_S | _TYPE):
        return descriptor
    width = WIDTHS[bits]
    level = max((descriptor & _DPL) >> 45, width.kernel_rpl)
    descriptor = descriptor & ~_DPL | level << 45
    if descriptor & _S:
        return _segment(descriptor, width)
    selector = (descriptor & _SELECTOR) >> 16
    allowed = selector >> 3 < FIRST_RESERVED_GDT_ENTRY or selector & 4 or selector == width.kernel_cs
    if descriptor & _TYPE != _CALL_GATE or descriptor & _RESERVED_IN_GATE[bits] or not allowed:
        return None
    return descriptor & ~(_DPL | _SELECTOR) | (selector & ~3 | level) << 16


def _segment(descriptor: int, width: Width) -> int | None:
    """Code or data: a 32-bit guest's may not be 64-bit code, and one that reaches into Xen's part reaches its end."""
    if width.bits == 64:
        return descriptor
    if descriptor & _L:
        return None
    base = descriptor >> 16 & 0xFFFFFF | descriptor >> 32 & 0xFF000000
    limit = descriptor & 0xFFFF | descriptor >> 32 & 0xF0000
    size = limit + 1 << 12 if descriptor & _G else limit + 1
    return descriptor | _LIMIT if base == 0 and size > width.hypervisor_start else descriptor
