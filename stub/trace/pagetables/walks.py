"""A walk in words and for JSON: each level's machine address, entry as stored and as meant, where it leads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stub.memory import entries as e
from stub.memory import words
from stub.memory.formats import Format
from stub.memory.frames import FREE, GUEST
from stub.memory.walker import Step, Walk
from stub.trace.pagetables.snapshot import Snapshot
from stub.trace.pagetables.space import AddressSpace
from stub.units import PAGE_SHIFT, PAGE_SIZE


def both(snapshot: Snapshot, mfn: int, by_pfn: bool = False) -> str:
    """``mfn 0x12 pfn 0x34``. ``by_pfn``: the number is a PFN."""
    if by_pfn:
        p2m = snapshot.frames.p2m
        found = int(p2m[mfn]) if mfn < len(p2m) else -1
        return f"mfn {'-' if found < 0 else f'{found:#x}'} pfn {mfn:#x}"
    pfn = snapshot.frames.pfn(mfn)
    return f"mfn {mfn:#x} pfn {'-' if pfn is None else f'{pfn:#x}'}"


def whose(snapshot: Snapshot, mfn: int) -> str:
    """To whom a frame belonged, by Xen's own count and not by what the guest writes into its entries."""
    frames = snapshot.frames
    if mfn >= frames.frames:
        return "device or nothing"
    return {GUEST: "local", FREE: "free"}.get(frames.owner[mfn], "Xen")


def real(space: AddressSpace, number: int) -> int | None:
    """The frame that an entry's number means in this space; None for none."""
    if not space.by_pfn:
        return number
    p2m = space.snapshot.frames.p2m
    return int(p2m[number]) if number < len(p2m) and p2m[number] >= 0 else None


def lines(space: AddressSpace, vaddr: int) -> Iterator[str]:
    """A walk for a person."""
    snapshot, fmt = space.snapshot, space.format
    found = space.walk(vaddr)
    yield f"{snapshot.facts}: virtual {vaddr:#x} under {space}"
    for step in found.steps:
        yield from _step(space, step)
    if not found.found:
        yield f" ends here: {found.why}"
        return
    if found.size > PAGE_SIZE:
        yield f" a page of {words.size(found.size)}"
    frame = found.maddr >> PAGE_SHIFT
    mfn = real(space, frame)
    machine = "-" if mfn is None else f"{(mfn << PAGE_SHIFT) + (vaddr & PAGE_SIZE - 1):#x}"
    pfn = frame if space.by_pfn else snapshot.frames.pfn(frame)
    physical = "-" if pfn is None else f"{(pfn << PAGE_SHIFT) + (vaddr & PAGE_SIZE - 1):#x}"
    yield f" {both(snapshot, frame, space.by_pfn)}: {_state(snapshot, mfn)}"
    yield f"machine {machine}  pseudo-physical {physical}  {found.access}"
    if fmt.marks_kernel and mfn is not None and whose(snapshot, mfn) not in ("local", "Xen"):
        yield f" the frame is not the domain's: {whose(snapshot, mfn)}"


def _step(space: AddressSpace, step: Step) -> Iterator[str]:
    snapshot, fmt = space.snapshot, space.format
    table = real(space, step.table)
    at = "-" if table is None else f"{_address(space, step, table):#x}"
    yield f" L{step.level} {both(snapshot, step.table, space.by_pfn)}: {_state(snapshot, table)}"
    leads = f" -> {both(snapshot, step.target, space.by_pfn)}" if step.entry & e.P else ""
    digits = fmt.entry_size * 2
    yield f"    [{step.slot:#05x}] at {at} = {step.entry:0{digits}x}{leads}  {_flags(fmt, step.entry, step.level)}"
    wanted = fmt.meant(step.entry, step.level)
    if wanted != step.entry:
        yield f"    the guest meant {wanted:0{digits}x}  {_flags(fmt, wanted, step.level)}"


def _address(space: AddressSpace, step: Step, table: int) -> int:
    """The machine address of an entry; a PAE root may begin inside its page."""
    inside = space.root.maddr & PAGE_SIZE - 1 if step.level == space.format.root_level else 0
    return (table << PAGE_SHIFT) + inside + step.slot * space.format.entry_size


def _flags(fmt: Format, entry: int, level: int) -> str:
    return words.flags(entry, level, fmt.marks_kernel)


def _state(snapshot: Snapshot, mfn: int | None) -> str:
    return "no frame" if mfn is None else words.frame(snapshot.frames, mfn)


def as_object(space: AddressSpace, vaddr: int) -> Mapping[str, Any]:
    """A walk for JSON."""
    found = space.walk(vaddr)
    frame = found.maddr >> PAGE_SHIFT if found.found else None
    return {
        "vaddr": f"{vaddr:#x}",
        "root": f"{space.root.maddr:#x}",
        "format": space.format.name,
        "levels": [_step_object(space, step) for step in found.steps],
        "mapped": found.found,
        "why": found.why or None,
        "page_size": found.size if found.found else None,
        "access": found.access or None,
        "frame": None if frame is None else _frame_object(space, frame),
    }


def _step_object(space: AddressSpace, step: Step) -> Mapping[str, Any]:
    table = real(space, step.table)
    wanted = space.format.meant(step.entry, step.level)
    return {
        "level": step.level,
        "maddr": None if table is None else f"{_address(space, step, table):#x}",
        "slot": step.slot,
        "stored": f"{step.entry:#x}",
        "meant": f"{wanted:#x}",
        "flags": _flags(space.format, step.entry, step.level).split(),
        "target": _frame_object(space, step.target) if step.entry & e.P else None,
    }


def _frame_object(space: AddressSpace, number: int) -> Mapping[str, Any]:
    frames = space.snapshot.frames
    mfn = real(space, number)
    pfn = number if space.by_pfn else frames.pfn(number)
    inside = mfn is not None and mfn < frames.frames
    return {
        "mfn": None if mfn is None else f"{mfn:#x}",
        "pfn": None if pfn is None else f"{pfn:#x}",
        "owner": None if mfn is None else whose(space.snapshot, mfn),
        "type": words.kind(frames, mfn) if inside and mfn is not None else None,
    }


__all__ = ["Walk", "as_object", "both", "lines", "real", "whose"]
