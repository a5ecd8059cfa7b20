"""Frames, page-table entries, descriptors and columns in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stub.domain.domain import Domain
from stub.domain.xenarea import INVALID_M2P_ENTRY
from stub.memory import entries as e
from stub.memory.frames import ALLOCATED, FREE, GUEST, PINNED, TYPE_NAMES, XEN, XEN_HEAP

_FLAGS = ((e.P, "P"), (e.RW, "RW"), (e.US, "US"), (e.PWT, "PWT"), (e.PCD, "PCD"), (e.A, "A"), (e.D, "D"))
_OWNERS = {FREE: "free", GUEST: "guest", XEN: "Xen"}
_FRAME_FLAGS = ((PINNED, "pinned"), (ALLOCATED, "allocated"), (XEN_HEAP, "Xen's page, shared with the guest"))


def flags(entry: int, level: int) -> str:
    """The flags of an entry of a ``level`` table, by the manual's names (x86 manual, vol. 3, tables 4-15 to 4-20).

    ``KERNEL`` is Xen's mark on a page that the guest gave to its kernel alone.
    """
    names = [name for bit, name in _FLAGS if entry & bit]
    if entry & e.PSE:
        names.append("PAT" if level == 1 else "PSE")
    if entry & e.G:
        names.append("G")
    if entry & e.AVAIL:
        names.append(f"AVL={entry >> 9 & 7:#x}")
    if entry & e.GUEST_KERNEL:
        names.append("KERNEL")
    high = entry >> 53 & 0x3FF
    if high:
        names.append(f"high={high:#x}")
    if entry & e.NX:
        names.append("NX")
    return " ".join(names) or "-"


def target(entry: int) -> int:
    """The frame that an entry names."""
    return entry >> 12 & e.FRAME_MASK


def leaf(entry: int, level: int) -> bool:
    """Whether a present entry of a ``level`` table maps memory and not another table."""
    return level == 1 or (level < 4 and bool(entry & e.PSE))


def pfn_of(domain: Domain, mfn: int) -> int | None:
    """What the machine-to-physical table has for a frame; None for nothing."""
    if mfn >= len(domain.area.m2p):
        return None
    pfn = domain.m2p(mfn)
    return None if pfn == INVALID_M2P_ENTRY else pfn


def both(domain: Domain, mfn: int) -> str:
    """``mfn 0x12 pfn 0x34``."""
    pfn = pfn_of(domain, mfn)
    return f"mfn {mfn:#x} pfn {'-' if pfn is None else f'{pfn:#x}'}"


def state(domain: Domain, mfn: int) -> str:
    """A frame's owner, type, counts and flags."""
    frames = domain.frames
    if mfn >= frames.frames:
        return f"beyond machine memory, which ends at mfn {frames.frames:#x}"
    if frames.owner[mfn] != GUEST:
        return {FREE: "free", XEN: "Xen's own"}.get(frames.owner[mfn], "?")
    marks = "".join(f", {name}" for bit, name in _FRAME_FLAGS if frames.flags[mfn] & bit)
    kind = TYPE_NAMES.get(frames.type[mfn], "?") if frames.type_count[mfn] else "none"
    return f"type {kind} count {frames.type_count[mfn]}, refs {frames.refs[mfn]}{marks}"


def owner(domain: Domain, mfn: int) -> str:
    """Whose a frame is."""
    return _OWNERS.get(domain.frames.owner[mfn], "?") if mfn < domain.frames.frames else "nobody"


def columns(rows: Iterable[Sequence[object]], head: Sequence[str] = (), indent: str = " ") -> str:
    """Rows under a head, each column as wide as its widest cell."""
    cells = [[str(cell) for cell in row] for row in ([head] if head else [])] + [
        [str(cell) for cell in row] for row in rows
    ]
    if not cells:
        return ""
    widths = [max(len(row[i]) if i < len(row) else 0 for row in cells) for i in range(max(map(len, cells)))]
    return "".join(
        (indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))).rstrip() + "\n"
        for row in cells
    )


_DATA = ("R", "RW", "R down", "RW down")
_CODE = ("X", "XR", "X conforming", "XR conforming")
_SYSTEM = {2: "LDT", 5: "task gate", 9: "TSS", 11: "TSS busy", 12: "call gate", 14: "interrupt gate", 15: "trap gate"}


def descriptor(value: int) -> str:
    """A segment descriptor (x86 manual, vol. 3, 3.4.5)."""
    kind, ring = value >> 40 & 15, value >> 45 & 3
    base, limit = bounds(value)
    if not value >> 44 & 1:
        what = f"system, {_SYSTEM.get(kind, f'type {kind}')}"
    elif kind & 8:
        width = 64 if value >> 53 & 1 else 32 if value >> 54 & 1 else 16
        what = f"code{width} {_CODE[kind >> 1 & 3]}"
    else:
        what = f"data{32 if value >> 54 & 1 else 16} {_DATA[kind >> 1 & 3]}"
    there = "" if value >> 47 & 1 else ", not present"
    seen = ", accessed" if value >> 44 & 1 and kind & 1 else ""
    return f"ring {ring} {what}, base {base:#x} limit {limit:#x}{seen}{there}"


def bounds(value: int) -> tuple[int, int]:
    """A descriptor's base and its limit in bytes."""
    base = value >> 16 & 0xFFFFFF | value >> 32 & 0xFF000000
    limit = value & 0xFFFF | value >> 32 & 0xF0000
    return base, limit << 12 | 0xFFF if value >> 55 & 1 else limit
