"""What one hypercall and one page fault cost: guests of a few instructions that do nothing else."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.commands import Setting, pvstub
from benchmarks.process import to_end
from benchmarks.samples import Series, alternate
from benchmarks.table import Row, Section

GUESTS = Path(__file__).with_name("guests")
COUNT = 200_000
QEMU_TARGET = 15e-6  # seconds
LOAD_AT = 0xFFFF_FFFF_8100_0000
MEASURES: Sequence[tuple[str, str, tuple[str, ...], float]] = (
    ("null hypercall", "null_hypercall", (), 2e-6),
    ("page fault in the kernel, and its iret", "page_fault", (), 6e-6),
    ("page fault in user code, and its iret", "page_fault", ("-DUSER",), 6e-6),
)
"""What, the guest's source, definitions for it, target in seconds."""


def run(setting: Setting) -> Section:
    """Each guest with a high count and with a count of one, whose time is taken off."""
    rows = [
        Row(what, _each(setting, guest, words), unit="µs", target=target) for what, guest, words, target in MEASURES
    ]
    rows += [
        Row(f"{what}, --engine=qemu", _each(setting, guest, words, "--engine=qemu"), unit="µs", target=QEMU_TARGET)
        for what, guest, words, _ in MEASURES
    ]
    return Section(
        "Hypercalls and faults",
        f"A guest that does it {COUNT:,} times, less the same guest that does it once, log on.",
        rows,
    )


def _each(setting: Setting, guest: str, definitions: tuple[str, ...], *words: str) -> Series:
    many, once = (
        pvstub(setting, str(assemble(setting.scratch, guest, count, definitions)), "--memory", "32", "--quiet", *words)
        for count in (COUNT + 1, 1)
    )
    with_many, with_one = alternate(setting.rounds, lambda: to_end(many), lambda: to_end(once))
    return (with_many - with_one) / COUNT


def assemble(folder: Path, guest: str, count: int, definitions: Sequence[str] = ()) -> Path:
    """The kernel file of guests/``guest``.S that runs ``count`` times."""
    out = folder / f"{guest}{''.join(definitions)}-{count}"
    command = ["gcc", f"-DCOUNT={count}", *definitions, "-I", str(GUESTS), "-nostdlib", "-static", "-no-pie"]
    command += ["-Wl,--build-id=none", f"-Wl,-Ttext-segment={LOAD_AT:#x}", "-o", str(out), str(GUESTS / f"{guest}.S")]
    subprocess.run(command, check=True)
    return out
