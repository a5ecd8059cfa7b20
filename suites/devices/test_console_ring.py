"""The PV console ring: what goes through it, either way, arrives whole, however fast its writer is."""

from __future__ import annotations

import hashlib

import pytest

from harness.guests import Guest

pytestmark = pytest.mark.guest("debian-cloud", extra="pvstub=exec loglevel=4")

LINES = 16_384  # of 64 bytes: a megabyte
REST = " the quick brown fox jumps over the lazy dog 0123456789.."  # of each line, behind its number
TYPED = 200_000  # bytes


def script(*commands: str) -> dict[str, str]:
    """A /pvstub/main of these shell commands."""
    return {"/pvstub/main": "\n".join(("#!/bin/sh", *commands, ""))}


def test_a_fast_writer_loses_nothing(guest: Guest) -> None:
    """A megabyte of numbered lines, written in blocks that are larger than the ring; the log has the same bytes."""
    lines_file = f"seq -w 1 {LINES} | sed 's/$/{REST}/' >/tmp/lines"
    writer = guest(files=script(lines_file, "echo begin", "cat /tmp/lines", "echo end"))
    writer.wait("poweroff", timeout=300)
    lines = writer.console.text.replace("\r", "").split("\n")
    begin = lines.index("begin") + 1
    expected = [f"{number:05}{REST}" for number in range(1, LINES + 1)]
    first_wrong = next((i for i in range(LINES) if lines[begin + i] != expected[i]), None)
    assert first_wrong is None, f"line {first_wrong} came as {lines[begin + first_wrong]!r}"
    assert lines[begin + LINES] == "end"
    assert (writer.run_directory / "console.log").read_bytes() == bytes(writer.machine.console.output)


def test_a_fast_typist_loses_nothing(guest: Guest) -> None:
    """Input that is far more than the ring (1 KiB) and the terminal's buffer (4 KiB) hold reaches its reader whole."""
    typed = b"".join(hashlib.sha256(bytes([i & 0xFF, i >> 8])).hexdigest().encode() for i in range(TYPED // 64))
    reader = guest(files=script("stty raw -echo", "echo ready", f"head -c {TYPED} | sha256sum"))
    reader.console.expect("ready")
    reader.machine.console.send(typed)
    line = reader.console.expect_line("^[0-9a-f]{64}  -", timeout=120)
    assert line.split()[0] == hashlib.sha256(typed).hexdigest()


def test_a_line_is_edited_and_echoed(guest: Guest) -> None:
    """A terminal in its usual mode: typed text is echoed, erase works, a line arrives when it is finished."""
    reader = guest(files=script("echo ready", "read -r line", 'echo "got <$line>"'))
    reader.console.expect("ready")
    reader.machine.console.send(b"hellp\x7fo world\r")
    reader.console.expect_exact("got <hello world>")
    reader.wait("poweroff", timeout=10)
