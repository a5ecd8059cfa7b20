"""The monitor commands of QEMU's that debuggers' tools look for, in QEMU's formats (QEMU, target/i386/monitor.c).

Linux's ``scripts/gdb`` takes whoever answers ``info version`` for QEMU; pwndbg and gef read ``info mem`` and
``info registers``. So these print nothing but what QEMU would, with one addition: ``info mem`` has the execute bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

import numpy as np

from stub.abi.x86_defns import MSR_EFER
from stub.domain.xenarea import GDT_LIMIT, GDT_VA, LDT_VA
from stub.engine.base import CR0, CR2, CR3, CR4, FS_BASE, GS_BASE, NAMES, RFLAGS, RIP
from stub.gdb.monitor import show
from stub.gdb.monitor.context import Context
from stub.gdb.monitor.registry import command
from stub.gdb.monitor.tables import CUT, MAX_RUNS, Mappings, mappings
from stub.hypervisor.privileged import MSR_READS
from stub.hypervisor.segments import descriptor
from stub.memory import entries as e
from stub.units import U64


@command("info version", "which program this is, and its version")
def version(_: Context) -> str:
    """A tool that sees an answer takes the stub for QEMU's."""
    return f"pvstub {metadata.version('pvstub')}\n"


@command("info cpus", "the vCPUs, as gdb's threads")
def cpus(context: Context) -> str:
    """vCPU n is thread n + 1."""
    halted = " (halted)" if context.xen.vcpu.blocked else ""
    return f"* CPU #0: thread_id=1{halted}\n"


_FLAGS = ((0x800, "O"), (0x80, "S"), (0x40, "Z"), (0x10, "A"), (4, "P"), (1, "C"))
_DIRECTION = 0x400
_SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")
_BY_NAME = {name: index for index, name in enumerate(NAMES)}


@command("info registers", "the vCPU's registers and descriptor tables")
def registers(context: Context) -> str:
    """CPL is the CPU's: 3 in the guest's kernel, too. Virtual IOPL and modes: monitor xen vcpu."""
    return "\n".join(_register_lines(context)) + "\n"


def _register_lines(context: Context) -> Iterator[str]:
    xen = context.xen
    words = xen.words
    general = ["rax rbx rcx rdx", "rsi rdi rbp rsp", "r8 r9 r10 r11", "r12 r13 r14 r15"]
    for row in general:
        yield " ".join(f"{name.upper():3}={words[_BY_NAME[name]]:016x}" for name in row.split())
    flags = words[RFLAGS]
    shown = "".join(letter if flags & bit else "-" for bit, letter in _FLAGS)
    shown = ("D" if flags & _DIRECTION else "-") + shown
    cpl, halted = words[_BY_NAME["cs"]] & 3, int(xen.vcpu.blocked)
    yield f"RIP={words[RIP]:016x} RFL={flags:08x} [{shown}] CPL={cpl} II=0 A20=1 SMM=0 HLT={halted}"
    for name in _SEGMENTS:
        yield _segment(context, name)
    v = xen.vcpu
    yield f"LDT=0000 {LDT_VA if v.ldt_entries else 0:016x} {max(v.ldt_entries * 8 - 1, 0):08x} 00000000"
    yield "TR =0000 0000000000000000 00000000 00000000"
    yield f"GDT=     {GDT_VA:016x} {GDT_LIMIT:08x}"
    yield "IDT=     0000000000000000 00000000"
    yield f"CR0={words[CR0]:08x} CR2={words[CR2]:016x} CR3={words[CR3]:016x} CR4={words[CR4]:08x}"
    yield " ".join(f"DR{i}={v.debug[i]:016x}" for i in range(4))
    yield f"DR6={v.debug[6]:016x} DR7={v.debug[7]:016x}"
    yield f"EFER={MSR_READS[MSR_EFER](xen):016x}"


