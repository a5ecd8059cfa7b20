"""What a guest's pointer has to be before anything is read there (xen/include/asm-x86/x86_64/uaccess.h)."""

from __future__ import annotations

from stub.abi.arch_x86 import HYPERVISOR_VIRT_END
from stub.units import U64


def handle_okay(address: int, count: int, size: int) -> bool:
    """Whether a list may begin here (array_access_ok): not in Xen's own part, nor in the non-canonical one."""
    if count >= U64 // size:
        return False
    return address < 1 << 47 or address >= HYPERVISOR_VIRT_END
