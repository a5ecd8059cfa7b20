"""How often each hypercall and sub-operation was made, how often refused, and what else happened."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from stub.trace.names import errno_name
from stub.trace.records import HypercallRecord, Record


@dataclass
class Tally:
    """Of one name: how many records, the refused ones by error, and of what sub-operations (a batch counts each)."""

    count: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    subops: Counter[str] = field(default_factory=Counter)
    subop_errors: Counter[str] = field(default_factory=Counter)

    def add(self, record: Record) -> None:
        """Count one record."""
        self.count += 1
        subops = record.subops
        self.subops.update(subops)
        if isinstance(record, HypercallRecord) and record.failed:
            self.errors[errno_name(record.result) or str(record.result)] += 1
            if len(subops) == 1:  # of a batch the log does not say which entry it was
                self.subop_errors[subops[0]] += 1


class Stats:
    """Tallies by name, hypercalls and other events apart. The entries of multicalls count like any call."""

    def __init__(self) -> None:
        self.hypercalls: dict[str, Tally] = defaultdict(Tally)
        self.events: dict[str, Tally] = defaultdict(Tally)

    def add(self, record: Record) -> None:
        """Count one record."""
        (self.hypercalls if isinstance(record, HypercallRecord) else self.events)[record.name].add(record)

    def as_object(self) -> dict[str, Any]:
        """The JSON form: counts, errors by name, sub-operations, by name."""
        return {"hypercalls": _object(self.hypercalls), "events": _object(self.events)}

    def lines(self) -> Iterator[str]:
        """A table, the most frequent first."""
        total = sum(tally.count for tally in self.hypercalls.values())
        refused = sum(tally.errors.total() for tally in self.hypercalls.values())
        yield f"{'count':>9} {'errors':>9}  name"
        yield _row(total, refused, "hypercalls in all, multicall entries included")
        yield from _rows(self.hypercalls)
        if self.events:
            yield ""
            yield _row(sum(tally.count for tally in self.events.values()), 0, "other events")
            yield from _rows(self.events)


def _rows(tallies: dict[str, Tally]) -> Iterator[str]:
    for name, tally in sorted(tallies.items(), key=lambda item: (-item[1].count, item[0])):
        errors = ", ".join(f"{error} {count}" for error, count in tally.errors.most_common())
        yield _row(tally.count, tally.errors.total(), f"  {name}" + (f"  ({errors})" if errors else ""))
        for subop, count in sorted(tally.subops.items(), key=lambda item: (-item[1], item[0])):
            yield _row(count, tally.subop_errors[subop], f"    {subop}")


def _row(count: int, errors: int, text: str) -> str:
    return f"{count:>9} {errors or '':>9}  {text}"


def _object(tallies: dict[str, Tally]) -> dict[str, Any]:
    return {
        name: {
            "count": tally.count,
            "errors": dict(sorted(tally.errors.items())),
            "subops": dict(sorted(tally.subops.items())),
        }
        for name, tally in sorted(tallies.items())
    }
