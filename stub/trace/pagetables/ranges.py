"""An address space in lines, in known styles: Linux's ptdump, QEMU's info mem and info tlb, illumos' mdb.

Each style is a row of ``STYLES``. Two entries are shown where they differ: the one that is stored, and the one that the
guest meant (see :mod:`stub.memory.formats`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from stub.memory import entries as e
from stub.memory.formats import Format
from stub.memory.mappings import MAX_RUNS
from stub.memory.words import flags, size
from stub.trace.pagetables.space import FLAGS, AddressSpace, Range
from stub.units import PAGE_SHIFT, PAGE_SIZE, U64

Lines = Iterator[str]

_LEVELS = {1: "pte", 2: "pmd", 3: "pud", 4: "pgd"}
CUT = "# cut here: these tables map each other over and over, or in too many pieces"


def meant(fmt: Format, entry: int, level: int) -> str:
    """``stored P RW …; meant P …``, the second part only where it differs."""
    stored, wanted = flags(entry, level, fmt.marks_kernel), fmt.meant(entry, level)
    return f"stored {stored}" + (f"; meant {flags(wanted, level, fmt.marks_kernel)}" if wanted != entry else "")


def _level(fmt: Format, page: int) -> int:
    return next(level.number for level in fmt.levels if level.span == page)


def _stretch(name: str, frames: tuple[int, ...] | None) -> str:
    if not frames:
        return f"{name} scattered" if frames is None else f"no {name}"
    if len(frames) == 1:
        return f"{name} {frames[0]:#x} each"
    return f"{name} {frames[0]:#x}" if frames[0] == frames[1] else f"{name} {frames[0]:#x}-{frames[1]:#x}"


def ptdump(space: AddressSpace, xen: bool) -> Lines:
    """Linux's own dump of its page tables (arch/x86/mm/dump_pagetables.c), with frames and both entries behind it."""
    fmt = space.format
    found = space.everything if xen else space.mappings
    kinds = found.rights & np.uint64(e.RW | e.US | e.NX), found.entry & FLAGS
    digits = fmt.width // 4 if fmt.width == 32 else 16
    for each in space.ranges(xen=xen, kinds=kinds):
        level, wanted = _level(fmt, each.page), fmt.meant(each.entry, 1)
        user = each.rights & e.US and wanted & e.US
        columns = (
            "USR" if user else "   ",
            "RW" if each.rights & e.RW else "ro",
            "PWT" if each.entry & e.PWT else "   ",
            "PCD" if each.entry & e.PCD else "   ",
            ("PAT" if level == 1 else "PSE") if each.entry & e.PSE else "   ",
            "GLB" if wanted & e.G else "   ",
            "NX" if each.rights & e.NX else "x ",
            _LEVELS[level],
        )
        end = each.end & U64 if fmt.width > 32 else each.end
        rest = f"{_stretch('pfn', each.pfns)}  {meant(fmt, each.entry & ~(e.A | e.D), level)}"
        yield f"0x{each.start:0{digits}x}-0x{end:0{digits}x} {size(each.size):>8} {' '.join(columns)}  {rest}"


def info_mem(space: AddressSpace, xen: bool) -> Lines:
    """QEMU's info mem, with the execute bit; ``u`` is what the guest gives to its user code."""
    digits = 16 if space.format.width > 32 else 8
    for each in _joined(space.ranges(xen=xen)):
        who, rights = each.access.split()
        letter = "u" if who == "user" else "X" if who == "Xen" else "-"
        yield f"{each.start:0{digits}x}-{each.end & U64:0{digits}x} {each.size:0{digits}x} {letter}{rights}"


def _joined(ranges: Iterator[Range]) -> Iterator[Range]:
    """Ranges of different page sizes that follow each other, as one."""
    last: Range | None = None
    for each in ranges:
        if last is not None and last.end == each.start and last.access == each.access:
            last = Range(last.start, each.end, last.page, last.access, last.entry, last.rights, None, None)
            continue
        if last is not None:
            yield last
        last = each
    if last is not None:
        yield last


_TLB = ((e.NX, "X"), (e.G, "G"), (e.PSE, "P"), (e.D, "D"), (e.A, "A"), (e.PCD, "C"), (e.PWT, "T"), (e.US, "U"), (e.RW, "W"))  # fmt: skip  # noqa: E501


def info_tlb(space: AddressSpace, xen: bool) -> Lines:
    """QEMU's info tlb: a line a page, with the stored flags; P is a large page."""
    found = space.everything if xen else space.mappings
    digits = 16 if space.format.width > 32 else 8
    columns = (found.vaddr, found.frame << PAGE_SHIFT, found.entry, found.size)
    for vaddr, maddr, entry, page in zip(*(column.tolist() for column in columns), strict=True):
        marks = "".join(letter if entry & bit and (bit != e.PSE or page > PAGE_SIZE) else "-" for bit, letter in _TLB)
        yield f"{vaddr:0{digits}x}: {maddr:016x} {marks}"


_MDB = ((e.G, "global"), (e.PSE, "largepage"), (e.D, "mod"), (e.A, "ref"), (e.PCD, "nocache"), (e.PWT, "wrthru"))


def mdb(space: AddressSpace, xen: bool) -> Lines:
    """In the manner of illumos' mdb: which addresses map which PFNs and MFNs, and the entry's flags in its words."""
    for each in space.ranges(xen=xen, straight=True):
        wanted = space.format.meant(each.entry, _level(space.format, each.page))
        words = ["noexec"] if each.rights & e.NX else []
        words += [word for bit, word in _MDB if wanted & bit and (bit != e.PSE or each.page > PAGE_SIZE)]
        words += [each.access.split()[0].lower(), *(["write"] if each.rights & e.RW else [])]
        yield f"{_addresses(each)} {_stretch('pfn', each.pfns)} ({_stretch('mfn', each.mfns)}) {' '.join(words)}"


def _addresses(each: Range) -> str:
    if each.size == each.page:
        return f"Virtual address {each.start:#x} maps"
    return f"Virtual addresses {each.start:#x}-{each.end - 1:#x} map"


STYLES: Mapping[str, Callable[[AddressSpace, bool], Lines]] = {
    "ptdump": ptdump,
    "mem": info_mem,
    "tlb": info_tlb,
    "mdb": mdb,
}


def lines(space: AddressSpace, style: str, xen: bool = False) -> Lines:
    """All that a root maps, a line a range (or a page). ``xen``: also what only Xen can reach."""
    if style in ("ptdump", "mdb"):
        yield f"{space.snapshot.facts}; {space}: {len(space.everything if xen else space.mappings)} mappings"
    count = 0
    for line in STYLES[style](space, xen):
        count += 1
        yield line
    if space.everything.cut or (count >= MAX_RUNS > 0 and style != "tlb"):
        yield CUT


def as_objects(space: AddressSpace, xen: bool = False) -> Iterator[Mapping[str, Any]]:
    """The ranges for JSON; numbers as in the hypercall log, addresses in hexadecimal strings."""
    for each in space.ranges(xen=xen):
        level = _level(space.format, each.page)
        yield {
            "start": f"{each.start:#x}",
            "end": f"{each.end:#x}",
            "page_size": each.page,
            "access": each.access,
            "stored": f"{each.entry:#x}",
            "meant": f"{space.format.meant(each.entry, level):#x}",
            "pfns": None if each.pfns is None else [f"{pfn:#x}" for pfn in each.pfns],
            "mfns": None if each.mfns is None else [f"{mfn:#x}" for mfn in each.mfns],
        }
