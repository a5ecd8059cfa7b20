"""A log's records as events that two boots can be compared by: what was asked, where, and what was answered.

``asked`` is what means the same in two boots: the call, its sub-operation, flags, counts. ``where`` are frames and
addresses, in the words of ``places``. ``answer`` is what the hypervisor made of it. Times are left out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from harness.diff.places import Places, Word
from stub.abi import xen
from stub.abi.event_channel import EVTCHNOP_send
from stub.abi.layout import Struct
from stub.abi.sched import SCHEDOP_block, SCHEDOP_yield
from stub.abi.vcpu import VCPUOP_set_singleshot_timer
from stub.abi.version import XENVER_version
from stub.abi.xen import Hypercall
from stub.trace import records as log
from stub.trace.names import errno_name
from stub.trace.rows import Arg, Call, Flow, Pointed
from stub.trace.schema import CALLS
from stub.trace.styles import pointer

REQUEST: Final = struct.Struct("<QQ")
PRESENT: Final = 1
FRAME_BITS: Final = 0x000F_FFFF_FFFF_F000

_SCHEDULED_CALLS: Final = frozenset({
    Hypercall.iret, Hypercall.multicall, Hypercall.stack_switch, Hypercall.set_segment_base, Hypercall.set_timer_op,
    Hypercall.fpu_taskswitch,
})  # fmt: skip
_SCHEDULED_COMMANDS: Final = frozenset({
    (Hypercall.sched_op, SCHEDOP_block), (Hypercall.sched_op, SCHEDOP_yield),
    (Hypercall.vcpu_op, VCPUOP_set_singleshot_timer), (Hypercall.xen_version, XENVER_version),
    (Hypercall.event_channel_op, EVTCHNOP_send),
})  # fmt: skip
MAYBE_SCHEDULED: Final = _SCHEDULED_CALLS | {number for number, _ in _SCHEDULED_COMMANDS}
"""Hypercalls that are looked at by `scheduled`; no other follows the schedule."""
_SWAPGS_BASE: Final = 0xC000_0102
"""MSR_KERNEL_GS_BASE, which Linux reads as it switches threads."""


class Event(NamedTuple):
    """One thing that happened, in words."""

    asked: tuple[str, ...]
    where: tuple[Word, ...]
    answer: tuple[str, ...]

    def key(self, exact: bool) -> tuple[tuple[str, ...], ...]:
        """What has to be equal in two boots."""
        return self.asked, tuple(word.exact if exact else word.rough for word in self.where), self.answer

    def __str__(self) -> str:
        where = f" [{', '.join(word.exact for word in self.where)}]" if self.where else ""
        return " ".join(self.asked) + where + (f" = {' '.join(self.answer)}" if self.answer else "")


def scheduled(record: log.Record) -> bool:
    """Whether it follows the schedule (timer ticks, turns of threads, console output), which other boots have
    elsewhere. A multicall counts by its entries."""
    if isinstance(record, log.HypercallRecord):
        return record.number in _SCHEDULED_CALLS or (record.number, record.args[0]) in _SCHEDULED_COMMANDS
    if isinstance(record, log.PrivilegedRecord):
        return record.subop == "rdmsr" and record.before[2] & 0xFFFF_FFFF == _SWAPGS_BASE
    return isinstance(record, log.UpcallRecord | log.ConsoleRecord | log.NoteRecord)


def event(record: log.Record, places: Places) -> Event:
    """The event that a record stands for."""
    words = _Words(places)
    _MAKERS[type(record)](record, words)
    return Event(tuple(words.asked), tuple(words.where), tuple(words.answer))


class _Words:
    """An event's words, as they are found in its record."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.asked: list[str] = []
        self.where: list[Word] = []
        self.answer: list[str] = []

    def number(self, name: str, value: int) -> None:
        """An argument or a structure's member, by what its name says it is."""
        take = _MEANINGS.get(name)
        if take is None:
            self.asked.append(f"{name}={value:#x}")
        else:
            take(self, value)

    def address(self, *values: int) -> None:
        self.where += map(self.places.address, values)

    def frame(self, value: int) -> None:
        self.where.append(self.places.frame(value))

    def machine(self, value: int) -> None:
        self.where.append(self.places.machine(value))

    def entry(self, value: int) -> None:
        """A page-table entry: its flags are asked, its frame is a place."""
        if value & PRESENT:
            self.asked.append(f"flags={value & ~FRAME_BITS:#x}")
            self.frame((value & FRAME_BITS) >> 12)
        else:
            self.asked.append(f"entry={value:#x}")

    def time(self, value: int) -> None:
        """Left out: other boots have others."""


