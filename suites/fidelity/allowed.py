"""The differences that stay, each with its reason. ``docs/fidelity.md`` shows exactly these rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from stub.domain.config import default_engine
from stub.engine.choice import lacks


class Row(NamedTuple):
    """``patterns``: of differences as ``compare`` words them, whole; ``most``: how many of them all there may be.

    ``lack``: what an engine lacks (docs/engines.md) for the row to hold; the other engines do not have the difference.
    """

    what: str
    why: str
    patterns: tuple[str, ...]
    most: int = 1_000_000
    lack: str = ""

    def covers(self, difference: str) -> bool:
        """Whether it is one of these."""
        return any(re.fullmatch(pattern, difference) for pattern in self.patterns)


ALLOWED = (
    Row(
        "On the Unicorn engine no XSAVE, nor what needs it: FMA, AVX, F16C, AVX2, VAES; leaf 0xd is empty, CR4.OSXSAVE "
        "and xsetbv unused",
        "Its CPU has no AVX, and its XCR0 cannot be set from outside",
        (
            r"cpuid 0x1 ecx bit (12|26|27|28|29) not offered",
            r"cpuid 0x7 ebx bit 5 not offered",
            r"cpuid 0x7 ecx bit 9 not offered",
            r"cpuid forced 0xd 0x1 eax: 0x0, Xen 0x5",
            r"only Xen: cpuid forced 0xd 0x[012]",
            r"only Xen: (write cr4|0f01d1)",
        ),
        lack="avx",
    ),
    Row(
        "On the Unicorn engine no 3DNow!, CLWB",
        "Its CPU does not have them",
        (r"cpuid 0x80000001 edx bit (30|31) not offered", r"cpuid 0x7 ebx bit 24 not offered"),
        lack="avx",
    ),
    Row(
        "No RDRAND, no RDSEED",
        "A boot is a pure function of its inputs",
        (r"cpuid 0x1 ecx bit 30 not offered", r"cpuid 0x7 ebx bit 18 not offered"),
    ),
    Row(
        "No SHA, RDPID",
        "No engine has them",
        (r"cpuid 0x7 ebx bit 29 not offered", r"cpuid 0x7 ecx bit 22 not offered"),
    ),
    Row(
        "No ERMS, FSRM and what leaf 7, sub-leaf 1 adds to them",
        "They promise that string instructions are fast, and change nothing else",
        (
            r"cpuid 0x7 ebx bit 9 not offered",
            r"cpuid 0x7 edx bit 4 not offered",
            r"cpuid forced 0x7 0x0 eax: 0x0, Xen 0x1",
            r"cpuid forced 0x7 0x1 eax: 0x0, Xen 0x1c00",
            r"only Xen: cpuid forced 0x7 0x1",
        ),
    ),
    Row(
        "No ACPI (1.edx), CmpLegacy (8000_0001.ecx), RstrFpErrPtrs (8000_0008.ebx)",
        "The engine has no clock modulation, one core, and does not say that FXSAVE keeps the error pointers",
        (
            r"cpuid 0x1 edx bit 22 not offered",
            r"cpuid 0x80000001 ecx bit 1 not offered",
            r"cpuid 0x80000008 ebx bit 2 not offered",
        ),
    ),
    Row(
        "The processor's name, and the width of a machine address in leaf 4000_0005",
        "Another machine: the recorded one had 2 GiB",
        (r"cpuid forced 0x8000000[23] 0x0 e[abcd]x: .*", r"cpuid forced 0x40000005 0x0 ebx: 0x28, Xen 0x1f"),
    ),
    Row(
        "Five console notifications fewer before the first upcall",
        "Without RDRAND Linux does not say `random: crng init done` so early, nor that it uses RDRAND to hide its "
        "patching",
        (r"only Xen: event_channel_op:EVTCHNOP_send port=0x2",),
        most=5,
    ),
    Row(
        "A few kernel mappings in another order",
        "Kernel stacks are mapped and code is patched by threads whose turns the timer decides",
        (r"only (Xen|here): mmu_update count=1 foreigndom=0x7ff0 MMU_NORMAL_PT_UPDATE 0x8000000000000063",),
        most=64,
    ),
    Row(
        "No SCHEDOP_block before the recording's end",
        "There the guest waits for answers of slow back ends, which it has at once here",
        (r"only Xen, at any time: sched_op:SCHEDOP_block = 0",),
    ),
    Row(
        "Other slots in the tables p4458 to p445d",
        "Linux draws the address at which it patches itself by chance: from RDRAND there, from time stamps here",
        (r"place: other slot in table p44(58|5a|5b|5c|5d)",),
    ),
    Row(
        "The page tables pfe7c, pfe7d and pfedf lie four pages higher",
        "An early allocation of Linux's is four pages larger there; which one, the recording does not show",
        (r"place: (mmu_update|mmuext_op|update_va_mapping): (0xffff88800fe(7c|7d|df)000|pfe(7c|7d|df))",),
        most=64,
    ),
)


SHORT: Mapping[str, tuple[Row, ...]] = {
    "grub-xen64": (
        Row(
            "One SCHEDOP_shutdown instead of two",
            "Here a domain ends with the call; there its vCPU had time for another",
            (r"only Xen: sched_op:SCHEDOP_shutdown reason=0x0",),
            most=1,
        ),
    ),
    "gnumach64": (),
}
"""The same for the boots that are compared whole, by image."""


def of_engine() -> tuple[Row, ...]:
    """Those of ``ALLOWED`` that hold for the engine that runs."""
    missing = lacks(default_engine())
    return tuple(row for row in ALLOWED if not row.lack or row.lack in missing)


def unexplained(differences: Mapping[str, int], allowed: Sequence[Row]) -> list[str]:
    """Differences that no row covers, and rows that more differences claim than they allow."""
    left = [f"{times} times: {text}" for text, times in differences.items() if not _rows(text, allowed)]
    used: Counter[Row] = Counter()
    for text, times in differences.items():
        used.update(dict.fromkeys(_rows(text, allowed), times))
    return left + [
        f"{times} instead of at most {row.most}: {row.what}" for row, times in used.items() if times > row.most
    ]


def unused(differences: Mapping[str, int], allowed: Sequence[Row]) -> list[Row]:
    """Rows that no difference needs any more."""
    return [row for row in allowed if not any(map(row.covers, differences))]


def _rows(difference: str, allowed: Sequence[Row]) -> list[Row]:
    return [row for row in allowed if row.covers(difference)]
