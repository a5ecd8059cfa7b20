"""Records as lines to read, in strace's manner: ``[   0.123456789] d1v0 stack_switch(0xe02b, 0x...) = 0``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from stub.trace.decode import decode
from stub.trace.names import errno_name
from stub.trace.records import (
    ConsoleRecord,
    CpuidRecord,
    EndRecord,
    ExceptionRecord,
    HypercallRecord,
    NoteRecord,
    PageTableWriteRecord,
    PortIoRecord,
    PrivilegedRecord,
    Record,
    StartRecord,
    UpcallRecord,
)
from stub.trace.styles import quote

NS_PER_S: Final = 1_000_000_000
NESTED_INDENT: Final = "    "
_REGISTERS: Final = ("rax", "rbx", "rcx", "rdx")


def line(record: Record) -> str:
    """One line, without its newline; the entries of a multicall are indented below it."""
    return f"{stamp(record.time_ns)} d{record.domain}v{record.vcpu} {_TEXTS[type(record)](record)}"


def stamp(time_ns: int) -> str:
    """A virtual time as each line begins with it."""
    seconds, ns = divmod(time_ns, NS_PER_S)
    return f"[{seconds:4}.{ns:09}]"


def _hypercall(record: HypercallRecord) -> str:
    decoded = decode(record)
    indent = NESTED_INDENT if record.nested else ""
    remark = f"  # {_one_line(record.note)}" if record.note is not None else ""
    return f"{indent}{record.name}({decoded.text}) = {decoded.result}{remark}"


def _mode(user: bool) -> str:
    return "user" if user else "kernel"


def _exception(record: ExceptionRecord) -> str:
    code = "" if record.error_code is None else f"error_code={record.error_code:#x}"
    address = f"cr2={record.cr2:#x}" if record.vector == 14 else ""
    details = ", ".join(part for part in (code, address) if part)
    return f"--- {record.subop}({details}) {_transfer(record.user, record.rip, record.rsp, record.to_rip)} ---"


def _upcall(record: UpcallRecord) -> str:
    return f"--- event upcall {_transfer(record.user, record.rip, record.rsp, record.to_rip)} ---"


def _transfer(user: bool, rip: int, rsp: int, to_rip: int) -> str:
    return f"at {_mode(user)} {rip:#x} sp {rsp:#x} -> {to_rip:#x}"


def _cpuid(record: CpuidRecord) -> str:
    answer = " ".join(
        f"{name}={value:#x}"
        for name, value in zip(("a", "b", "c", "d"), (record.eax, record.ebx, record.ecx, record.edx), strict=True)
    )
    how = "forced" if record.forced else "trapped"
    return f"cpuid(leaf={record.leaf:#x}, subleaf={record.subleaf:#x}) = {answer} ({how} at {record.rip:#x})"


def _privileged(record: PrivilegedRecord) -> str:
    before = ", ".join(f"{name}={value:#x}" for name, value in zip(_REGISTERS, record.before, strict=True))
    changed = [
        f"{name}={new:#x}" for name, old, new in zip(_REGISTERS, record.before, record.after, strict=True) if old != new
    ]
    answer = " = " + " ".join(changed) if changed else ""
    return f"{record.subop}({before}){answer} ({record.insn.hex(' ')} at {record.rip:#x})"


def _port_io(record: PortIoRecord) -> str:
    place = f"port={record.port:#x}, size={record.size}"
    if record.write:
        return f"out({place}, value={record.value:#x})"
    return f"in({place}) = {record.value:#x}"


def _page_table_write(record: PageTableWriteRecord) -> str:
    name = errno_name(record.result)
    result = f"-{name} ({record.result})" if name else str(record.result)
    return (
        f"page table write({record.vaddr:#x}, maddr={record.maddr:#x}, value={record.value:#x}, size={record.size})"
        f" at {record.rip:#x} = {result}"
    )


def _console(record: ConsoleRecord) -> str:
    return f"console output: bytes {record.offset} to {record.offset + record.length}"


def _note(record: NoteRecord) -> str:
    return f"# {_one_line(record.text)}"


def _start(record: StartRecord) -> str:
    return f"domain starts at {record.rip:#x} sp {record.rsp:#x} with {record.memory_pages} pages"


def _end(record: EndRecord) -> str:
    reason = f": {_one_line(record.reason)}" if record.reason else ""
    return f"domain ends: {_one_line(record.verdict)}{reason} (exit status {record.exit_status})"


def _one_line(text: str) -> str:
    """Text that came through a file: whatever is in it, one line and no terminal's control codes."""
    return quote(text)[1:-1].replace('\\"', '"')


_TEXTS: Final[Mapping[type[Record], Callable[[Any], str]]] = {
    HypercallRecord: _hypercall,
    ExceptionRecord: _exception,
    UpcallRecord: _upcall,
    CpuidRecord: _cpuid,
    PrivilegedRecord: _privileged,
    PortIoRecord: _port_io,
    PageTableWriteRecord: _page_table_write,
    ConsoleRecord: _console,
    NoteRecord: _note,
    StartRecord: _start,
    EndRecord: _end,
}
