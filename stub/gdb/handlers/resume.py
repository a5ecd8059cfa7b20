"""c C s S vCont, D k vKill vRun R !, and ?: what runs the guest, ends it, or lets go of it.

A signal to be delivered (C, S) is none of a PV guest's business: its traps are its own, and were delivered already or
will be when it goes on. ``c`` is never answered with nothing, which gdb cannot get over: the answer is the stop.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from stub.gdb.handlers.registry import BadRequest, number, packet, pair, threads
from stub.gdb.model import Ended

if TYPE_CHECKING:
    from stub.gdb.session import Session


@packet("?")
def why_stopped(session: Session, _: bytes) -> bytes:
    """The last stop."""
    return session.stop_reply(session.target.last_stop())


def _resume(session: Session, step: bool = False, start: int = 0, end: int = 0) -> bytes | None:
    """Have the guest run; the answer comes with its next stop. One that has ended only says so again."""
    target = session.target
    last = target.last_stop()
    if isinstance(last, Ended):
        return session.stop_reply(last)
    if step:
        target.step(start, end)
    else:
        target.go()
    session.resumed()
    return None


def _from(session: Session, address: bytes) -> None:
    """``c`` and ``s`` may say where to go on."""
    if address:
        session.target.write_register(session.description.pc, number(address))


@packet("c")
def continue_(session: Session, args: bytes) -> bytes | None:
    """Continue."""
    _from(session, args)
    return _resume(session)


@packet("C")
def continue_with_signal(session: Session, args: bytes) -> bytes | None:
    """Continue; the signal is dropped."""
    signal, _, address = args.partition(b";")
    number(signal)
    return continue_(session, address)


@packet("s")
def step(session: Session, args: bytes) -> bytes | None:
    """One instruction."""
    _from(session, args)
    return _resume(session, step=True)


@packet("S")
def step_with_signal(session: Session, args: bytes) -> bytes | None:
    """One instruction; the signal is dropped."""
    signal, _, address = args.partition(b";")
    number(signal)
    return step(session, address)


@packet("vCont", "vContSupported+")
def v_cont(session: Session, args: bytes) -> bytes | None:
    """For each thread the first action that names it counts; if any steps, that is what happens."""
    if args == b"?":
        return b"vCont;c;C;s;S;r;t"
    if isinstance(session.target.last_stop(), Ended):
        return _resume(session)  # it has no threads any more
    how = _actions(args, session.target.vcpus())
    return why_stopped(session, b"") if how is None else _resume(session, *how)


@lru_cache(32)
def _actions(args: bytes, vcpus: int) -> tuple[bool, int, int] | None:
    """Whether to step, and in which range; None if all threads are to stand still. gdb says the same all the time."""
    if args[:1] != b";":
        raise BadRequest("an action is needed")
    chosen: dict[int, bytes] = {}
    for action in args[1:].split(b";"):
        what, _, thread = action.partition(b":")
        if what[:1] not in (b"c", b"C", b"s", b"S", b"r", b"t"):
            raise BadRequest("there is no such action")
        for n in threads(thread or b"-1", vcpus):
            chosen.setdefault(n, what)
    actions = {what[:1]: what for what in reversed(chosen.values())}
    if b"r" in actions:
        return (True, *pair(actions[b"r"][1:]))
    if b"s" in actions or b"S" in actions:
        return True, 0, 0
    return (False, 0, 0) if b"c" in actions or b"C" in actions else None


@packet("D", running=True)
def detach(session: Session, _: bytes) -> bytes:
    """Let go of the guest, in the way that was asked for when it was started."""
    session.leave()
    session.over = not session.extended
    return b"OK"


@packet("k", running=True)
def kill(session: Session, _: bytes) -> None:
    """End the guest's run. There is no answer."""
    session.kill()
    session.over = not session.extended


@packet("vKill", running=True)
def v_kill(session: Session, _: bytes) -> bytes:
    """The same, with an answer."""
    session.kill()
    return b"OK"


@packet("!")
def extend(session: Session, _: bytes) -> bytes:
    """From now on the connection outlives the guest, and ``R`` and ``vRun`` boot it again."""
    session.extended = True
    return b"OK"


@packet("R", running=True)
def restart(session: Session, _: bytes) -> None:
    """Boot the guest again. There is no answer."""
    session.restart()


@packet("vRun", running=True)
def run(session: Session, _: bytes) -> bytes:
    """Boot the guest again, whatever program is named: the answer is the stop at its first instruction."""
    session.restart()
    return why_stopped(session, b"")
