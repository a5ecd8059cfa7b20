"""A domain: its memory, what was put where, and whose frame is whose."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stub.abi.errno import EPERM, ESRCH
from stub.abi.xen import DOMID_SELF
from stub.domain.config import DomainConfig
from stub.domain.layout import Layout
from stub.domain.xenarea import XenArea
from stub.image import Image
from stub.memory import entries as e
from stub.memory.formats import LONG, PAE, Format
from stub.memory.frames import FrameTable
from stub.memory.guest import GuestMemory
from stub.memory.pagetypes import PageTypes
from stub.memory.ram import Ram
from stub.units import PAGE_SHIFT

DOMID = 1
HARDWARE_DOMAIN = 0
"""There always is one, with the back ends in it; it is not the guest."""


@dataclass
class Domain:
    """One PV domain in memory. ``p2m`` is where each PFN lay at the start (index PFN, value MFN)."""

    config: DomainConfig
    image: Image
    layout: Layout
    ram: Ram
    frames: FrameTable
    area: XenArea
    types: PageTypes
    guest: GuestMemory
    p2m: npt.NDArray[np.int64]
    root: int
    ramdisk: bytes = field(repr=False)
    domid: int = DOMID
    e820: bytes | None = None
    """The memory map that the domain set for itself."""

    @property
    def bits(self) -> int:
        """64, or 32 for a PAE guest; by it hypercalls choose between the two layouts of a public structure."""
        return self.image.bits

    @property
    def format(self) -> Format:
        """The format of the guest's page tables, as Xen stores them."""
        return LONG if self.bits == 64 else PAE

    @property
    def root_in_use(self) -> int:
        """The MFN of the guest's root table that the CPU is on; a 32-bit guest's is not what CR3 holds."""
        root = self.guest.root >> PAGE_SHIFT
        return root if self.bits == 64 else self.ram.words[root * e.ENTRIES] >> PAGE_SHIFT & e.FRAME_MASK

    @property
    def max_pages(self) -> int:
        """How many pages the domain may own."""
        return self.layout.nr_pages

    def is_self(self, domid: int) -> bool:
        """Whether a domain number that the guest gave means itself."""
        return domid in (DOMID_SELF, self.domid)

    def naming(self, domid: int) -> int:
        """The error of naming a domain by number: 0 for itself, -EPERM for one that is not its to name, else -ESRCH."""
        return 0 if self.is_self(domid) else -EPERM if domid == HARDWARE_DOMAIN else -ESRCH

    def m2p(self, mfn: int) -> int:
        """The PFN that the machine-to-physical table gives for a frame."""
        return int(self.area.m2p[mfn])
