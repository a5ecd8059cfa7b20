"""Segment descriptors as Xen lets a 64-bit guest have them (xen/arch/x86/pv/descriptor-tables.c, check_descriptor)."""

from __future__ import annotations

_S, _P, _DPL = 1 << 44, 1 << 47, 3 << 45


def checked(descriptor: int) -> int | None:
    """The 8-byte descriptor with its privilege level raised to 3, or None for one that Xen refuses.

    Code and data descriptors pass, and whatever is not present; of system descriptors only the null one: gates and
    task segments would lead out of ring 3.
    """
    if not descriptor & _P:
        return descriptor
    if descriptor & _S:
        return descriptor | _DPL
    return descriptor if not descriptor >> 40 & 0x1F else None
