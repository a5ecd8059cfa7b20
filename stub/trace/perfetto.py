"""Records as a trace that https://ui.perfetto.dev and chrome://tracing open: the trace event format, JSON.

A track a vCPU: hypercalls and other events are instants on it, because a hypercall takes no virtual time; the time
between a block and whatever comes next is a slice. The console's length is a counter.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final, TextIO

from stub.trace import text
from stub.trace.records import ConsoleRecord, HypercallRecord, Record

NS_PER_US: Final = 1000
_BLOCKS: Final = frozenset({"SCHEDOP_block", "SCHEDOP_poll"})


def write(records: Iterable[Record], out: TextIO) -> None:
    """Write the whole trace, one event a line."""
    out.write('{"displayTimeUnit": "ns", "traceEvents": [\n')
    separator = ""
    for event in events(records):
        out.write(separator + json.dumps(event))
        separator = ",\n"
    out.write("\n]}\n")


def events(records: Iterable[Record]) -> Iterator[dict[str, Any]]:
    """The trace's events, in the records' order; a slice comes when it ends."""
    blocked: dict[int, Record] = {}
    named: set[int] = set()
    for record in records:
        track = {"pid": record.domain, "tid": record.vcpu}
        if record.vcpu not in named:
            named.add(record.vcpu)
            yield {"ph": "M", "name": "process_name", **track, "args": {"name": f"domain {record.domain}"}}
            yield {"ph": "M", "name": "thread_name", **track, "args": {"name": f"vCPU {record.vcpu}"}}
        since = blocked.pop(record.vcpu, None)
        if since is not None:
            duration = record.time_ns - since.time_ns
            yield {"ph": "X", "name": "blocked", **_at(since), "dur": duration / NS_PER_US, **track}
        if isinstance(record, ConsoleRecord):
            yield {"ph": "C", "name": "console bytes", **_at(record), **track, "args": {"bytes": record.console_offset}}
            continue
        yield {"ph": "i", "s": "t", **_named(record), **_at(record), **track}
        if isinstance(record, HypercallRecord) and not record.failed and not _BLOCKS.isdisjoint(record.subops):
            blocked[record.vcpu] = record


def _named(record: Record) -> dict[str, Any]:
    name = record.name if isinstance(record, HypercallRecord) else record.subop or record.name
    category = "hypercall" if isinstance(record, HypercallRecord) else record.name
    return {"name": name, "cat": category, "args": {"seq": record.seq, "text": text.line(record)}}


def _at(record: Record) -> dict[str, Any]:
    return {"ts": record.time_ns / NS_PER_US}
