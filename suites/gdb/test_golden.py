"""A recorded session of a real gdb: the same bytes come in, the same bytes go out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from golden_session import COMMANDS, play, read, record, target

from stub.gdb.packet import encode
from stub.gdb.session import Session

AGAIN = "python -m suites.gdb.golden_session records it anew, if the stub is meant to answer otherwise"


def test_the_session_plays_again(tmp_path: Path) -> None:
    """Byte for byte, to the guest's end."""
    guest = target(tmp_path)
    session = Session(guest, on_detach="stop")
    answers = 0
    for said, answered, expected in play(session, read()):
        assert answered == expected, f"{said!r}: {AGAIN}"
        answers += 1
    assert answers > 90
    verdict = guest.machine.verdict
    assert verdict is not None
    assert verdict.kind == "poweroff"
    guest.machine.close()


def test_one_byte_at_a_time(tmp_path: Path) -> None:
    """However the client's bytes are cut, the answers are the same in all."""
    whole = read()
    pieces = [(side, bytes([byte])) for side, data in whole if side == ">" for byte in data]
    guest = target(tmp_path)
    session = Session(guest, on_detach="stop")
    said = b"".join(answered for _, answered, _ in play(session, pieces))
    assert said == b"".join(data for side, data in whole if side == "<")
    guest.machine.close()


@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed: apt install gdb")
def test_a_new_recording_is_one() -> None:
    """What this machine's gdb says may be other words; the recorder, and the guest's end, are the same."""
    exchanges = record()
    assert len(exchanges) > len(COMMANDS)
    assert encode(b"W00", rle=False) in b"".join(data for side, data in exchanges if side == "<")
