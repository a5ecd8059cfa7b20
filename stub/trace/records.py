"""What a reader yields: one frozen dataclass a kind of event, made from a raw record by the table at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

from stub.abi.xen import MMU_UPDATES, MMUEXT_OPS, Hypercall, MmuextOp32, MmuextOp64, MmuUpdate
from stub.trace.format import NESTED, WIDE, Kind
from stub.trace.insn import mnemonic
from stub.trace.names import errno_name, exception_name, hypercall_name
from stub.trace.schema import CALLS


class Raw(NamedTuple):
    """A record as it lies in the file; ``note``: the text of the one before it that belongs to it."""

    kind: Kind
    vcpu: int
    code: int
    time_ns: int
    rip: int
    words: tuple[int, ...]
    payload: bytes
    out: bytes
    note: str | None = None


@dataclass(frozen=True)
class Record:
    """An event: ``seq`` counts records from 0 as they are read; ``time_ns`` is virtual; ``rip`` is where the guest was.

    ``console_offset``: bytes that the guest had written to its console by then, where the log says so.
    """

    seq: int
    time_ns: int
    vcpu: int
    rip: int
    domain: int
    bits: int
    console_offset: int

    @property
    def name(self) -> str:
        """What kind of event, as `pvstub trace --filter` calls it; a hypercall's own name."""
        return EVENT_NAMES[type(self)]

    @property
    def subops(self) -> tuple[str, ...]:
        """What tells events of one name apart: sub-operations, a vector's name, an instruction's mnemonic."""
        return ()

    @property
    def subop(self) -> str | None:
        """The first of `subops`."""
        return next(iter(self.subops), None)


@dataclass(frozen=True)
class HypercallRecord(Record):
    """A hypercall: ``args`` five registers, ``result`` signed, ``payload`` its argument structures before the call and
    ``out`` after it (raw, empty where there are none). ``nested``: an entry of the multicall that came before it;
    ``note``: why it was refused, where the hypervisor said so."""

    number: int
    args: tuple[int, ...]
    result: int
    payload: bytes
    out: bytes
    nested: bool
    note: str | None = None

    @property
    def name(self) -> str:
        return hypercall_name(self.number)

    @property
    def failed(self) -> bool:
        """Whether the result is a negated error number."""
        return self.number != Hypercall.get_debugreg and errno_name(self.result) is not None

    @cached_property
    def subops(self) -> tuple[str, ...]:
        """Sub-operations by Xen's names: the command's, or each entry's of mmu_update and mmuext_op."""
        row = CALLS.get(self.number)
        if row is None:
            return ()
        if row.command is not None:
            command = self.args[row.command] & row.mask
            return (row.commands.get(command, str(command)),)
        batch = _BATCHES.get(self.number)
        return batch(self.payload, self.bits) if batch else ()


@dataclass(frozen=True)
class ExceptionRecord(Record):
    """An exception handed to the guest's handler at ``to_rip``; ``rip`` and ``rsp``: before, in user mode or kernel."""

    vector: int
    error_code: int | None
    cr2: int
    rsp: int
    to_rip: int
    user: bool

    @property
    def subops(self) -> tuple[str, ...]:
        return (exception_name(self.vector),)


@dataclass(frozen=True)
class UpcallRecord(Record):
    """An event upcall delivered to the guest's callback at ``to_rip``."""

    rsp: int
    to_rip: int
    user: bool


@dataclass(frozen=True)
class CpuidRecord(Record):
    """A ``cpuid`` answered; ``forced``: by the forced-emulation prefix."""

    forced: bool
    leaf: int
    subleaf: int
    eax: int
    ebx: int
    ecx: int
    edx: int


@dataclass(frozen=True)
class PrivilegedRecord(Record):
    """A privileged instruction emulated; ``before`` and ``after``: rax, rbx, rcx, rdx."""

    insn: bytes
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def subops(self) -> tuple[str, ...]:
        return (mnemonic(self.insn),)


@dataclass(frozen=True)
class PortIoRecord(Record):
    """An ``in`` or ``out`` (``write``) of ``size`` bytes."""

    write: bool
    port: int
    size: int
    value: int

    @property
    def subops(self) -> tuple[str, ...]:
        return ("out" if self.write else "in",)


@dataclass(frozen=True)
class PageTableWriteRecord(Record):
    """A direct write to a page table, emulated; ``result`` as of the mmu_update that it amounts to."""

    vaddr: int
    maddr: int
    value: int
    size: int
    result: int


