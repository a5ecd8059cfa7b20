"""Segments and address spaces: base tables, descriptor tables, the user's GS, the width of code.

A guest loads selectors natively; what Xen keeps is where the tables are and which code segment runs in which mode.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stub.abi.x86_defns import X86_EXC_GP, X86_EXC_NP, X86_EXC_SS
from stub.domain.xenarea import GDT_VA, LDT_SLOT, LDT_VA
from stub.engine.base import CODE_SWITCH, CR3, CS, CS_DESCRIPTOR, FLUSH, GS, GS_BASE, SS, SS_DESCRIPTOR
from stub.memory.frames import GUEST, SEG_DESC
from stub.memory.guest import GuestFault
from stub.units import PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

_MOST_RUNNABLE = 4096
TO_64, TO_32, TO_16 = 1, 2, 3  # with a segment's base in the upper half
TO_DESCRIPTORS = 4
_WIDE_32 = 1 << 54  # a code segment's D bit


def new_base_pointer(xen: Hypervisor, mfn: int) -> int:
    """MMUEXT_NEW_BASEPTR: load a kernel root table."""
    vcpu, types = xen.vcpu, xen.domain.types
    old = vcpu.kernel_root
    if mfn != old:
        rc = types.get_page_and_type(mfn, types.root_level)
        if rc:
            return rc
        if not types.m2p_strict:
            types.show_m2p(mfn)
        vcpu.kernel_root = mfn
        types.put_page_and_type(old)
        drop_ldt_pages(xen)
        if vcpu.compat:
            xen.domain.area.run_on(mfn)
            types.stale = True
        else:
            xen.words[CR3] = xen.domain.guest.root = mfn << 12
    if types.stale:  # said besides CR3, which may be back where it was before the CPU sees it
        xen.words[FLUSH] = 1
        types.stale = False
    return 0


def set_ldt(xen: Hypervisor, address: int, entries: int) -> None:
    """MMUEXT_SET_LDT."""
    drop_ldt_pages(xen)
    xen.vcpu.ldt_base, xen.vcpu.ldt_entries = address, entries
    descriptors_changed(xen)
    xen.engine.load_ldt(LDT_VA if entries else 0, entries * 8 - 1 if entries else 0)


def drop_ldt_pages(xen: Hypervisor) -> None:
    for page, mfn in xen.ldt_frames.items():
        xen.domain.area.map_page(LDT_SLOT + page, None)
        xen.domain.types.put_page_and_type(mfn)
    if xen.ldt_frames:
        xen.ldt_frames.clear()
        xen.flush_tlb()


def map_ldt_page(xen: Hypervisor, page: int) -> bool:
    """Bring in a page of the guest's LDT, which something in it is read of (pv_map_ldt_shadow_page)."""
    vcpu, domain = xen.vcpu, xen.domain
    if page * 512 >= vcpu.ldt_entries:
        return False
    try:
        mfn = domain.guest.locate_from(vcpu.kernel_tables, vcpu.ldt_base + page * PAGE_SIZE) >> 12
    except GuestFault:
        return False
    if domain.types.get_page_and_type(mfn, SEG_DESC):
        return False
    domain.area.map_page(LDT_SLOT + page, mfn)
    xen.ldt_frames[page] = mfn
    return True


def descriptors_changed(xen: Hypervisor) -> None:
    """Forget what was read from the descriptor tables."""
    xen.descriptors.clear()
    xen.code_widths.clear()
    xen.runnable.clear()
    xen.vcpu.clear_runnable()


def descriptor(xen: Hypervisor, selector: int) -> int:
    """The 8-byte descriptor that a selector names; 0 where there is none."""
    guest = xen.domain.guest
    at = selector & ~7
    if selector & 4:
        if at >= xen.vcpu.ldt_entries * 8:
            return 0
        try:
            maddr = guest.locate_from(xen.vcpu.kernel_tables, xen.vcpu.ldt_base + at)
        except GuestFault:
            return 0
        is_guests = xen.domain.frames.owner[maddr >> PAGE_SHIFT] == GUEST
        return xen.domain.ram.words[maddr >> 3] if is_guests else 0
    found = xen.descriptors.get(at)
    if found is None:
        data = guest.read_available(GDT_VA + at, 8)
        found = xen.descriptors[at] = int.from_bytes(data, "little") if len(data) == 8 else 0
    return found


def as_loaded(xen: Hypervisor, selector: int) -> int:
    """The same as the CPU gets it to load: of an LDT whose pages hold checked descriptors only, and so are mapped."""
    page = selector >> 3 >> 9
    if selector & 4 and page not in xen.ldt_frames and not map_ldt_page(xen, page):
        return 0
    return descriptor(xen, selector)


