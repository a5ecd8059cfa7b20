"""QEMU's own packets, which tools for kernels look for (QEMU, docs/system/gdb.rst "Advanced debugging options")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stub.gdb.handlers.registry import REGISTRY, BadRequest, number, packet
from stub.gdb.model import Space

if TYPE_CHECKING:
    from stub.gdb.session import Session

_STEP_BITS = {"ENABLE": 1, "NOIRQ": 2, "NOTIMER": 4}
STEP_DEFAULT = sum(_STEP_BITS.values())
_PREFIX = b"qqemu."


@packet("qqemu.Supported")
def supported(_: Session, __: bytes) -> bytes:
    """The names of the others."""
    names = [name.removeprefix(_PREFIX) for name in REGISTRY.rows if name.startswith(_PREFIX)]
    return b";".join(name for name in names if name != b"Supported")


@packet("qqemu.sstepbits")
def step_bits(_: Session, __: bytes) -> bytes:
    """What the bits of ``sstep`` mean."""
    return ",".join(f"{name}={value:x}" for name, value in _STEP_BITS.items()).encode()


@packet("qqemu.sstep")
def step_mode(session: Session, _: bytes) -> bytes:
    """The bits as they are set."""
    return b"0x%x" % session.step_bits


@packet("Qqemu.sstep")
def set_step_mode(session: Session, args: bytes) -> bytes:
    """``=`` and the bits."""
    bits = number(args.removeprefix(b"="))
    if bits & ~STEP_DEFAULT:
        raise BadRequest("there are no such bits")
    session.step_bits = bits
    session.target.steps_into_events = not bits & _STEP_BITS["NOIRQ"]
    return b"OK"


@packet("qqemu.PhyMemMode")
def memory_mode(session: Session, _: bytes) -> bytes:
    """1 if addresses count machine memory."""
    return b"1" if session.space is Space.MACHINE else b"0"


@packet("Qqemu.PhyMemMode")
def set_memory_mode(session: Session, args: bytes) -> bytes:
    """From now on m, M, x, X, qSearch and qCRC mean machine memory, or virtual memory again."""
    session.space = Space.MACHINE if number(args) else Space.VIRTUAL
    return b"OK"
