"""grant_table_op, from small guests of our own that grant pages to themselves, with the books audited at each call.

The tests are the folders of ``images/tests/grant-table``; each variation is a boot, each check of its own a subtest.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from harness import small_guests
from harness.guests import Guest
from harness.small_guests import Variation
from stub.abi import grant_table as abi
from stub.abi.errno import EBUSY, ERANGE
from stub.abi.xen import DOMID_SELF
from stub.domain.config import DomainConfig
from stub.hypervisor import grants
from stub.hypervisor.audit import audit
from stub.hypervisor.hypercalls import grant_table, mmu
from stub.hypervisor.maptrack import Mappings
from stub.hypervisor.xen import Hypervisor
from stub.machine import Machine
from stub.trace.records import HypercallRecord
from stub.units import PAGE_SIZE
from suites.boot.small_guest import SPIN, kernel

pytestmark = pytest.mark.usefixtures("pv_engine")

VARIATIONS = small_guests.find("grant-table", small_guests.BOTH)


@pytest.mark.parametrize("variation", VARIATIONS, ids=lambda variation: variation.id)
def test_grant_table(variation: Variation, guest: Guest, subtests: pytest.Subtests) -> None:
    """Each check of one boot, and the result line at its end; no invariant of the frame table breaks meanwhile."""
    outcome = small_guests.run(variation, guest(audit=1))
    small_guests.judge(variation, outcome, subtests)


def test_the_log_says_what_an_element_broke(guest: Guest) -> None:
    """The call's own result is 0: the first element that is refused is named in its note."""
    running = guest(small_guests.build(VARIATIONS[0].folder), memory=small_guests.MEMORY, cmdline="map_list")
    running.wait("poweroff")
    calls = [call for call in running.hypercalls.select("grant_table_op") if isinstance(call, HypercallRecord)]
    notes = [call.note for call in calls if call.note is not None]
    assert notes[0] == ("element 1, GNTST_general_error: grant 0x9 has flags 0x0 for domain 0: no access for domain 1")
    assert notes[1].startswith("element 1, GNTST_general_error: l1e 0x0 for 0x")
    assert notes[2].startswith("guest address 0x")
    assert all(call.note is not None for call in calls if call.failed)


def test_handles_run_out_and_come_back() -> None:
    """As many as 1024 frames hold, but for one that stays in the list; one that is given back waits behind it."""
    mappings = Mappings()
    taken = list(iter(mappings.take, None))
    assert len(taken) == len(set(taken)) == 1024 * 256 - 1
    assert taken[:3] == [0, 1, 2]
    left = ({*range(1024 * 256)} - {*taken}).pop()
    mappings.put(7)
    assert mappings.take() == left
    assert mappings.take() is None
    mappings.put(9)
    assert mappings.take() == 7


