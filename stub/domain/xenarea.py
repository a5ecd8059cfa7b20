"""Xen's own part of machine memory and of every address space.

Frames above the guest's hold what Xen keeps: the M2P (mapped read-only for the guest at its fixed address), the
shared_info and grant frames, Xen's page of the GDT, and a page from which ring 3 is entered. They are mapped, for
the supervisor only but for the M2P, by the sixteen L4 slots that every address space shares.

A 32-bit guest has no L4: the one that the CPU walks, ``monitor``, is Xen's, and its first slot leads to the guest's
root. The guest sees an M2P of its own form, at the end of its address space, in the slots ``pae_slots`` of an L2.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from stub.abi.arch_x86 import FIRST_RESERVED_GDT_PAGE, FLAT_RING1_DS, MACH2PHYS_VIRT_END_PAE, MACH2PHYS_VIRT_START_PAE
from stub.memory import entries as e
from stub.memory.frames import INVALID_M2P_ENTRY, XEN, FrameTable
from stub.memory.ram import Ram
from stub.units import PAGE_SIZE, U64, pages

_SUPERVISOR = e.P | e.RW | e.A | e.D
_TABLE = e.P | e.RW | e.US | e.A | e.D
_M2P_ENTRY = e.P | e.US | e.A | e.NX
_PAE_M2P_ENTRY = e.P | e.A  # not for ring 3

_ROOT = e.P | e.RW | e.US | e.A
_PAE_M2P_TABLES = (MACH2PHYS_VIRT_END_PAE - MACH2PHYS_VIRT_START_PAE) >> 21

PER_DOMAIN_VA = 0xFFFF_8200_0000_0000  # L4 slot 260
GDT_VA = PER_DOMAIN_VA
GDT_PAGES = 16
GDT_LIMIT = GDT_PAGES * PAGE_SIZE - 1
TRAMPOLINE_SLOT, STACK_SLOT, LDT_SLOT = 16, 17, 32
TRAMPOLINE_VA = PER_DOMAIN_VA + TRAMPOLINE_SLOT * PAGE_SIZE
STACK_VA = PER_DOMAIN_VA + STACK_SLOT * PAGE_SIZE
LDT_VA = PER_DOMAIN_VA + LDT_SLOT * PAGE_SIZE
ENGINE_SLOT = 64
"""From here on the engine's own frames are mapped, if it has any: the window of ``stub/engine/qemu``."""

POOL_FRAMES = 512  # grant and status frames, and whatever else Xen shares later
_FIXED_FRAMES = 16

# Xen's descriptors from selector 0xe000 on, by index in that page (xen-x86_64.h, xen-x86_32.h, arch/x86/desc.c).
_DESCRIPTORS = {
    64: {
        1: 0x00AF9B000000FFFF,  # 0xe008 ring 0, 64-bit code
        2: 0x00CF93000000FFFF,  # 0xe010 ring 0, data
        3: 0x00CFBB000000FFFF,  # 0xe019 ring 1, 32-bit code
        4: 0x00CFFB000000FFFF,  # 0xe023 ring 3, 32-bit code
        5: 0x00CFF3000000FFFF,  # 0xe02b ring 3, data
        6: 0x00AFFB000000FFFF,  # 0xe033 ring 3, 64-bit code
    },
    32: {
        1: 0x00AF9B000000FFFF,  # 0xe008 ring 0, 64-bit code
        2: 0x00CF93000000FFFF,  # 0xe010 ring 0, data
        3: 0x00CFBB000000FFFF,  # 0xe019 ring 1, 32-bit code
        4: 0x00CFB3000000FFFF,  # 0xe021 ring 1, data
        5: 0x00CFFB000000FFFF,  # 0xe02b ring 3, 32-bit code
        6: 0x00CFF3000000FFFF,  # 0xe033 ring 3, data
    },
}

# What enters the guest. A 32-bit one finds the data segments loaded, with the selector behind the code.
_TRAMPOLINES = {
    64: b"\x48\xcf",  # iretq
    32: b"\x8e\x1d\x14\x00\x00\x00"  # mov ds, [rip + 0x14]
    b"\x8e\x05\x0e\x00\x00\x00"  # mov es, [rip + 0xe]
    b"\x8e\x25\x08\x00\x00\x00"  # mov fs, [rip + 8]
    b"\x8e\x2d\x02\x00\x00\x00"  # mov gs, [rip + 2]
    b"\x48\xcf" + struct.pack("<H", FLAT_RING1_DS),  # iretq
}


