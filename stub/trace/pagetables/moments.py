"""When a snapshot is taken, and which tables are in it besides the guest's: ``at=hypercall:1000,root=raw:0x5000``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stub.errors import UsageError
from stub.memory.formats import FORMATS

_UNITS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1, "": 1_000_000_000}
_TIME = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)(s|ms|us|ns|)")
_COUNT = re.compile(r"hypercall:(\d{1,18})")
_ROOT = re.compile(r"([a-z]+):(0[xX][0-9a-fA-F]{1,16}|\d{1,19})")


@dataclass(frozen=True)
class Root:
    """A root table: its machine address, the format it is read in, and what it is to the guest's vCPU."""

    maddr: int
    format: str = "long"
    names: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Root:
        """``FORMAT:MADDR``; UsageError for anything else."""
        found = _ROOT.fullmatch(text)
        if found is None or found[1] not in FORMATS:
            raise UsageError(f"root {text!r}: write FORMAT:MADDR; the formats are {', '.join(FORMATS)}")
        maddr = int(found[2], 0)
        if maddr >= 1 << 52:
            raise UsageError(f"root {text!r}: a machine address has 52 bits")
        return cls(FORMATS[found[1]].root(maddr), found[1], ("asked for",))


@dataclass(frozen=True)
class Moment:
    """One of: after so many hypercalls, at a virtual time (ns), at the end of the run, or now (none of them).

    Hypercalls are counted as ``summary.json`` counts them, entries of a multicall included; a multicall is not cut.
    """

    text: str = "now"
    hypercalls: int | None = None
    virtual_ns: int | None = None
    end: bool = False
    roots: tuple[Root, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Moment:
        """``at=hypercall:N``, ``at=2.5s`` or ``at=end``, each with ``,root=FORMAT:MADDR``; UsageError for the rest."""
        first, *rest = text.split(",")
        if not first.startswith("at="):
            raise _unknown(text)
        roots = []
        for part in rest:
            if not part.startswith("root="):
                raise _unknown(text)
            roots.append(Root.parse(part.removeprefix("root=")))
        when = first.removeprefix("at=")
        count, time = _COUNT.fullmatch(when), _TIME.fullmatch(when)
        if count is not None:
            return cls.after(int(count[1]), tuple(roots))
        if time is not None:
            whole, _, part = time[1].partition(".")
            unit = _UNITS[time[2]]
            return cls(when, virtual_ns=int(whole) * unit + int(part or "0") * unit // 10 ** len(part),
                       roots=tuple(roots))  # fmt: skip
        if when != "end":
            raise _unknown(text)
        return cls(when, end=True, roots=tuple(roots))

    @classmethod
    def after(cls, hypercalls: int, roots: tuple[Root, ...] = ()) -> Moment:
        """After a number of hypercalls, counted from 1."""
        if hypercalls < 1:
            raise UsageError(f"hypercall {hypercalls}: they are counted from 1")
        return cls(f"hypercall:{hypercalls}", hypercalls=hypercalls, roots=roots)


NOW = Moment()


def _unknown(text: str) -> UsageError:
    return UsageError(f"--snapshot {text}: write at=hypercall:N, at=2.5s or at=end, with ,root=FORMAT:MADDR if need be")
