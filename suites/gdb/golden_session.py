"""A real gdb's session with a small guest, byte for byte: how it is recorded, kept and played again.

``python -m suites.gdb.golden_session`` records it anew, into ``golden/session.txt``. The guest is put together here,
instruction by instruction, so that no compiler has a say in what the bytes are. In the file ``>`` stands before what
gdb sent, ``<`` before the answers, in Python's notation for bytes.
"""

from __future__ import annotations

import ast
import select
import socket
import struct
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from stub.abi.cpufeatureset import FEATURES
from stub.domain.config import DomainConfig
from stub.gdb.session import Session
from stub.gdb.target import MachineTarget
from stub.machine import Limits, Machine
from suites.boot.small_guest import CODE, kernel, shutdown

TRANSCRIPT = Path(__file__).with_name("golden") / "session.txt"
TOTAL, LOOP, THRICE = CODE + 0x880, CODE + 9, CODE + 0x100
Exchange = Sequence[tuple[str, bytes]]


def code() -> bytes:
    """Ten turns of a loop that calls a function and adds up in memory; then it powers off."""
    text = b"\x48\xc7\xc3\0\0\0\0"  # mov $0, %rbx
    text += b"\x31\xc9"  # xor %ecx, %ecx
    text += b"\xe8" + struct.pack("<i", THRICE - (CODE + len(text) + 5))  # call
    text += b"\x48\x01\xc3"  # add %rax, %rbx
    text += b"\x48\x89\x1d" + struct.pack("<i", TOTAL - (CODE + len(text) + 7))  # mov %rbx, total(%rip)
    text += b"\xff\xc1\x83\xf9\x0a"  # inc %ecx; cmp $10, %ecx
    text += b"\x75" + struct.pack("<b", LOOP - (CODE + len(text) + 2))  # jne
    text += shutdown(0)
    return text.ljust(THRICE - CODE, b"\x90") + b"\x8d\x04\x49\xc3"  # lea (%rcx,%rcx,2), %eax; ret


def target(folder: Path) -> MachineTarget:
    """The guest, at its first instruction."""
    config = DomainConfig(kernel=kernel(folder, code()), memory=32, without=tuple(FEATURES))
    return MachineTarget(Machine(config, None, Limits(virtual_ns=10**9)))


COMMANDS = (
    "info threads", "info registers", f"x/4i {CODE:#x}", f"x/4gx {CODE + 0x800:#x}", f"break *{THRICE:#x}", "continue",
    "stepi", "nexti", "info registers rip rax rcx cr3 mode retired virtual_time", "delete",
    f"watch *(long *) {TOTAL:#x}", "continue", "continue", "delete",
    "set breakpoint condition-evaluation target", f"hbreak *{THRICE:#x} if $rcx == 7", "continue", "print $rbx",
    "print $xmm3", "set $xmm3.v2_double[0] = 2.5", "print $xmm3", "set $rbx = 1000",
    f"set *(unsigned char *) {THRICE + 2:#x} = 0x09", f"find /b {CODE:#x}, +0x900, 0x83, 0xf9, 0x0a",
    "monitor xen stops", "monitor xen catch hypercall sched_op", "delete", "continue", f"print *(long *) {TOTAL:#x}",
    "stepi",
)  # fmt: skip


def play(session: Session, exchanges: Exchange) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Say what gdb said: what it was last, what is answered and what was answered then, piece by piece."""
    guest = session.target
    said, ready = b"", b""
    for side, data in exchanges:
        if side == ">":
            said = data
            ready += session.receive(data)
            while guest.running:
                stop = guest.advance()
                if stop is not None:
                    ready += session.stopped(stop)
        else:
            yield said, ready[: len(data)], data
            ready = ready[len(data) :]
    yield said, ready, b""


def read() -> Exchange:
    """What is in the file."""
    return [(line[0], ast.literal_eval(line[2:])) for line in TRANSCRIPT.read_text().splitlines() if line[0] in "<>"]


def _proxy(listener: socket.socket, address: str, exchanges: list[tuple[str, bytes]]) -> None:
    """Stand between gdb and the stub, and note all."""
    client, _ = listener.accept()
    with client, socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        while True:
            ready, _, _ = select.select([client, server], [], [])
            for source in ready:
                data = source.recv(1 << 16)
                if not data:
                    return
                (server if source is client else client).sendall(data)
                side = ">" if source is client else "<"
                if exchanges and exchanges[-1][0] == side:
                    exchanges[-1] = (side, exchanges[-1][1] + data)
                else:
                    exchanges.append((side, data))


def record() -> Exchange:
    """A session with the gdb of this machine."""
    from harness.gdb import Gdb
    from stub.gdb.server import Server

    exchanges: list[tuple[str, bytes]] = []
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/gdb")
        listener.listen()
        with Server(target(Path(folder)), f"unix:{folder}/stub", on_detach="stop") as server:
            threads = [
                threading.Thread(target=server.serve_until),
                threading.Thread(target=_proxy, args=(listener, server.remote, exchanges)),
            ]
            for thread in threads:
                thread.start()
            with Gdb() as gdb:
                gdb.connect(f"{folder}/gdb")
                for command in COMMANDS:
                    gdb.execute(command)
                    if command in ("continue", "stepi", "nexti"):
                        gdb.wait_stop()
            server.stop()
            for thread in reversed(threads):
                thread.join()
    return exchanges


if __name__ == "__main__":
    recorded = record()
    TRANSCRIPT.parent.mkdir(exist_ok=True)
    TRANSCRIPT.write_text("".join(f"{side} {data!r}\n" for side, data in recorded))
    print(f"{TRANSCRIPT}: {len(recorded)} exchanges")
