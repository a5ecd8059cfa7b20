"""The guest is hostile: no Python exception leaves a run, each run ends, and page types still hold afterwards."""

from __future__ import annotations

import resource
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile import (
    CODE,
    CONSOLE,
    CS,
    POWER_OFF,
    RAX,
    RCX,
    ROW,
    RSP,
    SCRATCH,
    SS,
    STACK,
    STORE,
    TABLE,
    TABLES,
    ZERO,
    call,
    handlers,
    image,
    io_rights,
    machine,
    mov,
    user_mode,
    va,
)
from hostile_random import Caller, Coder

from stub.abi import event_channel as evtchn
from stub.abi import memory, sched, vcpu
from stub.abi import xen as abi
from stub.abi.errno import EFAULT, EINVAL
from stub.abi.xen import Hypercall
from stub.domain.config import DomainConfig
from stub.hypervisor import stops
from stub.hypervisor.audit import audit
from stub.machine import Limits, Machine

pytestmark = pytest.mark.usefixtures("pv_engine")

MEMORY = 200 << 20  # what all of the runs here together may add to the process, the guests' own 32 MiB apart
IDENTITY = pytest.mark.pv_needs("identity")  # what it does to which frame is in its code
BATCHES = [
    *(pytest.param(batch, "identity", marks=IDENTITY) for batch in range(10)),
    *((batch, "shuffle") for batch in range(10, 14)),
]
SELF = abi.DOMID_SELF
RESULT = CODE + ZERO  # where a piece of code leaves what it was answered
KEEP = mov(RCX, RESULT) + b"\x48\x89\x01"  # mov %rax, (%rcx)


def ran(made: Machine, allowed: frozenset[str] = frozenset()) -> int:
    """Run to the end, which must come; audit. The number of hypercalls that were made."""
    with made:
        verdict = made.run()
        assert verdict is not None
        assert verdict.kind not in allowed
        assert audit(made.xen) == []
        return sum(made.log.counts()["hypercalls"].values())


def result(made: Machine) -> int:
    """What ``KEEP`` kept, signed."""
    at = (CODE + ZERO - va(0)) >> 3
    value: int = made.xen.domain.ram.words[at]
    return value - (1 << 64) if value >> 63 else value


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.fixture(scope="module", autouse=True)
def bounded() -> Iterator[None]:
    before = peak()
    yield
    assert peak() - before < MEMORY


# -- made from a seed


@pytest.mark.parametrize(("batch", "p2m"), BATCHES)
def test_random_hypercalls(tmp_path: Path, batch: int, p2m: str) -> None:
    """Every number, random and half-valid arguments; a failure names the seed."""
    made = 0
    for seed in range(20 * batch, 20 * batch + 20):
        print(f"seed {seed}")
        caller = Caller(seed)
        rows = caller.table(300)
        kernel = image(tmp_path, rows, bytes(caller.blobs.data), prologue=handlers(), frame=caller.frame())
        made += ran(machine(kernel, p2m=p2m))
    assert made > 4000


@pytest.mark.parametrize(("batch", "p2m"), BATCHES)
def test_random_code(tmp_path: Path, batch: int, p2m: str) -> None:
    """Privileged instructions, port I/O, far jumps, selectors, undefined opcodes: in the kernel and in user mode."""
    for seed in range(20 * batch, 20 * batch + 20):
        print(f"seed {seed}")
        coder = Coder(seed)
        rows = [coder.piece() for _ in range(200)]
        prologue = handlers() + user_mode() + (io_rights() if seed % 3 else b"")
        ran(machine(image(tmp_path, rows, code=True, prologue=prologue, user=bool(seed % 2)), p2m=p2m))


def test_a_seed_gives_the_same_run_again(tmp_path: Path) -> None:
    digests = set()
    for _ in range(2):
        caller = Caller(7)
        rows = caller.table(300)
        made = machine(image(tmp_path, rows, bytes(caller.blobs.data), prologue=handlers()), p2m="shuffle")
        ran(made)
        digests.add(made.log.digest())
    assert len(digests) == 1


# -- faults that were found


