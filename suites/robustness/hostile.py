"""Guests that mean harm: hypercalls and machine code made from a seed, and an audit of what they left behind.

Each guest is a table of calls, or a row of small pieces of code, under one loop. Whatever trap comes of one, the
handler takes the next. PFNs are MFNs (``p2m="identity"``), so that a guest knows frames worth asking for.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stub.abi import callback, sched
from stub.abi import xen as abi
from stub.abi.event_channel import EVTCHNOP_bind_virq
from stub.abi.physdev import PHYSDEVOP_set_iopl
from stub.abi.xen import Hypercall
from stub.domain.config import DomainConfig
from stub.machine import Limits, Machine
from suites.unit.elf_builder import PSTART, VIRT_BASE, Load, elf, xen_notes

CODE = VIRT_BASE + PSTART
KERNEL_PAGES = 64
CURSOR, TRAPS, CALLBACK, ZERO, FRAME, USER_ROOT, THREE = 0x400, 0x1000, 0x2800, 0x2900, 0x2A00, 0x2B00, 0x2B40  # offsets from CODE
TABLE, BLOBS = 0x4000, 0x14000
ROW = 64  # bytes of a call, and of a piece of code
BLOBS_END = 0x28000
ROWS = (BLOBS - TABLE) // ROW
CALLBACKS = (callback.CALLBACKTYPE_failsafe, callback.CALLBACKTYPE_event, callback.CALLBACKTYPE_syscall)
STACK = CODE + 0x4000 - 0x100
MASK = (1 << 64) - 1
CS = 0xE033
SS = 0xE02B

# With 32 MiB and a kernel of KERNEL_PAGES at 16 MiB: what lies behind it (stub.domain.layout).
_FIRST = (PSTART >> 12) + KERNEL_PAGES
P2M, START_INFO, STORE, CONSOLE, TABLES = _FIRST, _FIRST + 16, _FIRST + 17, _FIRST + 18, _FIRST + 19
N_TABLES = 13
SCRATCH = range((PSTART >> 12) + 40, (PSTART >> 12) + KERNEL_PAGES)  # writable pages that hold nothing


def va(mfn: int) -> int:
    """Where a frame of the initial region is mapped."""
    return VIRT_BASE + (mfn << 12)


def mov(register: int, value: int) -> bytes:
    """``mov $value, %register`` (registers in the x86 encoding's order)."""
    return bytes([0x48 | register >> 3, 0xB8 | register & 7]) + struct.pack("<Q", value & MASK)


RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10 = range(11)
_ARGUMENTS = (RDI, RSI, RDX, R10, R8)


def call(number: int, *arguments: int) -> bytes:
    """A hypercall with up to five arguments."""
    return (
        b"".join(mov(r, v) for r, v in zip(_ARGUMENTS, arguments, strict=False)) + mov(RAX, number) + b"\x0f\x05"
    )


POWER_OFF = call(Hypercall.sched_op_compat, sched.SCHEDOP_shutdown, 0)
_LOAD_ROW = b"".join(
    [
        b"\x48\x8b\x03",  # mov (%rbx), %rax
        b"\x48\x8b\x7b\x08",  # rdi
        b"\x48\x8b\x73\x10",  # rsi
        b"\x48\x8b\x53\x18",  # rdx
        b"\x4c\x8b\x53\x20",  # r10
        b"\x4c\x8b\x43\x28",  # r8
    ]
)


def image(folder: Path, rows: Sequence[bytes], blobs: bytes = b"", *, code: bool = False, prologue: bytes = b"", frame: bytes = b"", user: bool = False, scratch: bytes = b"") -> Path:
    """A kernel that works through ``rows``: hypercalls, or ``code`` to run. ``prologue`` goes first.

    Between two pieces of code events are unmasked and the segments made good again, by iret: to ``user`` mode if asked. ``frame`` is what an
    iret among the rows finds on the stack; by default one that goes on with the next row. ``scratch`` is what the SCRATCH pages hold.
    """
    assert len(rows) <= ROWS
    assert BLOBS + len(blobs) <= BLOBS_END
    start = prologue + mov(RSP, STACK) + mov(RBX, CODE + TABLE)
    turn = mov(RCX, CODE + CURSOR) + b"\x48\x89\x19"  # mov %rbx, (%rcx)
    turn += b"\xff\xe3" if code else _LOAD_ROW + b"\x0f\x05"  # jmp *%rbx, or syscall
    loop_at = len(start)
    next_at = loop_at + len(turn)
    text = start + turn + mov(RSP, STACK) + mov(RCX, CODE + CURSOR) + b"\x48\x8b\x19"  # mov (%rcx), %rbx
    text += b"\x48\x83\xc3" + bytes([ROW])  # add $ROW, %rbx
    text += mov(RAX, CODE + TABLE + ROW * len(rows)) + b"\x48\x39\xc3"  # cmp %rax, %rbx
    again = mov(RSP, CODE + FRAME) + mov(RAX, Hypercall.iret) + b"\x0f\x05" if code else b""
    again += b"\xe9" + struct.pack("<i", loop_at - (len(text) + 6 + len(again) + 5))
    text += b"\x0f\x83" + struct.pack("<i", len(again)) + again + POWER_OFF + b"\xeb\xfe"  # jae past the end
    assert len(text) <= CURSOR
    memory = bytearray(KERNEL_PAGES << 12)
    memory[: len(text)] = text
    struct.pack_into("<Q", memory, CURSOR, CODE + TABLE)
    gates = b"".join(struct.pack("<BBHxxxxQ", vector, 3, CS, CODE + next_at) for vector in range(256))
    memory[TRAPS : TRAPS + len(gates)] = gates
    for i, kind in enumerate(CALLBACKS):
        struct.pack_into("<HHIQ", memory, CALLBACK + 16 * i, kind, 0, 0, CODE + next_at)
    struct.pack_into("<9Q", memory, FRAME, 0, 0, 0, 0, CODE + loop_at, CS if user else CS & ~3, 0x202, STACK, SS)
    struct.pack_into("<I", memory, THREE, 3)
    struct.pack_into("<IIQQ", memory, USER_ROOT, abi.MMUEXT_NEW_USER_BASEPTR, 0, TABLES, 0)
    good = struct.pack("<9Q", 0, 0, 0, 0, CODE + next_at, CS & ~3, 0x202, STACK, SS)
    memory[STACK - CODE : STACK - CODE + len(good)] = (frame or good)[: len(good)]
    for i, row in enumerate(rows):
        at = TABLE + ROW * i
        tail = b"\xe9" + struct.pack("<i", next_at - (at + ROW)) if code else b""
        assert len(row) + len(tail) <= ROW
        memory[at : at + ROW] = row.ljust(ROW - len(tail), b"\x90" if code else b"\0") + tail
    memory[BLOBS : BLOBS + len(blobs)] = blobs
    memory[BLOBS_END : BLOBS_END + len(scratch)] = scratch
    path = folder / "hostile"
    path.write_bytes(elf([Load(PSTART, bytes(memory))], xen_notes()))
    return path


def handlers() -> bytes:
    """Registers the trap table and the callbacks, and binds VIRQ_TIMER."""
    register = callback.CALLBACKOP_register
    return call(Hypercall.set_trap_table, CODE + TRAPS) + b"".join(
        call(Hypercall.callback_op, register, CODE + CALLBACK + 16 * i) for i in range(len(CALLBACKS))
    ) + call(Hypercall.event_channel_op, EVTCHNOP_bind_virq, CODE + ZERO)


def user_mode() -> bytes:
    """The kernel's own tables for user mode, and a stack for coming back."""
    return call(Hypercall.stack_switch, SS, STACK) + call(
        Hypercall.mmuext_op, CODE + USER_ROOT, 1, 0, abi.DOMID_SELF
    )


def io_rights() -> bytes:
    """All I/O ports, for the kernel and its user."""
    return call(Hypercall.physdev_op, PHYSDEVOP_set_iopl, CODE + THREE)


def machine(kernel: Path, instructions: int = 200_000, memory: int = 32) -> Machine:
    """A machine for it, with nothing kept on disk."""
    config = DomainConfig(kernel=kernel, memory=memory, p2m="identity")
    return Machine(config, None, Limits(instructions=instructions, virtual_ns=10_000_000_000, wall_s=20))


# -- the audit


def audit(made: Machine) -> list[str]:
    """What is wrong with the frame table: each frame's type, type count and references counted again from scratch."""
    xen = made.xen
    domain, vcpu = xen.domain, xen.vcpu
    frames, words = domain.frames, domain.ram.words
    refs, types = [0] * frames.frames, [0] * frames.frames
    faults: list[str] = []

    def hold(mfn: int, kind: int, why: str) -> None:
        refs[mfn] += 1
        if kind:
            types[mfn] += 1
            if frames.type[mfn] != kind:
                faults.append(f"frame {mfn:#x} has type {frames.type[mfn]}, but serves as {kind} ({why})")

    for mfn in range(frames.frames):
        flags, kind = frames.flags[mfn], frames.type[mfn]
        if frames.owner[mfn] != 1:
            continue
        if flags & 2:
            refs[mfn] += 1
        if flags & 4:
            hold(mfn, 7, "shared by Xen")
        if flags & 1:
            hold(mfn, kind, "pinned")
            if not 1 <= kind <= 4:
                faults.append(f"frame {mfn:#x} is pinned as {kind}")
        if frames.type_count[mfn] and 1 <= kind <= 4:
            for slot in range(512):
                entry = words[mfn * 512 + slot]
                if not entry & 1 or (kind == 4 and 256 <= slot <= 271):
                    continue
                target = entry >> 12 & (1 << 40) - 1
                if target >= frames.frames or frames.owner[target] != 1:
                    faults.append(f"L{kind} frame {mfn:#x}[{slot}] maps {target:#x}, which is not the guest's")
                elif kind == 1:
                    hold(target, 7 if entry & 2 else 0, f"mapped by {mfn:#x}[{slot}]")
                else:
                    hold(target, kind - 1, f"table of {mfn:#x}[{slot}]")
    for root in (vcpu.kernel_root, vcpu.user_root):
        if root:
            hold(root, 4, "root")
    for mfn in (*vcpu.gdt_frames, *xen.ldt_frames.values()):
        hold(mfn, 5, "descriptors")
    extra = 0
    for mfn in range(frames.frames):
        if frames.owner[mfn] == 2:
            continue
        more = frames.refs[mfn] - refs[mfn], frames.type_count[mfn] - types[mfn]
        if more == (0, 0):
            continue
        # Xen itself holds pages that it writes to: vcpu_info, event words, the rings
        if more[0] == more[1] > 0 and frames.type[mfn] == 7:
            extra += 1
            continue
        faults.append(
            f"frame {mfn:#x} (owner {frames.owner[mfn]}, type {frames.type[mfn]}, flags {frames.flags[mfn]}): "
            f"refs {frames.refs[mfn]}, counted {refs[mfn]}; types {frames.type_count[mfn]}, counted {types[mfn]}"
        )
    if len(set(frames.free)) != len(frames.free) or any(frames.owner[mfn] for mfn in frames.free):
        faults.append("the list of free frames holds one twice, or one that is owned")
    return faults


# -- made from a seed


@dataclass
class Blobs:
    """Argument structures behind the table."""

    data: bytearray

    def add(self, content: bytes) -> int:
        """The virtual address that ``content`` gets."""
        if len(self.data) + len(content) + 8 > BLOBS_END - BLOBS:
            return CODE + BLOBS
        self.data += bytes(-len(self.data) % 8)
        at = CODE + BLOBS + len(self.data)
        self.data += content
        return at


Maker = Callable[["Caller"], bytes]


class Caller:
    """Random and half-valid hypercalls."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.blobs = Blobs(bytearray())

    def mfn(self) -> int:
        """A frame: a page table, free-for-all, a ring, Xen's, one that is not."""
        r = self.random
        return r.choice(
            [
                TABLES + r.randrange(N_TABLES), r.choice(SCRATCH), r.choice(SCRATCH), r.choice(SCRATCH),
                STORE, CONSOLE, START_INFO, 0x2001, 0x2000 + r.randrange(640), r.randrange(0x2000), 0,
                r.getrandbits(40), r.getrandbits(64), (1 << 40) - 1, MASK,
            ]
        )  # fmt: skip

    def pointer(self) -> int:
        """A guest address: good, crossing into nothing, null, non-canonical, Xen's, read-only, misaligned."""
        r = self.random
        return r.choice(
            [
                va(r.choice(SCRATCH)) + r.randrange(4096), va(SCRATCH[0]), CODE + ZERO, va(0x13FF) + 0xFFC,
                0, 1 << 47, (1 << 64) - 4, (1 << 63) | 5, 0xFFFF800000000000, 0xFFFF820000000000, 0xFFFF830000001000,
                0x7FFFFFFFF000, 0x12345678, va(TABLES + r.randrange(N_TABLES)) + 8 * r.randrange(512),
                va(CONSOLE), va(STORE), CODE + BLOBS + r.randrange(0x1000), r.getrandbits(64), MASK,
            ]
        )  # fmt: skip

    def number(self) -> int:
        """A count, a command or a value."""
        r = self.random
        return r.choice(
            [r.randrange(16), r.randrange(64), r.randrange(300), 1 << r.randrange(64), r.getrandbits(32),
             r.getrandbits(64), MASK, 0x7FF0, 0x80000000, 1 << 32, 0]
        )  # fmt: skip

    def word(self) -> int:
        """Any argument."""
        return self.random.choice([self.mfn, self.pointer, self.number, self.number])()

    def entry(self) -> int:
        """A page-table entry: a frame and flags, most often plausible ones."""
        r = self.random
        flags = r.choice([0x27, 0x67, 0x25, 0x63, 0x61, 0, 0x1, 0x3, r.getrandbits(12), r.getrandbits(12)])
        return self.mfn() << 12 & (1 << 52) - 1 | flags | r.choice([0, 0, 0, 1 << 63, r.getrandbits(12) << 52])

    def buffer(self) -> int:
        """The address of 64 random words, some of which mean something."""
        r = self.random
        if r.random() < 0.3:
            return self.pointer()
        size = r.choice([2, 4, 8])
        words = [self.word() & (1 << 8 * size) - 1 for _ in range(64 // size)]
        return self.blobs.add(b"".join(w.to_bytes(size, "little") for w in words))

    def count(self, usual: int) -> int:
        """How many entries a list has: right, most of the time."""
        return usual if self.random.random() < 0.8 else self.number()

    def call(self, nested: bool = False) -> tuple[int, ...]:
        """A hypercall's number and five arguments."""
        r = self.random
        made = r.choice(MAKERS)(self)
        if nested and made[0] == Hypercall.multicall and r.random() < 0.9:
            return self.call(nested)
        return tuple(word & MASK for word in (*made, *(self.word() for _ in range(6 - len(made)))))

    def frame(self) -> bytes:
        """What iret takes; nothing, so that a good one is used, most of the time."""
        r = self.random
        if r.random() < 0.7:
            return b""
        return struct.pack(
            "<9Q", self.word() & MASK, self.word() & MASK, self.word() & MASK, r.choice([0, 0x100, self.word()]) & MASK,
            self.pointer() & MASK, r.choice([CS & ~3, CS, SS, 0xE008, 0x10, 7, 3, r.getrandbits(16)]), r.getrandbits(22),
            self.pointer() & MASK, r.choice([CS, SS, 0, 3, r.getrandbits(16)]),
        )  # fmt: skip

    def table(self, n: int) -> list[bytes]:
        """``n`` rows for :func:`image`."""
        return [struct.pack("<6Q", *self.call()) for _ in range(n)]


def _mmu_update(c: Caller) -> tuple[int, ...]:
    n = c.random.randrange(1, 5)
    data = b"".join(
        struct.pack(
            "<QQ", (c.mfn() << 12 | 8 * c.random.randrange(512) | c.random.choice([0, 0, 1, 2, 3, 4])) & MASK, c.entry()
        )
        for _ in range(n)
    )
    domain = c.random.choice([abi.DOMID_SELF, abi.DOMID_SELF, abi.DOMID_SELF, c.number()])
    return Hypercall.mmu_update, c.blobs.add(data), c.count(n), c.random.choice([0, c.pointer()]), domain


def _mmuext(c: Caller) -> tuple[int, ...]:
    n = c.random.randrange(1, 4)
    data = b"".join(
        struct.pack("<IIQQ", c.random.choice([c.random.randrange(22), c.number() & 0xFFFFFFFF]), 0, c.word(), c.word())
        for _ in range(n)
    )
    return Hypercall.mmuext_op, c.blobs.add(data), c.count(n), c.random.choice([0, c.pointer()]), abi.DOMID_SELF


def _pin(c: Caller) -> tuple[int, ...]:
    data = struct.pack("<IIQQ", c.random.randrange(6), 0, c.random.choice(SCRATCH), 0)
    return Hypercall.mmuext_op, c.blobs.add(data), 1, 0, abi.DOMID_SELF


def _va_mapping(c: Caller) -> tuple[int, ...]:
    where = c.random.choice([va(c.random.choice(SCRATCH)), va(c.random.randrange(0x1400)), c.pointer()])
    return Hypercall.update_va_mapping, where, c.entry(), c.random.choice([0, 1, 2, 3, c.number()])


def _gdt(c: Caller) -> tuple[int, ...]:
    n = c.random.randrange(1, 15)
    frames = b"".join(struct.pack("<Q", c.mfn()) for _ in range(n))
    return Hypercall.set_gdt, c.blobs.add(frames), c.random.choice([n * 512, c.number()])


def _descriptor(c: Caller) -> tuple[int, ...]:
    r = c.random
    content = r.choice([r.getrandbits(64), 0x00AFFB000000FFFF, 0x0000E90000000000 | r.getrandbits(16), 0])
    return Hypercall.update_descriptor, c.mfn() << 12 | 8 * r.randrange(512) | r.choice([0, 0, 0, 3]), content


def _multicall(c: Caller) -> tuple[int, ...]:
    n = c.random.randrange(1, 6)
    data = b""
    for _ in range(n):
        number, *arguments = c.call(nested=True)
        data += struct.pack("<8Q", number, 0, *arguments, 0)
    return Hypercall.multicall, c.blobs.add(data), c.count(n)


def _iret(c: Caller) -> tuple[int, ...]:
    """The frame is what lies on the loop's stack."""
    return (Hypercall.iret,)


def _ring(page: int, at: int) -> Maker:
    def make(c: Caller) -> tuple[int, ...]:
        """Nonsense indexes, written by Xen itself: an event channel's answer, a time, a runstate."""
        return Hypercall.xen_version, 6, va(page) + at + 4 * c.random.randrange(4) - 4 * (at == 0)

    return make  # type: ignore[return-value]


def _family(number: int, commands: int) -> Maker:
    def make(c: Caller) -> tuple[int, ...]:
        command = c.random.choice([c.random.randrange(commands), c.random.randrange(commands), c.number()])
        return number, command, c.buffer(), c.random.choice([1, c.number()])

    return make  # type: ignore[return-value]


def _vcpu(c: Caller) -> tuple[int, ...]:
    command = c.random.choice([1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, c.number()])
    return Hypercall.vcpu_op, command, c.random.choice([0, 0, 0, c.number()]), c.buffer()


def _sched(c: Caller) -> tuple[int, ...]:
    return Hypercall.sched_op, c.random.choice([0, 0, 0, 1, 3, 3, 4, 5, 6, 7, 99]), c.buffer()


def _anything(c: Caller) -> tuple[int, ...]:
    number = c.random.choice([c.random.randrange(65), c.random.randrange(65), c.number()])
    return (_sched if number in (Hypercall.sched_op_compat, Hypercall.iret) else lambda c: (number,))(c)


MAKERS: list[Callable[[Caller], tuple[int, ...]]] = [
    _anything, _anything, _mmu_update, _mmu_update, _mmu_update, _mmuext, _mmuext, _pin, _pin, _va_mapping, _va_mapping,
    _gdt, _descriptor, _multicall, _iret, _vcpu, _sched,
    _family(Hypercall.event_channel_op, 14), _family(Hypercall.event_channel_op, 14),
    _family(Hypercall.grant_table_op, 13), _family(Hypercall.memory_op, 28), _family(Hypercall.physdev_op, 32),
    _family(Hypercall.callback_op, 4), _family(Hypercall.xen_version, 13), _family(Hypercall.vm_assist, 3),
    _family(Hypercall.set_debugreg, 9),
    lambda c: (Hypercall.event_channel_op_compat, c.buffer()),
    lambda c: (Hypercall.physdev_op_compat, c.buffer()),
    lambda c: (Hypercall.set_segment_base, c.random.randrange(5), c.word()),
]  # fmt: skip


class Coder:
    """Pieces of machine code that a kernel has no business to run in ring 3, and some that are none."""

    def __init__(self, seed: int) -> None:
        self.caller = Caller(seed)
        self.random = self.caller.random

    def piece(self) -> bytes:
        """Registers with half-valid values, then one to three instructions."""
        r = self.random
        loads = b"".join(mov(r.choice([RAX, RCX, RDX, RBX, RSI, RDI, R8]), self._value()) for _ in range(2))
        if r.random() < 0.01:
            loads = mov(RSP, self.caller.pointer())
        body = b"".join(self._instruction() for _ in range(r.randrange(1, 4)))
        return (loads + body)[: ROW - 5]

    def _value(self) -> int:
        r = self.random
        return r.choice([self.caller.word, lambda: r.choice(MSRS), lambda: r.randrange(16), self.caller.pointer])()

    def _instruction(self) -> bytes:
        r = self.random
        if r.random() < 0.15:
            return r.randbytes(r.randrange(1, 8))
        prefix = r.choice([b"", b"", b"", b"\x48", b"\x66", b"\xf3", b"\xf2", b"\xf0", b"\x41", b"\x49", b"\x67", b"\x64"])
        filler = {"?": lambda: r.randbytes(1), "r": lambda: bytes([0xC0 | r.randrange(64)])}
        text = r.choice(INSTRUCTIONS)
        parts = [filler[part]() if part in filler else bytes.fromhex(part) for part in text.split()]
        return prefix + b"".join(parts)


MSRS = (0xC0000080, 0xC0000081, 0xC0000082, 0xC0000100, 0xC0000101, 0xC0000102, 0x10, 0x1B, 0x174, 0x277, 0x400, 0xC0010015)
INSTRUCTIONS = """\
0f 20 r|0f 22 r|0f 21 r|0f 23 r|0f 22 d8|0f 32|0f 30|0f 31|0f 01 f9|0f 33|0f 06|0f 08|0f 09|fa|fb|f4|f1|cc|ce|cd ?
cd 80|cd 03|cd 04|cd 0e|cd 08|cd 02|0f 0b|0f ff|0f b9|0f 0b 78 65 6e 0f a2|0f a2|0f 05|0f 34|0f 35|0f 07|cf|cb|ca ? ?
e4 ?|e5 ?|e6 ?|e7 ?|ec|ed|ee|ef|6c|6d|6e|6f|f3 6c|f3 6d|f3 6e|f3 6f|f3 a4|f3 ab|f3 a6|f2 ae|f3 48 ab|f3 48 a5
8e r|8c r|0f 00 r|0f 01 r|0f 01 ?|0f 00 ?|8e ?|0f a1|0f a9|1f|07|17|9c|9d|c8 ? ? ?|c9|c2 ? ?|c3
ff ?|ff r|ff e0|ff d0|ff 28|ff 18|ff 2c 24|ff 1c 24|48 ff 28|ea ? ? ? ? ? ?|9a ? ? ? ? ? ?|eb ?|e9 ? ? 00 00|e8 ? ? ff ff
0f ae ?|0f ae r|0f c7 ?|0f c7 r|0f 01 d0|0f 01 d1|0f 01 d8|0f 01 c1|0f 01 ca|0f 01 cb|f3 0f ae r|f3 0f b8 r|c5 ? ? ?|c4 ? ? ? ?
50|58|54|5c|bc ? ? ? ?|c4 e2 ? ? ?|62 ? ? ? ? ?|8b ?|89 ?|88 ?|8a ?|a1 ? ? ? ? ? ? ? ?|f7 f0|f7 f9|0f c8|d9 ?|db ?|dd ?|df ?
""".replace("\n", "|").strip("|").split("|")  # fmt: skip
