"""What is said to XenStore, as lines of ``xenstore.log``."""

from __future__ import annotations

from pathlib import Path

import pytest

from stub.abi import xs_wire as abi
from stub.domain.config import DomainConfig
from stub.machine import Machine
from suites.boot.small_guest import SPIN, kernel
from suites.unit.xenstore_talk import Talk, message


@pytest.fixture
def said() -> tuple[Talk, list[str]]:
    """A conversation, and its lines."""
    talk, lines = Talk(), list[str]()
    talk.wire.on_traffic = lines.append
    return talk, lines


def test_one_line_for_each(said: tuple[Talk, list[str]]) -> None:
    talk, lines = said
    talk.read("name")
    talk.read("none")
    talk.watch("data", "tok en")
    talk.write("data/a", 'va\0l\n\xff"')
    talk.directory("control")
    talk.directory("data/a")
    talk.permissions("name")
    talk.allow("data/a", "n1", "r0")
    t = talk.begin()
    talk.rm("data/a", t)
    talk.end(t)
    talk.ask(99, b"x")
    assert lines == [
        'read name -> "guest"',
        "read none -> ENOENT",
        "watch data tok en -> OK",
        'event data "tok en"',
        'event data/a "tok en"',
        r'write data/a "va\x00l\n\xff"" -> OK',
        "directory control -> shutdown feature-poweroff feature-reboot feature-suspend sysrq "
        "platform-feature-multiprocessor-suspend platform-feature-...",
        "directory data/a -> nothing",
        "get_perms name -> n0 r1",
        'event data/a "tok en"',
        "set_perms data/a n1 r0 -> OK",
        'transaction_start -> "1"',
        "rm data/a in 1 -> OK",
        'event data/a "tok en"',
        "transaction_end T in 1 -> OK",
        "type 99 x -> ENOSYS",
    ]


@pytest.mark.parametrize("payload", [bytes(range(256)), b"\xff" * 4096, b"\0" * 4096, b"\xe2\x80\xa8\x1b[2J"])
@pytest.mark.parametrize("kind", [*abi.XS_TYPES, 99])
def test_a_line_is_a_line_whatever_is_said(said: tuple[Talk, list[str]], kind: int, payload: bytes) -> None:
    talk, lines = said
    talk.wire.receive(message(kind, payload))
    assert lines
    for line in lines:
        assert line.isascii()
        assert line.isprintable()
        assert len(line) < 500


def test_a_run_keeps_them(tmp_path: Path) -> None:
    """In the form of ``pvstub trace``, with the time since the first boot."""
    config = DomainConfig(kernel=kernel(tmp_path, SPIN), memory=32)
    with Machine(config, tmp_path / "run") as machine:
        machine.run(deadline_ns=2_500_000)
        wire = machine.xen.xenstore.wire
        wire.receive(message(abi.XS_READ, b"domid\0"))
        machine.reboot()
        machine.xen.xenstore.wire.receive(message(abi.XS_READ, b"none\0"))
    text = (tmp_path / "run" / "xenstore.log").read_text()
    assert text == '[   0.002500000] d1 read domid -> "1"\n[   0.002500000] d1 read none -> ENOENT\n'
    assert wire.on_traffic is None, "nobody is held by what is over"
    with Machine(config) as machine:
        assert machine.xen.xenstore.wire.on_traffic is None, "without a folder there is nothing to keep"