def run_code(folder: Path, *pieces: bytes, blobs: bytes = b"", **options: int) -> Machine:
    """A kernel of straight code, its handlers registered; then power off."""
    made = machine(image(folder, [], blobs, prologue=b"".join((handlers(), *pieces, POWER_OFF))), **options)
    made.run()
    assert audit(made.xen) == []
    return made


@IDENTITY
def test_the_old_event_channel_call_with_a_bad_argument(tmp_path: Path) -> None:
    """Its command can be read, the argument behind it cannot."""
    last = va(0x13FF) + 0xFFC
    write = mov(RCX, last) + b"\xc7\x01" + struct.pack("<I", evtchn.EVTCHNOP_bind_interdomain)
    with run_code(tmp_path, write, call(Hypercall.event_channel_op_compat, last), KEEP) as made:
        assert result(made) == -EFAULT


def update_va(vaddr: int, entry: int, flags: int = 0) -> bytes:
    return call(Hypercall.update_va_mapping, vaddr, entry, flags)


def extended(blob: int) -> bytes:
    """One mmuext_op at ``blob``."""
    return call(Hypercall.mmuext_op, blob, 1, 0, SELF)


def pin(level: int, mfn: int) -> tuple[bytes, bytes]:
    """(the code, the operation that belongs at SPARE)."""
    return extended(SPARE), struct.pack("<IIQQ", level - 1, 0, mfn, 0)


SPARE = CODE + 0x14000
PAGE = SCRATCH[0]
STORE_THERE = mov(RAX, 0x1234567) + mov(RCX, va(PAGE) + 8) + b"\x48\x89\x01"  # mov %rax, (%rcx)
CLEAR = mov(RCX, va(PAGE)) + b"\x48\xc7\x41\x08\0\0\0\0"  # movq $0, 8(%rcx)


@IDENTITY
def test_a_page_table_cannot_be_written_through_an_old_translation(tmp_path: Path) -> None:
    """Mapped writable, written to, made read-only without a flush, pinned: the CPU must not write it any more."""
    code, operation = pin(1, PAGE)
    with run_code(
        tmp_path, CLEAR, update_va(va(PAGE), PAGE << 12 | 0x25), code, KEEP, STORE_THERE, blobs=operation
    ) as made:
        assert result(made) == 0
        assert made.xen.domain.frames.type[PAGE] == 1
        assert made.xen.domain.ram.words[(PAGE << 9) + 1] == 0


@IDENTITY
@pytest.mark.parametrize("ring", [CONSOLE, STORE])
def test_a_ring_cannot_become_a_page_table(tmp_path: Path, ring: int) -> None:
    """Its back end writes to it: dom0's own mapping holds it writable (a grant, in Xen)."""
    code, operation = pin(1, ring)
    with run_code(tmp_path, update_va(va(ring), 0, 1), code, KEEP, blobs=operation) as made:
        assert result(made) == -EINVAL


@IDENTITY
def test_user_and_kernel_on_one_root(tmp_path: Path) -> None:
    """Going to user mode and back must not forget what was narrowed: CR3 keeps its value, the TLB its entries."""
    pin_it, operation = pin(1, PAGE)
    frame = struct.pack("<9Q", 0, 0, 0, 0, CODE + TABLE + 2 * ROW, CS, 0x202, STACK, SS)
    blobs = operation.ljust(0x100, b"\0") + frame.ljust(0x100, b"\0") + pin_it + KEEP + STORE_THERE + POWER_OFF
    rows = [
        mov(RSP, SPARE + 0x100) + call(Hypercall.iret),
        mov(RAX, SPARE + 0x200) + b"\xff\xe0",  # jmp *%rax
        b"\x0f\x05",  # in user mode; then the kernel goes on with the second
    ]
    prologue = handlers() + user_mode() + CLEAR + update_va(va(PAGE), PAGE << 12 | 0x25)
    with machine(image(tmp_path, rows, blobs, code=True, prologue=prologue)) as made:
        made.run()
        assert result(made) == 0
        assert made.xen.domain.ram.words[(PAGE << 9) + 1] == 0
        assert audit(made.xen) == []


