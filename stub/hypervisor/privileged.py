"""Privileged instructions that the guest kernel issues natively and Xen emulates (arch/x86/pv/emul-priv-op.c).

They arrive as #GP, or as an I/O exit of the engine, which does not check I/O rights itself. What is not emulated
is the guest's own #GP. The opcodes are a table; each handler returns True when it has done the instruction.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from stub.abi.cpufeatureset import X86_XCR0_SSE, X86_XCR0_X87, X86_XCR0_YMM
from stub.abi.x86_defns import (
    MSR_APIC_BASE,
    MSR_EFER,
    MSR_FS_BASE,
    MSR_GS_BASE,
    MSR_IA32_CR_PAT,
    MSR_IA32_MISC_ENABLE,
    MSR_SHADOW_GS_BASE,
    MSR_TSC,
    MSR_TSC_AUX,
    X86_CR0_TS,
    X86_CR4_DE,
    X86_CR4_FSGSBASE,
    X86_CR4_MCE,
    X86_CR4_OSFXSR,
    X86_CR4_OSXMMEXCPT,
    X86_CR4_OSXSAVE,
    X86_CR4_PAE,
    X86_CR4_TSD,
    X86_EFLAGS_VM,
    X86_EXC_GP,
    X86_EXC_SS,
    X86_EXC_UD,
    XEN_MSR_PAT,
)
from stub.domain.builder import hypercall_page
from stub.engine.base import CR0, CR4, CS, FS_BASE, GS_BASE, RAX, RBX, RCX, RDX, RFLAGS, RIP
from stub.engine.base import TSC_AUX as TSC_AUX_WORD
from stub.hypervisor import callgates, segments, traps
from stub.hypervisor.debugregs import read_debug, write_debug
from stub.hypervisor.ports import iopl_suffices
from stub.hypervisor.stackfaults import by_way_of_stack
from stub.memory.frames import WRITABLE
from stub.units import PAGE_SIZE, U64, is_canonical

if TYPE_CHECKING:
    from stub.hypervisor.vcpu import Vcpu
    from stub.hypervisor.xen import Hypervisor

_M32 = 0xFFFFFFFF
GUEST_CR0 = 0x8005_0033  # PE MP ET NE WP AM PG
GUEST_CR4 = X86_CR4_PAE | X86_CR4_MCE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT
_CR4_MAY_CHANGE = X86_CR4_TSD | X86_CR4_DE | X86_CR4_FSGSBASE  # and OSXSAVE where CPUID shows XSAVE
_EFER, _EFER_LONG = 0xD01, 0x500  # SCE LME LMA NXE; LME LMA
_XSETBV_MODRM = 0xD1
_FORCED_CPUID = b"\x0f\x0bxen\x0f\xa2"


# -- model-specific registers


def guest_efer(vcpu: Vcpu) -> int:
    """EFER as the guest is shown it: a 32-bit one sees nothing of long mode."""
    return _EFER & ~_EFER_LONG if vcpu.compat else _EFER


def _read_misc_enable(_: Hypervisor) -> int:
    return 1


_MSR_HYPERCALL_PAGE = 0x40000000  # CPUID leaf 0x40000002, EBX
_MCA_BANKS = range(0x400, 0x408)  # two
_PERFORMANCE_COUNTERS = range(0xC001_0000, 0xC001_0008)  # K7_EVNTSEL0-3, K7_PERFCTR0-3: read 0 without a vPMU

MSR_READS: dict[int, Callable[[Hypervisor], int]] = {
    MSR_FS_BASE: lambda xen: xen.words[FS_BASE],
    MSR_GS_BASE: lambda xen: xen.words[GS_BASE],
    MSR_SHADOW_GS_BASE: lambda xen: xen.vcpu.gs_base_other,
    MSR_EFER: lambda xen: guest_efer(xen.vcpu),
    MSR_IA32_CR_PAT: lambda _: XEN_MSR_PAT,
    MSR_APIC_BASE: lambda _: 0xFEE00900,
    MSR_TSC: lambda xen: xen.clock.now,
    MSR_TSC_AUX: lambda xen: xen.words[TSC_AUX_WORD],
    MSR_IA32_MISC_ENABLE: _read_misc_enable,
    _MSR_HYPERCALL_PAGE: lambda _: 0,
    0x0000008B: lambda _: 0x0100_0065_0000_0000 >> 32,  # PATCHLEVEL
    0x00000017: lambda _: 0,  # PLATFORM_ID
    0x000000CE: lambda _: 0,  # PLATFORM_INFO
    0x00000179: lambda _: 2,  # MCG_CAP: two banks
    0x0000017A: lambda _: 0,  # MCG_STATUS
    0x00000198: lambda _: 0,  # PERF_STATUS
    0x00000199: lambda _: 0,  # PERF_CTL
    0xC0010015: lambda _: 0,  # K8_HWCR
    0xC0010062: lambda _: 0,  # K8 PERF_CTL
    0xC0010063: lambda _: 0,  # K8 PERF_STATUS
    0xC0011029: lambda _: 2,  # DE_CFG: lfence is serialising
} | dict.fromkeys([*_MCA_BANKS, *_PERFORMANCE_COUNTERS], lambda _: 0)


def _set_fs_base(xen: Hypervisor, value: int) -> bool:
    xen.words[FS_BASE] = value
    return True


def _set_gs_base(xen: Hypervisor, value: int) -> bool:
    xen.words[GS_BASE] = value
    return True


def _set_shadow_gs_base(xen: Hypervisor, value: int) -> bool:
    xen.vcpu.gs_base_other = value
    return True


def _write_hypercall_page(xen: Hypervisor, value: int) -> bool:
    """guest_wrmsr_xen: the hypercall page, at a frame of the guest's that can be written to."""
    types, mfn = xen.domain.types, value >> 12
    if value & 0xFFF or types.get_page_and_type(mfn, WRITABLE):
        return False
    at = mfn << 12
    xen.ram_bytes[at : at + PAGE_SIZE] = hypercall_page(xen.domain.bits)
    types.put_page_and_type(mfn)
    xen.engine.flush_code(at, PAGE_SIZE)
    return True