def _segment(context: Context, name: str) -> str:
    """A segment register as QEMU prints it: selector, base, limit, the descriptor's flags."""
    words = context.xen.words
    selector = words[_BY_NAME[name]]
    value = descriptor(context.xen, selector) if selector & ~3 else 0
    base, limit = show.bounds(value)
    if name in ("fs", "gs"):
        base = words[FS_BASE if name == "fs" else GS_BASE]
    text = f"{name.upper():3}={selector:04x} {base:016x} {limit:08x} {value >> 32 & 0xF0FF00:08x}"
    if not value:
        return text
    kind = "CS64" if value >> 53 & 1 else ("CS32" if value >> 54 & 1 else "CS16") if value >> 43 & 1 else "DS"
    code = value >> 43 & 1
    marks = (
        ("C" if value >> 42 & 1 else "-") + ("R" if value >> 41 & 1 else "-")
        if code
        else (("E" if value >> 42 & 1 else "-") + ("W" if value >> 41 & 1 else "-"))
    )
    return f"{text} DPL={value >> 45 & 3} {kind:4} [{marks}{'A' if value >> 40 & 1 else '-'}]"


def reachable(context: Context) -> Mappings:
    """What the guest can reach under the root in use: Xen's own pages are left out, its M2P table is not."""
    xen = context.xen
    domain = xen.domain
    found = mappings(domain.ram, domain.root_in_use, fmt=domain.format)
    return found.only((found.rights & np.uint64(e.US)) != 0) if domain.format.marks_kernel else found


@command("info mem", "ranges of virtual memory with their rights: user, read, write, execute")
def mem(context: Context) -> str:
    """``u`` is what the guest gives to its user code: to the CPU, all pages of a PV guest are user pages."""
    found = reachable(context)
    rights = found.rights & np.uint64(e.RW | e.NX)
    marked = context.xen.domain.format.marks_kernel
    kernel = (found.entry & np.uint64(e.GUEST_KERNEL)) != 0 if marked else (found.rights & np.uint64(e.US)) == 0
    lines = []
    for run in found.runs(rights, kernel):
        start = int(found.vaddr[run.start])
        size = int(found.vaddr[run.stop - 1]) + int(found.size[run.stop - 1]) - start
        user = "-" if kernel[run.start] else "u"
        right = int(rights[run.start])
        access = f"{user}r{'w' if right & e.RW else '-'}{'-' if right & e.NX else 'x'}"
        lines.append(f"{start:016x}-{start + size & U64:016x} {size:016x} {access}\n")
    return "".join(lines) + (CUT if found.cut or len(lines) == MAX_RUNS else "")


_TLB = (
    (e.NX, "X"),
    (e.G, "G"),
    (e.PSE, "P"),
    (e.D, "D"),
    (e.A, "A"),
    (e.PCD, "C"),
    (e.PWT, "T"),
    (e.US, "U"),
    (e.RW, "W"),
)
_LINES = 4096


@command("info tlb [START] [COUNT]", "a line a page from START: address, machine address, flags; COUNT lines (4096)")
def tlb(context: Context, start: int = 0, count: int = _LINES) -> str:
    """A page of 2 MiB or 1 GiB is one line, marked P. What is not shown is said in the last line."""
    found = reachable(context)
    first = int(np.searchsorted(found.vaddr, np.uint64(start)))
    part = slice(first, first + min(count, len(found)))
    frames = found.frame[part] << 12
    large = found.size[part] > np.uint64(4096)
    lines = []
    for vaddr, maddr, entry, big in zip(
        found.vaddr[part].tolist(), frames.tolist(), found.entry[part].tolist(), large.tolist(), strict=True
    ):
        marks = "".join(letter if entry & bit and (bit != e.PSE or big) else "-" for bit, letter in _TLB)
        lines.append(f"{vaddr:016x}: {maddr:016x} {marks}\n")
    left = len(found) - first - len(lines)
    if left > 0:
        following = int(found.vaddr[first + len(lines)])
        lines.append(f"# {left} more: info tlb {following:#x} {count}\n")
    return "".join(lines)