def is_64bit_code(xen: Hypervisor, selector: int) -> bool:
    """Whether code in this segment runs in 64-bit mode (the descriptor's L bit)."""
    wide = xen.code_widths.get(selector)
    if wide is None:
        wide = bool(descriptor(xen, selector) >> 53 & 1)
        if selector & 4 == 0:
            xen.code_widths[selector] = wide
    return wide


def select_code_width(xen: Hypervisor, old: int, new: int) -> None:
    """Tell the engine when a change of CS is one of mode, or leads to a segment with a base of its own."""
    if is_64bit_code(xen, new):
        if not is_64bit_code(xen, old):
            xen.words[CODE_SWITCH] = TO_64
    elif new != old:
        found = descriptor(xen, new)
        xen.words[CODE_SWITCH] = base_of(found) << 32 | (TO_32 if found & _WIDE_32 else TO_16)


def load_code_and_stack(xen: Hypervisor) -> bool:
    """Have the CPU load CS and SS, of a 32-bit guest, as they are now; whether it can."""
    words = xen.words
    cs, ss = words[CS], words[SS]
    if (cs, ss) not in xen.runnable and return_fault(xen, cs, ss) is not None:
        return False
    code, stack = descriptor(xen, cs), descriptor(xen, ss)
    words[CS_DESCRIPTOR], words[SS_DESCRIPTOR] = code, stack
    if not (cs | ss) & 4 and not base_of(stack):
        xen.vcpu.add_pair(cs, ss, code, stack)
    words[CODE_SWITCH] = TO_DESCRIPTORS
    return True


def base_of(descriptor: int) -> int:
    """The base of a segment, from its descriptor."""
    return descriptor >> 16 & 0xFFFFFF | descriptor >> 32 & 0xFF000000


def load_user_gs(xen: Hypervisor, selector: int) -> int:
    """SEGBASE_GS_USER_SEL: the user's GS selector, and the base that its descriptor has."""
    base = 0
    if selector & ~3:
        found = descriptor(xen, selector)
        if not found >> 47 & 1:
            xen.words[GS] = 0
            xen.vcpu.gs_base_other = 0
            return 0
        base = base_of(found)
    kernel_base = xen.words[GS_BASE]
    xen.words[GS] = selector
    xen.words[GS_BASE] = kernel_base
    xen.vcpu.gs_base_other = base
    return 0


_PRESENT, _SYSTEM_NOT, _CODE, _CONFORMING, _RW = 0x80, 0x10, 8, 4, 2  # of a descriptor's access byte
_WIDTHS = 3 << 53  # L and D: not both


def return_fault(xen: Hypervisor, cs: int, ss: int) -> tuple[int, int] | None:
    """The exception and error code of an iretq from ring 0 with this CS and SS; None if it can be done.

    The order of the checks is the CPU's (x86 manual, vol. 2, IRET). What is found good is kept.
    """
    found = descriptor(xen, cs)
    code, data = found >> 40 & 0xFF, descriptor(xen, ss) >> 40 & 0xFF
    ring, level = cs & 3, code >> 5 & 3
    is_code = code & (_SYSTEM_NOT | _CODE) == _SYSTEM_NOT | _CODE
    in_ring = level <= ring if code & _CONFORMING else level == ring
    if not is_code or not in_ring or found & _WIDTHS == _WIDTHS:
        return X86_EXC_GP, cs & 0xFFFC
    if not code & _PRESENT:
        return X86_EXC_NP, cs & 0xFFFC
    if ss & 3 != ring or data & (_SYSTEM_NOT | _CODE | _RW | 0x60) != _SYSTEM_NOT | _RW | ring << 5:
        return X86_EXC_GP, ss & 0xFFFC
    if not data & _PRESENT:
        return X86_EXC_SS, ss & 0xFFFC
    if not (cs | ss) & 4:
        if len(xen.runnable) >= _MOST_RUNNABLE:
            xen.runnable.clear()
        xen.runnable.add((cs, ss))
        if is_64bit_code(xen, cs):
            xen.vcpu.add_runnable(cs, ss)
    return None


def is_loadable(xen: Hypervisor, selector: int) -> bool:
    """Whether DS, ES, FS or GS can be loaded with it: null, or present data or readable code in the ring's reach."""
    if selector <= 3:
        return True
    access = descriptor(xen, selector) >> 40 & 0xFF
    readable = not access & _CODE or access & _RW
    ring = max(xen.words[CS] & 3, selector & 3)
    in_reach = access >> 5 & 3 >= ring or access & (_CODE | _CONFORMING) == _CODE | _CONFORMING
    return bool(access & _PRESENT and access & _SYSTEM_NOT and readable and in_reach)