def _set_tsc_aux(xen: Hypervisor, value: int) -> bool:
    xen.words[TSC_AUX_WORD] = value & _M32
    return value <= _M32


_BASES = {MSR_FS_BASE, MSR_GS_BASE, MSR_SHADOW_GS_BASE}  # canonical ones; a 32-bit guest has none
MSR_WRITES: dict[int, Callable[[Hypervisor, int], bool]] = {
    MSR_FS_BASE: _set_fs_base,
    MSR_GS_BASE: _set_gs_base,
    MSR_SHADOW_GS_BASE: _set_shadow_gs_base,
    MSR_TSC_AUX: _set_tsc_aux,
    MSR_EFER: lambda xen, value: value == guest_efer(xen.vcpu),
    _MSR_HYPERCALL_PAGE: _write_hypercall_page,
    0x00000140: lambda _, value: value == 0,  # MISC_FEATURES_ENABLES: no CPUID faulting
    0x0000008B: lambda _, value: True,  # PATCHLEVEL: dropped
    0xC0010015: lambda _, value: True,  # K8_HWCR: dropped
}
MSR_WRITES |= dict.fromkeys(_MCA_BANKS, lambda _, value: value in (0, U64))
MSR_WRITES |= dict.fromkeys(_PERFORMANCE_COUNTERS, lambda _, value: True)  # dropped


def _rdmsr(xen: Hypervisor, _: int) -> bool:
    words = xen.words
    number = words[RCX] & _M32
    read = None if xen.vcpu.compat and number in _BASES else MSR_READS.get(number)
    if read is None:
        # a guest that has no #GP handler yet gets 0 (Xen's leniency to very old kernels)
        if xen.vcpu.traps[13] is not None:
            return False
        value = 0
    else:
        value = read(xen)
    words[RAX], words[RDX] = value & _M32, value >> 32
    return True


def _wrmsr(xen: Hypervisor, _: int) -> bool:
    words = xen.words
    number, value = words[RCX] & _M32, (words[RDX] & _M32) << 32 | words[RAX] & _M32
    write = MSR_WRITES.get(number)
    if write is None or (number in _BASES and (xen.vcpu.compat or not is_canonical(value))):
        return False
    return write(xen, value)


# -- control and debug registers: the ModRM byte names both


def _mov_from_cr(xen: Hypervisor, modrm: int) -> bool:
    vcpu, words = xen.vcpu, xen.words
    number = modrm >> 3 & 7 | xen.rex_r
    if number == 0:
        value = GUEST_CR0 | (X86_CR0_TS if vcpu.task_switched else 0)
    elif number == 2:
        value = vcpu.cr2
    elif number == 3:
        value = _cr3(vcpu)
    elif number == 4:
        value = GUEST_CR4 | vcpu.cr4
    else:
        return False
    words[modrm & 7 | xen.rex_b] = value & _M32 if vcpu.compat else value
    return True


