"""qXfer: the target description, the threads, the name of the guest's executable; read in pieces."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from stub.gdb.handlers.registry import BadRequest, packet, pair

if TYPE_CHECKING:
    from stub.gdb.session import Session


def _piece(session: Session, data: bytes, which: bytes) -> bytes:
    """``m`` and a part, or ``l`` and the last part. Escapes may double it."""
    offset, size = pair(which)
    size = min(size, session.packet_size // 2 - 1)
    return (b"m" if offset + size < len(data) else b"l") + data[offset : offset + size]


@packet("qXfer:features:read", "qXfer:features:read+")
def features(session: Session, args: bytes) -> bytes:
    """One file, ``target.xml``."""
    annex, _, which = args.partition(b":")
    if annex != b"target.xml":
        raise BadRequest("the description is one file: target.xml")
    return _piece(session, session.description.xml, which)


@packet("qXfer:threads:read", "qXfer:threads:read+")
def threads(session: Session, args: bytes) -> bytes:
    """vCPU n is thread n + 1, as QEMU has it."""
    target = session.target
    lines = [
        f'<thread id="{n + 1:x}" core="{n}" name="vCPU {n}">{escape(target.describe_vcpu(n))}</thread>'
        for n in range(target.vcpus())
    ]
    return _piece(session, "\n".join(["<threads>", *lines, "</threads>", ""]).encode(), args.removeprefix(b":"))


def _has_executable(session: Session) -> bool:
    return session.target.executable is not None


@packet("qXfer:exec-file:read", "qXfer:exec-file:read+", when=_has_executable)
def executable(session: Session, args: bytes) -> bytes:
    """The file that ``vFile`` lets be read, whatever process is asked about."""
    if session.target.executable is None:
        raise BadRequest("there is no file with the guest's symbols")
    return _piece(session, os.fsencode(session.target.executable), args.partition(b":")[2])
