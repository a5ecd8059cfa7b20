"""The mnemonic of a privileged instruction from its bytes, as the architecture manual's opcode map names it.

Only what Xen emulates for a PV guest after #GP, far calls among it; enough to read a log by, no disassembler.
"""

from __future__ import annotations

from typing import Final

from stub.abi.x86_defns import INSN_PREFIXES

_ONE_BYTE: Final = {
    0x6C: "insb", 0x6D: "ins", 0x6E: "outsb", 0x6F: "outs", 0xE4: "in", 0xE5: "in", 0xE6: "out", 0xE7: "out",
    0xEC: "in", 0xED: "in", 0xEE: "out", 0xEF: "out", 0xF4: "hlt", 0xFA: "cli", 0xFB: "sti", 0xCF: "iret",
    0x9A: "lcall", 0xEA: "ljmp",
}  # fmt: skip
_TWO_BYTE: Final = {
    0x06: "clts", 0x08: "invd", 0x09: "wbinvd", 0x20: "mov from cr", 0x21: "mov from dr", 0x22: "mov to cr",
    0x23: "mov to dr", 0x30: "wrmsr", 0x31: "rdtsc", 0x32: "rdmsr", 0x33: "rdpmc", 0xA2: "cpuid",
}  # fmt: skip
_GROUP_7: Final = {0: "sgdt", 1: "sidt", 2: "lgdt", 3: "lidt", 4: "smsw", 6: "lmsw", 7: "invlpg"}
_GROUP_7_REGISTER: Final = {0xD0: "xgetbv", 0xD1: "xsetbv", 0xF8: "swapgs", 0xF9: "rdtscp"}
_GROUP_5: Final = {3: "lcall", 5: "ljmp"}
_GROUP_6: Final = {0: "sldt", 1: "str", 2: "lldt", 3: "ltr"}
UNKNOWN: Final = "instruction"


def mnemonic(insn: bytes) -> str:
    """The instruction's mnemonic; ``instruction`` where it is none of those."""
    code = insn.lstrip(INSN_PREFIXES)
    if not code:
        return UNKNOWN
    if code[0] != 0x0F or len(code) < 2:
        if code[0] == 0xFF and len(code) > 1:
            return _GROUP_5.get(code[1] >> 3 & 7, UNKNOWN)
        return _ONE_BYTE.get(code[0], UNKNOWN)
    second, modrm = code[1], code[2] if len(code) > 2 else None
    if second in (0x00, 0x01) and modrm is not None:
        return _group(second, modrm)
    name = _TWO_BYTE.get(second, UNKNOWN)
    if name.startswith("mov") and modrm is not None:
        return f"{name}{modrm >> 3 & 7}"
    return name


def _group(second: int, modrm: int) -> str:
    if second == 0x01 and modrm >> 6 == 3 and modrm in _GROUP_7_REGISTER:
        return _GROUP_7_REGISTER[modrm]
    return (_GROUP_6, _GROUP_7)[second].get(modrm >> 3 & 7, UNKNOWN)
