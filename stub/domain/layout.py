"""Where everything lies at start of day, in pseudo-physical frames (tools/libs/guest/xg_dom_{core,x86}.c).

The order is fixed: kernel, mapped ramdisk, P2M list (unless INIT_P2M), start_info, XenStore ring, console ring,
bootstrap page tables (the root first), boot stack; the region's end is rounded up to 4 MiB with at least 512 KiB behind
the stack. Beyond the region, unmapped there: the ramdisk of a kernel with MOD_START_PFN, the P2M list at INIT_P2M
and its page tables. Everywhere in the region VA = VIRT_BASE + PFN * 4096.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stub.abi.arch_x86 import HYPERVISOR_VIRT_START_PAE
from stub.errors import ConfigError
from stub.image import Image
from stub.units import MIB, PAGE_SHIFT, PAGE_SIZE, page_up, pages

_REGION_ALIGN = 4 * MIB
_SCRATCH = 512 * 1024
_LEVEL_SHIFT = {1: 21, 2: 30, 3: 39, 4: 48}


@dataclass(frozen=True)
class Span:
    """``pages`` frames from ``pfn``; ``vaddr`` where the first is mapped (0: nowhere)."""

    pfn: int
    pages: int
    vaddr: int = 0


@dataclass(frozen=True)
class Layout:
    """The start-of-day layout. Numbers are PFNs and counts of pages unless they end in ``_va``."""

    nr_pages: int
    region: Span
    kernel: Span
    ramdisk: Span | None
    ramdisk_size: int
    ramdisk_is_pfn: bool
    p2m: Span
    start_info: Span
    xenstore: Span
    console: Span
    tables: Span
    tables_by_level: Mapping[int, int]
    stack: Span
    p2m_tables: Span | None
    end: int

    def describe(self) -> dict[str, object]:
        """Rows for people and JSON: each object with its PFN range and address."""
        spans = {
            "initial region": self.region,
            "kernel": self.kernel,
            "ramdisk": self.ramdisk,
            "p2m list": self.p2m,
            "start_info": self.start_info,
            "xenstore ring": self.xenstore,
            "console ring": self.console,
            "page tables": self.tables,
            "boot stack": self.stack,
            "p2m page tables": self.p2m_tables,
        }
        return {
            name: {"pfn": span.pfn, "pages": span.pages, "vaddr": f"{span.vaddr:#x}" if span.vaddr else None}
            for name, span in spans.items()
            if span is not None
        } | {"nr_pages": self.nr_pages, "pages used": self.end}


def tables_for(start: int, end: int, bits: int = 64) -> dict[int, int]:
    """How many tables of each level below the root map [start, end): level → count.

    A 32-bit guest's L2s go on to the end of the address space: the last one has to be there, for Xen's part.
    """
    levels, ends = ((3, 2, 1), {}) if bits == 64 else ((2, 1), {2: 1 << 32})
    return {
        level: ((ends.get(level, end) - 1) >> _LEVEL_SHIFT[level]) - (start >> _LEVEL_SHIFT[level]) + 1
        for level in levels
    }


def _region_end(base: int, allocated: int, bits: int) -> tuple[int, dict[int, int]]:
    """Where the initial region ends, and how many tables map it: it has to hold them, the boot stack and some room."""
    extra = 1 + _SCRATCH // PAGE_SIZE
    wanted = extra
    while True:
        end = (allocated + wanted * PAGE_SIZE + _REGION_ALIGN - 1) & ~(_REGION_ALIGN - 1)
        counts = tables_for(base, end, bits)
        wanted = extra + 1 + sum(counts.values())
        if allocated + wanted * PAGE_SIZE <= end:
            return end, counts


class _Frames:
    """Frames handed out one behind the other, from ``pfn`` on; PFN 0 is mapped at ``base``."""

    def __init__(self, base: int, pfn: int) -> None:
        self.base, self.pfn = base, pfn

    def mapped(self, count: int) -> Span:
        """The next ones, of the initial region."""
        return self.beyond(count, self.base + (self.pfn << PAGE_SHIFT))

    def beyond(self, count: int, vaddr: int = 0) -> Span:
        """The next ones, mapped elsewhere or nowhere."""
        span = Span(self.pfn, count, vaddr)
        self.pfn += count
        return span


def plan(image: Image, nr_pages: int, ramdisk_size: int) -> Layout:
    """Lay out a domain of ``nr_pages``; :class:`ConfigError` when it is too small, saying how much would do."""
    parms, base = image.parms, image.parms.virt_base
    kernel_pfn, kernel_end = (image.virt_kstart - base) >> PAGE_SHIFT, page_up(image.virt_kend - base) >> PAGE_SHIFT
    free = _Frames(base, kernel_end)
    ramdisk = p2m = p2m_tables = None
    is_pfn = bool(ramdisk_size and parms.mod_start_pfn)
    if ramdisk_size and not is_pfn:
        ramdisk = free.mapped(pages(ramdisk_size))
    if parms.init_p2m is None or parms.init_p2m >= base:
        p2m = free.mapped(pages(nr_pages * image.bits // 8))
    start_info, xenstore, console = free.mapped(1), free.mapped(1), free.mapped(1)
    end, counts = _region_end(base, base + (free.pfn << PAGE_SHIFT), image.bits)
    if image.bits == 32 and end > HYPERVISOR_VIRT_START_PAE:
        raise ConfigError(
            f"{image.path}: kernel and ramdisk would reach to {end:#x}, past {HYPERVISOR_VIRT_START_PAE:#x},"
            " where Xen's part begins; use a smaller ramdisk"
        )
    tables, stack = free.mapped(1 + sum(counts.values())), free.mapped(1)
    region = Span(0, (end - base) >> PAGE_SHIFT, base)
    free = _Frames(base, region.pages)
    if is_pfn:
        ramdisk = free.beyond(pages(ramdisk_size))
    if p2m is None:
        assert parms.init_p2m is not None
        p2m = free.beyond(pages(nr_pages * 8), parms.init_p2m)
        needed = tables_for(parms.init_p2m, parms.init_p2m + p2m.pages * PAGE_SIZE)
        p2m_tables = free.beyond(sum(needed.values()))
    if free.pfn > nr_pages:
        have, need = nr_pages * PAGE_SIZE // MIB, -(-free.pfn * PAGE_SIZE // MIB)
        raise ConfigError(f"{image.path}: {have} MiB of memory is too little to start it; at least {need} MiB would do")
    return Layout(
        nr_pages=nr_pages,
        region=region,
        kernel=Span(kernel_pfn, kernel_end - kernel_pfn, image.virt_kstart),
        ramdisk=ramdisk,
        ramdisk_size=ramdisk_size,
        ramdisk_is_pfn=is_pfn,
        p2m=p2m,
        start_info=start_info,
        xenstore=xenstore,
        console=console,
        tables=tables,
        tables_by_level={4 if image.bits == 64 else 3: 1, **counts},
        stack=stack,
        p2m_tables=p2m_tables,
        end=free.pfn,
    )
