"""What a crash report says: registers, symbol, the page walk of an address, the code, the stack."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from stub.engine.base import NAMES, RIP, RSP
from stub.memory import entries as e
from stub.memory.formats import LONG
from stub.memory.frames import GUEST, TYPE_NAMES
from stub.memory.walker import FrameArray, walk
from stub.units import PAGE_SHIFT

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor


def registers(xen: Hypervisor) -> dict[str, int]:
    """Every register by name."""
    return {name: xen.words[i] for i, name in enumerate(NAMES)}


def symbolise(xen: Hypervisor, address: int) -> str:
    """``name+offset`` where the image has symbols, else the bare address."""
    found = xen.domain.image.symbols().find(address)
    return f"{address:#x}" if found is None else f"{address:#x} ({found[0]}+{found[1]:#x})"


def page_walk(xen: Hypervisor, address: int) -> Iterator[str]:
    """Each level of a translation, as Xen prints it, with what kind of frame it leads to."""
    domain = xen.domain
    root = domain.guest.root
    yield f"page walk of {address:#x} from mfn {root >> PAGE_SHIFT:#x}:"
    for step in walk(FrameArray(domain.ram.table), LONG, root, address).steps:
        known = step.entry & e.P and step.target < domain.frames.frames
        pfn = f"pfn {domain.m2p(step.target):#x}" if known and domain.frames.owner[step.target] == GUEST else "-"
        kind = TYPE_NAMES.get(domain.frames.type[step.target], "?") if known else ""
        yield f" L{step.level}[{step.slot:#05x}] = {step.entry:016x} {pfn} {kind}".rstrip()


def describe_state(xen: Hypervisor) -> Iterator[str]:
    """What the guest was doing when it was stopped from outside."""
    words = xen.words
    mode = "kernel" if xen.vcpu.kernel_mode else "user"
    doing = "blocked" if xen.vcpu.blocked else "running"
    yield f"the vCPU was {doing} at rip {symbolise(xen, words[RIP])} in {mode} mode"
    masked = "masked" if xen.ram_bytes[xen.vcpu.info_at + 1] else "unmasked"
    yield f"events {masked}, {'one' if xen.ram_bytes[xen.vcpu.info_at] else 'none'} pending"
    due = ", ".join(f"{name} at {when / 1e9:.6f} s" for name, when in sorted(xen.clock.timers.items()))
    yield f"virtual time {xen.clock.now / 1e9:.6f} s; timers: {due or 'none'}"
    yield from _register_lines(xen)


def _register_lines(xen: Hypervisor) -> Iterator[str]:
    named = registers(xen)
    names = list(named)
    for i in range(0, len(names), 4):
        yield "  ".join(f"{name:>7} {named[name]:016x}" for name in names[i : i + 4])


def describe_crash(xen: Hypervisor, address: int | None) -> Iterator[str]:
    """Lines for people, most telling first."""
    words = xen.words
    mode = "kernel" if xen.vcpu.kernel_mode else "user"
    yield f"rip {symbolise(xen, words[RIP])} in {mode} mode"
    yield from _register_lines(xen)
    code = xen.domain.guest.read_available(words[RIP], 16)
    yield f"code at rip: {code.hex(' ') or '(not mapped)'}"
    size = xen.domain.bits // 8
    stack = xen.domain.guest.read_available(words[RSP], 8 * size)
    if stack:
        yield "stack: " + " ".join(
            f"{int.from_bytes(stack[i : i + size], 'little'):0{2 * size}x}"
            for i in range(0, len(stack) + 1 - size, size)
        )
    if address is not None:
        yield from page_walk(xen, address)
    elif not code:
        yield from page_walk(xen, words[RIP])
