"""Call gates of 32-bit guests, which the CPU cannot use: Xen does the far call or jump (arch/x86/pv/emul-gate-op.c).

``stub/memory/descriptors.py`` gives each gate the level 0 and leaves the guest's own in the RPL of its selector; so
using it is a #GP with the gate's selector. Any other #GP with a code comes here, too, and is the guest's in the end.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from stub.abi.x86_defns import (
    X86_EFLAGS_TF,
    X86_EXC_GP,
    X86_EXC_NP,
    X86_EXC_PF,
    X86_EXC_SS,
    X86_EXC_TS,
    PFEC_user_mode,
    PFEC_write_access,
)
from stub.engine.base import CS, DS, ES, FS, GS, NAMES, RAX, RBX, RCX, RDX, RETIRED, RFLAGS, RIP, RSP, SS
from stub.hypervisor import segments, traps
from stub.memory.guest import GuestFault
from stub.units import U64

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

_M32 = 0xFFFFFFFF
# of a descriptor's upper half; in a stack EXPANDS_DOWN, in code CONFORMING, and WRITABLE says that code can be read
_PRESENT, _NOT_SYSTEM, _CODE, _CONFORMING, _WRITABLE = 1 << 15, 1 << 12, 1 << 11, 1 << 10, 1 << 9
_WIDE, _PAGES = 1 << 22, 1 << 23
_EXPANDS_DOWN = _CONFORMING
_LEVEL = 3 << 13
_GATE_TYPE, _CALL_GATE = 0x1F00, 0x0C00
_LONGEST = 15

_CALL, _JUMP, _INDIRECT = 0x9A, 0xEA, 0xFF
_INDIRECT_CALL, _INDIRECT_JUMP = 3, 5  # ModRM's reg
_REGISTERS = {f"{width}{name[1:]}": i for width in ("", "e") for i, name in enumerate(NAMES[:8])}
_ON_STACK = ("esp", "ebp", "bp")
_SEGMENTS = {"cs": CS, "ds": DS, "es": ES, "fs": FS, "gs": GS, "ss": SS}


class _Refused(Exception):
    """The exception that the guest gets instead: vector, error code, and for a page fault the address."""


class _Segment(NamedTuple):
    """What a descriptor says; ``rights`` is its upper half. Of a selector that names none all is 0."""

    base: int
    limit: int
    rights: int

    @property
    def level(self) -> int:
        return self.rights >> 13 & 3

    @property
    def is_code(self) -> bool:
        return self.rights & (_NOT_SYSTEM | _CODE) == _NOT_SYSTEM | _CODE

    @property
    def is_writable(self) -> bool:
        return self.rights & (_NOT_SYSTEM | _CODE | _WRITABLE) == _NOT_SYSTEM | _WRITABLE

    def has_room(self, esp: int, size: int) -> bool:
        """Whether so many bytes can be pushed (check_stack_limit)."""
        bottom, last = (esp - size) & _M32, (esp - 1) & _M32
        return bottom < last and (bottom > self.limit if self.rights & _EXPANDS_DOWN else last <= self.limit)


class _Gate(NamedTuple):
    """A call gate: where it leads, who may use it, and how many words it takes from the caller's stack."""

    selector: int
    offset: int
    level: int
    parameters: int


class _Instruction(NamedTuple):
    """A far call or jump, with the selector that its operand has."""

    code: bytes
    is_jump: bool
    selector: int


class _Stack:
    """Where a call leaves its words: ``ss`` and ``esp``, and the address, which goes below 0 rather than around."""

    def __init__(self, xen: Hypervisor, ss: int, esp: int, base: int, code: int) -> None:
        self._guest = xen.domain.guest
        self.ss, self.esp, self._at = ss, esp, (base + esp) & _M32
        _check_reachable(xen, self._at, code)

    def push(self, value: int) -> None:
        self._at = (self._at - 4) & U64
        self.esp = (self.esp - 4) & _M32
        try:
            self._guest.write(self._at, (value & _M32).to_bytes(4, "little"))
        except GuestFault:
            raise _Refused(X86_EXC_PF, PFEC_write_access, self._at) from None


