"""Our own log of the same boot, as events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stub.abi.sched import SCHEDOP_yield
from stub.abi.xen import Hypercall
from stub.domain.builder import LOW_FRAMES, shuffled
from stub.trace import records as log
from stub.trace.reader import LogReader
from suites.fidelity import events
from suites.fidelity.events import SHOWN, Event, Frames

UNSEEN = {Hypercall.multicall, Hypercall.console_io}
"""Hypercalls that the recorder does not show; the entries of a multicall it does."""
_YIELD = (Hypercall.sched_op, SCHEDOP_yield)
"""Neither does it show this."""


def frames(memory: int, seed: int) -> Frames:
    """The machine frames of a domain of ``memory`` MiB."""
    pages = memory << 8
    names = ["xen"] * (LOW_FRAMES + pages)
    for pfn, mfn in enumerate(shuffled(pages, seed)):
        names[int(mfn) + LOW_FRAMES] = f"p{pfn:x}"
    names[0] = "none"
    return lambda mfn: names[mfn] if mfn < len(names) else "xen"


def read(run: Path, names: Frames) -> list[Event]:
    """The events of a finished run, without what the recorder does not see."""
    with LogReader(run) as reader:
        return [event for record in (*reader.records(), *reader.finish()) for event in _made(record, names)]


def _made(record: log.Record, names: Frames) -> Iterator[Event]:
    maker = _MAKERS.get(type(record))
    if maker is not None:
        yield from maker(record, names)


def _hypercall(record: Any, names: Frames) -> Iterator[Event]:
    if record.number not in UNSEEN and (record.number, record.args[0]) != _YIELD:
        before, after = record.payload[:SHOWN], record.out[:SHOWN]
        yield events.hypercall(names, record.seq, record.number, record.args, record.result, before, after)


def _cpuid(record: Any, _: Frames) -> Iterator[Event]:
    if not record.forced:  # which the recorded machine executed without asking Xen
        return
    registers = (record.eax, record.ebx, record.ecx, record.edx)
    yield events.cpuid(record.seq, record.forced, record.leaf, record.subleaf, registers)


def _port(record: Any, _: Frames) -> Iterator[Event]:
    yield events.port(record.seq, record.write, record.port, record.size, record.value)


def _privileged(record: Any, _: Frames) -> Iterator[Event]:
    (ax, _bx, cx, dx), (out_ax, _out_bx, out_cx, out_dx) = record.before, record.after
    yield events.privileged(
        record.seq, record.insn, {"ax": ax, "cx": cx, "dx": dx}, {"ax": out_ax, "cx": out_cx, "dx": out_dx}
    )


def _exception(record: Any, _: Frames) -> Iterator[Event]:
    yield events.exception(record.seq, record.vector, record.error_code, record.cr2, record.rip, record.to_rip)


_MAKERS: dict[type[log.Record], Callable[[Any, Frames], Iterator[Event]]] = {
    log.HypercallRecord: _hypercall,
    log.CpuidRecord: _cpuid,
    log.PortIoRecord: _port,
    log.PrivilegedRecord: _privileged,
    log.ExceptionRecord: _exception,
}
