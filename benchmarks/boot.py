"""From the start of the command to the initramfs's first line, against QEMU on the same kernel and ramdisk."""

from __future__ import annotations

from functools import partial

from benchmarks.commands import INIT_REACHED, Setting, pvstub, qemu
from benchmarks.process import to_line
from benchmarks.samples import alternate
from benchmarks.table import Row, Section
from harness.catalogue import load

TARGETS = {"debian-cloud": 1.3, "debian-amd64": 1.0}
QEMU_TARGET = 1.5
ON_QEMU = "--engine=qemu"


ICOUNT = ("-icount", "shift=0")


def run(setting: Setting) -> Section:
    """Both kernels on both engines, QEMU beside each."""
    bare = {name: partial(qemu, load(name)) for name in TARGETS}
    return Section(
        "Boot",
        "From the start of the command to the initramfs's first line; images fetched, log on. "
        "The peer is QEMU's TCG with the same kernel and ramdisk and no hypervisor; then that as it counts "
        "instructions (`-icount`), as the QEMU engine has it do; in the last rows it is pvstub itself, on Unicorn. "
        "On the QEMU engine pvstub's CPU time is without QEMU's.",
        [_row(setting, name, bare[name](), target=target) for name, target in TARGETS.items()]
        + [_row(setting, f"{name} {ON_QEMU}", bare[name](), target=QEMU_TARGET) for name in TARGETS]
        + [_row(setting, f"{name} {ON_QEMU}", bare[name](*ICOUNT), " against -icount") for name in TARGETS]
        + [_row(setting, f"{name} {ON_QEMU}", pvstub(setting, name), " against Unicorn") for name in TARGETS],
    )


def _row(setting: Setting, ours: str, peer: list[str], against: str = "", target: float | None = None) -> Row:
    """What ``pvstub boot`` is told, beside the command ``peer``."""
    measured, beside = alternate(
        setting.rounds,
        lambda: to_line(pvstub(setting, *ours.split()), INIT_REACHED),
        lambda: to_line(peer, INIT_REACHED),
    )
    return Row(ours + against, measured, beside, target=target)
