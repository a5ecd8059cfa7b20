"""Image and configuration → a domain laid out in memory, ready for its first instruction."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stub.abi import arch_x86 as arch
from stub.abi import xen
from stub.abi.grant_table import GrantEntryV1, GTF_permit_access
from stub.domain.config import DomainConfig
from stub.domain.domain import Domain
from stub.domain.layout import Layout, Span, plan, tables_for
from stub.domain.xenarea import XenArea, frames_needed
from stub.errors import ConfigError, ImageError
from stub.image import Image
from stub.memory import entries as e
from stub.memory.frames import FrameTable
from stub.memory.guest import GuestMemory
from stub.memory.paetypes import PaePageTypes
from stub.memory.pagetypes import PageTypes
from stub.memory.ram import Ram
from stub.units import GIB, MIB, PAGE_SHIFT, PAGE_SIZE, pages

MOST_MEMORY_32 = 4 * GIB // MIB - 8
LOW_FRAMES = 0x100  # the first megabyte of a machine is never a guest's
XENSTORE_PORT, CONSOLE_PORT = 1, 2

# By bits: start_info's layout and magic (xg_dom_x86.c), flags of the bootstrap tables' entries from L2 on.
_START_INFO = {64: (xen.StartInfo64, b"xen-3.0-x86_64"), 32: (xen.StartInfo32, b"xen-3.0-x86_32p")}
_TABLE = e.P | e.RW | e.US | e.A | e.D
_UPPER = {64: dict.fromkeys((2, 3, 4), _TABLE), 32: {2: _TABLE, 3: e.P}}


def shuffled(count: int, seed: int) -> npt.NDArray[np.int64]:
    """A permutation of ``range(count)`` that depends on ``seed`` alone (ordered by a splitmix64 hash)."""
    x = np.arange(count, dtype=np.uint64) + np.uint64((seed * 0x9E3779B97F4A7C15 + 1) & ((1 << 64) - 1))
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return np.argsort(x, kind="stable").astype(np.int64)


def build(image: Image, config: DomainConfig, hidden: int = 0) -> Domain:
    """Build the domain that ``config`` asks for, as Xen's domain builder does.

    ``hidden`` frames of its memory are the engine's own (:class:`stub.memory.ram.Ram`).
    """
    nr_pages = config.memory * MIB // PAGE_SIZE
    ramdisk = config.ramdisk_bytes()
    layout = plan(image, nr_pages, len(ramdisk))
    low = LOW_FRAMES if config.p2m == "shuffle" else 0
    first_xen = nr_pages + low
    if image.bits == 32 and config.memory > MOST_MEMORY_32:
        raise ConfigError(
            f"{image.path}: {config.memory} MiB of memory; a 32-bit guest can have {MOST_MEMORY_32} MiB at most,"
            " as it has to name shared_info by a 32-bit machine address"
        )
    ram = Ram(first_xen + frames_needed(first_xen, image.bits), hidden)
    frames = FrameTable(ram.frames)
    area = XenArea(ram, frames, first_xen, image.bits)
    p2m = shuffled(nr_pages, config.seed) + low if low else np.arange(nr_pages, dtype=np.int64)
    frames.give(p2m)
    area.m2p[p2m] = np.arange(nr_pages, dtype=np.uint64)
    if frames.compat_m2p is not None:
        frames.compat_m2p[p2m] = np.arange(nr_pages, dtype=np.uint32)
    builder = _Builder(image, config, layout, ram, p2m)
    builder.load_kernel()
    builder.load_ramdisk(ramdisk)
    builder.write_p2m()
    root = builder.write_tables()
    builder.write_start_info(area.shared_info)
    types = PageTypes(ram, frames, area.slots) if image.bits == 64 else PaePageTypes(ram, frames, area.pae_slots)
    rc = types.pin(root, types.root_level)
    if rc:
        raise ImageError(
            f"{image.path}: its initial page tables are refused ({types.refusal}); this is a fault of pvstub"
        )
    guest = GuestMemory(ram)
    if image.bits == 32:
        guest.limit = 1 << 32
        area.run_on(root)
    return Domain(config, image, layout, ram, frames, area, types, guest, p2m, root, ramdisk)


class _Builder:
    """Writes each object of a layout to the frames that it falls on."""

    def __init__(
        self, image: Image, config: DomainConfig, layout: Layout, ram: Ram, p2m: npt.NDArray[np.int64]
    ) -> None:
        self.image, self.config, self.layout, self.ram, self.p2m = image, config, layout, ram, p2m

    def _write(self, address: int, data: bytes | memoryview) -> None:
        """Bytes at a pseudo-physical address."""
        done = 0
        head = -address % PAGE_SIZE
        if head:
            done = min(head, len(data))
            at = int(self.p2m[address >> PAGE_SHIFT]) * PAGE_SIZE + address % PAGE_SIZE
            self.ram.bytes[at : at + done] = data[:done]
        whole = (len(data) - done) // PAGE_SIZE
        if whole:
            first = (address + done) >> PAGE_SHIFT
            block = np.frombuffer(data, dtype=np.uint8, count=whole * PAGE_SIZE, offset=done)
            self.ram.pages[self.p2m[first : first + whole]] = block.reshape(whole, PAGE_SIZE)
            done += whole * PAGE_SIZE
        if done < len(data):
            at = int(self.p2m[(address + done) >> PAGE_SHIFT]) * PAGE_SIZE
            self.ram.bytes[at : at + len(data) - done] = data[done:]

    def load_kernel(self) -> None:
        """Segments by physical address, and the hypercall page."""
        parms = self.image.parms
        for segment in self.image.segments:
            self._write(segment.paddr - parms.paddr_offset, segment.data)
        if parms.hypercall_page is not None:
            self._write(parms.hypercall_page - parms.virt_base, hypercall_page(self.image.bits))

    def load_ramdisk(self, data: bytes) -> None:
        """The ramdisk, wherever the kernel wants it."""
        if self.layout.ramdisk is not None:
            self._write(self.layout.ramdisk.pfn << PAGE_SHIFT, data)

    def write_p2m(self) -> None:
        """The guest's list of its MFNs, in words of its own; what is left of its last page is invalid (all ones)."""
        span = self.layout.p2m
        kind = np.dtype(f"<u{self.image.bits // 8}")
        entries = np.full(span.pages * PAGE_SIZE // kind.itemsize, np.iinfo(kind).max, dtype=kind)
        entries[: self.layout.nr_pages] = self.p2m.astype(kind)
        self._write(span.pfn << PAGE_SHIFT, entries.tobytes())

    def write_tables(self) -> int:
        """The bootstrap page tables; the root's MFN."""
        layout = self.layout
        root_pfn = layout.tables.pfn
        read_only = np.zeros(layout.nr_pages, dtype=bool)
        read_only[root_pfn : root_pfn + layout.tables.pages] = True
        if layout.p2m_tables is not None:
            read_only[layout.p2m_tables.pfn : layout.p2m_tables.pfn + layout.p2m_tables.pages] = True
        root = int(self.p2m[root_pfn])
        self._map(layout.region, root, root_pfn + 1, read_only)
        if layout.p2m_tables is not None:
            self._map(layout.p2m, root, layout.p2m_tables.pfn, read_only)
        return root

    def _map(self, span: Span, root: int, next_pfn: int, read_only: npt.NDArray[np.bool_]) -> None:
        """Map ``span`` at its address under ``root``, taking tables from ``next_pfn`` on, upper levels first."""
        table, p2m, flags = self.ram.table, self.p2m, _UPPER[self.image.bits]
        start, end = span.vaddr, span.vaddr + span.pages * PAGE_SIZE
        top = max(flags)
        parents = {start >> 48: root}
        for level, count in tables_for(start, end, self.image.bits).items():
            shift = 12 + 9 * level
            children: dict[int, int] = {}
            for i in range(count):
                number = (start >> shift) + i
                mfn = int(p2m[next_pfn])
                next_pfn += 1
                children[number] = mfn
                parent = parents[number >> 9] if level < top - 1 else root
                table[parent, number & 511] = mfn << 12 | flags[level + 1]
            parents = children
        pfns = np.arange(span.pfn, span.pfn + span.pages)
        entries = (p2m[pfns].astype(np.uint64) << np.uint64(12)) | np.uint64(e.P | e.A)
        entries |= np.where(read_only[pfns], np.uint64(0), np.uint64(e.RW))
        at = 0
        for number, mfn in parents.items():
            first = max(start - (number << 21), 0) >> 12
            take = min(e.ENTRIES - first, span.pages - at)
            table[mfn, first : first + take] = entries[at : at + take]
            at += take

    def write_start_info(self, shared_info: int) -> None:
        """start_info, as xg_dom_x86.c start_info_x86_64 and start_info_x86_32 fill it."""
        layout, config, p2m = self.layout, self.config, self.p2m
        flags = xen.SIF_VIRT_P2M_4TOOLS
        module = {}
        if layout.ramdisk is not None:
            if layout.ramdisk_is_pfn:
                flags |= xen.SIF_MOD_START_PFN
            module = {
                "mod_start": layout.ramdisk.pfn if layout.ramdisk_is_pfn else layout.ramdisk.vaddr,
                "mod_len": pages(layout.ramdisk_size) * PAGE_SIZE,
            }
        recycled = {}
        if layout.p2m_tables is not None:
            recycled = {
                "first_p2m_pfn": layout.p2m.pfn,
                "nr_p2m_frames": layout.p2m.pages + layout.p2m_tables.pages,
            }
        start_info, magic = _START_INFO[self.image.bits]
        content = start_info.pack(
            magic=magic,
            nr_pages=layout.nr_pages,
            shared_info=shared_info << PAGE_SHIFT,
            flags=flags,
            store_mfn=int(p2m[layout.xenstore.pfn]),
            store_evtchn=XENSTORE_PORT,
            console_mfn=int(p2m[layout.console.pfn]),
            console_evtchn=CONSOLE_PORT,
            pt_base=layout.tables.vaddr,
            nr_pt_frames=layout.tables.pages,
            mfn_list=layout.p2m.vaddr,
            cmd_line=config.cmdline.encode(errors="surrogateescape"),
            **module,
            **recycled,
        )
        self._write(layout.start_info.pfn << PAGE_SHIFT, content)


def _call64(number: int) -> bytes:
    load = b"\xb8" + number.to_bytes(4, "little")
    if number == xen.Hypercall.iret:
        return b"\x51\x41\x53\x50" + load + b"\x0f\x05"  # push rcx, r11, rax; mov eax, 23; syscall
    return b"\x51\x41\x53" + load + b"\x0f\x05\x41\x5b\x59\xc3"  # push rcx, r11; mov eax, n; syscall; pop; ret


def _call32(number: int) -> bytes:
    load = b"\xb8" + number.to_bytes(4, "little")
    if number == xen.Hypercall.iret:
        return b"\x50" + load + b"\xcd\x82"  # push eax; mov eax, 23; int 0x82
    return load + b"\xcd\x82\xc3"  # mov eax, n; int 0x82; ret


_CALLS = {64: _call64, 32: _call32}


def hypercall_page(bits: int = 64) -> bytes:
    """The hypercall page of a 64-bit or 32-bit guest: slot i at i * 32.

    arch/x86/pv/hypercall.c, pv_ring3_init_hypercall_page and pv_ring1_init_hypercall_page.
    """
    page = bytearray(b"\xcc" * PAGE_SIZE)
    for number in range(PAGE_SIZE // 32):
        code = _CALLS[bits](number)
        page[number * 32 : number * 32 + len(code)] = code
    return bytes(page)


def grant_entries(console_mfn: int, xenstore_mfn: int) -> bytes:
    """The grants that the builder makes for the rings: entry 0 the console's, entry 1 XenStore's, to domain 0."""
    return b"".join(
        GrantEntryV1.pack(flags=GTF_permit_access, domid=0, frame=mfn) for mfn in (console_mfn, xenstore_mfn)
    )


def start_registers(domain: Domain) -> dict[str, int]:
    """The first vCPU's registers (xg_dom_x86.c, vcpu_x86_64, vcpu_x86_32; Xen fixes the selectors' RPL)."""
    layout = domain.layout
    if domain.bits == 32:
        selectors = {"cs": arch.FLAT_RING1_CS, "ss": arch.FLAT_RING1_SS}  # the trampoline loads the data segments
    else:
        selectors = {"cs": arch.FLAT_KERNEL_CS, "ss": arch.FLAT_KERNEL_SS}
    return {
        "rip": domain.image.entry,
        "rsp": layout.stack.vaddr + PAGE_SIZE,
        "rsi": layout.start_info.vaddr,
        "rflags": 0x202,
    } | selectors
