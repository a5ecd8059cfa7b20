"""A list that is too long to do in one go is done in parts, and the guest sees one call (Xen: continuations)."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from stub.abi.xen import DOMID_SELF, MMU_MACHPHYS_UPDATE, Hypercall
from stub.domain.config import DomainConfig
from stub.engine.base import RAX
from stub.machine import Machine
from suites.boot.small_guest import CODE, SPIN, call, kernel

pytestmark = pytest.mark.usefixtures("pv_engine")

ENTRIES = 10_000
_MULTICALL_ENTRY = struct.Struct("<8Q")


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a multicall"])
def test_a_long_list_is_done_whole_and_in_parts(tmp_path: Path, inside: bool) -> None:
    config = DomainConfig(kernel=kernel(tmp_path, b""), memory=32)
    with Machine(config) as probe:
        layout = probe.xen.domain.layout
    scratch = layout.stack.vaddr + 0x2000
    done, entry, updates = scratch, scratch + 0x100, scratch + 0x1000
    arguments = (updates, ENTRIES, done)
    if inside:
        code = call(Hypercall.multicall, entry, 1)
    else:
        self_is = b"\x49\xba" + struct.pack("<Q", DOMID_SELF)  # mov $DOMID_SELF, %r10
        code = self_is + call(Hypercall.mmu_update, *arguments)
    kernel(tmp_path, code + SPIN)
    with Machine(config) as guest:
        domain = guest.xen.domain
        mfn = int(domain.p2m[layout.console.pfn])
        update = struct.pack("<QQ", mfn << 12 | MMU_MACHPHYS_UPDATE, layout.console.pfn)
        domain.guest.write(updates, update * ENTRIES)
        domain.guest.write(entry, _MULTICALL_ENTRY.pack(Hypercall.mmu_update, 99, *arguments, DOMID_SELF, 0, 0))
        assert guest.run(deadline_ns=1_000_000) is None
        assert domain.guest.read_u32(done) == ENTRIES
        assert guest.xen.words[RAX] == 0
        assert domain.guest.read_u64(entry + 8) == (0 if inside else 99)
        calls = guest.log.counts()["hypercalls"]
        assert calls["mmu_update"] == 3, "4,096 at a time"
        assert guest.registers()["rip"] == CODE + len(code)


def test_lists_that_are_long_together_are_done_in_parts(tmp_path: Path) -> None:
    """Twenty lists in a multicall, each just short enough: the guest is asked again after each three."""
    calls, entries = 20, 4000
    config = DomainConfig(kernel=kernel(tmp_path, b""), memory=32)
    with Machine(config) as probe:
        layout = probe.xen.domain.layout
    entry = layout.stack.vaddr + 0x2000
    updates = entry + 0x1000
    code = call(Hypercall.multicall, entry, calls)
    kernel(tmp_path, code + SPIN)
    with Machine(config) as guest:
        domain = guest.xen.domain
        mfn = int(domain.p2m[layout.console.pfn])
        update = struct.pack("<QQ", mfn << 12 | MMU_MACHPHYS_UPDATE, layout.console.pfn)
        domain.guest.write(updates, update * entries)
        one = _MULTICALL_ENTRY.pack(Hypercall.mmu_update, 99, updates, entries, 0, DOMID_SELF, 0, 0)
        domain.guest.write(entry, one * calls)
        assert guest.run(deadline_ns=1_000_000) is None
        assert guest.xen.words[RAX] == 0
        results = [domain.guest.read_u64(entry + 64 * i + 8) for i in range(calls)]
        assert results == [0] * calls
        made = guest.log.counts()["hypercalls"]
        assert (made["mmu_update"], made["multicall"]) == (calls, 7)
        assert guest.registers()["rip"] == CODE + len(code)


def test_numbers_that_the_guest_makes_up_are_counted_together(tmp_path: Path) -> None:
    """Hypercalls that are not there: a few by name, the rest as others."""
    code = b"\x48\xbb" + struct.pack("<Q", 1 << 40)  # mov $1 << 40, %rbx
    loop = b"\x48\x89\xd8\x0f\x05\x48\xff\xc3"  # mov %rbx, %rax; syscall; inc %rbx
    code += loop + b"\xeb" + bytes([256 - len(loop) - 2])
    with Machine(DomainConfig(kernel=kernel(tmp_path, code), memory=32)) as guest:
        assert guest.run(deadline_ns=1_000) is None
        assert len(guest.xen.unimplemented) == 65
        assert guest.xen.unimplemented["others"] > 65
        assert len(guest.log.counts()["hypercalls"]) <= 65
