"""Segment descriptors as Xen lets a 64-bit guest have them (xen/arch/x86/pv/descriptor-tables.c, check_descriptor)."""

from __future__ import annotations

from stub.abi.arch_x86 import FIRST_RESERVED_GDT_ENTRY, FLAT_KERNEL_CS

_S, _P, _DPL = 1 << 44, 1 << 47, 3 << 45
_TYPE, _CALL_GATE = 0xF << 40, 0xC << 40
_RESERVED_IN_GATE = 0xFF << 32
_SELECTOR = 0xFFFF << 16  # of a gate


def checked(descriptor: int) -> int | None:
    """The 8-byte descriptor as it is stored, or None for one that Xen refuses.

    What is not present passes as it is, code and data with the privilege level raised to 3. Of system descriptors only
    two do: type 0, the second half of a call gate, and a call gate to code that a guest may run. Its own level
    becomes 0, so that using it is a #GP, and goes where the selector has its RPL.
    """
    if not descriptor & _P:
        return descriptor
    if descriptor & _S:
        return descriptor | _DPL
    if not descriptor & _TYPE:
        return descriptor
    selector = (descriptor & _SELECTOR) >> 16
    allowed = selector >> 3 < FIRST_RESERVED_GDT_ENTRY or selector & 4 or selector == FLAT_KERNEL_CS
    if descriptor & _TYPE != _CALL_GATE or descriptor & _RESERVED_IN_GATE or not allowed:
        return None
    level = (descriptor & _DPL) >> 45
    return descriptor & ~(_DPL | _SELECTOR) | (selector & ~3 | level) << 16