def emulate(xen: Hypervisor, code: int) -> None:
    """Do the far call or jump at RIP that raised a #GP with this code, or hand an exception to the guest."""
    words, rip = xen.words, xen.words[RIP]
    try:
        gate = _usable_gate(xen, code)
        found = _instruction(xen, code)
        if found.selector & ~3 != code or gate.level < found.selector & 3:
            _refuse(code)
        target = _target(xen, gate, found.is_jump)
        cs = gate.selector | words[CS] & 3
        if not found.is_jump:
            cs = gate.selector | min(target.level, words[CS] & 3)
            stack = _call(xen, gate, target, code)
            stack.push(words[CS])
            stack.push(words[RIP] + len(found.code))
            words[SS], words[RSP] = stack.ss, stack.esp
    except _Refused as refused:
        vector, error, *address = refused.args
        if address and not xen.vcpu.kernel_mode:
            error |= PFEC_user_mode
        traps.inject(xen, vector, error, *address)
        return
    old, words[CS] = words[CS], cs
    registers = words[RAX], words[RBX], words[RCX], words[RDX]
    xen.log.privileged(xen.clock.now, rip, found.code, registers, registers)
    if xen.vcpu.stands_still(words[RETIRED]):
        traps.crash_in_a_row(xen)
        return
    traps.step_over(xen, gate.offset)
    if not words[RFLAGS] & X86_EFLAGS_TF:
        traps.arrive(xen, old)


def _refuse(code: int, vector: int = X86_EXC_GP) -> NoReturn:
    raise _Refused(vector, code)


# -- descriptors


def _segment(xen: Hypervisor, selector: int) -> _Segment:
    """The segment that a selector names (pv_emul_read_descriptor)."""
    found = segments.as_loaded(xen, selector) if selector > 3 else 0
    rights = found >> 32
    limit = found & 0xFFFF | rights & 0xF0000
    if rights & _PAGES:
        limit = (limit + 1 << 12) - 1
    return _Segment(segments.base_of(found), limit, rights)


def _usable_gate(xen: Hypervisor, code: int) -> _Gate:
    """The call gate that the error code names, if it lets this ring in (read_gate_descriptor)."""
    vcpu = xen.vcpu
    if code < 4 or code >> 3 >= (vcpu.ldt_entries if code & 4 else vcpu.gdt_entries):
        _refuse(code)
    found = segments.as_loaded(xen, code)
    rights, level = found >> 32, found >> 16 & 3
    if rights & _LEVEL or rights & _GATE_TYPE != _CALL_GATE or level < xen.words[CS] & 3:
        _refuse(code)
    if not rights & _PRESENT:
        _refuse(code, X86_EXC_NP)
    return _Gate(found >> 16 & 0xFFFC, found & 0xFFFF | rights & 0xFFFF0000, level, rights & 0x1F)


def _target(xen: Hypervisor, gate: _Gate, is_jump: bool) -> _Segment:
    """The code segment that a gate leads to: a jump, but to conforming code, does not change the ring."""
    ring, target = xen.words[CS] & 3, _segment(xen, gate.selector)
    inwards = not is_jump or target.rights & _CONFORMING
    if not target.is_code or (target.level > ring if inwards else target.level != ring):
        _refuse(gate.selector)
    if not target.rights & _PRESENT:
        _refuse(gate.selector, X86_EXC_NP)
    if gate.offset > target.limit:
        _refuse(0)
    return target


# -- the instruction


@cache
def _decoder(is_wide: bool) -> Any:
    import capstone

    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32 if is_wide else capstone.CS_MODE_16)
    decoder.detail = True
    return decoder


def _instruction(xen: Hypervisor, code: int) -> _Instruction:
    """The far call or jump at RIP; anything else is refused with ``code``."""
    here, rip = _segment(xen, xen.words[CS]), xen.words[RIP] & _M32
    if not here.is_code or not here.rights & _PRESENT or rip > here.limit:
        _refuse(code)
    start, size = (here.base + rip) & _M32, min(_LONGEST, here.limit - rip + 1)
    data = xen.domain.guest.read_available(start, size)
    for found in _decoder(bool(here.rights & _WIDE)).disasm(data, 0, 1):
        taken, opcode, reg = data[: found.size], found.opcode[0], found.modrm >> 3 & 7
        if opcode in (_CALL, _JUMP):
            return _Instruction(taken, opcode == _JUMP, int.from_bytes(taken[-2:], "little"))
        if opcode == _INDIRECT and found.modrm < 0xC0 and reg in (_INDIRECT_CALL, _INDIRECT_JUMP):
            is_narrow = bool(here.rights & _WIDE) == (0x66 in found.prefix)
            return _Instruction(taken, reg == _INDIRECT_JUMP, _operand(xen, here, found, 2 if is_narrow else 4, code))
        _refuse(code)
    if len(data) < size:
        raise _Refused(X86_EXC_PF, 0, start + len(data))
    _refuse(code)


