"""The guest's lists of its frames, wherever it keeps them.

A guest tells where its own is in shared_info (xen/arch-x86/xen.h, struct arch_shared_info): ``p2m_vaddr`` under
``p2m_cr3``, or the three-level tree of ``pfn_to_mfn_frame_list_list``. Until it does, there is the domain builder's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stub.abi.arch_x86 import ArchSharedInfo
from stub.abi.widths import WIDTHS
from stub.abi.xen import SharedInfo
from stub.domain.domain import Domain
from stub.memory.frames import GUEST
from stub.memory.guest import GuestFault
from stub.units import PAGE_SIZE, U64

# Linux's marks in an entry (arch/x86/include/asm/xen/page.h); the builder's and everyone's mark for no frame. A 32-bit
# guest's entries have them in their own upper bits; here they are given as if they had 64.
FOREIGN, IDENTITY, INVALID = 1 << 63, 1 << 62, U64
_LONGEST = 4  # entries for each frame of the machine, at most


class BadList(Exception):
    """A list that cannot be read at some entry; the text says why."""


@dataclass(frozen=True)
class FrameList:
    """``page(number)`` is the machine address of the list's page, ``length`` how many entries it has.

    ``words`` is machine memory by the guest's words, an entry each.
    """

    name: str
    where: str
    length: int
    page: Callable[[int], int]
    words: memoryview

    def entry(self, pfn: int) -> int:
        """The entry of a PFN."""
        if pfn >= self.length:
            raise BadList(f"the list ends at pfn {self.length:#x}")
        page, place = divmod(pfn, self.per_page)
        value: int = self.words[self.page(page) // self.words.itemsize + place]
        return int(_widened(np.array([value], dtype=np.uint64))[0]) if self.words.itemsize == 4 else value

    @property
    def per_page(self) -> int:
        """Entries in a page."""
        return PAGE_SIZE // self.words.itemsize

    @staticmethod
    def mfn(value: int) -> int | None:
        """The MFN in an entry; None for an entry that names no frame of the domain."""
        return None if value & (FOREIGN | IDENTITY) else value

    @staticmethod
    def text(value: int) -> str:
        """An entry in words."""
        if value == INVALID:
            return "invalid"
        if value & FOREIGN:
            return f"foreign mfn {value & ~FOREIGN:#x}"
        if value & IDENTITY:
            return f"identity {value & ~IDENTITY:#x}"
        return f"mfn {value:#x}"

    def all(self) -> npt.NDArray[np.uint64]:
        """Every entry; invalid where a page of the list is missing."""
        size, found = self.words.itemsize, np.full(self.length, np.uint64(INVALID))
        for at in range(0, self.length, self.per_page):
            try:
                first = self.page(at // self.per_page) // size
            except BadList:
                continue
            count = min(self.per_page, self.length - at)
            entries = np.frombuffer(self.words[first : first + count], dtype=f"<u{size}").astype(np.uint64)
            found[at : at + count] = _widened(entries) if size == 4 else entries
        return found


def _widened(entries: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """32-bit entries with their marks where those of 64 bits are."""
    marks = entries >> np.uint64(30) << np.uint64(62)
    wide: npt.NDArray[np.uint64] = entries & np.uint64((1 << 30) - 1) | marks
    wide[entries == np.uint64(0xFFFFFFFF)] = INVALID
    return wide


def _words(domain: Domain) -> memoryview:
    return domain.ram.words if domain.bits == 64 else domain.ram.bytes.cast("I")


def arch_info(domain: Domain) -> tuple[int, int, int, int, int]:
    """shared_info's max_pfn, pfn_to_mfn_frame_list_list, p2m_cr3, p2m_vaddr, p2m_generation."""
    at = domain.area.shared_info * PAGE_SIZE + SharedInfo.of(domain.bits).offset("arch")
    info = ArchSharedInfo.of(domain.bits).unpack_from(domain.ram.bytes, at)
    return info.max_pfn, info.pfn_to_mfn_frame_list_list, info.p2m_cr3, info.p2m_vaddr, info.p2m_generation


def guest_list(domain: Domain) -> FrameList:
    """The guest's own list, or the domain builder's where the guest has told of none."""
    max_pfn, frame_list, cr3, vaddr, generation = arch_info(domain)
    length = min(max_pfn or domain.layout.nr_pages, _LONGEST * domain.frames.frames)  # the guest says what it likes
    words, none = _words(domain), WIDTHS[domain.bits].mask
    per_page = PAGE_SIZE // words.itemsize
    if cr3 and vaddr:

        def mapped(number: int) -> int:
            at = vaddr + number * PAGE_SIZE & U64
            try:
                return domain.guest.locate_from(cr3, at) if domain.bits == 64 else domain.guest.locate(at)
            except GuestFault as fault:
                raise BadList(f"the list is not mapped at {at:#x} under cr3 {cr3:#x}") from fault

        where = f"p2m_vaddr {vaddr:#x}, cr3 {cr3:#x}, generation {generation}"
        return FrameList("guest's p2m", where, length, mapped, words)
    if frame_list not in (0, none):

        def linked(number: int) -> int:
            mfn = frame_list
            for slot in divmod(number, per_page):
                if mfn >= domain.frames.frames or slot >= per_page:
                    raise BadList(f"the frame list goes through mfn {mfn:#x}, which is none")
                mfn = words[mfn * per_page + slot]
            if mfn >= domain.frames.frames:
                raise BadList(f"the frame list names mfn {mfn:#x}, which is none")
            return mfn * PAGE_SIZE

        return FrameList("guest's p2m", f"pfn_to_mfn_frame_list_list mfn {frame_list:#x}", length, linked, words)
    return builders_list(domain)


def builders_list(domain: Domain) -> FrameList:
    """The domain builder's list, at the frames where it lay at the start."""
    span = domain.layout.p2m

    def placed(number: int) -> int:
        mfn = int(domain.p2m[span.pfn + number])
        if domain.frames.owner[mfn] != GUEST or domain.m2p(mfn) != span.pfn + number:
            raise BadList("the guest has given its frames away")
        return mfn * PAGE_SIZE

    where = f"start of day, {span.vaddr:#x}, pfn {span.pfn:#x}; the guest may have reused it"
    return FrameList("builder's p2m", where, domain.layout.nr_pages, placed, _words(domain))


@dataclass(frozen=True)
class Compared:
    """A list's entries, which of them name frames of the domain, and which of those the M2P and the owners deny."""

    chosen: FrameList
    entries: npt.NDArray[np.uint64]
    names: npt.NDArray[np.bool_]
    wrong: list[tuple[int, int]]


def compare(domain: Domain) -> Compared:
    """The whole of the guest's list against the machine-to-physical table and the frames' owners."""
    chosen = guest_list(domain)
    entries, frames = chosen.all(), domain.frames
    names = entries & np.uint64(FOREIGN | IDENTITY) == 0
    pfns, mfns = np.flatnonzero(names), entries[names]
    there = mfns < np.uint64(frames.frames)
    at = np.where(there, mfns, np.uint64(0)).astype(np.int64)
    good = there & (domain.area.m2p[at] == pfns.astype(np.uint64)) & (frames.np_owner[at] == GUEST)
    wrong = list(zip(pfns[~good].tolist(), mfns[~good].tolist(), strict=True))
    return Compared(chosen, entries, names, wrong)


def disagreements(domain: Domain) -> list[tuple[int, int]]:
    """(PFN, MFN) of each entry of the guest's list that the machine-to-physical table or the owners deny."""
    return compare(domain).wrong