_MEANINGS: Final[Mapping[str, Callable[[_Words, int], None]]] = {
    name: take
    for take, names in (
        (_Words.entry, "pte"),
        (_Words.frame, "mfn gmfn control_gfn array_gfn source_gmfn dest_gmfn gpfn"),
        (_Words.machine, "maddr"),
        (_Words.address,
         "va sp base event failsafe syscall addr address address_eip event_eip failsafe_eip buffer frame_list errs"
         " extent_start handler_address ports bitmap virt_start v_start v_end gpfns idxs"),
        (_Words.time, "timeout_abs_ns timeout timeout_lo timeout_hi state_entry_time time period_ns"),
    )
    for name in names.split()
}  # fmt: skip


# -- hypercalls ------------------------------------------------------------------------------------------------------


def _hypercall(record: Any, words: _Words) -> None:
    row = CALLS.get(record.number, _UNKNOWN)
    if row.command is None:
        words.asked.append(record.name)
    else:
        command = record.args[row.command] & row.mask
        words.asked.append(f"{record.name}:{row.commands.get(command, command)}")
    if record.number != Hypercall.iret:  # whose result is the rax that it restores
        words.answer.append(f"-{errno_name(record.result)}" if record.failed else f"{record.result:#x}")
    special = _SPECIAL.get(record.number)
    if special is not None:
        special(record, words)
        return
    pointed = row.points_to(record.args)
    for index, (arg, value) in enumerate(zip(row.arguments(record.bits), record.args, strict=False)):
        if index == row.command:
            continue
        if arg.style is pointer or (pointed is not None and pointed.arg == index):
            words.address(value)
        else:
            words.number(arg.name, value)
    if pointed is not None:
        _structures(pointed, record, words)


_UNKNOWN: Final = Call(-1, tuple(Arg(f"a{number}") for number in range(1, 6)))


def _structures(pointed: Pointed, record: Any, words: _Words) -> None:
    layout = pointed.layout(record.bits)
    if pointed.text:
        words.asked.append(record.payload.decode(errors="backslashreplace"))
        return
    if Flow.IN in pointed.flow:
        whole = len(record.payload) // layout.size
        for index in range(whole if pointed.count is not None else min(whole, 1)):
            for name, value in _members(layout, record.payload, index * layout.size):
                words.number(name, value)
    if Flow.OUT in pointed.flow:
        told = _Words(words.places)
        for name, value in _members(layout, record.out, 0):
            told.number(name, value)
        words.answer += told.asked  # what it was told of places is Xen's to choose


def _members(layout: Struct, data: bytes, base: int) -> list[tuple[str, int]]:
    """The structure's members as unsigned numbers, those that are whole in ``data``."""
    found = []
    for name, place in layout.fields.items():
        part = data[base + place.offset : base + place.offset + place.size]
        if len(part) == place.size:
            is_frame = layout.name in ("Word64", "Word32")  # set_gdt's list of frames
            found.append(("mfn" if is_frame else name, int.from_bytes(part, "little")))
    return found


def _mmu_update(record: Any, words: _Words) -> None:
    words.asked += [f"count={record.args[1]}", f"foreigndom={record.args[3]:#x}"]
    for address, value in REQUEST.iter_unpack(record.payload[: len(record.payload) & ~15]):
        command = address & 7
        words.asked.append(xen.MMU_UPDATES.get(command, str(command)))
        words.machine(address & ~7)
        if command == xen.MMU_MACHPHYS_UPDATE:
            words.where.append(Word(f"pfn {value:#x}", "the guest's frame"))
        else:
            words.entry(value)


TAKES_FRAME: Final = frozenset({
    xen.MMUEXT_PIN_L1_TABLE, xen.MMUEXT_PIN_L2_TABLE, xen.MMUEXT_PIN_L3_TABLE, xen.MMUEXT_PIN_L4_TABLE,
    xen.MMUEXT_UNPIN_TABLE, xen.MMUEXT_NEW_BASEPTR, xen.MMUEXT_NEW_USER_BASEPTR, xen.MMUEXT_CLEAR_PAGE,
    xen.MMUEXT_COPY_PAGE,
})  # fmt: skip
_TAKES_ADDRESS: Final = frozenset({
    xen.MMUEXT_INVLPG_LOCAL, xen.MMUEXT_INVLPG_MULTI, xen.MMUEXT_INVLPG_ALL, xen.MMUEXT_SET_LDT,
})  # fmt: skip


