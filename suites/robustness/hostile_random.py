"""Hypercalls and machine code for hostile guests, made from a seed: random, and half-valid, which goes deeper."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass

from hostile import (
    BLOBS,
    BLOBS_END,
    CODE,
    CONSOLE,
    CS,
    MASK,
    N_TABLES,
    R8,
    RAX,
    RBX,
    RCX,
    RDI,
    RDX,
    ROW,
    RSI,
    RSP,
    SCRATCH,
    SS,
    START_INFO,
    STORE,
    TABLES,
    ZERO,
    mov,
    va,
)

from stub.abi import xen as abi
from stub.abi.xen import Hypercall


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
            "<9Q",
            *(self.word() & MASK for _ in range(3)), r.choice([0, 0x100, self.word()]) & MASK, self.pointer() & MASK,
            r.choice([CS & ~3, CS, SS, 0xE008, 0x10, 7, 3, r.getrandbits(16)]), r.getrandbits(22),
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
    _family(Hypercall.event_channel_op, 15), _family(Hypercall.event_channel_op, 15),
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
        prefix = r.choice(
            [b"", b"", b"", b"\x48", b"\x66", b"\xf3", b"\xf2", b"\xf0", b"\x41", b"\x49", b"\x67", b"\x64"]
        )
        filler = {"?": lambda: r.randbytes(1), "r": lambda: bytes([0xC0 | r.randrange(64)])}
        text = r.choice(INSTRUCTIONS)
        parts = [filler[part]() if part in filler else bytes.fromhex(part) for part in text.split()]
        return prefix + b"".join(parts)


MSRS = (
    0xC0000080,
    0xC0000081,
    0xC0000082,
    0xC0000100,
    0xC0000101,
    0xC0000102,
    0x10,
    0x1B,
    0x174,
    0x277,
    0x400,
    0xC0010015,
)
INSTRUCTIONS = """\
0f 20 r|0f 22 r|0f 21 r|0f 23 r|0f 22 d8|0f 32|0f 30|0f 31|0f 01 f9|0f 33|0f 06|0f 08|0f 09|fa|fb|f4|f1|cc|ce|cd ?
cd 80|cd 03|cd 04|cd 0e|cd 08|cd 02|0f 0b|0f ff|0f b9|0f 0b 78 65 6e 0f a2|0f a2|0f 05|0f 34|0f 35|0f 07|cf|cb|ca ? ?
e4 ?|e5 ?|e6 ?|e7 ?|ec|ed|ee|ef|6c|6d|6e|6f|f3 6c|f3 6d|f3 6e|f3 6f|f3 a4|f3 ab|f3 a6|f2 ae|f3 48 ab|f3 48 a5
8e r|8c r|0f 00 r|0f 01 r|0f 01 ?|0f 00 ?|8e ?|0f a1|0f a9|1f|07|17|9c|9d|c8 ? ? ?|c9|c2 ? ?|c3
ff ?|ff r|ff e0|ff d0|ff 28|ff 18|ff 2c 24|ff 1c 24|48 ff 28|ea ? ? ? ? ? ?|9a ? ? ? ? ? ?
eb ?|e9 ? ? 00 00|e8 ? ? ff ff
0f ae ?|0f ae r|0f c7 ?
0f c7 r|0f 01 d0|0f 01 d1|0f 01 d8|0f 01 c1|0f 01 ca|0f 01 cb|f3 0f ae r|f3 0f b8 r|c5 ? ? ?|c4 ? ? ? ?
50|58|54|5c|bc ? ? ? ?|c4 e2 ? ? ?|62 ? ? ? ? ?
8b ?|89 ?|88 ?|8a ?|a1 ? ? ? ? ? ? ? ?|f7 f0|f7 f9|0f c8|d9 ?|db ?|dd ?|df ?
""".replace("\n", "|").strip("|").split("|")  # fmt: skip
