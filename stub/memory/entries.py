"""Page-table entries of the long mode: bits and masks (x86 manual, vol. 3, 4.5; Xen asm-x86/x86_64/page.h)."""

from __future__ import annotations

P = 1 << 0
RW = 1 << 1
US = 1 << 2
PWT = 1 << 3
PCD = 1 << 4
A = 1 << 5
D = 1 << 6
PSE = 1 << 7  # PAT in an L1 entry
G = 1 << 8
AVAIL = 7 << 9
GUEST_KERNEL = 1 << 52  # Xen's mark on an L1 entry that the guest wrote without US (asm-x86/page.h)
AVAIL_HIGH = 0x7FF << 52
NX = 1 << 63

FRAME_BITS = 40
FRAME_MASK = (1 << FRAME_BITS) - 1
ADDRESS_MASK = FRAME_MASK << 12
ENTRIES = 512

# What a guest without I/O rights may not set (arch/x86/mm.c, base_disallow_mask, l1_disallow_mask).
L1_DISALLOW = PWT | PCD | PSE
UPPER_DISALLOW = PWT | PCD | PSE | G

# Changes that never need the target looked at again (FASTPATH_FLAG_WHITELIST, without RW: linear tables are on).
FASTPATH_FLAGS = NX | AVAIL | AVAIL_HIGH | G | D | A | US

# The same of a 32-bit guest's third level, which has no NX either (l3_disallow_mask).
PAE_L3_DISALLOW = UPPER_DISALLOW | AVAIL_HIGH | NX

# L4 slots that belong to Xen: 256 is the read-only M2P, the others its own (x86_64/config.h).
XEN_FIRST_SLOT = 256
XEN_LAST_SLOT = 271

# A 32-bit guest's third level has four entries; the L2 of the last one belongs to Xen from this slot on
# (COMPAT_L2_PAGETABLE_FIRST_XEN_SLOT).
PAE_ROOT_ENTRIES = 4
PAE_FIRST_XEN_SLOT = 428


_NAMES = {P: "P", RW: "RW", US: "US", PWT: "PWT", PCD: "PCD", A: "A", D: "D", PSE: "PSE", G: "G", NX: "NX"}


def names(flags: int, level: int) -> str:
    """The flags of a ``level`` entry by name, as in ``PWT PCD``; bit 7 of an L1 entry is PAT."""
    return " ".join("PAT" if bit == PSE and level == 1 else name for bit, name in _NAMES.items() if flags & bit)


def adjust_l1e(entry: int) -> int:
    """What is stored for an L1 entry that a 64-bit guest wrote (arch/x86/pv/mm.h, adjust_guest_l1e).

    The kernel runs in ring 3, so every page is a user page to the CPU; what the guest meant is kept in a bit.
    """
    if entry & P:
        if entry & US:
            return entry if entry & GUEST_KERNEL else entry | G
        return entry | US | GUEST_KERNEL
    return entry


_ADDED = (0, 0, US, US, US | A)


def adjust_upper(entry: int, level: int) -> int:
    """What is stored for an L2, L3 or L4 entry that a 64-bit guest wrote (adjust_guest_l2e and on).

    An L4 entry is marked accessed at once, as if the CPU had it in its TLB.
    """
    return entry | _ADDED[level] if entry & P else entry


def keep_l1e(entry: int) -> int:
    """What is stored for an L1 entry that a 32-bit guest wrote, whose kernel has a ring of its own."""
    return entry


def adjust_pae(entry: int, level: int) -> int:
    """What is stored for an L2 or L3 entry that a 32-bit guest wrote (adjust_guest_l3e).

    PAE's third level has no rights; the CPU, which walks four levels, takes it for one that has.
    """
    return entry | US | RW if level == 3 and entry & P else entry


def index(vaddr: int, level: int) -> int:
    """The entry of a ``level`` table (1 to 4) that translates ``vaddr``."""
    return (vaddr >> (12 + 9 * (level - 1))) & (ENTRIES - 1)