def _cr3(vcpu: Vcpu) -> int:
    """The root's frame as the guest sees it: a 32-bit one has the bits from 32 on at the bottom (compat_pfn_to_cr3)."""
    mfn = vcpu.kernel_root
    return (mfn << 12 | mfn >> 20) & _M32 if vcpu.compat else mfn << 12


def _root_of(vcpu: Vcpu, cr3: int) -> int:
    """The reverse of ``_cr3``."""
    return cr3 >> 12 | (cr3 & 0xFFF) << 20 if vcpu.compat else cr3 >> 12


def _mov_to_cr(xen: Hypervisor, modrm: int) -> bool:
    vcpu, words = xen.vcpu, xen.words
    number, value = modrm >> 3 & 7 | xen.rex_r, words[modrm & 7 | xen.rex_b]
    if number == 0:
        if (value ^ GUEST_CR0) & ~X86_CR0_TS:
            return False
        set_task_switched(xen, bool(value & X86_CR0_TS))
    elif number == 2:
        vcpu.set_cr2(value)
    elif number == 3:
        return segments.new_base_pointer(xen, _root_of(vcpu, value)) == 0
    elif number == 4:
        may_change = _CR4_MAY_CHANGE | (X86_CR4_OSXSAVE if vcpu.policy.xcr0_max else 0)
        changed = value ^ (GUEST_CR4 | vcpu.cr4)
        if changed & ~may_change:
            xen.note(f"mov to cr4: bits {changed & ~may_change:#x} cannot change and stay")
        vcpu.set_cr4(value & may_change)
        words[CR4] = words[CR4] & ~X86_CR4_FSGSBASE | vcpu.cr4 & X86_CR4_FSGSBASE
    else:
        return False
    return True


def _mov_from_dr(xen: Hypervisor, modrm: int) -> bool:
    value = read_debug(xen.vcpu, modrm >> 3 & 7 | xen.rex_r)
    if value < 0:
        return False
    xen.words[modrm & 7 | xen.rex_b] = value & _M32 if xen.vcpu.compat else value
    return True


def _mov_to_dr(xen: Hypervisor, modrm: int) -> bool:
    return write_debug(xen, modrm >> 3 & 7 | xen.rex_r, xen.words[modrm & 7 | xen.rex_b]) == 0


def set_task_switched(xen: Hypervisor, on: bool) -> None:
    """The guest's view of CR0.TS, which is also the CPU's: the next FPU instruction traps."""
    xen.vcpu.task_switched = on
    words = xen.words
    words[CR0] = words[CR0] | X86_CR0_TS if on else words[CR0] & ~X86_CR0_TS


def _clts(xen: Hypervisor, _: int) -> bool:
    set_task_switched(xen, False)
    return True


def _interrupt_flag(xen: Hypervisor, _: int) -> bool:
    return iopl_suffices(xen.vcpu)  # the event mask is another thing


def _nothing(_: Hypervisor, __: int) -> bool:
    return True


def _rdtsc(xen: Hypervisor, _: int) -> bool:
    now = xen.clock.now
    xen.words[RAX], xen.words[RDX] = now & _M32, now >> 32
    return True


def _xsetbv(xen: Hypervisor, _: int) -> bool:
    """XCR0 (handle_xsetbv). CR4.OSXSAVE was looked at."""
    vcpu, words = xen.vcpu, xen.words
    value = (words[RDX] & _M32) << 32 | words[RAX] & _M32
    if words[RCX] & _M32 or value & ~vcpu.policy.xcr0_max or not _is_valid_xcr0(value):
        return False
    xen.engine.load_xcr0(value)
    vcpu.set_xcr0(value)
    return True


def _is_valid_xcr0(value: int) -> bool:
    """valid_xcr0, of the states that there are."""
    return bool(value & X86_XCR0_X87) and (not value & X86_XCR0_YMM or bool(value & X86_XCR0_SSE))


# opcode → (handler, has ModRM, only in the kernel)
ONE_BYTE = {0xFA: (_interrupt_flag, False, False), 0xFB: (_interrupt_flag, False, False)}
TWO_BYTE = {
    0x01: (_xsetbv, True, True),  # with that ModRM byte only
    0x06: (_clts, False, True),
    0x09: (_nothing, False, True),  # wbinvd: a domain without cache rights
    0x20: (_mov_from_cr, True, True),
    0x21: (_mov_from_dr, True, True),
    0x22: (_mov_to_cr, True, True),
    0x23: (_mov_to_dr, True, True),
    0x30: (_wrmsr, False, True),
    0x31: (_rdtsc, False, False),
    0x32: (_rdmsr, False, True),
}


