"""Descriptor tables: set_gdt, update_descriptor (xen/arch/x86/pv/descriptor-tables.c)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from stub.abi.arch_x86 import FIRST_RESERVED_GDT_ENTRY
from stub.abi.errno import EFAULT, EINVAL
from stub.abi.xen import Hypercall
from stub.hypervisor import segments
from stub.hypervisor.registry import hypercall
from stub.memory.frames import SEG_DESC
from stub.memory.guest import GuestFault

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

_GUEST_PAGES = 14
_S, _P = 1 << 44, 1 << 47
_DPL = 3 << 45


@hypercall(Hypercall.set_gdt)
def set_gdt(xen: Hypervisor, frame_list: int, entries: int, _: int, __: int, ___: int) -> int:
    """Use these frames as the guest's part of the GDT."""
    entries &= 0xFFFFFFFF
    if entries > FIRST_RESERVED_GDT_ENTRY:
        return -EINVAL
    count = (entries + 511) // 512
    try:
        data = xen.payload = xen.domain.guest.read(frame_list, 8 * count)
    except GuestFault:
        return -EFAULT
    frames = list(struct.unpack(f"<{count}Q", data))
    types = xen.domain.types
    taken: list[int] = []
    for mfn in frames:
        if types.get_page_and_type(mfn, SEG_DESC) or not _descriptors_are_valid(xen, mfn):
            for done in taken:
                types.put_page_and_type(done)
            return -EINVAL
        taken.append(mfn)
    for mfn in xen.vcpu.gdt_frames:
        types.put_page_and_type(mfn)
    xen.vcpu.gdt_frames = frames
    for slot in range(_GUEST_PAGES):
        xen.domain.area.map_page(slot, frames[slot] if slot < count else xen.domain.area.zero)
    xen.flush_tlb()
    segments.descriptors_changed(xen)
    return 0


def _descriptors_are_valid(xen: Hypervisor, mfn: int) -> bool:
    """check_descriptor over a page, mending privilege levels in place."""
    words = xen.domain.ram.words
    base = mfn * 512
    for i in range(base, base + 512):
        if words[i]:
            fixed = checked(words[i])
            if fixed is None:
                return False
            words[i] = fixed
    return True


def checked(descriptor: int) -> int | None:
    """A descriptor as Xen lets a 64-bit guest have it (DPL raised to 3), or None for one it refuses."""
    if not descriptor & _P:
        return descriptor
    if descriptor & _S:
        return descriptor | _DPL
    # system descriptors: of these only a not-present or null one is harmless
    kind = descriptor >> 40 & 0x1F
    if kind == 0 or descriptor & ((1 << 64) - 1) == 0:
        return descriptor
    return None


@hypercall(Hypercall.update_descriptor)
def update_descriptor(xen: Hypervisor, maddr: int, descriptor: int, _: int, __: int, ___: int) -> int:
    """Write one descriptor at a machine address."""
    mfn = maddr >> 12
    frames = xen.domain.frames
    value = checked(descriptor)
    if maddr & 7 or value is None or not frames.get(mfn):
        return -EINVAL
    rc = 0
    if frames.type_count[mfn] and frames.type[mfn] not in (SEG_DESC, 7):
        rc = -EINVAL
    else:
        xen.domain.ram.words[maddr >> 3] = value
        segments.descriptors_changed(xen)
    frames.put(mfn)
    return rc
