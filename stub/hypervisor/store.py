"""Decodes the stores that Xen emulates on a page table: mov, xchg, cmpxchg, cmpxchg8b, and/or/bts/btr and kin.

capstone says what the instruction is; the meaning of each form is a row of a table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stub.abi.x86_defns import X86_EFLAGS_CF, X86_EFLAGS_SF, X86_EFLAGS_ZF
from stub.engine.base import NAMES, RAX, RBX, RCX, RDX, RFLAGS

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

_M32 = 0xFFFFFFFF
_BY_NAME = {name: i for i, name in enumerate(NAMES[:16])}
for _i, (_d, _w, _b) in enumerate(
    zip(
        ["eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"],
        ["ax", "cx", "dx", "bx", "sp", "bp", "si", "di"],
        ["al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil"],
        strict=True,
    )
):
    _BY_NAME |= {_d: _i, _w: _i, _b: _i}
_BY_NAME |= {f"r{i}{suffix}": i for i in range(8, 16) for suffix in "dwb"}


@dataclass
class Store:
    """A decoded store of ``size`` bytes; ``apply(old)`` is the new value, or None when nothing is written.

    ``plain``: what is written does not depend on what was there (a mov).
    """

    plain: bool
    size: int
    length: int
    apply: Callable[[int], int | None]
    commit: Callable[[], None]


def _plain(xen: Hypervisor, size: int, source: int, register: int | None) -> tuple[Any, Any]:
    return (lambda old: source), (lambda: None)


def _exchange(xen: Hypervisor, size: int, source: int, register: int | None) -> tuple[Any, Any]:
    seen: list[int] = []

    def apply(old: int) -> int:
        seen[:] = [old]
        return source

    def commit() -> None:
        if register is not None:
            xen.words[register] = merged(xen.words[register], seen[0], size)

    return apply, commit


def _compare_exchange(xen: Hypervisor, size: int, source: int, register: int | None) -> tuple[Any, Any]:
    mask = (1 << size * 8) - 1
    seen: list[int] = []

    def apply(old: int) -> int | None:
        seen[:] = [old]
        return source if old == xen.words[RAX] & mask else None

    def commit() -> None:
        equal = seen[0] == xen.words[RAX] & mask
        set_flag(xen, X86_EFLAGS_ZF, equal)
        if not equal:
            xen.words[RAX] = merged(xen.words[RAX], seen[0], size)

    return apply, commit


def _compare_exchange_8b(xen: Hypervisor, size: int, source: int, register: int | None) -> tuple[Any, Any]:
    words = xen.words
    wanted = (words[RDX] & _M32) << 32 | words[RAX] & _M32
    new = (words[RCX] & _M32) << 32 | words[RBX] & _M32
    seen: list[int] = []

    def apply(old: int) -> int | None:
        seen[:] = [old]
        return new if old == wanted else None

    def commit() -> None:
        set_flag(xen, X86_EFLAGS_ZF, seen[0] == wanted)
        if seen[0] != wanted:
            words[RAX], words[RDX] = seen[0] & _M32, seen[0] >> 32

    return apply, commit


def _logical(operation: Callable[[int, int], int]) -> Callable[..., tuple[Any, Any]]:
    def form(xen: Hypervisor, size: int, source: int, register: int | None) -> tuple[Any, Any]:
        result: list[int] = []

        def apply(old: int) -> int:
            result[:] = [operation(old, source) & ((1 << size * 8) - 1)]
            return result[0]

        def commit() -> None:
            xen.words[RFLAGS] &= ~0x8D5  # CF PF AF ZF SF OF
            set_flag(xen, X86_EFLAGS_ZF, result[0] == 0)
            set_flag(xen, X86_EFLAGS_SF, bool(result[0] >> (size * 8 - 1)))
            set_flag(xen, 4, bin(result[0] & 0xFF).count("1") % 2 == 0)

        return apply, commit

    return form


def _bit(operation: Callable[[int, int], int]) -> Callable[..., tuple[Any, Any]]:
    def form(xen: Hypervisor, size: int, source: int, register: int | None) -> tuple[Any, Any]:
        bit = 1 << (source & (size * 8 - 1))
        seen: list[int] = []

        def apply(old: int) -> int:
            seen[:] = [old]
            return operation(old, bit)

        return apply, lambda: set_flag(xen, X86_EFLAGS_CF, bool(seen[0] & bit))

    return form


def merged(register: int, value: int, size: int) -> int:
    """A register after a write of ``size`` bytes: 32-bit writes clear the upper half."""
    if size >= 4:
        return value
    mask = (1 << size * 8) - 1
    return register & ~mask | value & mask


def set_flag(xen: Hypervisor, flag: int, on: bool) -> None:
    """Set or clear one of the arithmetic flags."""
    xen.words[RFLAGS] = xen.words[RFLAGS] | flag if on else xen.words[RFLAGS] & ~flag


FORMS: dict[str, Callable[..., tuple[Any, Any]]] = {
    "mov": _plain,
    "movnti": _plain,
    "xchg": _exchange,
    "cmpxchg": _compare_exchange,
    "cmpxchg8b": _compare_exchange_8b,
    "and": _logical(lambda old, source: old & source),
    "or": _logical(lambda old, source: old | source),
    "bts": _bit(lambda old, bit: old | bit),
    "btr": _bit(lambda old, bit: old & ~bit),
}

_decoders: dict[bool, Any] = {}
_known: dict[tuple[bytes, bool], tuple[str, int, int, str, int]] = {}


def decode_store(xen: Hypervisor, code: bytes, is_64bit: bool) -> Store | None:
    """The store that ``code`` begins with, or None for an instruction that Xen leaves alone."""
    row = _known.get((code, is_64bit))
    if row is None:
        row = _known[code, is_64bit] = _decode(code, is_64bit)
        if len(_known) > 4096:
            _known.clear()
    mnemonic, size, length, register_name, immediate = row
    form = FORMS.get(mnemonic)
    if form is None:
        return None
    register = _BY_NAME.get(register_name)
    source = immediate
    if register is not None:
        source = xen.words[register] & ((1 << size * 8) - 1)
    elif register_name:
        return None  # ah, ch, dh, bh
    apply, commit = form(xen, size, source & ((1 << size * 8) - 1), register)
    return Store(form is _plain, size, length, apply, commit)


def _decode(code: bytes, is_64bit: bool) -> tuple[str, int, int, str, int]:
    """(mnemonic, operand bytes, length, register operand or "", immediate operand or 0)."""
    import capstone
    from capstone import x86

    if is_64bit not in _decoders:
        decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64 if is_64bit else capstone.CS_MODE_32)
        decoder.detail = True
        _decoders[is_64bit] = decoder
    for instruction in _decoders[is_64bit].disasm(code, 0, 1):
        memory = [o for o in instruction.operands if o.type == x86.X86_OP_MEM]
        others = [o for o in instruction.operands if o.type != x86.X86_OP_MEM]
        if len(memory) != 1 or (instruction.operands[0].type != x86.X86_OP_MEM and "xchg" not in instruction.mnemonic):
            break
        name, immediate = "", 0
        for operand in others[:1]:
            if operand.type == x86.X86_OP_REG:
                name = instruction.reg_name(operand.reg)
            else:
                immediate = operand.imm
        mnemonic = instruction.mnemonic.removeprefix("lock ").replace("movabs", "mov")
        return mnemonic, memory[0].size, instruction.size, name, immediate
    return "", 0, 0, "", 0
