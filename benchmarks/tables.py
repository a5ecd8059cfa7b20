"""Page tables at work: a million entries by hypercall, and ten thousand processes."""

from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks.commands import Setting, pvstub, qemu
from benchmarks.process import between, to_end
from benchmarks.samples import Series, alternate
from benchmarks.table import Row, Section
from benchmarks.traps import GUESTS
from harness.catalogue import load, ramdisk_with
from harness.small_guests import build

IMAGE = "debian-cloud"
ENTRIES, PROCESSES = 1_000_000, 10_000
_MOST_ROUNDS = 2  # of the second, which takes minutes
BEGIN, END = b"forks begin", b"forks end"


def run(setting: Setting) -> Section:
    """The first by a small guest, beside itself without the load; the second by turns with QEMU."""
    return Section(
        "Page tables",
        f"{ENTRIES:,} entries of a level 1 table mapped and unmapped by mmu_update, 500 a call, less the same guest "
        f"without them. {PROCESSES:,} processes of one page or two forked one after the other, from the line before to "
        "the line after; the peer is the same kernel with the same program on QEMU's TCG, with no hypervisor.",
        [
            Row("an entry written by mmu_update", _entries(setting), unit="µs"),
            Row(f"{IMAGE}, {PROCESSES:,} processes forked and ended", *_processes(setting)),
        ],
    )


def _entries(setting: Setting) -> Series:
    kernel = str(build(GUESTS / "mmu_update"))
    many, none = (
        pvstub(setting, kernel, "--memory", "32", "--quiet", "--cmdline", name) for name in ("million", "none")
    )
    with_many, without = alternate(setting.rounds, lambda: to_end(many), lambda: to_end(none))
    return (with_many - without) / ENTRIES


def _processes(setting: Setting) -> tuple[Series, Series]:
    image = load(IMAGE)
    assert image.ramdisk is not None
    ramdisk = setting.scratch / "forks"
    program = setting.scratch / "fork"
    compile_fork(program)
    ramdisk.write_bytes(ramdisk_with(image.ramdisk, {"/pvstub/main": program}))
    ours = pvstub(setting, IMAGE, "--ramdisk", str(ramdisk), "--cmdline", "console=hvc0 pvstub=exec")
    peer = qemu(image._replace(ramdisk=ramdisk))
    peer[-1] += " pvstub=exec"
    first, second = alternate(
        min(setting.rounds, _MOST_ROUNDS), lambda: between(ours, BEGIN, END), lambda: between(peer, BEGIN, END)
    )
    return first, second


def compile_fork(out: Path) -> None:
    """The guest's program."""
    command = ["gcc", "-O2", "-static", f"-DCOUNT={PROCESSES}", "-o", str(out), str(GUESTS / "fork.c")]
    subprocess.run(command, check=True)
