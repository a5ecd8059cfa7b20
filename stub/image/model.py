"""What ``load_image`` hands over: a kernel's segments and what it told Xen about itself. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from stub.image.symbols import Symbols, read_symbols


@dataclass(frozen=True)
class Segment:
    """A PT_LOAD segment: ``memsz`` bytes at ``paddr``, the first ``filesz`` of them ``data``, the rest zero.

    ``flags`` are the ELF ones (1 execute, 2 write, 4 read). Addresses and sizes are in bytes, as in the file:
    subtract ``XenParms.paddr_offset`` from ``paddr`` for the pseudo-physical address.
    """

    paddr: int
    vaddr: int
    filesz: int
    memsz: int
    flags: int
    data: memoryview = field(repr=False)


@dataclass(frozen=True)
class Note:
    """An ELF note. ``source`` tells where it was found: "PT_NOTE" or "SHT_NOTE"."""

    owner: str
    type: int
    desc: bytes
    source: str


@dataclass(frozen=True)
class XenParms:
    """What the kernel told Xen (elfnote.h), taken with Xen's precedence, Xen's defaults filled in.

    ``source`` is "PT_NOTE", "SHT_NOTE" or "__xen_guest". Addresses are virtual but for ``paddr_offset`` and
    ``phys32_entry``. ``pae`` is "yes", "extended-cr3", "bimodal" or None. ``l1_mfn_valid`` holds (mask, value) pairs.
    """

    source: str
    entry: int
    virt_base: int
    paddr_offset: int
    hypercall_page: int | None = None
    init_p2m: int | None = None
    mod_start_pfn: bool = False
    features_supported: frozenset[str] = frozenset()
    features_required: frozenset[str] = frozenset()
    supported_features: int | None = None
    pae: str | None = None
    guest_os: str = ""
    guest_version: str = ""
    xen_version: str = ""
    loader: str = ""
    bsd_symtab: bool = False
    suspend_cancel: int = 0
    l1_mfn_valid: tuple[tuple[int, int], ...] | None = None
    hv_start_low: int | None = None
    phys32_entry: int | None = None


@dataclass(frozen=True)
class SetupHeader:
    """The set-up header of a bzImage (bootparam.h): the fields that its protocol version has, by name."""

    values: Mapping[str, int]
    kernel_version: str | None

    def __getitem__(self, name: str) -> int:
        """A field's value; 0 for one that came after this header's protocol."""
        return self.values.get(name, 0)

    @property
    def protocol(self) -> tuple[int, int]:
        """The boot protocol's version, (major, minor)."""
        return self["version"] >> 8, self["version"] & 0xFF

    @property
    def setup_size(self) -> int:
        """Bytes of boot sector and set-up code before the protected-mode part.

        Xen's loader does not read ``setup_sects`` 0 as 4, as boot.rst would have it; neither do we.
        """
        return (self["setup_sects"] + 1) * 512

    def __hash__(self) -> int:
        return hash(tuple(self.values.items()))


@dataclass(frozen=True)
class Image:
    """A kernel ready to be laid out in a domain's memory.

    ``kind`` names the file ("ELF", "bzImage", "ELF.gz", …), ``compression`` that of the kernel inside ("none", "gzip",
    "xz", …). ``virt_kstart``, ``virt_kend`` and ``entry`` are virtual addresses. ``sha256`` is the file's, in hex.
    ``elf`` is the kernel's ELF file, uncompressed.
    """

    path: Path
    kind: str
    compression: str
    bits: int
    machine: str
    segments: tuple[Segment, ...]
    parms: XenParms
    notes: tuple[Note, ...]
    setup_header: SetupHeader | None
    virt_kstart: int
    virt_kend: int
    entry: int
    sha256: str
    elf: memoryview = field(repr=False, compare=False)

    @property
    def pstart(self) -> int:
        """The lowest p_paddr of a segment."""
        return min(s.paddr for s in self.segments)

    @property
    def pend(self) -> int:
        """One past the highest p_paddr of a segment."""
        return max(s.paddr + s.memsz for s in self.segments)

    def symbols(self) -> Symbols:
        """The kernel's functions and objects, sorted by address; empty when the file is stripped. Read once."""
        return self._symbols

    @cached_property
    def _symbols(self) -> Symbols:
        return read_symbols(self.elf)


def frozen(values: dict[str, int]) -> Mapping[str, int]:
    """A read-only view of ``values``."""
    return MappingProxyType(values)
