"""qSupported, threads, H and T, qRcmd, QStartNoAckMode: who we are and what we can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stub.gdb.handlers.registry import REGISTRY, BadRequest, hexed, packet, unhex

if TYPE_CHECKING:
    from stub.gdb.session import Session

_UNDERSTOOD = {b"error-message+": "error_text", b"swbreak+": "swbreak", b"hwbreak+": "hwbreak"}


@packet("qSupported", "error-message+")
def supported(session: Session, args: bytes) -> bytes:
    """Take in what the client understands; claim what the registry holds."""
    for feature in args.split(b";"):
        name = _UNDERSTOOD.get(feature)
        if name is not None:
            setattr(session, name, True)
    return ";".join([f"PacketSize={session.packet_size:x}", *REGISTRY.claims(session)]).encode()


@packet("QStartNoAckMode", "QStartNoAckMode+")
def no_acknowledgements(session: Session, _: bytes) -> bytes:
    """This answer is the last that is acknowledged."""
    session.no_ack_next = True
    return b"OK"


@packet("H")
def choose_thread(session: Session, args: bytes) -> bytes:
    """``Hg`` and ``Hc``: registers and memory are of one vCPU for now, so it is only checked."""
    if args[:1] not in (b"g", b"c"):
        raise BadRequest("threads are chosen for g or c")
    chosen = session.threads(args[1:])
    if args[:1] == b"g" and chosen:  # a guest that has ended has no threads
        session.thread = chosen[0]
    return b"OK"


@packet("T")
def is_alive(session: Session, args: bytes) -> bytes:
    """A thread lives as long as its vCPU is there."""
    session.threads(args)
    return b"OK"


@packet("qC")
def current_thread(session: Session, _: bytes) -> bytes:
    """The one that ``Hg`` chose, or that stopped."""
    return b"QC%x" % session.thread


@packet("qAttached")
def attached(_: Session, __: bytes) -> bytes:
    """We did not start for gdb's sake, so that it detaches when it quits, and does not kill."""
    return b"1"


@packet("qfThreadInfo")
def threads_first(session: Session, _: bytes) -> bytes:
    """All threads; none once the guest has ended."""
    names = [b"%x" % (n + 1) for n in range(session.target.vcpus())]
    return b"m" + b",".join(names) if names else b"l"


@packet("qsThreadInfo")
def threads_more(_: Session, __: bytes) -> bytes:
    """No more."""
    return b"l"


@packet("qThreadExtraInfo")
def thread_description(session: Session, args: bytes) -> bytes:
    """What the vCPU does."""
    threads = session.threads(args.removeprefix(b","))
    if not threads:
        raise BadRequest("there is no such thread")
    return hexed(session.target.describe_vcpu(threads[0] - 1).encode())


@packet("qRcmd")
def monitor(session: Session, args: bytes) -> bytes:
    """A ``monitor`` command. Its text goes out as console output, in as many packets as it takes."""
    command = unhex(args.removeprefix(b",")).decode("utf-8", "replace")
    session.show(session.target.monitor(command))
    return b"OK"
