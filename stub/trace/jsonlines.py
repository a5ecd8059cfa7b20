"""Records as JSON lines: one object a record, with names that stay.

Every object has seq, time_ns, domain, vcpu, rip, kind and name. A hypercall adds nr, subops, args (by Xen's names, what
is behind a pointer in its place), out (what it wrote back, or null), result, error (its name, or null), nested and
note; an event adds what it is about. Addresses, frames and entries are strings in hexadecimal, see `stub.trace.styles`.
"""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any, Final

from stub.trace.decode import decode
from stub.trace.names import errno_name
from stub.trace.records import HypercallRecord, Record

_COMMON: Final = frozenset(field.name for field in fields(Record))
_DECIMAL: Final = frozenset({"vector", "size", "length", "offset", "memory_pages", "exit_status", "result"})


def line(record: Record) -> str:
    """One JSON object on one line, without its newline."""
    return json.dumps(as_object(record), separators=(", ", ": "))


def as_object(record: Record) -> dict[str, Any]:
    """What `line` writes, as Python values."""
    common: dict[str, Any] = {
        "seq": record.seq,
        "time_ns": record.time_ns,
        "domain": record.domain,
        "vcpu": record.vcpu,
        "rip": hex(record.rip),
        "console_offset": record.console_offset,
    }
    if isinstance(record, HypercallRecord):
        return common | _hypercall(record)
    return common | _event(record)


def _hypercall(record: HypercallRecord) -> dict[str, Any]:
    decoded = decode(record)
    return {
        "kind": "hypercall",
        "name": record.name,
        "nr": record.number,
        "subops": list(record.subops),
        "args": decoded.data,
        "out": decoded.out,
        "result": record.result,
        "error": errno_name(record.result) if record.failed else None,
        "nested": record.nested,
        "note": record.note,
    }


def _event(record: Record) -> dict[str, Any]:
    own = {field.name: _value(field.name, getattr(record, field.name)) for field in fields(record)}
    members = {name: value for name, value in own.items() if name not in _COMMON}
    return {"kind": record.name, "name": record.subop or record.name, **members}


def _value(name: str, value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [hex(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and name not in _DECIMAL:
        return hex(value)
    return value
