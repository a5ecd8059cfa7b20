"""What the guest is shown by CPUID: one policy table, the same for every way of asking.

It offers what the engine has and a PV guest can use: the table, which every engine has, and what this one's CPU has
besides (stub/abi/cpufeatureset.py). An AMD family-6 processor is shown, as QEMU's generic models are, so that kernels
take no model-specific detours. Left out on purpose: RDRAND and RDSEED (a boot is a pure function), SMEP, SMAP and
paging extensions that Xen hides from PV guests.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection

from stub.abi.cpufeatureset import (
    FEATURES,
    X86_XCR0_YMM,
    XSTATE_AREA_MIN_SIZE,
    XSTATE_CPUID,
    XSTATE_FP_SSE,
    remaining,
)
from stub.abi.x86_defns import X86_CR4_OSXSAVE

Leaf = tuple[int, int, int, int]  # eax, ebx, ecx, edx
HYPERVISOR_BASE = 0x4000_0000
XEN_LEAVES = 6
TSC_KHZ = 1_000_000


def bits(*numbers: int) -> int:
    """A word with these bits set."""
    return sum(1 << number for number in numbers)


def _text(words: str) -> Leaf:
    data = words.encode().ljust(16, b"\0")
    return tuple(int.from_bytes(data[i : i + 4], "little") for i in range(0, 16, 4))  # type: ignore[return-value]


_VENDOR = (0x68747541, 0x444D4163, 0x69746E65)  # ebx, ecx, edx: "AuthenticAMD"
_XEN = (0x566E6558, 0x65584D4D, 0x4D4D566E)  # "XenVMMXenVMM"

# 1.ecx: SSE3, PCLMUL, SSSE3, CX16, SSE4.1, SSE4.2, MOVBE, POPCNT, AES, hypervisor present
_FEATURES_1C = bits(0, 1, 9, 13, 19, 20, 22, 23, 25, 31)
# 1.edx: FPU, DE, TSC, MSR, PAE, MCE, CX8, APIC, MCA, CMOV, PAT, CLFLUSH, MMX, FXSR, SSE, SSE2, SS
_FEATURES_1D = bits(0, 2, 4, 5, 6, 7, 8, 9, 14, 15, 16, 19, 23, 24, 25, 26, 27)
# 7.ebx: FSGSBASE, BMI1, BMI2, ADX, CLFLUSHOPT
_FEATURES_7B = bits(0, 3, 8, 19, 23)
# 8000_0001.ecx: LAHF, ABM, SSE4A, 3DNOWPREFETCH
_FEATURES_E1C = bits(0, 5, 6, 8)
# 8000_0001.edx: the common ones again, SYSCALL, NX, MMXEXT, RDTSCP, LM
_FEATURES_E1D = bits(0, 2, 4, 5, 6, 7, 8, 9, 11, 14, 15, 16, 20, 22, 23, 24, 27, 29)

LEAVES: dict[int, dict[int, Leaf]] = {
    0x0: {0: (0xD, *_VENDOR)},
    0x1: {0: (0x663, 0x800, _FEATURES_1C, _FEATURES_1D)},
    0x7: {0: (0, _FEATURES_7B, 0, 0)},
    0x8000_0000: {0: (0x8000_000A, *_VENDOR)},
    0x8000_0001: {0: (0x663, 0, _FEATURES_E1C, _FEATURES_E1D)},
    0x8000_0002: {0: _text("pvstub virtual CPU")},
    0x8000_0003: {0: _text("pvstub virtual CPU"[16:])},
    0x8000_0005: {0: (0x1FF01FF, 0x1FF01FF, 0x40020140, 0x40020140)},
    0x8000_0006: {0: (0, 0x42004200, 0x2008140, 0x808140)},
    0x8000_0008: {0: (0x3028, 0, 0, 0)},
    HYPERVISOR_BASE: {0: (HYPERVISOR_BASE + XEN_LEAVES - 1, *_XEN)},
    HYPERVISOR_BASE + 1: {0: (4 << 16 | 17, 0, 0, 0)},
    HYPERVISOR_BASE + 2: {0: (1, HYPERVISOR_BASE, 1, 0)},  # one hypercall page, MSR index, MMU_PT_UPDATE_PRESERVE_AD
    HYPERVISOR_BASE + 3: {
        0: (0, 0, TSC_KHZ, 0),  # tsc mode default, frequency in kHz, incarnation
        1: (0, 0, 0, 0),
        2: (TSC_KHZ, 0, 0, 0),
    },
    HYPERVISOR_BASE + 5: {0: (0, 40, 0, 0)},  # width of a machine address
}
_NOTHING: Leaf = (0, 0, 0, 0)

# What a 32-bit guest is not shown, as it cannot have it: LM, and CX16 and LAHF, which depend on that
# (recalculate_cpuid_policy, gen-cpuid.py).
_ONLY_64: dict[int, Leaf] = {0x1: (0, 0, bits(13), 0), 0x8000_0001: (0, 0, bits(0), bits(29))}


_OSXSAVE = bits(27)  # of 1.ecx
_YMM = 2  # XCR0's bit for the upper halves of the AVX registers, which is their sub-leaf, too
_LEAF = struct.Struct("<7I")


class Policy:
    """What one guest is shown. ``asks`` the engine's CPU for a leaf and sub-leaf; ``without``: features to leave out.

    ``compat``: the guest has 32 bits. ``xcr0_max``: what XCR0 may have; 0 where there is no XSAVE.
    """

    def __init__(
        self,
        compat: bool = False,
        asks: Callable[[int, int], Leaf] = lambda _leaf, _subleaf: _NOTHING,
        without: Collection[str] = (),
    ) -> None:
        self._leaves = {leaf: dict(table) for leaf, table in LEAVES.items()}
        absent = {
            name for name, row in FEATURES.items() if not asks(row.leaf, row.subleaf)[row.register] >> row.bit & 1
        }
        self.features = remaining(absent | set(without))
        self.xcr0_max = 0
        if "xsave" in self.features:
            self._add_extended_states(asks)
        for name in self.features:
            row = FEATURES[name]
            self._change(row.leaf, row.subleaf, row.register, set_bits=bits(row.bit))
        for leaf, hidden in _ONLY_64.items() if compat else ():
            for register, value in enumerate(hidden):
                self._change(leaf, 0, register, clear=value)

    def _add_extended_states(self, asks: Callable[[int, int], Leaf]) -> None:
        """Leaf 0xd (recalculate_xstate)."""
        self.xcr0_max = XSTATE_FP_SSE
        states = self._leaves[XSTATE_CPUID] = {0: _NOTHING, 1: _NOTHING}
        if "avx" in self.features:
            self.xcr0_max |= X86_XCR0_YMM
            size, offset, _, _ = asks(XSTATE_CPUID, _YMM)
            states[_YMM] = (size, offset, 0, 0)
        states[0] = (self.xcr0_max, self._area(XSTATE_FP_SSE), self._area(self.xcr0_max), 0)

    def _area(self, xcr0: int) -> int:
        """How many bytes XSAVE takes with that XCR0."""
        size, offset, _, _ = self._leaves[XSTATE_CPUID][_YMM] if xcr0 & X86_XCR0_YMM else _NOTHING
        return max(XSTATE_AREA_MIN_SIZE, offset + size)

    def _change(self, leaf: int, subleaf: int, register: int, *, clear: int = 0, set_bits: int = 0) -> None:
        a, b, c, d = (
            value & ~clear | set_bits if number == register else value
            for number, value in enumerate(self._leaves[leaf][subleaf])
        )
        self._leaves[leaf][subleaf] = a, b, c, d

    def follow(self, cr4: int, xcr0: int) -> None:
        """Show the guest what its own CR4 and XCR0 make of it: OSXSAVE, and the size of the area (guest_cpuid)."""
        if self.xcr0_max:
            self._change(0x1, 0, 2, clear=_OSXSAVE, set_bits=_OSXSAVE if cr4 & X86_CR4_OSXSAVE else 0)
            self._change(XSTATE_CPUID, 0, 1, clear=~0, set_bits=self._area(xcr0))

    def rows(self) -> bytes:
        """The table as the reflexes have it (entry.h, Leaf): leaf, subleaf, whether for all subleaves, the answer."""
        return b"".join(
            _LEAF.pack(leaf, subleaf, self._is_for_all(leaf), *found)
            for leaf, table in self._leaves.items()
            for subleaf, found in table.items()
        )

    def _is_for_all(self, leaf: int) -> bool:
        """Whether what is asked of sub-leaf 0 is answered for all: the leaf has none."""
        return len(self._leaves[leaf]) == 1 and leaf != 0x7

    def answer(self, leaf: int, subleaf: int) -> Leaf:
        """The four registers for a leaf and sub-leaf (32-bit values)."""
        table = self._leaves.get(leaf)
        if table is None:
            return _NOTHING
        if subleaf in table:
            return table[subleaf]
        return table[0] if self._is_for_all(leaf) else _NOTHING

    def answer_to_kernel(self, leaf: int, subleaf: int) -> Leaf:
        """The same by Xen's prefix: OSXSAVE is Xen's own, which kernels rely on (guest_cpuid, leaf 1)."""
        a, b, c, d = self.answer(leaf, subleaf)
        return (a, b, c | _OSXSAVE, d) if leaf == 0x1 and self.xcr0_max else (a, b, c, d)