def _mmuext_op(record: Any, words: _Words) -> None:
    words.asked += [f"count={record.args[1]}", f"foreigndom={record.args[3]:#x}"]
    layout = xen.MmuextOp32 if record.bits == 32 else xen.MmuextOp64
    for operation in layout.unpack_array(record.payload, len(record.payload) // layout.size):
        words.asked.append(xen.MMUEXT_OPS.get(operation.cmd, str(operation.cmd)))
        if operation.cmd in TAKES_FRAME:
            words.frame(operation.arg1)
        elif operation.cmd in _TAKES_ADDRESS:
            words.address(operation.arg1)
        if operation.cmd == xen.MMUEXT_SET_LDT:
            words.asked.append(f"entries={operation.arg2 & 0xFFFF_FFFF}")


def _update_va_mapping(record: Any, words: _Words) -> None:
    wide = record.bits == 64
    value, flags = record.args[1], record.args[2] if wide else record.args[3]
    words.address(record.args[0])
    words.entry(value if wide else value & 0xFFFF_FFFF | record.args[2] << 32)
    words.asked.append(f"flush={flags & 3}")  # above it, a pointer or bits of vCPUs


def _iret(record: Any, words: _Words) -> None:
    """Nothing but the call: what it returns to is the schedule's."""


_SPECIAL: Final[Mapping[int, Callable[[Any, _Words], None]]] = {
    Hypercall.mmu_update: _mmu_update,
    Hypercall.mmuext_op: _mmuext_op,
    Hypercall.update_va_mapping: _update_va_mapping,
    Hypercall.update_va_mapping_otherdomain: _update_va_mapping,
    Hypercall.iret: _iret,
}


# -- what is no hypercall ----------------------------------------------------------------------------------------------


def _exception(record: Any, words: _Words) -> None:
    code = "" if record.error_code is None else f"error_code={record.error_code:#x}"
    words.asked += ["exception", record.subop, code, "user" if record.user else "kernel"]
    words.address(record.rip, record.to_rip)
    if record.vector == 14:
        words.address(record.cr2)


def _upcall(record: Any, words: _Words) -> None:
    words.asked.append("event upcall")
    words.address(record.to_rip)


def _cpuid(record: Any, words: _Words) -> None:
    words.asked += ["cpuid", f"leaf={record.leaf:#x}", f"subleaf={record.subleaf:#x}"]
    words.answer += [f"{value:#x}" for value in (record.eax, record.ebx, record.ecx, record.edx)]


def _privileged(record: Any, words: _Words) -> None:
    words.asked.append(record.subop)
    if record.subop in ("rdmsr", "wrmsr"):
        words.asked.append(f"msr={record.before[2] & 0xFFFF_FFFF:#x}")
    words.address(record.rip)


def _port_io(record: Any, words: _Words) -> None:
    words.asked += ["out" if record.write else "in", f"port={record.port:#x}", f"size={record.size}"]
    (words.asked if record.write else words.answer).append(f"{record.value & (1 << 8 * record.size) - 1:#x}")


def _page_table_write(record: Any, words: _Words) -> None:
    words.asked += ["page table write", f"size={record.size}"]
    words.address(record.rip)
    words.machine(record.maddr)
    words.entry(record.value)
    failed = record.result < 0
    words.answer.append(f"-{errno_name(record.result) or -record.result}" if failed else f"{record.result:#x}")


def _console(record: Any, words: _Words) -> None:
    words.asked += ["console output", f"offset={record.offset}", f"length={record.length}"]


def _note(record: Any, words: _Words) -> None:
    words.asked.append("note")  # its text has frames and addresses in it


def _start(record: Any, words: _Words) -> None:
    words.asked += ["domain starts", f"pages={record.memory_pages}"]
    words.address(record.rip)


def _end(record: Any, words: _Words) -> None:
    words.asked += ["domain ends", record.verdict, f"exit_status={record.exit_status}"]


_MAKERS: Final[Mapping[type[log.Record], Callable[[Any, _Words], None]]] = {
    log.HypercallRecord: _hypercall,
    log.ExceptionRecord: _exception,
    log.UpcallRecord: _upcall,
    log.CpuidRecord: _cpuid,
    log.PrivilegedRecord: _privileged,
    log.PortIoRecord: _port_io,
    log.PageTableWriteRecord: _page_table_write,
    log.ConsoleRecord: _console,
    log.NoteRecord: _note,
    log.StartRecord: _start,
    log.EndRecord: _end,
}
