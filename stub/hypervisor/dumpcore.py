"""What a core file says of a domain: its vCPUs as XEN_DOMCTL_getvcpucontext gives them, its pages, what maps them.

Looking changes nothing (xen/arch/x86/domctl.c, arch_get_info_guest; tools/libs/ctrl/xc_core.c).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stub.abi import version as ver
from stub.abi.arch_x86 import (
    HYPERVISOR_VIRT_START,
    TI_IF,
    CpuUserRegs32,
    CpuUserRegs64,
    TrapInfo32,
    TrapInfo64,
    VcpuGuestContext32,
    VcpuGuestContext64,
    VGCF_failsafe_disables_events,
    VGCF_i387_valid,
    VGCF_in_kernel,
    VGCF_online,
    VGCF_syscall_disables_events,
)
from stub.engine.base import CR0, CR4, CS, DS, ES, FS, FS_BASE, GS, GS_BASE, NAMES, SS
from stub.hypervisor.hypercalls.version import MAJOR, MINOR, buffer
from stub.hypervisor.vcpu import VCPU_INFO_MASK, Vcpu
from stub.memory import entries as e
from stub.memory.formats import LONG
from stub.memory.frames import ALLOCATED, GUEST
from stub.memory.mappings import Mappings, mappings
from stub.memory.walker import FrameArray
from stub.trace.core import FXSAVE_SIZE, MAX_SEGMENTS, XCR0_AT, Core, I64s, Segment, write
from stub.units import PAGE_SHIFT, PAGE_SIZE, U64

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

_SIGABRT = 6
_PF_X, _PF_W, _PF_R = 1, 2, 4
_U32 = 0xFFFFFFFF
_IOPL_SHIFT = 12
_OFTEN = 256  # a page mapped more often fills a hole: Linux's P2M has one for all that is missing
# The order of NT_PRSTATUS; orig_rax is no register of ours.
_PRSTATUS = "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs rflags rsp ss".split()  # noqa: SIM905
_PRSTATUS += "fs_base gs_base ds es fs gs".split()  # noqa: SIM905
_PRSTATUS_32 = "rbx rcx rdx rsi rdi rbp rax ds es fs gs orig_rax rip cs rflags rsp ss".split()  # noqa: SIM905
_ASKED = (
    ver.XENVER_extraversion,
    ver.XENVER_compile_info,
    ver.XENVER_capabilities,
    ver.XENVER_changeset,
)


def dump_core(xen: Hypervisor, path: Path) -> None:
    """Write the domain's core file. OSError when it cannot be."""
    domain = xen.domain
    owned = np.flatnonzero((domain.frames.np_owner == GUEST) & (domain.frames.np_flags & ALLOCATED != 0))
    pfns = domain.area.m2p[owned]
    order = np.argsort(pfns, kind="stable")
    mfns = owned[order].astype(np.int64)
    words = {name: int(xen.words[i]) for i, name in enumerate(NAMES)} | {"orig_rax": U64}
    extended = xen.engine.read_extended()
    crashed = xen.verdict is not None and xen.verdict.kind == "crash"
    start = domain.area.shared_info * PAGE_SIZE
    version = struct.pack("<QQ", MAJOR, MINOR) + b"".join(map(buffer, _ASKED))
    version += struct.pack("<QQ", HYPERVISOR_VIRT_START, PAGE_SIZE)
    if xen.vcpu.compat:  # the page size goes where a 32-bit structure has it, and leaves half of itself behind
        version = version[:-12] + version[-8:] + version[-4:]
    core = Core(
        contexts=[_context(xen, extended[:FXSAVE_SIZE])],
        registers=[[words[name] & xen.width.mask for name in (_PRSTATUS_32 if xen.vcpu.compat else _PRSTATUS)]],
        extended=[_with_xcr0(extended, xen.vcpu.xcr0) if len(extended) > FXSAVE_SIZE else extended],
        shared_info=bytes(xen.ram_bytes[start : start + PAGE_SIZE]),
        mfns=mfns,
        pfns=pfns[order],
        memory=domain.ram.table,
        segments=_segments(xen, mfns),
        version=version,
        signal=_SIGABRT if crashed else 0,
    )
    write(path, core)


def _with_xcr0(area: bytes, xcr0: int) -> bytes:
    """An XSAVE area as Linux's note has it, in which gdb looks for which registers there are."""
    return area[:XCR0_AT] + xcr0.to_bytes(8, "little") + area[XCR0_AT + 8 :]


def _segments(xen: Hypervisor, mfns: I64s) -> list[Segment]:
    """What the kernel's tables map of the domain's own pages: the longest stretches, if they are too many."""
    domain = xen.domain
    own = 0 if xen.vcpu.compat else xen.vcpu.kernel_root << PAGE_SHIFT
    root = own or domain.guest.root
    if not len(mfns):
        return []
    found = mappings(FrameArray(domain.ram.table), LONG, root)
    if not xen.vcpu.compat:  # whose kernel runs in ring 1, and needs no US
        found = found.only((found.rights & np.uint64(e.US)) != 0)
    found = found.small()
    index = np.full(domain.frames.frames, -1, dtype=np.int64)
    index[mfns] = np.arange(len(mfns))
    inside = found.frame < len(index)
    place = np.where(inside, index[np.where(inside, found.frame, 0)], -1)
    often = np.bincount(place[place >= 0], minlength=len(mfns)) > _OFTEN
    shown = (place >= 0) & ~often[place]
    found, place = found.only(shown), place[shown]
    stretches = _stretches(found, place)
    longest = sorted(stretches, key=lambda segment: -segment.pages)[:MAX_SEGMENTS]
    return sorted(longest)


