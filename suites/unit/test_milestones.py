"""How far a boot came, by its run's folder."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from stub.abi import xen
from stub.trace import milestones
from stub.trace.writer import HypercallLog


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A boot that has its page tables and gets events."""
    with HypercallLog(tmp_path / "hypercalls", identity={"bits": 64}) as log:
        log.start(0, 0x1000, 0, 32 << 8)
        payload = struct.pack("<IIQQ", xen.MMUEXT_PIN_L1_TABLE, 0, 5, 0)
        log.hypercall(1_000, 0x1000, xen.Hypercall.mmuext_op, 0, 1, 0, xen.DOMID_SELF, 0, 0, payload, b"")
        payload = struct.pack("<IIQQ", xen.MMUEXT_PIN_L4_TABLE, 0, 5, 0)
        log.hypercall(2_000, 0x1000, xen.Hypercall.mmuext_op, 0, 1, 0, xen.DOMID_SELF, 0, 0, payload, b"")
        log.upcall(3_000_000, 0x1000, 0, 0x2000, False)
    return tmp_path


def test_the_log_tells_of_the_first(run: Path) -> None:
    assert [str(passed) for passed in milestones.reached(run)] == [
        "entry at 0.000000 s", "page tables of its own at 0.000002 s", "event upcalls at 0.003000 s",
    ]  # fmt: skip


def test_xenstore_and_the_console_tell_of_the_rest_by_time(run: Path) -> None:
    """With an initramfs the root file system comes after the first program."""
    (run / "xenstore.log").write_text(
        '[   1.500000000] d1 read device/vbd/51712/state -> "1"\n'
        '[   3.400000000] d1 write device/vbd/51712/state "4" in 5 -> OK\n'
    )
    (run / "console.log").write_text(
        "[    2.935177] Run /init as init process\r\n[    3.484930] EXT4-fs (xvda): mounted filesystem\r\n"
    )
    assert [passed.name for passed in milestones.reached(run)][3:] == [
        "XenStore", "first program", "a disk connected", "root mounted",
    ]  # fmt: skip
    assert str(milestones.last(run)) == "root mounted at 3.484930 s"


def test_a_line_without_a_time_follows_what_came_before_it(run: Path) -> None:
    (run / "console.log").write_text("pvstub: init reached\n")
    assert str(milestones.last(run)) == "first program"


def test_a_run_that_left_nothing_or_rubbish(tmp_path: Path) -> None:
    assert milestones.last(tmp_path) is None
    (tmp_path / "hypercalls").write_bytes(b"rubbish")
    (tmp_path / "console.log").write_bytes(b"\xff\x00 VFS: Mounted root")
    assert str(milestones.last(tmp_path)) == "root mounted"