def _operand(xen: Hypervisor, here: _Segment, found: Any, skipped: int, code: int) -> int:
    """The selector of a far pointer in memory, behind ``skipped`` bytes of offset (read_mem)."""
    memory, words = found.operands[0].mem, xen.words
    base, index = (found.reg_name(register) if register else "" for register in (memory.base, memory.index))
    at = memory.disp + sum(
        words[_REGISTERS[name]] * scale for name, scale in ((base, 1), (index, memory.scale)) if name in _REGISTERS
    )
    offset = (at & (1 << 8 * found.addr_size) - 1) + skipped
    name = found.reg_name(memory.segment) if memory.segment else "ss" if base in _ON_STACK else "ds"
    segment = here if name == "cs" else _segment(xen, words[_SEGMENTS[name]])
    unreadable = segment.is_code and not segment.rights & _WRITABLE
    if not segment.rights & _NOT_SYSTEM or not segment.rights & _PRESENT or (unreadable and name != "cs"):
        _refuse(code)
    if segment.limit < 1 or offset > segment.limit - 1:
        _refuse(code)
    try:
        return int.from_bytes(xen.domain.guest.read((segment.base + offset) & _M32, 2), "little")
    except GuestFault as fault:
        raise _Refused(X86_EXC_PF, 0, fault.vaddr) from None


# -- stacks


def _check_reachable(xen: Hypervisor, top: int, code: int) -> None:
    """Whether what lies below ``top`` is the guest's (compat_access_ok, which looks at the last byte)."""
    if (top - 1) & U64 >= xen.width.hypervisor_start:
        _refuse(code)


def _call(xen: Hypervisor, gate: _Gate, target: _Segment, code: int) -> _Stack:
    """The stack for a call's return address: the caller's, or the kernel's with what goes there first."""
    words = xen.words
    ring = words[CS] & 3
    if target.level < ring:
        return _inner(xen, gate, target.level, code)
    ss, esp = words[SS], words[RSP] & _M32
    stack = _segment(xen, ss)
    if stack.level != ring:
        _refuse(code)
    if not stack.has_room(esp, 8):
        _refuse(0, X86_EXC_SS)
    return _Stack(xen, ss, esp, stack.base, code)


def _inner(xen: Hypervisor, gate: _Gate, level: int, code: int) -> _Stack:
    """The kernel's stack (of stack_switch), with the caller's ss and esp and its parameters. No other ring has one."""
    vcpu, words = xen.vcpu, xen.words
    if level != vcpu.kernel_rpl:
        _refuse(code)
    ss, esp = vcpu.kernel_ss, vcpu.kernel_sp & _M32
    inner = _segment(xen, ss)
    if ss & 3 != level or inner.level != level or not inner.is_writable:
        _refuse(ss & ~3, X86_EXC_TS)
    if not inner.rights & _PRESENT or not inner.has_room(esp, (4 + gate.parameters) * 4):
        _refuse(ss & ~3, X86_EXC_SS)
    stack = _Stack(xen, ss, esp, inner.base, code)
    stack.push(words[SS])
    stack.push(words[RSP])
    if gate.parameters:
        _copy_parameters(xen, gate, stack, code)
    return stack


def _copy_parameters(xen: Hypervisor, gate: _Gate, stack: _Stack, code: int) -> None:
    """Push the words on top of the caller's stack, whose limit is held against the kernel's esp, as Xen does."""
    words, size = xen.words, gate.parameters * 4
    outer = _segment(xen, words[SS])
    usable = outer.level == words[CS] & 3 and outer.is_writable
    if not usable or not outer.has_room((stack.esp + size) & _M32, size):
        _refuse(code)
    at = (outer.base + words[RSP] + size) & _M32
    _check_reachable(xen, at, code)
    for _ in range(gate.parameters):
        at = (at - 4) & U64
        try:
            value = xen.domain.guest.read_u32(at)
        except GuestFault:
            raise _Refused(X86_EXC_PF, 0, at) from None
        stack.push(value)
