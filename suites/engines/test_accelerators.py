"""What QEMU runs a guest with: tcg, or kvm where the host has it. The host's KVM is never asked for here: a program
that is no QEMU has its arguments looked at, and a QEMU that counts no instructions stands in for one with KVM."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from stub.cli import main
from stub.domain.config import ACCELERATOR_VARIABLE, DomainConfig
from stub.engine.qemu import process
from stub.errors import ConfigError, EngineError, UsageError
from stub.machine import Machine
from suites.boot.small_guest import SPIN, kernel, shutdown

MINIMAL = 32
COUNT_DOWN = b"\xb9\x00\x00\x10\x00\xff\xc9\x75\xfc"  # mov $0x100000,%ecx; 1: dec %ecx; jnz 1b


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a program that is no QEMU keeps its arguments, one a line; there is a KVM for it."""
    kept, folder = tmp_path / "arguments", tmp_path / "bin"
    folder.mkdir()
    fake = folder / process.PROGRAM
    fake.write_text(f'#!/bin/sh\ncase "$*" in --help) echo version 7.2 && exit ;; esac\nprintf "%s\\n" "$@" >{kept}\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(process, "_KVM_DEVICE", os.devnull)
    process.program.cache_clear()
    yield kept
    process.program.cache_clear()


@pytest.mark.parametrize("accel", ["tcg", "kvm"])
def test_qemu_is_told_what_to_run_with(accel: str, arguments: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="is gone"):
        Machine(DomainConfig(kernel=kernel(tmp_path, SPIN), memory=MINIMAL, engine="qemu", accel=accel))
    words = arguments.read_text().split("\n")
    said = words[words.index("-accel") + 1]
    assert said.split(",")[0] == accel
    assert ("-icount" in words) == (accel == "tcg")
    assert "kvm=off" in words[words.index("-cpu") + 1] or accel == "tcg", "the guest is to see Xen only"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (errno.ENOENT, "there is no /dev/kvm; turn on virtualisation in the firmware and load kvm_intel or kvm_amd"),
        (errno.EACCES, r"no right to /dev/kvm; become a member of its group \(usermod -aG kvm\)"),
        (errno.ENODEV, "/dev/kvm cannot be opened: No such device; load kvm_intel or kvm_amd"),
    ],
)
def test_without_kvm_one_line_says_what_is_missing(
    error: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refused(path: str, flags: int) -> NoReturn:
        raise OSError(error, os.strerror(error), path)

    with monkeypatch.context() as changed:
        changed.setattr(process.os, "open", refused)
        with pytest.raises(EngineError, match=rf"^qemu engine: {message}, or use --accel tcg$"):
            process.check_kvm()
    monkeypatch.setattr(process, "_KVM_DEVICE", str(tmp_path / "none"))
    words = ["boot", str(kernel(tmp_path, SPIN)), "--engine=qemu", "--accel=kvm", f"--run={tmp_path / 'run'}"]
    assert main(words) == EngineError.status
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pvstub: qemu engine: there is no ")


def test_only_qemu_has_one_to_choose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = str(kernel(tmp_path, SPIN))
    assert main(["boot", image, "--engine=unicorn", "--accel=kvm"]) == UsageError.status
    assert "--accel kvm: the unicorn engine has none to choose; add --engine qemu" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="use one of tcg, kvm"):
        DomainConfig(kernel=Path(image), accel="hax")


def test_the_environment_names_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert DomainConfig(kernel=tmp_path).accel == "tcg"
    monkeypatch.setenv(ACCELERATOR_VARIABLE, "kvm")
    assert DomainConfig(kernel=tmp_path).accel == "kvm"


def test_where_nothing_counts_instructions_time_is_the_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nanoseconds of a clock that runs on: a deadline is kept, and the guest gets to its end."""
    monkeypatch.setitem(process._ACCELERATORS, process.KVM, ("-accel", "tcg,thread=single"))
    monkeypatch.setitem(process._MODELS, process.KVM, process._MODELS[process.TCG])
    monkeypatch.setattr(process, "_KVM_DEVICE", os.devnull)
    image = kernel(tmp_path, COUNT_DOWN * 20 + shutdown(0))
    with Machine(DomainConfig(kernel=image, memory=MINIMAL, engine="qemu", accel="kvm")) as machine:
        machine.run(deadline_ns=100_000)
        assert machine.verdict is None
        assert machine.now_ns >= 100_000
        verdict = machine.run()
        assert machine.xen.engine.name == "qemu, kvm"
    assert verdict is not None
    assert verdict.kind == "poweroff"