def at_the_top(folder: Path, last: bytes, *pieces: bytes, blobs: bytes = b"") -> Machine:
    """As ``run_code``, with 64 KiB mapped up to the end of the address space: all ones, then ``last``."""
    l1 = bytes(8 * 496) + b"".join(struct.pack("<Q", SCRATCH[2 + i] << 12 | 0x67) for i in range(16))
    l2 = bytes(8 * 511) + struct.pack("<Q", SCRATCH[0] << 12 | 0x67)
    update = struct.pack("<QQ", (TABLES + 1) << 12 | 8 * 511, SCRATCH[1] << 12 | 0x67)
    set_up = b"".join(
        [
            handlers(),
            update_va(va(SCRATCH[0]), SCRATCH[0] << 12 | 0x25),
            update_va(va(SCRATCH[1]), SCRATCH[1] << 12 | 0x25),
            call(Hypercall.mmu_update, SPARE + 0x800, 1, 0, SELF),
        ]
    )
    made = machine(
        image(
            folder,
            [],
            blobs.ljust(0x800, b"\0") + update,
            prologue=b"".join((set_up, *pieces, POWER_OFF)),
            scratch=l1 + l2 + last.rjust(16 << 12, b"\xff"),
        )
    )
    made.run()
    assert audit(made.xen) == []
    return made


@IDENTITY
@pytest.mark.parametrize("instruction", [b"\xfa", b"\xf1", b"\x0f\x0bxen\x0f\xa2"], ids=["cli", "int1", "cpuid"])
def test_an_instruction_at_the_end_of_the_address_space(tmp_path: Path, instruction: bytes) -> None:
    """What Xen emulates there goes on at address 0, which is a page fault."""
    jump = mov(RAX, (1 << 64) - len(instruction)) + b"\xff\xe0"
    with at_the_top(tmp_path, instruction, io_rights(), jump) as made:
        assert made.verdict is not None
        assert made.verdict.kind == "poweroff"
        assert made.xen.vcpu.cr2 == 0 or instruction == b"\xf1"
        assert made.log.counts()["exceptions"]


@IDENTITY
@pytest.mark.parametrize("number", [Hypercall.multicall, Hypercall.mmuext_op])
def test_a_list_that_ends_with_the_address_space(tmp_path: Path, number: Hypercall) -> None:
    """Long enough to be done in parts: the second begins at 0, where nothing is mapped."""
    with at_the_top(tmp_path, b"", call(number, (1 << 64) - (16 << 12), 5000, 0, SELF), KEEP) as made:
        assert result(made) < 0


@IDENTITY
def test_an_ldt_past_the_end_of_the_address_space(tmp_path: Path) -> None:
    """A selector whose descriptor would lie beyond: the page fault's address wraps."""
    operation = struct.pack("<IIQQ", abi.MMUEXT_SET_LDT, 0, (1 << 64) - 4096, 8192)
    load = mov(RAX, 513 << 3 | 7) + b"\x8e\xd8"  # mov %eax, %ds
    with run_code(tmp_path, extended(SPARE), KEEP, load, blobs=operation) as made:
        assert result(made) == 0
        assert made.xen.vcpu.cr2 == 8


@IDENTITY
def test_pfns_past_the_last(tmp_path: Path) -> None:
    """Two frames for the PFNs 2^64-1 and the next: the machine-to-physical table has 64 bits for each."""
    give = memory.XenMemoryReservation64.pack(extent_start=SPARE + 0x80, nr_extents=2, domid=SELF)
    take = memory.XenMemoryReservation64.pack(extent_start=SPARE + 0x90, nr_extents=1, extent_order=1, domid=SELF)
    lists = struct.pack("<QQQ", 0x1500, 0x1501, (1 << 64) - 1)
    blobs = give.ljust(0x40, b"\0") + take.ljust(0x40, b"\0") + lists
    decrease = call(Hypercall.memory_op, memory.XENMEM_decrease_reservation, SPARE)
    populate = call(Hypercall.memory_op, memory.XENMEM_populate_physmap, SPARE + 0x40)
    with run_code(tmp_path, decrease, populate, KEEP, blobs=blobs) as made:
        assert result(made) == 1
        assert made.xen.domain.m2p(0x1501) == 0


