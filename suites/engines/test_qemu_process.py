"""The process of the QEMU engine: missing, too old, dead in the middle of a run, left alone by a pvstub that died."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stub.domain.config import DomainConfig
from stub.engine.qemu import process
from stub.errors import ConfigError, EngineError
from stub.machine import Machine
from suites.boot.small_guest import SPIN, kernel, shutdown

MINIMAL = 32


@pytest.fixture
def booted(tmp_path: Path) -> Machine:
    """A guest on QEMU that never ends."""
    return Machine(DomainConfig(kernel=kernel(tmp_path, SPIN), memory=MINIMAL, engine="qemu"))


def qemus(pid: int) -> list[int]:
    """The QEMU processes that ``pid`` has started."""
    files = Path(f"/proc/{pid}/task").glob("*/children")
    found = [int(word) for file in files for word in file.read_text().split()]
    return [child for child in found if process.PROGRAM in command(child)]


def command(pid: int) -> str:
    """A process's command line; empty for one that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def fake_qemu(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have ``PATH`` hold nothing but a QEMU that says ``text``; none for an empty one."""
    monkeypatch.setenv("PATH", str(folder))
    process.program.cache_clear()
    if text:
        file = folder / process.PROGRAM
        file.write_text(f"#!/bin/sh\necho '{text}'\n", errors="surrogateescape")
        file.chmod(0o755)


@pytest.mark.parametrize(
    ("says", "message"),
    [
        ("", "is not installed; on Debian, apt install qemu-system-x86"),
        ("QEMU emulator version 6.2.0", "says version 6.2; 7.2 or newer is needed"),
        ("hello", "says no version; 7.2 or newer is needed"),
        ("\udcffQEMU\udcfe", "says no version; 7.2 or newer is needed"),
        ("'; while :; do echo there is no end; done; echo '", "says no version; 7.2 or newer is needed"),
    ],
)
def test_without_a_qemu_that_will_do_it_says_which_one_would(
    says: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_qemu(tmp_path, says, monkeypatch)
    try:
        with pytest.raises(EngineError) as caught:
            process.program()
    finally:
        process.program.cache_clear()
    assert str(caught.value).startswith("qemu engine: ")
    assert message in str(caught.value)


def test_an_unknown_engine_and_an_identity_of_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="use one of unicorn, qemu"):
        DomainConfig(kernel=tmp_path, engine="bochs")
    with pytest.raises(ConfigError, match="p2m identity"):
        DomainConfig(kernel=tmp_path, engine="qemu", p2m="identity")


def test_its_death_in_a_run_is_told_with_its_last_words(booted: Machine) -> None:
    booted.turn(instructions=1000)
    (qemu,) = qemus(os.getpid())
    os.kill(qemu, signal.SIGTERM)
    with booted, pytest.raises(EngineError, match=r"is gone; its last words: .*terminating on signal 15"):
        booted.run(deadline_ns=10**12)
    assert not Path(f"/proc/{qemu}").exists()


def test_a_trap_of_its_shim_is_told(booted: Machine) -> None:
    """Registers that no CPU takes: an XSAVE area whose header has what is reserved."""
    booted.turn(instructions=1000)
    engine = booted.xen.engine
    area = engine.read_extended()
    engine.write_extended(area)
    with booted, pytest.raises(EngineError, match="its shim trapped, vector 13"):
        engine.write_extended(area[:520] + b"\1" + area[521:])
    assert not qemus(os.getpid())


def test_a_closed_machine_leaves_no_process_and_its_registers(tmp_path: Path) -> None:
    config = DomainConfig(kernel=kernel(tmp_path, shutdown(0)), memory=MINIMAL, engine="qemu")
    with Machine(config) as machine:
        verdict = machine.run()
        retired = machine.retired
        assert len(qemus(os.getpid())) == 1
    assert verdict is not None
    assert verdict.kind == "poweroff"
    assert not qemus(os.getpid())
    assert machine.retired == retired > 0


def test_it_does_not_outlive_pvstub(tmp_path: Path) -> None:
    """Not even one that is killed outright."""
    image = kernel(tmp_path, SPIN)
    words = [Path(sys.executable).parent / "pvstub", "boot", image, "--memory=32", "--engine=qemu", "--quiet"]
    pvstub = subprocess.Popen([*words, f"--run={tmp_path / 'run'}"], stderr=subprocess.PIPE)
    found: list[int] = []
    while not found and pvstub.poll() is None:
        found = qemus(pvstub.pid)
    (qemu,) = found
    watched = os.pidfd_open(qemu)
    pvstub.kill()
    pvstub.wait()
    assert pvstub.stderr is not None
    pvstub.stderr.close()
    ended, _, _ = select.select([watched], [], [], 30)
    os.close(watched)
    assert ended, "QEMU runs on"
