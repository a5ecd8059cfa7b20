"""What the guest is shown by CPUID: one policy table, the same for every way of asking.

It offers what the engine has and a PV guest can use. An AMD family-6 processor is shown, as QEMU's generic models
are, so that kernels take no model-specific detours. Left out on purpose: XSAVE and all that needs it (the engine
cannot be given an XCR0 from outside), RDRAND and RDSEED (a boot is a pure function), SMEP, SMAP and paging
extensions that Xen hides from PV guests.
"""

from __future__ import annotations

import struct

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


def rows(compat: bool = False) -> bytes:
    """The table as the reflexes have it (entry.h, Leaf): leaf, subleaf, whether for all subleaves, the answer."""
    return b"".join(
        struct.pack("<7I", leaf, subleaf, _is_for_all(leaf), *answer(leaf, subleaf, compat))
        for leaf, table in LEAVES.items()
        for subleaf in table
    )


def _is_for_all(leaf: int) -> bool:
    """Whether what is asked of sub-leaf 0 is answered for all: the leaf has none."""
    return len(LEAVES[leaf]) == 1 and leaf != 0x7


def answer(leaf: int, subleaf: int, compat: bool = False) -> Leaf:
    """The four registers for a leaf and sub-leaf (32-bit values). ``compat``: as a 32-bit guest is shown it."""
    found = _answer(leaf, subleaf)
    if compat and leaf in _ONLY_64:
        a, b, c, d = (value & ~hidden for value, hidden in zip(found, _ONLY_64[leaf], strict=True))
        return a, b, c, d
    return found


def _answer(leaf: int, subleaf: int) -> Leaf:
    table = LEAVES.get(leaf)
    if table is None:
        return _NOTHING
    if subleaf in table:
        return table[subleaf]
    return table[0] if _is_for_all(leaf) else _NOTHING
