"""A vCPU's registers by the names of ``features.py``: from the engine's file, its FXSAVE area, and what Xen keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from stub.abi.cpufeatureset import X86_XCR0_YMM, XSTATE_AREA_MIN_SIZE, XSTATE_FP_SSE
from stub.abi.x86_defns import X86_CR0_TS
from stub.engine.base import CR0, FS_BASE, GS_BASE, NAMES, RETIRED, RFLAGS
from stub.gdb.model import TargetError
from stub.hypervisor.privileged import GUEST_CR0, guest_efer
from stub.hypervisor.vcpu import VCPU_INFO_MASK
from stub.units import PAGE_SHIFT, U64, is_canonical

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor
    from stub.machine import Machine

_USER_FLAGS = 0x254DD5  # what popf changes in ring 3, and RF: CF PF AF ZF SF TF DF OF NT RF AC ID
_WORDS = {name: at for at, name in enumerate(NAMES) if not name.startswith("cr")}
_WORDS |= {"eflags": RFLAGS, "eip": _WORDS["rip"]} | {f"e{name}": _WORDS[f"r{name}"] for name in
                                                       ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp")}  # fmt: skip
_SELECTORS = {"cs", "ss", "ds", "es", "fs", "gs"}

# In the FXSAVE area: name → (offset, bytes). fiseg and foseg are not there in the 64-bit form.
_EXTENDED = (
    {"fctrl": (0, 2), "fstat": (2, 2), "fop": (6, 2), "fioff": (8, 4), "fooff": (16, 4), "mxcsr": (24, 4)}
    | {f"st{n}": (32 + 16 * n, 10) for n in range(8)}
    | {f"xmm{n}": (160 + 16 * n, 16) for n in range(16)}
)
_UPPER = {f"ymm{n}h": n for n in range(16)}  # in an XSAVE area
_STATES_AT, _UPPER_AT = 512, XSTATE_AREA_MIN_SIZE

_POINTERS = {"fop", "fioff", "fooff"}  # of the last x87 instruction: always 0


def _full_tags(area: bytes) -> int:
    """The tag word, two bits a register by physical number: valid, zero, special, empty (x86 manual, vol. 1, 8.1.7)."""
    top = area[3] >> 3 & 7
    word = 0
    for physical in range(8):
        value = area[32 + 16 * ((physical - top) % 8) :][:10]
        exponent, fraction = int.from_bytes(value[8:], "little") & 0x7FFF, int.from_bytes(value[:8], "little")
        if not area[4] >> physical & 1:
            tag = 3
        elif exponent == 0 and fraction == 0:
            tag = 1
        else:
            tag = 0 if 0 < exponent < 0x7FFF and fraction >> 63 else 2
        word |= tag << 2 * physical
    return word


_XEN: dict[str, Callable[[Machine], int]] = {
    "cr0": lambda machine: GUEST_CR0 | machine.xen.words[CR0] & X86_CR0_TS,
    "cr2": lambda machine: machine.xen.vcpu.cr2,
    "cr3": lambda machine: machine.xen.domain.root_in_use << PAGE_SHIFT,
    "cr4": lambda machine: machine.xen.vcpu.cr4,
    "cr8": lambda _: 0,
    "efer": lambda machine: guest_efer(machine.xen.vcpu),
    "k_gs_base": lambda machine: machine.xen.vcpu.gs_base_other,
    "mode": lambda machine: int(not machine.xen.vcpu.kernel_mode),
    "event_mask": lambda machine: machine.xen.ram_bytes[machine.xen.vcpu.info_at + VCPU_INFO_MASK],
    "event_pending": lambda machine: machine.xen.ram_bytes[machine.xen.vcpu.info_at],
    "virtual_time": lambda machine: machine.now_ns,
    "retired": lambda machine: machine.retired,
}


# They move while a function runs that gdb called; gdb for x86 then puts all registers back, whatever the description
# says of ``save-restore`` (gdb/i386-tdep.c, i386_register_reggroup_p). A refusal would leave it half-way.
_NOT_PUT_BACK = {"virtual_time", "retired", "cr0", "cr2"}


def read(machine: Machine, name: str) -> int:
    """A register's value."""
    at = _WORDS.get(name)
    if at is not None:
        return machine.xen.words[at]
    if name in _XEN:
        return _XEN[name](machine)
    if name in ("fiseg", "foseg"):
        return 0
    area = machine.xen.engine.read_extended()
    if name in _UPPER:
        return _read_upper(area, _UPPER[name])
    if name == "ftag":
        return _full_tags(area)
    if name not in _EXTENDED:
        raise TargetError(f"there is no register {name}")
    offset, size = _EXTENDED[name]
    return int.from_bytes(area[offset : offset + size], "little")


