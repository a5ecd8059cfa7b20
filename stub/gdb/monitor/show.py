"""Frames, page-table entries, descriptors and columns in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stub.domain.domain import Domain
from stub.memory import words
from stub.memory.formats import LONG
from stub.memory.frames import FREE, GUEST, INVALID_M2P_ENTRY, XEN
from stub.memory.words import flags as flags

_OWNERS = {FREE: "free", GUEST: "guest", XEN: "Xen"}


def target(entry: int) -> int:
    """The frame that an entry names."""
    return LONG.table_frame(entry)


def leaf(entry: int, level: int) -> bool:
    """Whether a present entry of a ``level`` table maps memory and not another table."""
    return LONG.is_leaf(entry, LONG.level(level))


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
    return words.frame(domain.frames, mfn)


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