@IDENTITY
def test_replies_that_nobody_takes(tmp_path: Path) -> None:
    """A guest that watches, writes, and never reads what XenStore answers: no more is kept than a ring's worth asks."""
    watches = b"".join(_message(4, b"a\0" + b"%0900d\0" % i) for i in range(100))
    write = _message(11, b"a\0")
    ring = (write * (1024 // len(write) + 1))[:1024]
    with machine(image(tmp_path, [], prologue=handlers() + POWER_OFF)) as made:
        made.run()
        store, page = made.xen.xenstore, STORE << 12
        for at in range(0, len(watches), 512):
            store.wire.receive(watches[at : at + 512])
            store.wire.take(1 << 20)
        before = peak()
        for i in range(400):
            made.xen.ram_bytes[page : page + 1024] = ring
            made.xen.ram_bytes[page + 2048 : page + 2056] = struct.pack("<II", 1024 * i, 1024 * (i + 1))
            store.service()
        assert peak() - before < 16 << 20


def _message(kind: int, payload: bytes) -> bytes:
    return struct.pack("<4I", kind, 0, 0, len(payload)) + payload


def test_a_sleep_of_centuries_ends_with_the_wall_limit(tmp_path: Path) -> None:
    """A blocked vCPU passes virtual time without instructions; the host's time counts all the same."""
    timer = struct.pack("<QQ", (1 << 63) - 1, 0)
    code = [
        handlers(),
        call(Hypercall.vcpu_op, vcpu.VCPUOP_stop_periodic_timer, 0, 0),
        call(Hypercall.vcpu_op, vcpu.VCPUOP_set_singleshot_timer, 0, SPARE),
        call(Hypercall.sched_op, sched.SCHEDOP_block, 0),
        POWER_OFF,
    ]
    config = DomainConfig(kernel=image(tmp_path, [], timer, prologue=b"".join(code)), memory=32)
    with Machine(config, None, Limits(wall_s=0.2)) as made:
        verdict = made.run()
        assert verdict is not None
        assert verdict.kind == "wall-limit"


@IDENTITY
def test_faults_without_end_and_without_an_instruction(tmp_path: Path) -> None:
    """A page-fault handler that is not there, on a stack as large as the address space: one table, mapped all over."""
    hole = struct.pack("<BBHxxxxQ", 14, 0, CS, 0x1000) + bytes(16)
    l1 = struct.pack("<Q", SCRATCH[4] << 12 | 0x67) * 512
    l2 = struct.pack("<Q", SCRATCH[0] << 12 | 0x67) * 512
    l3 = struct.pack("<Q", SCRATCH[1] << 12 | 0x67) * 512
    update = struct.pack("<QQ", TABLES << 12 | 8 * 300, SCRATCH[2] << 12 | 0x67)
    code = [
        handlers(),
        *(update_va(va(SCRATCH[i]), SCRATCH[i] << 12 | 0x25) for i in range(3)),
        call(Hypercall.mmu_update, SPARE + 0x800, 1, 0, SELF),
        KEEP,
        call(Hypercall.set_trap_table, SPARE),
        mov(RSP, 0xFFFF968000000000 - 64),
        b"\x8b\x04\x25\0\0\0\0",  # mov 0, %eax
    ]
    kernel = image(tmp_path, [], hole.ljust(0x800, b"\0") + update, prologue=b"".join(code), scratch=l1 + l2 + l3)
    with Machine(DomainConfig(kernel=kernel, memory=32, p2m="identity"), None, Limits(instructions=100_000)) as made:
        verdict = made.run()
        assert result(made) == 0
        assert verdict is not None
        assert verdict.kind == "crash"


def test_breakpoints_by_the_thousand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stop point stays in the engine; a guest may not fill it with them."""
    row = struct.Struct("<6Q")
    rows = [row.pack(Hypercall.set_debugreg, 7, 1, 0, 0, 0)]
    rows += [row.pack(Hypercall.set_debugreg, 0, CODE + 64 * i, 0, 0, 0) for i in range(20)]
    monkeypatch.setattr(stops, "_MOST_IDLE", 10)
    with machine(image(tmp_path, rows, prologue=handlers()), p2m="shuffle") as made:
        verdict = made.run()
        assert verdict is not None
        assert verdict.kind == "poweroff"
        assert 0 < len(made.xen.stops.guest_code) <= 10
