"""Start of day, whatever the sizes: what the domain builder promises of the first region (xg_dom_{core,x86}.c)."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stub.abi.arch_x86 import HYPERVISOR_VIRT_START_PAE
from stub.domain.builder import build
from stub.domain.config import DomainConfig
from stub.domain.layout import Layout, Span, plan
from stub.image import Image
from stub.image.load import load_image
from stub.memory.frames import GUEST, WRITABLE
from stub.units import MIB, PAGE_SHIFT, PAGE_SIZE
from suites.unit.elf_builder import PSTART, Load, elf, xen_notes

BASES = {64: 0xFFFFFFFF80000000, 32: 0xC0000000}
REGION_ALIGN, SCRATCH = 4 * MIB, 512 << 10
NR_PAGES = 1024 * MIB >> PAGE_SHIFT


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Image]:
    """A kernel of each width."""
    made = {}
    for bits, base in BASES.items():
        path = tmp_path_factory.mktemp("kernels") / f"small{bits}"
        notes = xen_notes(VIRT_BASE=base, ENTRY=base + PSTART, PAE_MODE="yes")
        path.write_bytes(elf([Load(PSTART, bytes(64), vaddr=base + PSTART)], notes, bits=bits))
        made[bits] = load_image(path)
    return made


def laid_out(image: Image, kernel_size: int, ramdisk: int, *, mod_start_pfn: bool, init_p2m: int | None) -> Layout:
    parms = replace(image.parms, mod_start_pfn=mod_start_pfn, init_p2m=init_p2m)
    end = image.virt_kstart + kernel_size
    return plan(replace(image, parms=parms, virt_kend=end), NR_PAGES, ramdisk)


def objects(layout: Layout) -> list[Span]:
    """Everything that has frames of its own, the region itself apart."""
    spans = (
        layout.kernel, layout.ramdisk, layout.p2m, layout.start_info, layout.xenstore, layout.console, layout.tables,
        layout.stack, layout.p2m_tables,
    )  # fmt: skip
    return [span for span in spans if span is not None]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    bits=st.sampled_from([64, 32]),
    kernel_size=st.integers(1, 300 * MIB),
    ramdisk=st.one_of(st.just(0), st.integers(1, 300 * MIB)),
    mod_start_pfn=st.booleans(),
    own_p2m=st.booleans(),
)
def test_the_first_region(
    images: dict[int, Image], bits: int, kernel_size: int, ramdisk: int, mod_start_pfn: bool, own_p2m: bool
) -> None:
    """It ends at 4 MiB, with at least 512 KiB behind the stack, all of it mapped; nothing lies in two places."""
    init_p2m = 0xFFFFFF0000000000 if own_p2m and bits == 64 else None
    layout = laid_out(images[bits], kernel_size, ramdisk, mod_start_pfn=mod_start_pfn, init_p2m=init_p2m)
    base, region = BASES[bits], layout.region
    end = base + region.pages * PAGE_SIZE
    assert end % REGION_ALIGN == 0
    behind = end - layout.stack.vaddr - PAGE_SIZE
    assert behind >= SCRATCH
    assert behind < SCRATCH + REGION_ALIGN + (layout.tables.pages << PAGE_SHIFT), "no more than the rounding asks for"

    spans = sorted(objects(layout), key=lambda span: span.pfn)
    for one, other in pairwise(spans):
        assert one.pfn + one.pages <= other.pfn, (one, other)
    for span in spans:
        inside = span.pfn < region.pages
        assert inside == (span.pfn + span.pages <= region.pages)
        assert not inside or span.vaddr == base + span.pfn * PAGE_SIZE
    assert spans[-1].pfn + spans[-1].pages <= layout.end <= NR_PAGES
    assert layout.stack.pfn == layout.tables.pfn + layout.tables.pages, "the stack is behind the tables"


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bits=st.sampled_from([64, 32]), kernel_size=st.integers(1, 500 * MIB))
def test_there_are_tables_for_the_whole_region(images: dict[int, Image], bits: int, kernel_size: int) -> None:
    """As many of each level as the region's addresses need, and a root; a 32-bit guest's last L2 is there, too."""
    layout = laid_out(images[bits], kernel_size, 0, mod_start_pfn=False, init_p2m=None)
    first, last = BASES[bits], BASES[bits] + layout.region.pages * PAGE_SIZE - 1
    wanted = {1: (last >> 21) - (first >> 21) + 1}
    if bits == 64:
        wanted |= {level: (last >> shift) - (first >> shift) + 1 for level, shift in ((2, 30), (3, 39))} | {4: 1}
    else:
        wanted |= {2: 4 - (first >> 30), 3: 1}
        assert last < HYPERVISOR_VIRT_START_PAE
    assert layout.tables_by_level == wanted
    assert layout.tables.pages == sum(wanted.values())


@pytest.mark.parametrize("bits", BASES)
def test_pages_behind_the_tables_are_ordinary(images: dict[int, Image], bits: int) -> None:
    """The boot stack and all behind it: the guest's, writable, mapped once; a small allocator may begin there."""
    image = images[bits]
    made = build(image, DomainConfig(kernel=image.path, memory=32))
    layout, frames = made.layout, made.frames
    for pfn in range(layout.tables.pfn, layout.region.pages):
        mfn = int(made.p2m[pfn])
        assert frames.owner[mfn] == GUEST
        assert (frames.type[mfn] == WRITABLE) == (pfn >= layout.stack.pfn), hex(pfn)
        assert frames.type_count[mfn] == 1 or pfn < layout.stack.pfn, hex(pfn)
