"""Page-table entries and frames in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from stub.memory import entries as e
from stub.memory.frames import ALLOCATED, FREE, GUEST, PINNED, TYPE_NAMES, XEN_HEAP

_FLAGS = ((e.P, "P"), (e.RW, "RW"), (e.US, "US"), (e.PWT, "PWT"), (e.PCD, "PCD"), (e.A, "A"), (e.D, "D"))
_FRAME_FLAGS = ((PINNED, "pinned"), (ALLOCATED, "allocated"), (XEN_HEAP, "Xen's page, shared with the guest"))
_HIGH_SHIFT, _HIGH = 52, 0x7FF
_UNITS = ((40, "T"), (30, "G"), (20, "M"))


class Frames(Protocol):
    """The frame table, or what was kept of one; arrays are indexed by MFN."""

    @property
    def frames(self) -> int: ...
    @property
    def owner(self) -> Sequence[int]: ...
    @property
    def type(self) -> Sequence[int]: ...
    @property
    def flags(self) -> Sequence[int]: ...
    @property
    def type_count(self) -> Sequence[int]: ...
    @property
    def refs(self) -> Sequence[int]: ...


def flags(entry: int, level: int, marked: bool = True) -> str:
    """The flags of an entry of a ``level`` table, by the manual's names (x86 manual, vol. 3, tables 4-5 to 4-20).

    ``KERNEL`` is Xen's mark on a page that the guest gave to its kernel alone, in tables that have it (``marked``).
    """
    names = [name for bit, name in _FLAGS if entry & bit]
    if entry & e.PSE:
        names.append("PAT" if level == 1 else "PSE")
    if entry & e.G:
        names.append("G")
    if entry & e.AVAIL:
        names.append(f"AVL={entry >> 9 & 7:#x}")
    high = entry >> _HIGH_SHIFT & _HIGH
    if marked:
        if high & 1:
            names.append("KERNEL")
        high >>= 1
    if high:
        names.append(f"high={high:#x}")
    if entry & e.NX:
        names.append("NX")
    return " ".join(names) or "-"


def frame(frames: Frames, mfn: int) -> str:
    """A frame's owner, type, counts and flags."""
    if mfn >= frames.frames:
        return f"beyond machine memory, which ends at mfn {frames.frames:#x}"
    if frames.owner[mfn] != GUEST:
        return "free" if frames.owner[mfn] == FREE else "Xen's own"
    marks = "".join(f", {name}" for bit, name in _FRAME_FLAGS if frames.flags[mfn] & bit)
    return f"type {kind(frames, mfn)} count {frames.type_count[mfn]}, refs {frames.refs[mfn]}{marks}"


def kind(frames: Frames, mfn: int) -> str:
    """A frame's type now: none where nothing uses it as what it was last."""
    return TYPE_NAMES.get(frames.type[mfn], "?") if frames.type_count[mfn] else "none"


def size(count: int) -> str:
    """Bytes, in the largest unit that gives a whole number: ``2M``."""
    for shift, unit in _UNITS:
        if count >= 1 << shift and count % (1 << shift) == 0:
            return f"{count >> shift}{unit}"
    return f"{count >> 10}K"
