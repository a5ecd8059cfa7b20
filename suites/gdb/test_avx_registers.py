"""The AVX registers, where the engine's CPU has them: seen and changed by gdb, in core files, whatever XCR0 says."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from harness.debugging import DebugServer
from harness.gdb import Gdb
from harness.guests import Guest
from stub.domain.config import DomainConfig
from stub.machine import Machine
from suites.boot.small_guest import CODE, DATA_OFFSET, SPIN, kernel, set_xcr0

pytestmark = pytest.mark.pv_needs("avx")

DATA = CODE + DATA_OFFSET
# movabs $data, %rdi; vmovdqu (%rdi), %ymm1; here: vmovdqu %ymm1, 32(%rdi)
LOAD = set_xcr0(7) + b"\x48\xbf" + struct.pack("<Q", DATA) + b"\xc5\xfe\x6f\x0f"
STORE = b"\xc5\xfe\x7f\x4f\x20"
HERE = CODE + len(LOAD)


def core_of(machine: Machine, folder: Path) -> Path:
    """A core file of a guest that stands still."""
    machine.dump_core(folder / "core")
    return folder / "core"


def test_gdb_has_whole_registers(tmp_path: Path, guest: Guest) -> None:
    made = guest(kernel(tmp_path, LOAD + STORE + SPIN), memory=32)
    with DebugServer(made) as server, Gdb() as gdb:
        gdb.connect(server.address)
        gdb.execute(f"hbreak *{HERE:#x}")
        gdb.execute("continue")
        assert gdb.evaluate("$ymm1.v8_int32") == "{0, 1, 2, 3, 4, 5, 6, 7}"
        gdb.execute("set $ymm1.v8_int32[7] = 77")
        gdb.execute("set $xmm1.v4_int32[0] = 70")
        gdb.execute("set $ymm2.v8_int32[4] = 5")
        gdb.execute("stepi")
        assert gdb.evaluate(f"*(int[8] *){DATA + 32:#x}") == "{70, 1, 2, 3, 4, 5, 6, 77}"
        assert gdb.evaluate("$ymm2.v8_int32") == "{0, 0, 0, 0, 5, 0, 0, 0}"


@pytest.mark.parametrize("states", [3, 7])
def test_the_area_has_them_whatever_xcr0_says(states: int, tmp_path: Path) -> None:
    image = kernel(tmp_path, LOAD + set_xcr0(states) + SPIN)
    with Machine(DomainConfig(kernel=image, memory=32)) as machine:
        machine.run(deadline_ns=1_000_000)
        area = machine.xen.engine.read_extended()
        assert len(area) == 832
        assert area[160 + 16 : 160 + 32] == struct.pack("<4I", 0, 1, 2, 3)
        assert area[576 + 16 : 576 + 32] == struct.pack("<4I", 4, 5, 6, 7)
        machine.xen.engine.write_extended(area[:592] + bytes(range(16)) + area[608:])
        assert machine.xen.engine.read_extended()[592:608] == bytes(range(16))
        assert machine.xen.vcpu.xcr0 == states


def test_a_core_file_has_them(tmp_path: Path) -> None:
    with Machine(DomainConfig(kernel=kernel(tmp_path, LOAD + SPIN), memory=32)) as machine:
        machine.run(deadline_ns=1_000_000)
        path = core_of(machine, tmp_path)
    words = ["gdb", "-nx", "-batch", "-ex", f"core {path}", "-ex", "print $ymm1.v8_int32"]
    said = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    assert "= {0, 1, 2, 3, 4, 5, 6, 7}" in said