class Decoded(NamedTuple):
    """A privileged instruction: what does it, its ModRM byte, REX.R and REX.B as a register number's high bit, whether
    only the kernel may have it done, whether it has a lock prefix, its bytes."""

    handler: Callable[[Hypervisor, int], bool]
    modrm: int
    rex_r: int
    rex_b: int
    kernel_only: bool
    is_locked: bool
    insn: bytes


@lru_cache(256)  # a guest has few of them, and Linux runs one at each context switch
def _decode(code: bytes, is_64bit: bool) -> Decoded | None:
    """The instruction that ``code`` begins with; None if it is none that is emulated."""
    at = rex = modrm = 0
    while at < len(code) and code[at] in b"\x66\x67\xf2\xf3\x2e\x36\x3e\x26\x64\x65\xf0":
        at += 1
    is_locked = 0xF0 in code[:at]
    if at < len(code) and is_64bit and 0x40 <= code[at] <= 0x4F:
        rex = code[at]
        at += 1
    if at >= len(code):
        return None
    if code[at] == 0x0F and at + 1 < len(code):
        row = TWO_BYTE.get(code[at + 1])
        at += 2
    else:
        row = ONE_BYTE.get(code[at])
        at += 1
    if row is None:
        return None
    handler, has_modrm, kernel_only = row
    if has_modrm:
        if at >= len(code) or code[at] >> 6 != 3:
            return None
        modrm = code[at]
        at += 1
        if handler is _xsetbv and modrm != _XSETBV_MODRM:
            return None
    return Decoded(handler, modrm, rex << 1 & 8, rex << 3 & 8, kernel_only, is_locked, code[:at])


def emulate(xen: Hypervisor) -> bool:
    """Try the instruction at RIP, which raised #GP; whether it was done, or is another trap (then taken)."""
    words = xen.words
    rip = words[RIP]
    code = xen.domain.guest.read_available(rip, 15)
    found = _decode(code, segments.is_64bit_code(xen, words[CS]))
    if found is None:
        return False
    # without CR4.OSXSAVE it is undefined (x86_emulate), but the engine looks at the ring first
    is_off = found.handler is _xsetbv and not xen.vcpu.cr4 & X86_CR4_OSXSAVE
    if found.is_locked or is_off:
        traps.inject(xen, X86_EXC_UD)
        return True
    if found.kernel_only and not xen.vcpu.kernel_mode:
        return False
    xen.rex_r, xen.rex_b = found.rex_r, found.rex_b
    before = (words[RAX], words[RBX], words[RCX], words[RDX])
    if not found.handler(xen, found.modrm):
        return False
    after = (words[RAX], words[RBX], words[RCX], words[RDX])
    xen.log.privileged(xen.clock.now, rip, found.insn, before, after)
    traps.step_over(xen, rip + len(found.insn))
    return True


def forced_cpuid(xen: Hypervisor) -> bool:
    """Xen's prefix for an emulated cpuid (``ud2; "xen"; cpuid``) at RIP; whether it was there."""
    rip = xen.words[RIP]
    if xen.domain.guest.read_available(rip, len(_FORCED_CPUID)) != _FORCED_CPUID:
        return False
    answer_cpuid(xen, True)
    traps.step_over(xen, rip + len(_FORCED_CPUID))
    return True


def answer_cpuid(xen: Hypervisor, forced: bool) -> None:
    """Put a leaf's answer in the registers."""
    words = xen.words
    leaf, subleaf = words[RAX] & _M32, words[RCX] & _M32
    policy, to_kernel = xen.vcpu.policy, forced and xen.vcpu.kernel_mode
    a, b, c, d = policy.answer_to_kernel(leaf, subleaf) if to_kernel else policy.answer(leaf, subleaf)
    words[RAX], words[RBX], words[RCX], words[RDX] = a, b, c, d
    xen.log.cpuid(xen.clock.now, words[RIP], forced, leaf, subleaf, a, b, c, d)


def general_protection(xen: Hypervisor, error_code: int) -> None:
    """A #GP from the guest: emulate, or hand it over."""
    if error_code == 0 and emulate(xen):
        return
    if error_code and xen.vcpu.compat and not error_code & 3 and not xen.words[RFLAGS] & X86_EFLAGS_VM:
        callgates.emulate(xen, error_code)
        return
    is_stack = error_code == 0 and by_way_of_stack(xen)
    traps.inject(xen, X86_EXC_SS if is_stack else X86_EXC_GP, error_code)
