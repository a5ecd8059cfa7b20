"""arch-x86/cpufeatureset.h: features of a CPU that not every engine has, by the names that libxl gives them.

Only what Xen lets a PV guest have is here, each with what it needs (xen/tools/gen-cpuid.py).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

XSTATE_CPUID = 0xD
X86_XCR0_X87 = 1 << 0
X86_XCR0_SSE = 1 << 1
X86_XCR0_YMM = 1 << 2
XSTATE_FP_SSE = X86_XCR0_X87 | X86_XCR0_SSE
XSTATE_AREA_MIN_SIZE = 512 + 64  # bytes: the FXSAVE area and the header


class Feature(NamedTuple):
    """Where CPUID says that a feature is there: ``register`` is 0 for EAX to 3 for EDX."""

    leaf: int
    subleaf: int
    register: int
    bit: int
    needs: tuple[str, ...] = ()


FEATURES: dict[str, Feature] = {
    "xsave": Feature(0x1, 0, 2, 26),
    "xsaveopt": Feature(XSTATE_CPUID, 1, 0, 0, ("xsave",)),
    "xgetbv1": Feature(XSTATE_CPUID, 1, 0, 2, ("xsave",)),
    "avx": Feature(0x1, 0, 2, 28, ("xsave",)),
    "fma": Feature(0x1, 0, 2, 12, ("avx",)),
    "f16c": Feature(0x1, 0, 2, 29, ("avx",)),
    "avx2": Feature(0x7, 0, 1, 5, ("avx",)),
    "vaes": Feature(0x7, 0, 2, 9, ("avx2",)),
    "clwb": Feature(0x7, 0, 1, 24),
    "3dnow": Feature(0x8000_0001, 0, 3, 31),
    "3dnowext": Feature(0x8000_0001, 0, 3, 30, ("3dnow",)),
}


def remaining(without: Collection[str]) -> tuple[str, ...]:
    """The names that are left ``without`` some: what needs one of those goes with it."""
    left: list[str] = []
    for name, feature in FEATURES.items():
        if name not in without and all(needed in left for needed in feature.needs):
            left.append(name)
    return tuple(left)
