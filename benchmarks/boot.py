"""From the start of the command to the initramfs's first line, against QEMU on the same kernel and ramdisk."""

from __future__ import annotations

from benchmarks.commands import INIT_REACHED, Setting, pvstub, qemu
from benchmarks.process import to_line
from benchmarks.samples import alternate
from benchmarks.table import Row, Section
from harness.catalogue import load

TARGETS = {"debian-cloud": 1.3, "debian-amd64": 1.0}
QEMU_TARGET = 1.5
ON_QEMU = "--engine=qemu"


def run(setting: Setting) -> Section:
    """Both kernels on both engines, QEMU beside each."""
    return Section(
        "Boot",
        "From the start of the command to the initramfs's first line; images fetched, log on. "
        "The peer is QEMU's TCG with the same kernel and ramdisk and no hypervisor; in the last rows it is pvstub "
        "itself, on Unicorn. On the QEMU engine pvstub's CPU time is without QEMU's.",
        [_row(setting, name, target) for name, target in TARGETS.items()]
        + [_row(setting, name, QEMU_TARGET, ON_QEMU) for name in TARGETS]
        + [_between_engines(setting, name) for name in TARGETS],
    )


def _row(setting: Setting, name: str, target: float, *words: str) -> Row:
    image = load(name)
    ours, peer = alternate(
        setting.rounds,
        lambda: to_line(pvstub(setting, name, *words), INIT_REACHED),
        lambda: to_line(qemu(image), INIT_REACHED),
    )
    return Row(" ".join((name, *words)), ours, peer, target=target)


def _between_engines(setting: Setting, name: str) -> Row:
    ours, peer = alternate(
        setting.rounds,
        lambda: to_line(pvstub(setting, name, ON_QEMU), INIT_REACHED),
        lambda: to_line(pvstub(setting, name), INIT_REACHED),
    )
    return Row(f"{name} {ON_QEMU} against Unicorn", ours, peer)
