"""What a guest's pointer has to be before anything is read there (xen/include/asm-x86/x86_64/uaccess.h)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stub.abi.arch_x86 import HYPERVISOR_VIRT_END
from stub.units import U64

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor


def handle_okay(address: int, count: int, size: int) -> bool:
    """Whether a list may begin here (array_access_ok): not in a 64-bit guest's non-canonical or Xen's own part.

    A 32-bit guest has neither: the M2P at the end of its addresses can be read, and nothing there written.
    """
    return count < U64 // size and (address < 1 << 47 or address >= HYPERVISOR_VIRT_END)


def translated_okay(xen: Hypervisor, address: int, count: int, size: int) -> bool:
    """Whether a list of a 32-bit guest's ends below Xen's part (compat_array_access_ok); a 64-bit guest's is not asked.

    It is asked of pointers in structures, of which Xen makes 64-bit ones. ``size``: an element's, as the guest has it.
    """
    if xen.width.bits == 64:
        return True
    return count < xen.width.mask // size and address + max(count * size, 1) <= xen.width.hypervisor_start


def structure_okay(xen: Hypervisor, address: int, count: int, size: int) -> bool:
    """Whether a pointer found in a structure may be that of a list: both questions."""
    return handle_okay(address, count, size) and translated_okay(xen, address, count, size)
