"""Any bytes from a guest to XenStore: no exception, nothing that grows, a tree that is whole.

Run by ``test_fuzz_xenstore.py`` for some seconds, or by hand for as long as one likes::

    python suites/robustness/fuzz_xenstore.py -max_total_time=600 /tmp/found suites/robustness/corpus/xenstore

The first byte of an input chooses among the flags below. If ``FRAMED``, each line of the rest becomes a message: its
first byte is the type, the second the transaction, ``|`` stands for a NUL. If ``RING``, the bytes go through the shared
page, and eight bytes behind each ``\\xff`` overwrite its indexes; else they go to the core.
"""

from __future__ import annotations

import struct
import sys
from contextlib import nullcontext
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

if __name__ == "__main__":
    import atheris

    sys.path.insert(0, str(ROOT))

with atheris.instrument_imports(include=["stub.devices"]) if __name__ == "__main__" else nullcontext():
    from stub.abi import xs_wire as abi
    from stub.devices.xenstore import Ring
    from stub.memory.ram import Ram
    from stub.units import PAGE_SIZE
    from suites.unit.xenstore_talk import Talk, message, messages, sound

FRAMED, RING, BYTEWISE, DEAF = (1 << bit for bit in range(4))
PIECE = 61
MOST_ROUNDS = 1000  # of taking answers


def framed(data: bytes) -> bytes:
    """Each line as a message with the right length."""
    return b"".join(
        message(line[0], line[2:].replace(b"|", b"\0"), 7, line[1] & 15) for line in data.split(b"\n") if len(line) > 1
    )


def converse(data: bytes) -> None:
    """One input: what it leads to, and that the store still answers."""
    flags, data = (data[0], data[1:]) if data else (0, b"")
    talk = Talk()
    if flags & FRAMED:
        data = framed(data)
    (through_ring if flags & RING else to_core)(talk, data, flags)
    sound(talk)
    talk.wire.restart()
    assert talk.read("domid") == b"1"
    assert talk.ask(abi.XS_RM, "data\0") in (b"OK\0", "EACCES")
    sound(talk)


def to_core(talk: Talk, data: bytes, flags: int) -> None:
    """Straight to the conversation; a deaf guest takes nothing."""
    size = 1 if flags & BYTEWISE else PIECE
    heard = b""
    for at in range(0, len(data), size):
        talk.wire.receive(data[at : at + size])
        if not flags & DEAF:
            heard += talk.wire.take(1 << 20)
            talk.dom0.write("/local/domain/1/memory/target", at)
    if not talk.wire.error:
        messages(heard + talk.wire.take(1 << 24))
        assert not talk.wire.pending


def through_ring(talk: Talk, data: bytes, flags: int) -> None:
    """Through a page, whose indexes the guest may write as it likes."""
    ram = Ram(2)
    ring = Ring(ram, 0, talk.wire, lambda: None, lambda: None)
    indexes = abi.XenstoreDomainInterface.fields["req_cons"].offset
    for piece in data.split(b"\xff"):
        if len(piece) >= 8 and flags & BYTEWISE:
            field, value, rest = piece[0] % 7, piece[1:5], piece[5:]
            ram.bytes[indexes + 4 * field : indexes + 4 * field + 4] = value
        else:
            rest = piece
        (producer,) = struct.unpack_from("<I", ram.map, indexes + 4)
        for i, byte in enumerate(rest[:1024]):
            ram.bytes[producer + i & 1023] = byte
        ram.bytes[indexes + 4 : indexes + 8] = struct.pack("<I", producer + len(rest[:1024]) & 0xFFFFFFFF)
        for _ in range(MOST_ROUNDS):
            if not ring.service() or flags & DEAF:
                break
            ram.bytes[indexes + 8 : indexes + 12] = ram.bytes[indexes + 12 : indexes + 16]
        else:
            raise AssertionError("it does not come to an end")
    assert not any(ram.bytes[PAGE_SIZE:])
    ring.disconnect()


def main() -> None:
    """Fuzz; the arguments are libFuzzer's."""
    atheris.Setup(sys.argv, converse)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
