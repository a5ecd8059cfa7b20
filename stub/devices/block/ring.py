"""A back end's end of a shared ring (xen/io/ring.h): slots taken in order, answered in any, one producer a side.

The ring's own memory is the guest's to write at any time: the indexes that count are kept here, and a request is
copied out of its slot before it is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

from stub.abi.blkif import BlkifSring64
from stub.units import PAGE_SIZE

_HEAD = 64  # bytes before the first slot
_U32 = 0xFFFFFFFF
_REQ_PROD, _REQ_EVENT, _RSP_PROD, _RSP_EVENT = (
    BlkifSring64.offset(name) for name in ("req_prod", "req_event", "rsp_prod", "rsp_event")
)


class BogusRing(Exception):
    """The guest's indexes cannot be: more requests than there are slots. It gets no more service on this ring."""


class Ring:
    """``pages`` are the ring's, 4096 bytes each and writable; ``slot`` is a slot's size in bytes.

    ``slots`` is how many there are: the greatest power of two that fits. BogusRing when the ring is bad from the start.
    """

    def __init__(self, pages: Sequence[memoryview], slot: int) -> None:
        self._pages, self._slot = pages, slot
        self.slots = 1 << ((len(pages) * PAGE_SIZE - _HEAD) // slot).bit_length() - 1
        self._taken = self._answered = self._published = self._get(_RSP_PROD)  # as BACK_RING_ATTACH goes on
        _ = self.waiting

    @property
    def waiting(self) -> int:
        """How many requests there are to take. BogusRing when they cannot all be in the ring."""
        produced = self._get(_REQ_PROD)
        if (produced - self._answered) & _U32 > self.slots:
            raise BogusRing(
                f"requests up to {produced:#x}, answered up to {self._answered:#x}: the ring has {self.slots} slots"
            )
        return (produced - self._taken) & _U32

    def take(self) -> bytes:
        """The next request's slot; there must be one waiting."""
        data = self._read(self._place(self._taken), self._slot)
        self._taken = (self._taken + 1) & _U32
        return data

    def answer(self, response: bytes) -> None:
        """Put a response into the next slot; the guest sees it at :meth:`publish`."""
        self._write(self._place(self._answered), response)
        self._answered = (self._answered + 1) & _U32

    def publish(self) -> bool:
        """Show the responses to the guest; whether it wants to be notified (RING_PUSH_RESPONSES_AND_CHECK_NOTIFY)."""
        old, new = self._published, self._answered
        self._set(_RSP_PROD, new)
        self._published = new
        return (new - self._get(_RSP_EVENT)) & _U32 < (new - old) & _U32

    def ask_for_event(self) -> bool:
        """Ask to be notified of the next request; whether there is one already (RING_FINAL_CHECK_FOR_REQUESTS)."""
        self._set(_REQ_EVENT, (self._taken + 1) & _U32)
        return self.waiting > 0

    # -- memory

    def _place(self, index: int) -> int:
        return _HEAD + (index & self.slots - 1) * self._slot

    def _read(self, at: int, length: int) -> bytes:
        page, start = divmod(at, PAGE_SIZE)
        data = bytes(self._pages[page][start : start + length])
        return data if len(data) == length else data + bytes(self._pages[page + 1][: length - len(data)])

    def _write(self, at: int, data: bytes) -> None:
        page, start = divmod(at, PAGE_SIZE)
        first = min(len(data), PAGE_SIZE - start)
        self._pages[page][start : start + first] = data[:first]
        if first < len(data):
            self._pages[page + 1][: len(data) - first] = data[first:]

    def _get(self, at: int) -> int:
        return int.from_bytes(self._pages[0][at : at + 4], "little")

    def _set(self, at: int, value: int) -> None:
        self._pages[0][at : at + 4] = value.to_bytes(4, "little")
