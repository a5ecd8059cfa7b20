"""What follows from how wide a guest's words are: its own numbers, and those that Xen has for such a guest.

A 32-bit guest is one of a 64-bit Xen ("compat"): it has PAE page tables, and Xen is in the top of its address space.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from stub.abi import arch_x86 as arch


class Width(NamedTuple):
    """``word`` and ``mask``: bytes and bits of an unsigned long, a pointer, a xen_pfn_t; ``code``: its struct format.

    ``kernel_rpl``: the ring that a guest kernel runs in (GUEST_KERNEL_RPL). ``m2p`` and ``m2p_end``: where the
    machine-to-physical table is, of words (MACH2PHYS_VIRT_START, MACH2PHYS_COMPAT_VIRT_START).
    """

    bits: int
    word: int
    mask: int
    code: str
    kernel_rpl: int
    kernel_cs: int
    kernel_ss: int
    hypervisor_start: int
    m2p: int
    m2p_end: int


WIDTHS: Mapping[int, Width] = MappingProxyType({
    64: Width(
        bits=64, word=8, mask=(1 << 64) - 1, code="Q",
        kernel_rpl=3, kernel_cs=arch.FLAT_KERNEL_CS, kernel_ss=arch.FLAT_KERNEL_SS,
        hypervisor_start=arch.HYPERVISOR_VIRT_START, m2p=arch.MACH2PHYS_VIRT_START, m2p_end=arch.MACH2PHYS_VIRT_END,
    ),
    32: Width(
        bits=32, word=4, mask=(1 << 32) - 1, code="I",
        kernel_rpl=1, kernel_cs=arch.FLAT_RING1_CS, kernel_ss=arch.FLAT_RING1_SS,
        hypervisor_start=arch.HYPERVISOR_VIRT_START_PAE, m2p=arch.MACH2PHYS_VIRT_START_PAE, m2p_end=0xFFE0_0000,
    ),
})  # fmt: skip
"""By the guest's bits. m2p_end of 32 is Xen's own number (asm/config.h); the public header has an older one."""
