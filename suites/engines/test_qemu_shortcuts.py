"""What makes the QEMU engine quicker: it changes no count, no time and no register."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from stub.abi.cpufeatureset import FEATURES
from stub.domain.config import DomainConfig
from stub.engine.qemu import process
from stub.machine import Machine
from suites.boot.small_guest import kernel, shutdown
from suites.engines.test_qemu_process import qemus

# mov $1000000,%ecx; 1: inc %rax; dec %ecx; jnz 1b
LOOP = bytes.fromhex("b940420f00 48ffc0 ffc9 75f9")
# mov $TSC_AUX,%ecx; mov $5,%eax; xor %edx,%edx; wrmsr; rdtscp; mov %rcx,%r8; mov %rax,%r9; rdtsc; mov %rax,%r10
TIMES = bytes.fromhex("b9030100c0 b805000000 31d2 0f30 0f01f9 4989c8 4989c1 0f31 4989c2")
CHEAPER_STORE = bytes.fromhex("3e895df0")


def ran(folder: Path, code: bytes, engine: str) -> Machine:
    """A guest that ran ``code`` and shut down."""
    image = kernel(folder, code + shutdown(0))
    with Machine(DomainConfig(kernel=image, memory=32, engine=engine, without=tuple(FEATURES))) as machine:
        verdict = machine.run()
    assert verdict is not None
    assert verdict.kind == "poweroff"
    return machine


def test_the_plugin_changes_no_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_it = ran(tmp_path, LOOP, "qemu")
    monkeypatch.setattr(process, "plugin_option", tuple)
    without = ran(tmp_path, LOOP, "qemu")
    assert with_it.retired == without.retired == ran(tmp_path, LOOP, "unicorn").retired > 3_000_000


@pytest.mark.skipif(not process.plugin_option(), reason="this QEMU takes no plugin of version 1")
def test_the_plugin_finds_the_code_of_qemu_7_2(tmp_path: Path) -> None:
    if process.program().version != (7, 2):
        pytest.skip("another QEMU, whose code may be of another form")
    config = DomainConfig(kernel=kernel(tmp_path, LOOP + shutdown(0)), memory=32, engine="qemu")
    with Machine(config) as machine:
        machine.run()
        (qemu,) = qemus(os.getpid())
        assert CHEAPER_STORE in _largest_code(qemu)


def _largest_code(pid: int) -> bytes:
    """The first MiB of the largest piece of a process's memory that can be written and run."""
    pieces = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) rwxp", Path(f"/proc/{pid}/maps").read_text(), re.MULTILINE)
    start = int(max(pieces, key=lambda piece: int(piece[1], 16) - int(piece[0], 16))[0], 16)
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        memory.seek(start)
        return memory.read(1 << 20)


def test_the_time_and_its_processor_are_read_alike(tmp_path: Path) -> None:
    one, other = (ran(tmp_path, TIMES, engine).registers() for engine in ("unicorn", "qemu"))
    assert one["r8"] == 5
    assert one["r10"] > one["r9"] > 0
    assert {name: other[name] for name in one} == one
