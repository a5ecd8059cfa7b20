"""Faults on purpose: which requests a disk fails, and whether it forgets, as a test or a user asks for it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from stub.errors import UsageError

OPERATIONS = ("read", "write", "flush", "discard")
FORGETS = "unflushed"
_SPEC = re.compile(rf"disk(?:=(\w+))?:(?:({'|'.join(OPERATIONS)})(?::(sector|every)=(\d{{1,18}}))?|({FORGETS}))")


@dataclass(frozen=True)
class Fault:
    """Requests that fail: an ``operation`` on the disk ``vdev`` (None: any disk).

    Those that touch ``sector``, or ``every`` so many-th of them; without either, all. The operation ``unflushed`` is
    none: the disk forgets, when the run ends, what was written and not flushed.
    """

    operation: str
    vdev: str | None = None
    sector: int | None = None
    every: int | None = None

    @classmethod
    def parse(cls, text: str) -> Fault:
        """``disk[=VDEV]:read|write|flush|discard[:sector=N|:every=K]`` or ``…:unflushed``; else UsageError."""
        match = _SPEC.fullmatch(text)
        vdev, operation, kind, number, forgets = match.groups() if match else (None, None, None, None, None)
        if not match or (kind == "every" and not int(number or 0)):
            syntax = f"disk[=VDEV]:{'|'.join(OPERATIONS)}[:sector=N|:every=K], K from 1 on, or disk[=VDEV]:{FORGETS}"
            raise UsageError(f"fault {text!r}: use {syntax}")
        value = None if number is None else int(number)
        return cls(
            operation or forgets or "", vdev, value if kind == "sector" else None, value if kind == "every" else None
        )


@dataclass
class Faults:
    """The faults of one disk; counts what it is asked to do."""

    faults: tuple[Fault, ...] = ()
    _seen: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, faults: Iterable[Fault], vdev: str) -> Faults:
        """Those of ``faults`` that are meant for a disk."""
        return cls(tuple(fault for fault in faults if fault.vdev in (None, vdev)))

    @property
    def forgets(self) -> bool:
        """Whether what was not flushed is lost."""
        return any(fault.operation == FORGETS for fault in self.faults)

    def hits(self, operation: str, sector: int, sectors: int) -> bool:
        """Whether this request fails."""
        if not self.faults:
            return False
        self._seen[operation] += 1
        return any(
            fault.operation == operation
            and (fault.sector is None or sector <= fault.sector < sector + sectors)
            and (fault.every is None or self._seen[operation] % fault.every == 0)
            for fault in self.faults
        )
