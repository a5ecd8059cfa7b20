"""The grant table: its frames and the version the guest chose. Mapping others' grants comes with more domains."""

from __future__ import annotations

from stub.abi.grant_table import GrantEntryV2
from stub.domain.builder import grant_entries
from stub.domain.domain import Domain
from stub.units import PAGE_SIZE

MAX_FRAMES = 64  # max_grant_frames, xl's default
RESERVED_ENTRIES = 8  # GNTTAB_NR_RESERVED_ENTRIES
_STATUS = 2  # bytes of a grant_status_t, one for each entry of version 2


class GrantTable:
    """``frames`` are the MFNs of the table's pages, ``status_frames`` those of the status words (version 2)."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.version = 1
        self.frames: list[int] = []
        self.status_frames: list[int] = []
        self.grow(1)
        layout = domain.layout
        rings = grant_entries(int(domain.p2m[layout.console.pfn]), int(domain.p2m[layout.xenstore.pfn]))
        at = self.frames[0] * PAGE_SIZE
        domain.ram.bytes[at : at + len(rings)] = rings

    def _take(self) -> int:
        mfn = self.domain.area.take()
        self.domain.frames.share(mfn)
        return mfn

    def grow(self, count: int) -> bool:
        """Have at least ``count`` frames; False past the maximum."""
        if count > MAX_FRAMES:
            return False
        while len(self.frames) < count:
            self.frames.append(self._take())
        return True

    def match_status(self) -> None:
        """Have as many status frames as the table's entries of version 2 need."""
        entries = len(self.frames) * PAGE_SIZE // GrantEntryV2.size
        while len(self.status_frames) * PAGE_SIZE < entries * _STATUS:
            self.status_frames.append(self._take())
