"""Names of hypercalls, exceptions and error numbers, as a reader prints them; what has no name stays a number."""

from __future__ import annotations

from typing import Final

from stub.abi.errno import ERRNO_NAMES
from stub.abi.xen import Hypercall

HYPERCALL_NAMES: Final[dict[int, str]] = {int(member): name for name, member in Hypercall.__members__.items()}
HYPERCALL_NUMBERS: Final[dict[str, int]] = {name: nr for nr, name in HYPERCALL_NAMES.items()}

EXCEPTION_NAMES: Final[dict[int, str]] = {
    0: "#DE", 1: "#DB", 2: "NMI", 3: "#BP", 4: "#OF", 5: "#BR", 6: "#UD", 7: "#NM", 8: "#DF", 10: "#TS", 11: "#NP",
    12: "#SS", 13: "#GP", 14: "#PF", 16: "#MF", 17: "#AC", 18: "#MC", 19: "#XM", 20: "#VE", 21: "#CP",
}  # fmt: skip
"""Vectors by the architecture manual's mnemonics (x86 manual, vol. 3, table 6-1)."""


def hypercall_name(nr: int) -> str:
    """The name of hypercall ``nr`` without ``__HYPERVISOR_``, or ``hypercall_N`` for a number Xen does not give out."""
    return HYPERCALL_NAMES.get(nr) or f"hypercall_{nr}"


def exception_name(vector: int) -> str:
    """``#PF`` for 14; ``vector_N`` where the manual names none."""
    return EXCEPTION_NAMES.get(vector) or f"vector_{vector}"


def errno_name(rc: int) -> str | None:
    """``EINVAL`` for -22; None where ``rc`` is no negated error number of Xen's."""
    return ERRNO_NAMES.get(-rc) if rc < 0 else None
