"""Z and z: breakpoints and watchpoints, with conditions that are evaluated here (GDB manual, E.2 "Packets")."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from stub.gdb.agent import AgentError, compile_expression
from stub.gdb.handlers.registry import BadRequest, number, packet, unhex
from stub.gdb.model import Kind, StopPoint, TargetError

if TYPE_CHECKING:
    from stub.gdb.session import Session

_KINDS = {b"%d" % kind.value: kind for kind in Kind}


def _place(text: bytes) -> tuple[Kind, int, int]:
    """Which stop point: kind, address, length."""
    parts = text.split(b",")
    if len(parts) != 3:
        raise BadRequest("a kind, an address and a length are needed")
    kind = _KINDS.get(parts[0])
    if kind is None:
        raise BadRequest("there is no such kind of stop point")
    length = number(parts[2])
    if not length and kind not in (Kind.SOFTWARE, Kind.HARDWARE):
        raise BadRequest("a watchpoint of 0 bytes")
    return kind, number(parts[1]), length


def _conditions(session: Session, text: bytes) -> tuple[Callable[[], int], ...]:
    """``X`` length ``,`` bytecode, one after the other."""
    conditions = []
    while text:
        if text[:1] != b"X":
            raise BadRequest("stop points take conditions only")
        size, comma, rest = text[1:].partition(b",")
        digits = 2 * number(size)
        if not comma or digits > len(rest):
            raise BadRequest("a condition is shorter than it says")
        conditions.append(_compiled(session, unhex(rest[:digits])))
        text = rest[digits:].removeprefix(b";")
    return tuple(conditions)


def _compiled(session: Session, code: bytes) -> Callable[[], int]:
    target, description = session.target, session.description

    def register(n: int) -> int:
        if n >= len(description):
            raise AgentError(f"there is no register {n}")
        try:
            return description.read(n, target.words, target.read_register)
        except TargetError as error:
            raise AgentError(str(error)) from error

    def load(address: int, size: int) -> int:
        try:
            data = target.read_memory(address, size)
        except TargetError as error:
            raise AgentError(str(error)) from error
        if len(data) != size:
            raise AgentError(f"there is no memory at {address:#x}")
        return int.from_bytes(data, "little")

    try:
        return compile_expression(
            code, words=lambda: target.words, index_of=description.word_of, register=register, load=load
        )
    except AgentError as error:
        raise BadRequest(f"the condition: {error}") from error


@packet("Z", "ConditionalBreakpoints+", "swbreak+", "hwbreak+")
def insert(session: Session, args: bytes) -> bytes:
    """Set one; the same again replaces it with its conditions."""
    place, _, conditions = args.partition(b";")
    kind, address, length = _place(place)
    compiled = _conditions(session, conditions) if conditions else ()
    session.target.insert(StopPoint(kind, address, length, compiled))
    return b"OK"


@packet("z")
def remove(session: Session, args: bytes) -> bytes:
    """Take one away; it need not be there."""
    session.target.remove(*_place(args))
    return b"OK"