@dataclass(frozen=True)
class ConsoleRecord(Record):
    """``length`` bytes of console output taken from the ring, ``offset`` bytes into the whole."""

    offset: int
    length: int


@dataclass(frozen=True)
class NoteRecord(Record):
    """A remark of the hypervisor's that belongs to no hypercall."""

    text: str


@dataclass(frozen=True)
class StartRecord(Record):
    """The domain starts."""

    rsp: int
    memory_pages: int


@dataclass(frozen=True)
class EndRecord(Record):
    """The verdict."""

    verdict: str
    reason: str
    exit_status: int


EVENT_NAMES: Final[Mapping[type[Record], str]] = {
    ExceptionRecord: "exception",
    UpcallRecord: "upcall",
    CpuidRecord: "cpuid",
    PrivilegedRecord: "privileged",
    PortIoRecord: "port_io",
    PageTableWriteRecord: "page_table_write",
    ConsoleRecord: "console",
    NoteRecord: "note",
    StartRecord: "start",
    EndRecord: "end",
}

Common = tuple[int, int, int, int, int, int, int]
"""The values of `Record`'s own fields."""


def _hypercall(common: Common, raw: Raw) -> Record:
    number = raw.words[6] if raw.kind in WIDE else raw.code
    nested = raw.kind in NESTED
    return HypercallRecord(*common, number, raw.words[:5], raw.words[5], raw.payload, raw.out, nested, raw.note)


def _exception(common: Common, raw: Raw) -> Record:
    error_code, cr2, rsp, to_rip, user = raw.words
    return ExceptionRecord(*common, raw.code, None if error_code < 0 else error_code, cr2, rsp, to_rip, bool(user))


def _cpuid(common: Common, raw: Raw) -> Record:
    halves = [half for word in raw.words for half in (word & 0xFFFF_FFFF, word >> 32)]
    return CpuidRecord(*common, bool(raw.code), *halves)


def _text(data: bytes) -> str:
    return data.decode(errors="backslashreplace")


_MAKERS: Final[Mapping[Kind, Callable[[Common, Raw], Record]]] = {
    Kind.HYPERCALL: _hypercall,
    Kind.NESTED: _hypercall,
    Kind.WIDE: _hypercall,
    Kind.NESTED_WIDE: _hypercall,
    Kind.EXCEPTION: _exception,
    Kind.UPCALL: lambda common, raw: UpcallRecord(*common, raw.words[0], raw.words[1], bool(raw.words[2])),
    Kind.CPUID: _cpuid,
    Kind.PRIVILEGED: lambda common, raw: PrivilegedRecord(*common, raw.payload, raw.words[:4], raw.words[4:]),
    Kind.PORT_IO: lambda common, raw: PortIoRecord(*common, bool(raw.code), *raw.words),
    Kind.PT_WRITE: lambda common, raw: PageTableWriteRecord(*common, *raw.words),
    Kind.CONSOLE: lambda common, raw: ConsoleRecord(*common, *raw.words),
    Kind.NOTE: lambda common, raw: NoteRecord(*common, _text(raw.payload)),
    Kind.START: lambda common, raw: StartRecord(*common, *raw.words),
    Kind.END: lambda common, raw: EndRecord(*common, _text(raw.payload), _text(raw.out), raw.code),
}


def make(raw: Raw, *, seq: int, domain: int, bits: int, console_offset: int) -> Record:
    """The record that ``raw`` stands for."""
    common = (seq, raw.time_ns, raw.vcpu, raw.rip, domain, bits, console_offset)
    return _MAKERS[raw.kind](common, raw)


def _mmu_updates(payload: bytes, bits: int) -> tuple[str, ...]:
    requests = MmuUpdate.unpack_array(payload, len(payload) // MmuUpdate.size)
    return tuple(MMU_UPDATES.get(request.ptr & 7, str(request.ptr & 7)) for request in requests)


def _mmuext_ops(payload: bytes, bits: int) -> tuple[str, ...]:
    layout = MmuextOp32 if bits == 32 else MmuextOp64
    operations = layout.unpack_array(payload, len(payload) // layout.size)
    return tuple(MMUEXT_OPS.get(operation.cmd, str(operation.cmd)) for operation in operations)


_BATCHES: Final[Mapping[int, Callable[[bytes, int], tuple[str, ...]]]] = {
    Hypercall.mmu_update: _mmu_updates,
    Hypercall.mmuext_op: _mmuext_ops,
}
"""The calls whose sub-operations are in their entries."""