class _Chance:
    """Operations on grants that are half of them good: a seed's worth of a guest that tries everything."""

    def __init__(self, xen: Hypervisor, seed: int) -> None:
        self.xen, self.random = xen, Random(seed)
        spare = xen.domain.layout.stack.vaddr + 0x2000
        self.list, first = spare, (spare + PAGE_SIZE & -PAGE_SIZE) + PAGE_SIZE
        self.windows = [first + i * PAGE_SIZE for i in range(8)]
        pages = [int(xen.domain.p2m[-1 - i]) for i in range(8)]
        self.frames = [*pages, *pages, xen.domain.root, xen.grants.frames[0], xen.domain.area.shared_info, 1 << 30]
        self.handles = [0xFFFF]
        self.done: Counter[int] = Counter()  # by command, those that succeeded

    def entry(self, flags: int | None = None) -> int:
        """Rewrite one of the table's entries, as the guest may at any time; which."""
        xen, ref = self.xen, self.random.randrange(8, 12)
        at = xen.grants.frames[0] * PAGE_SIZE + ref * grants.LAYOUTS[xen.grants.version].size
        flags = flags or self.random.choice([1, 1, 1, 1, 5, 2, 3, 0x101, 0])
        xen.domain.ram.map[at : at + 4] = struct.pack("<HH", flags, xen.domain.domid)
        xen.grants.set_frame(ref, self.random.choice(self.frames) & 0xFFFFFFFF)
        return ref

    def call(self, command: int, data: bytes) -> bytes:
        """Make a list of one element; the element as it became."""
        self.xen.domain.guest.write(self.list, data)
        rc = grant_table.grant_table_op(self.xen, command, self.list, 1, 0, 0)
        assert rc in (0, -EBUSY, -ERANGE)
        answer = self.xen.domain.guest.read(self.list, len(data))
        operation = grant_table.LIST_OPS.get(command)
        self.done[command] += not rc and (operation is None or not operation.layout.of(64).unpack_from(answer).status)
        return answer

    def place(self) -> tuple[int, int]:
        """Where to map, and the flag that says how that is meant."""
        address = self.random.choice([*self.windows, *self.windows, 0xFFFF_8000_0000_0000, 1 << 46])
        at = mmu.l1_entry_of(self.xen, address)
        return (at << 3, abi.GNTMAP_contains_pte) if at and self.random.random() < 0.3 else (address, 0)

    def map(self) -> None:
        address, how = self.place()
        flags = self.random.choice([2, 2, 6, 10, 1, 5, 3, 7, 0]) | how
        data = abi.GnttabMapGrantRef.pack(host_addr=address, flags=flags, ref=self.random.randrange(6, 13), dom=1)
        answer = abi.GnttabMapGrantRef.unpack_from(self.call(abi.GNTTABOP_map_grant_ref, data))
        if not answer.status:
            self.handles.append(answer.handle)

    def unmap(self) -> None:
        handle = self.random.choice(self.handles)
        known = self.xen.grants.mappings.live.get(handle)
        bus = self.xen.grants.active[known.ref].frame * PAGE_SIZE if known and self.random.random() < 0.5 else 0
        data = abi.GnttabUnmapGrantRef.pack(host_addr=self.place()[0], dev_bus_addr=bus, handle=handle)
        self.call(abi.GNTTABOP_unmap_grant_ref, data)

    def replace(self) -> None:
        handle, (old, _), new = self.random.choice(self.handles), self.place(), self.random.choice([0, *self.windows])
        self.call(
            abi.GNTTABOP_unmap_and_replace, abi.GnttabUnmapAndReplace.pack(host_addr=old, new_addr=new, handle=handle)
        )

    def copy(self) -> None:
        data = bytearray(abi.GnttabCopy64.size)
        for end in ("source", "dest"):
            by_grant = self.random.random() < 0.6
            what = {f"{end}_ref": self.random.randrange(6, 13)} if by_grant else {
                f"{end}_gmfn": self.random.choice(self.frames[:8])
            }  # fmt: skip
            flag = by_grant * (abi.GNTCOPY_source_gref if end == "source" else abi.GNTCOPY_dest_gref)
            flags = abi.GnttabCopy64.unpack_from(data).flags | flag
            abi.GnttabCopy64.pack_into(data, 0, **what, **{f"{end}_domid": DOMID_SELF}, flags=flags, len=64)
        self.call(abi.GNTTABOP_copy, bytes(data))

    def by_hand(self) -> None:
        value = self.random.choice([0, self.random.choice(self.frames[:8]) << 12 | self.random.choice([5, 7])])
        mmu.update_va_mapping(self.xen, self.random.choice(self.windows), value, 0, 0, 0)

    def change(self) -> None:
        self.call(abi.GNTTABOP_set_version, abi.GnttabSetVersion.pack(version=self.random.choice([1, 2])))
        a, b = self.random.randrange(6, 13), self.random.randrange(6, 13)
        self.call(abi.GNTTABOP_swap_grant_ref, abi.GnttabSwapGrantRef.pack(ref_a=a, ref_b=b))

    def give(self) -> None:
        ref, frame = self.entry(abi.GTF_accept_transfer), self.random.choice(self.frames)
        self.call(abi.GNTTABOP_transfer, abi.GnttabTransfer64.pack(mfn=frame, domid=1, ref=ref))


@pytest.mark.parametrize("seed", range(6))
def test_the_books_stay_right_whatever_is_done(seed: int, tmp_path: Path) -> None:
    """Hundreds of operations in any order: no invariant breaks, and what is in use is what is counted."""
    with Machine(DomainConfig(kernel=kernel(tmp_path, SPIN), memory=32)) as guest:
        guest.run(deadline_ns=1000)
        xen = guest.xen
        chance = _Chance(xen, seed)
        acts: list[Callable[[], object]] = [
            chance.entry,
            chance.map,
            chance.map,
            chance.unmap,
            chance.copy,
            chance.by_hand,
            chance.replace,
        ]
        for number in range(600):
            chance.random.choice([*acts, chance.change, chance.give] if number % 5 == 0 else acts)()
            if number % 20 == 0:
                assert audit(xen) == []
        assert {command for command, times in chance.done.items() if times} >= {
            *grant_table.LIST_OPS.keys(),
            abi.GNTTABOP_set_version,
        }
        for window in chance.windows:
            mmu.update_va_mapping(xen, window, 0, 0, 0, 0)
        assert audit(xen) == []
        uses: Counter[tuple[int, int]] = Counter()
        for mapping in xen.grants.mappings.live.values():
            for device in (False, True):
                if mapping.flags & (abi.GNTMAP_device_map if device else abi.GNTMAP_host_map):
                    uses[mapping.ref, 2 * device + bool(mapping.flags & abi.GNTMAP_readonly)] += 1
        counted = {
            (ref, sort): times
            for ref, active in xen.grants.active.items()
            for sort, times in enumerate(active.uses)
            if times and active.domid
        }
        assert counted == uses
