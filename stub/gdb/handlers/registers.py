"""g G p P: registers. Those in the engine's register file are read there, the others asked of the target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stub.gdb.handlers.registry import BadRequest, hexed, number, packet, unhex
from stub.gdb.model import TargetError

if TYPE_CHECKING:
    from stub.gdb.session import Session


@packet("g")
def read_all(session: Session, _: bytes) -> bytes:
    """All of them; one that cannot be read is marked so (``x`` for each digit)."""
    target, description = session.target, session.description
    try:
        return hexed(description.pack_all(target.words, target.read_register))
    except TargetError:
        return b"".join(_or_unavailable(session, n) for n in range(len(description)))


def _or_unavailable(session: Session, n: int) -> bytes:
    try:
        return _one(session, n)
    except TargetError:
        return b"x" * session.description.hex_digits[n]


@packet("G")
def write_all(session: Session, args: bytes) -> bytes:
    """Those whose value is another than now; a register that never changes may stand in the packet."""
    target, description = session.target, session.description
    failures = []
    for n, (name, value) in enumerate(description.unpack_all(unhex(args.replace(b"x", b"0")))):
        try:
            if description.read(n, target.words, target.read_register) != value:
                target.write_register(name, value)
        except TargetError as error:
            failures.append(f"{name}: {error}")
    if failures:
        raise TargetError("; ".join(failures[:3]))
    return b"OK"


def _one(session: Session, n: int) -> bytes:
    description, target = session.description, session.target
    return hexed(description.pack(n, description.read(n, target.words, target.read_register)))


@packet("p")
def read_one(session: Session, args: bytes) -> bytes:
    """One, by number."""
    n = number(args)
    if n >= len(session.description):
        raise BadRequest(f"there is no register {n}")
    return _one(session, n)


@packet("P")
def write_one(session: Session, args: bytes) -> bytes:
    """One, by number. A number that we do not have is accepted: clients with other tables go on."""
    which, _, digits = args.partition(b"=")
    n, data = number(which), unhex(digits)
    if n < len(session.description):
        register = session.description.registers[n]
        if len(data) != register.size:
            raise BadRequest(f"{register.name} has {register.size} bytes")
        session.target.write_register(register.name, int.from_bytes(data, "little"))
    return b"OK"
