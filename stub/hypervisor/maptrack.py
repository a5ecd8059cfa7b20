"""What a domain has mapped of grants, by handle, and which handle is next (xen/common/grant_table.c, maptrack)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

MAX_FRAMES = 1024  # max_maptrack_frames, xl's default
_PER_FRAME = 256  # handles


@dataclass
class Mapping:
    """A grant that is mapped. ``flags`` are the GNTMAP_* of the mappings that are left."""

    ref: int
    flags: int


class Mappings:
    """``live`` has the mappings by handle. A handle that was given back is used again last."""

    def __init__(self) -> None:
        self.live: dict[int, Mapping] = {}
        self._free: deque[int] = deque()
        self._limit = 0

    def take(self) -> int | None:
        """A free handle; None when there are no more (get_maptrack_handle, which keeps one in the list)."""
        if len(self._free) > 1:
            return self._free.popleft()
        if self._limit == MAX_FRAMES * _PER_FRAME:
            return None
        handle = self._limit
        self._limit += _PER_FRAME
        self._free.extendleft(reversed(range(handle + 1, self._limit)))
        return handle

    def put(self, handle: int) -> None:
        """Give a handle back."""
        self.live.pop(handle, None)
        self._free.append(handle)