def frames_needed(machine_frames: int, bits: int = 64) -> int:
    """How many frames Xen keeps of a machine that has ``machine_frames`` for the guest."""
    m2p = pages((machine_frames + machine_frames // 256 + 1024) * 8)
    pae = 0 if bits == 64 else 1 + m2p + pages(m2p * 8)
    return _FIXED_FRAMES + POOL_FRAMES + m2p + pages(m2p * 8) + pages(m2p * 8) // 512 + 8 + pae


class XenArea:
    """Builds it on frames ``first`` and up for a guest of 64 or 32 ``bits``; ``slots`` are the sixteen L4 entries."""

    def __init__(self, ram: Ram, frames: FrameTable, first: int, bits: int = 64) -> None:
        self.ram = ram
        self.frames = frames
        self._next = first
        frames.np_owner[first:] = XEN
        frames.np_refs[first:] = 1
        self.empty_root = self.take()
        self.shared_info = self.take()
        gdt = self.take()
        for index, descriptor in _DESCRIPTORS[bits].items():
            ram.words[gdt * e.ENTRIES + index] = descriptor
        trampoline, stack = self.take(), self.take()
        code = _TRAMPOLINES[bits]
        ram.bytes[trampoline * PAGE_SIZE : trampoline * PAGE_SIZE + len(code)] = code
        self._stack = stack
        l3, l2, self.per_domain_l1 = self.take(), self.take(), self.take()
        ram.words[l3 * e.ENTRIES] = l2 << 12 | _TABLE
        ram.words[l2 * e.ENTRIES] = self.per_domain_l1 << 12 | _TABLE
        self.zero = self.take()
        for slot in range(GDT_PAGES):
            self.map_page(slot, self.zero)
        self.map_page(FIRST_RESERVED_GDT_PAGE, gdt)
        self.map_page(TRAMPOLINE_SLOT, trampoline)
        self.map_page(STACK_SLOT, stack)
        for number in range(ram.hidden):
            self.map_page(ENGINE_SLOT + number, ram.frames + number)
        self.slots = [0] * 16
        self.slots[0] = self._build_m2p() << 12 | _TABLE
        self.slots[(PER_DOMAIN_VA >> 39 & 511) - e.XEN_FIRST_SLOT] = l3 << 12 | _TABLE
        frames.m2p = self.m2p
        self.monitor = 0
        self.pae_slots: list[int] = []
        if bits == 32:
            self.monitor = self.take()
            for number, entry in enumerate(self.slots):
                ram.words[self.monitor * e.ENTRIES + e.XEN_FIRST_SLOT + number] = entry
            frames.compat_m2p = self._build_pae_m2p()
        frames.share(self.shared_info)

    def take(self) -> int:
        """A frame of Xen's own, zeroed."""
        mfn = self._next
        self._next += 1
        return mfn

    @property
    def room(self) -> int:
        """Frames left in the pool."""
        return self.ram.frames - self._next

    def map_page(self, slot: int, mfn: int | None) -> None:
        """Map a frame for the supervisor at ``slot`` of the per-domain area, or nothing."""
        self.ram.words[self.per_domain_l1 * e.ENTRIES + slot] = 0 if mfn is None else mfn << 12 | _SUPERVISOR

    @property
    def engine_entries(self) -> int:
        """The machine address of the page-table entries that map the engine's own frames."""
        return (self.per_domain_l1 * e.ENTRIES + ENGINE_SLOT) * 8

    def entry_frame(self, rip: int, cs: int, rflags: int, rsp: int, ss: int) -> int:
        """Write the frame that ``iretq`` takes the first instruction from; its virtual address."""
        at = self._stack * PAGE_SIZE
        self.ram.bytes[at : at + 40] = struct.pack("<5Q", rip, cs, rflags, rsp, ss)
        return STACK_VA

    def set_m2p(self, mfn: int, pfn: int) -> None:
        """Enter a frame's PFN, whatever number the guest gives, or ``INVALID_M2P_ENTRY`` (set_gpfn_from_mfn)."""
        self.ram.words[self.m2p_word + mfn] = pfn & U64
        if self.frames.compat_m2p is not None:
            self.frames.compat_m2p[mfn] = pfn & 0xFFFFFFFF

    def run_on(self, root: int) -> None:
        """A 32-bit guest's root is this L3 from now on."""
        self.ram.words[self.monitor * e.ENTRIES] = root << 12 | _ROOT

    def _build_pae_m2p(self) -> npt.NDArray[np.uint32]:
        """The 32-bit guest's M2P; ``pae_slots`` get what the end of its address space is mapped by."""
        count = min(pages(self.ram.frames * 4), _PAE_M2P_TABLES * e.ENTRIES)
        first = self._next
        self._next += count
        for start in range(0, count, e.ENTRIES):
            l1 = self.take()
            self.pae_slots.append(l1 << 12 | e.P | e.A)
            for i in range(min(e.ENTRIES, count - start)):
                self.ram.words[l1 * e.ENTRIES + i] = (first + start + i) << 12 | _PAE_M2P_ENTRY
        self.pae_slots += [0] * (e.ENTRIES - e.PAE_FIRST_XEN_SLOT - len(self.pae_slots))
        m2p = self.ram.table[first : first + count].reshape(-1).view("<u4")
        m2p[:] = INVALID_M2P_ENTRY & 0xFFFFFFFF
        return m2p

    def _build_m2p(self) -> int:
        count = pages(self.ram.frames * 8)
        first = self._next
        self._next += count
        self.m2p = self.ram.table[first : first + count].reshape(-1)
        self.m2p[:] = np.uint64(INVALID_M2P_ENTRY)
        self.m2p_word = first * e.ENTRIES
        l3 = self.take()
        for l2_index in range(-(-count // (512 * 512))):
            l2 = self.take()
            self.ram.words[l3 * e.ENTRIES + l2_index] = l2 << 12 | _TABLE
            for l1_index in range(min(512, -(-(count - l2_index * 512 * 512) // 512))):
                l1 = self.take()
                self.ram.words[l2 * e.ENTRIES + l1_index] = l1 << 12 | _TABLE
                start = (l2_index * 512 + l1_index) * 512
                for i in range(min(512, count - start)):
                    self.ram.words[l1 * e.ENTRIES + i] = (first + start + i) << 12 | _M2P_ENTRY
        return l3
