"""Faults of the stack segment that the engine reports as #GP: an address that is not canonical, by way of rsp or rbp.

The manual makes it #SS (x86 manual, vol. 1, 3.3.7.1 and vol. 3, 6.15); the engine knows no difference in 64-bit mode.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from stub.engine.base import NAMES, RBP, RIP, RSP
from stub.units import U64, is_canonical

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

_PUSHES = frozenset({"push", "pushfq", "call", "enter"})
_POPS = frozenset({"pop", "popfq", "ret", "iretq"})


@cache
def _decoder() -> Any:
    import capstone

    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.detail = True
    return decoder


def by_way_of_stack(xen: Hypervisor) -> bool:
    """Whether the instruction at RIP, which raised #GP(0) in 64-bit code, did so by its use of the stack."""
    words = xen.words
    if xen.vcpu.compat:
        return False
    code = xen.domain.guest.read_available(words[RIP], 15)
    for instruction in _decoder().disasm(code, words[RIP], 1):
        name = instruction.mnemonic
        if name in _PUSHES or name in _POPS or name == "leave":
            at = words[RBP] if name == "leave" else words[RSP] - 8 * (name in _PUSHES)
            return not is_canonical(at & U64)
        return any(_is_on_stack(xen, instruction, operand) for operand in instruction.operands)
    return False


def _is_on_stack(xen: Hypervisor, instruction: Any, operand: Any) -> bool:
    """Whether an operand is memory of the stack segment at no address."""
    from capstone import x86

    if operand.type != x86.X86_OP_MEM or operand.mem.base not in (x86.X86_REG_RSP, x86.X86_REG_RBP):
        return False
    if operand.mem.segment in (x86.X86_REG_FS, x86.X86_REG_GS):
        return False
    index = instruction.reg_name(operand.mem.index) if operand.mem.index else None
    at = xen.words[RSP if operand.mem.base == x86.X86_REG_RSP else RBP] + operand.mem.disp
    if index in NAMES:
        at += xen.words[NAMES.index(index)] * operand.mem.scale
    return not is_canonical(at & U64)