def has_avx(machine: Machine) -> bool:
    """Whether there are AVX registers: then the area is XSAVE's, with their upper halves behind its header."""
    return len(machine.xen.engine.read_extended()) > _UPPER_AT


def _read_upper(area: bytes, number: int) -> int:
    """The upper half of an AVX register; of those in their first state the area says nothing."""
    if not area[_STATES_AT] & X86_XCR0_YMM:
        return 0
    at = _UPPER_AT + 16 * number
    return int.from_bytes(area[at : at + 16], "little")


def _write_upper(area: bytearray, number: int, value: int) -> None:
    if not area[_STATES_AT] & X86_XCR0_YMM:
        area[_STATES_AT] |= X86_XCR0_YMM
        area[_UPPER_AT:] = bytes(len(area) - _UPPER_AT)
    at = _UPPER_AT + 16 * number
    area[at : at + 16] = (value & (1 << 128) - 1).to_bytes(16, "little")


def write(machine: Machine, name: str, value: int) -> None:
    """Change a register, as far as a guest could: what only Xen sets cannot be, and an event stays pending."""
    xen = machine.xen
    if name in _NOT_PUT_BACK or (name == "event_pending" and not value):
        return
    at = _WORDS.get(name)
    if at is not None:
        _write_word(xen, name, at, value)
    elif name == "k_gs_base":
        xen.vcpu.gs_base_other = _canonical(name, value)
    elif name in ("event_mask", "event_pending"):
        xen.ram_bytes[xen.vcpu.info_at + (VCPU_INFO_MASK if name == "event_mask" else 0)] = int(value != 0)
    elif name in _XEN or name in ("fiseg", "foseg"):
        if value != read(machine, name):
            raise TargetError(f"{name} cannot be changed from outside")
    else:
        _write_extended(xen, name, value)


def _canonical(name: str, value: int) -> int:
    if not is_canonical(value):
        raise TargetError(f"{value:#x} is no canonical address, and {name} takes no other")
    return value


def _write_word(xen: Hypervisor, name: str, at: int, value: int) -> None:
    words = xen.words
    if name in _SELECTORS:
        if value != words[at]:
            raise TargetError(f"{name} cannot be changed from outside: the guest loads it")
        return
    if at in (FS_BASE, GS_BASE):
        _canonical(name, value)
    if at == RFLAGS:
        value = words[at] & ~_USER_FLAGS | value & _USER_FLAGS
    words[at] = value & U64


def _write_extended(xen: Hypervisor, name: str, value: int) -> None:
    area = bytearray(xen.engine.read_extended())
    if len(area) > _STATES_AT:
        area[_STATES_AT] |= XSTATE_FP_SSE
    if name in _POINTERS and not value:
        return
    if name in _UPPER:
        _write_upper(area, _UPPER[name], value)
    elif name == "ftag":
        area[4] = sum(1 << n for n in range(8) if value >> 2 * n & 3 != 3)
    elif name in _EXTENDED and name not in _POINTERS:
        offset, size = _EXTENDED[name]
        area[offset : offset + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        if name == "mxcsr":
            area[26:28] = b"\0\0"  # reserved bits would be a #GP
    elif name in _POINTERS:
        raise TargetError(f"{name} cannot be changed: the engine does not keep it")
    else:
        raise TargetError(f"there is no register {name}")
    xen.engine.write_extended(bytes(area))


def kernel_or_user(xen: Hypervisor) -> str:
    """What a vCPU is about, in a few words."""
    vcpu = xen.vcpu
    where = "kernel" if vcpu.kernel_mode else "user"
    state = "blocked" if vcpu.blocked else f"running {where} code"
    at = vcpu.info_at
    events = "masked" if xen.ram_bytes[at + VCPU_INFO_MASK] else "unmasked"
    pending = ", one pending" if xen.ram_bytes[at] else ""
    retired = xen.words[RETIRED]
    return f"{state}, events {events}{pending}, {retired:,} instruction{'' if retired == 1 else 's'}"
