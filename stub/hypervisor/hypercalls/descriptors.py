"""Descriptor tables: set_gdt, update_descriptor (xen/arch/x86/pv/descriptor-tables.c)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from stub.abi.arch_x86 import FIRST_RESERVED_GDT_ENTRY
from stub.abi.errno import EFAULT, EINVAL
from stub.abi.xen import Hypercall
from stub.hypervisor import segments
from stub.hypervisor.arguments import numbers
from stub.hypervisor.registry import hypercall
from stub.memory.descriptors import checked
from stub.memory.frames import SEG_DESC, WRITABLE
from stub.memory.guest import GuestFault

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

_GUEST_PAGES = 14


@hypercall(Hypercall.set_gdt)
def set_gdt(xen: Hypervisor, frame_list: int, entries: int, _: int, __: int, ___: int) -> int:
    """Use these frames as the guest's part of the GDT."""
    entries &= 0xFFFFFFFF
    if entries > FIRST_RESERVED_GDT_ENTRY:
        return -EINVAL
    count = (entries + 511) // 512
    try:
        data = xen.payload = xen.domain.guest.read(frame_list, xen.width.word * count)
    except GuestFault:
        return -EFAULT
    frames = list(struct.unpack(f"<{count}{xen.width.code}", data))
    types = xen.domain.types
    taken: list[int] = []
    for mfn in frames:
        if types.get_page_and_type(mfn, SEG_DESC):
            for done in taken:
                types.put_page_and_type(done)
            return -EINVAL
        taken.append(mfn)
    for mfn in xen.vcpu.gdt_frames:
        types.put_page_and_type(mfn)
    xen.vcpu.gdt_frames, xen.vcpu.gdt_entries = frames, entries
    for slot in range(_GUEST_PAGES):
        xen.domain.area.map_page(slot, frames[slot] if slot < count else xen.domain.area.zero)
    xen.flush_tlb()
    segments.descriptors_changed(xen)
    return 0


@hypercall(Hypercall.update_descriptor)
def update_descriptor(xen: Hypervisor, a1: int, a2: int, a3: int, a4: int, _: int) -> int:
    """Write one descriptor at a machine address."""
    maddr, descriptor = numbers(xen, a1, a2, a3, a4)[:2]
    mfn = maddr >> 12
    frames = xen.domain.frames
    value = checked(descriptor, xen.width.bits)
    if maddr & 7 or value is None or not frames.get(mfn):
        return -EINVAL
    rc = 0
    if frames.type_count[mfn] and frames.type[mfn] not in (SEG_DESC, WRITABLE):
        rc = -EINVAL
    else:
        xen.domain.ram.words[maddr >> 3] = value
        segments.descriptors_changed(xen)
    frames.put(mfn)
    return rc