def _stretches(found: Mappings, place: I64s) -> list[Segment]:
    if not len(found):
        return []
    flags = (
        _PF_R | np.where(found.rights & np.uint64(e.RW), _PF_W, 0) | np.where(found.rights & np.uint64(e.NX), 0, _PF_X)
    )
    breaks = (found.vaddr[1:] != found.vaddr[:-1] + np.uint64(PAGE_SIZE)) | (place[1:] != place[:-1] + 1)
    starts = np.concatenate(([0], np.flatnonzero(breaks) + 1))
    counts = np.diff(np.append(starts, len(found)))
    together = np.bitwise_or.reduceat(flags, starts)
    columns = (found.vaddr[starts], place[starts], counts, together)
    return [Segment(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def _context(xen: Hypervisor, extended: bytes) -> bytes:
    """vcpu_guest_context of the vCPU, in the guest's width (xc_core.c: vcpu_guest_context_any_t)."""
    vcpu, words = xen.vcpu, xen.words
    flags = VGCF_i387_valid | VGCF_online
    flags |= VGCF_in_kernel if vcpu.kernel_mode else 0
    flags |= VGCF_failsafe_disables_events if vcpu.failsafe.masks_events else 0
    flags |= VGCF_syscall_disables_events if vcpu.syscall.masks_events else 0
    common = {
        "fpu_ctxt": extended,
        "user_regs": _user_regs(xen),
        "trap_ctxt": _traps(vcpu),
        "ldt_base": vcpu.ldt_base,
        "ldt_ents": vcpu.ldt_entries,
        "gdt_frames": [*vcpu.gdt_frames, *[0] * 16][:16],
        "gdt_ents": vcpu.gdt_entries,
        "kernel_ss": vcpu.kernel_ss,
        "kernel_sp": vcpu.kernel_sp,
        "event_callback_eip": vcpu.event.address,
        "failsafe_callback_eip": vcpu.failsafe.address,
        "vm_assist": sum(1 << kind for kind in xen.assists) & xen.width.mask,
        "debugreg": [each & xen.width.mask for each in vcpu.debug],
    }
    root = vcpu.kernel_root
    if vcpu.compat:
        cr3 = (root << PAGE_SHIFT | root >> 20) & _U32  # xen_pfn_to_cr3 for a table above 4 GiB
        context = VcpuGuestContext32.pack(
            **common,
            flags=flags & ~VGCF_syscall_disables_events,
            ctrlreg=[words[CR0] & _U32, 0, vcpu.cr2 & _U32, cr3, words[CR4] & _U32, 0, 0, 0],
            event_callback_cs=vcpu.event.cs,
            failsafe_callback_cs=vcpu.failsafe.cs,
        )
        return context.ljust(VcpuGuestContext64.size, b"\0")  # a union of both widths
    kernel, other = int(words[GS_BASE]), int(vcpu.gs_base_other)
    if not vcpu.kernel_mode:
        kernel, other = other, kernel
    return VcpuGuestContext64.pack(
        **common,
        flags=flags,
        ctrlreg=[words[CR0], vcpu.user_root << PAGE_SHIFT, vcpu.cr2, root << PAGE_SHIFT, words[CR4], 0, 0, 0],
        syscall_callback_eip=vcpu.syscall.address,
        fs_base=words[FS_BASE],
        gs_base_kernel=kernel,
        gs_base_user=other,
    )


_SELECTORS = {"cs": CS, "ss": SS, "ds": DS, "es": ES, "fs": FS, "gs": GS}


def _user_regs(xen: Hypervisor) -> bytes:
    """struct cpu_user_regs; a 32-bit guest's has the lower halves."""
    prefix, layout = ("e", CpuUserRegs32) if xen.vcpu.compat else ("r", CpuUserRegs64)
    values = {name: int(xen.words[i]) & 0xFFFF for name, i in _SELECTORS.items()}
    for i, name in enumerate(NAMES):
        field = prefix + name[1:]
        if field in layout.fields and name not in _SELECTORS:
            values[field] = int(xen.words[i]) & xen.width.mask
    values[prefix + "flags"] |= xen.vcpu.iopl << _IOPL_SHIFT
    values["saved_upcall_mask"] = xen.ram_bytes[xen.vcpu.info_at + VCPU_INFO_MASK]
    return layout.pack(**values)


def _traps(vcpu: Vcpu) -> bytes:
    layout = TrapInfo32 if vcpu.compat else TrapInfo64
    rows = []
    for vector, gate in enumerate(vcpu.traps):
        if gate is None:
            rows.append(bytes(layout.size))
            continue
        flags = gate.dpl | (TI_IF if gate.masks_events else 0)
        rows.append(layout.pack(vector=vector, flags=flags, cs=gate.cs, address=gate.address))
    return b"".join(rows)
