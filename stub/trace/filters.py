"""The filter language of ``pvstub trace --filter``: terms apart by spaces all hold, choices apart by commas one does.

NAME            a hypercall or a kind of event (exception, upcall, cpuid, privileged, port_io, page_table_write,
                console, note, start, end), or ``hypercall`` for all of those; with * and ? as in file names
NAME:SUBOP      ... of that sub-operation, vector or mnemonic: event_channel_op:send, exception:#PF, privileged:wrmsr
error           hypercalls answered with an error number
rc<0  rc=-EPERM  time>=1.5s  time=10ms..20ms  seq=100..200  vcpu=0  rip=0xffffffff81000000
!TERM           not so
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Final

from stub.abi import errno
from stub.abi.xen import Hypercall
from stub.errors import UsageError
from stub.trace.names import HYPERCALL_NAMES
from stub.trace.records import EVENT_NAMES, HypercallRecord, PageTableWriteRecord, Record
from stub.trace.schema import CALLS

Predicate = Callable[[Record], bool]
Field = Callable[[Record], int | None]

ALL_HYPERCALLS: Final = "hypercall"
NAMES: Final = frozenset(HYPERCALL_NAMES.values()) | frozenset(EVENT_NAMES.values()) | {ALL_HYPERCALLS}

_COMPARISON: Final = re.compile(r"(?P<field>[a-z]+)(?P<operator><=|>=|!=|<|>|=)(?P<value>.+)")
_OPERATORS: Final[Mapping[str, Callable[[int, int], bool]]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_UNITS: Final = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1, "": 1_000_000_000}
_TIME: Final = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>s|ms|us|ns|)")


def compile_filter(expression: str) -> Predicate:
    """The predicate that ``expression`` means. ``UsageError`` names the part that means nothing."""
    terms = [_term(term) for term in expression.split()]
    if not terms:
        raise UsageError("--filter: empty; give a hypercall's name, name:sub-operation, error, rc<0 or time=1s..2s")
    return lambda record: all(term(record) for term in terms)


def _term(term: str) -> Predicate:
    wanted = not term.startswith("!")
    choices = [_choice(choice) for choice in term.removeprefix("!").split(",")]
    return lambda record: any(choice(record) for choice in choices) is wanted


def _choice(choice: str) -> Predicate:
    if choice == "error":
        return lambda record: isinstance(record, HypercallRecord) and record.failed
    comparison = _COMPARISON.fullmatch(choice)
    if comparison is not None:
        return _compare(choice, **comparison.groupdict())
    name, colon, subop = choice.partition(":")
    if not name or (colon and not subop):
        raise _fault(choice, "name what to show, as in mmu_update or event_channel_op:send")
    return _named(choice, name, subop)


def _named(choice: str, name: str, subop: str) -> Predicate:
    if not any(fnmatchcase(known, name) for known in NAMES) and not name.startswith("hypercall_"):
        raise _fault(choice, _closest(name, NAMES))
    number = Hypercall.__members__.get(name)
    row = CALLS.get(number) if number is not None else None
    known = row.commands.values() if row is not None else ()
    if subop and known and not any(_is_subop(op, subop) for op in known):
        raise _fault(choice, _closest(subop, [*known, *(op.partition("_")[2] for op in known)]))

    def predicate(record: Record) -> bool:
        found = isinstance(record, HypercallRecord) if name == ALL_HYPERCALLS else fnmatchcase(record.name, name)
        return found and (not subop or any(_is_subop(op, subop) for op in record.subops))

    return predicate


def _is_subop(name: str, pattern: str) -> bool:
    """Whether ``pattern`` means the sub-operation: its whole name, or without the family's prefix."""
    folded, wanted = name.casefold(), pattern.casefold()
    return any(fnmatchcase(form, wanted) for form in (folded, folded.partition("_")[2], folded.removeprefix("#")))


def _compare(choice: str, field: str, operator: str, value: str) -> Predicate:
    if field not in _FIELDS:
        raise _fault(choice, _closest(field, _FIELDS))
    get, parse = _FIELDS[field]
    low, dots, high = value.partition("..")
    if dots:
        if operator != "=":
            raise _fault(choice, f"a range goes with =, as in {field}={value}")
        first, last = _parsed(choice, parse, low), _parsed(choice, parse, high)
        return lambda record: (found := get(record)) is not None and first <= found <= last
    compare, wanted = _OPERATORS[operator], _parsed(choice, parse, value)
    return lambda record: (found := get(record)) is not None and compare(found, wanted)


def _parsed(choice: str, parse: Callable[[str], int], value: str) -> int:
    try:
        return parse(value)
    except ValueError:
        raise _fault(choice, f"{value!r} is no value for it") from None


def _integer(value: str) -> int:
    return int(value, 0)


def _result(value: str) -> int:
    """A number, or an error number's name with or without its sign."""
    named = getattr(errno, value.removeprefix("-"), None) if value.removeprefix("-").isidentifier() else None
    return -named if isinstance(named, int) else int(value, 0)


def _nanoseconds(value: str) -> int:
    matched = _TIME.fullmatch(value)
    if matched is None:
        raise ValueError(value)
    whole, _, fraction = matched["number"].partition(".")
    unit = _UNITS[matched["unit"]]
    return int(whole) * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)


def _result_of(record: Record) -> int | None:
    return record.result if isinstance(record, HypercallRecord | PageTableWriteRecord) else None


_FIELDS: Final[Mapping[str, tuple[Field, Callable[[str], int]]]] = {
    "rc": (_result_of, _result),
    "time": (lambda record: record.time_ns, _nanoseconds),
    "seq": (lambda record: record.seq, _integer),
    "vcpu": (lambda record: record.vcpu, _integer),
    "rip": (lambda record: record.rip, _integer),
}


def _closest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, sorted(known), 1)
    return f"did you mean {near[0]}?" if near else "see docs/trace.md for what it takes"


def _fault(choice: str, remedy: str) -> UsageError:
    return UsageError(f"--filter: {choice!r} means nothing here; {remedy}")
