"""The commands that are compared, and where they may leave things."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from harness.catalogue import CatalogueImage

INIT_REACHED = b"pvstub: init reached"
"""The initramfs's first line (images/init)."""
CHILDREN = Path(__file__).with_name("children")


@dataclass(frozen=True)
class Setting:
    """How to measure: ``rounds`` of each, in a ``scratch`` folder that is thrown away."""

    rounds: int
    scratch: Path


def pvstub(setting: Setting, *words: str, name: str = "run") -> list[str]:
    """The installed command, as a user types it, its run kept in the scratch folder."""
    return [str(Path(sys.executable).with_name("pvstub")), *_boot(setting, words, name)]


def child(setting: Setting, script: str, *words: str, first: str = "") -> list[str]:
    """The same command inside a script of children/, which looks at it or changes something; ``first`` is for that."""
    own = [first] if first else []
    return [sys.executable, str(CHILDREN / f"{script}.py"), *own, *_boot(setting, words, "run")]


def _boot(setting: Setting, words: tuple[str, ...], name: str) -> list[str]:
    return ["boot", *words, "--run", str(setting.scratch / name)]


def qemu(image: CatalogueImage, *words: str) -> list[str]:
    """QEMU's TCG on the same files, with no hypervisor: the kernel on the bare (virtual) PC; told ``words`` besides."""
    command = ["qemu-system-x86_64", *words, "-accel", "tcg", "-m", str(image.memory), "-nographic", "-no-reboot"]
    command += ["-kernel", str(image.kernel)]
    if image.ramdisk is not None:
        command += ["-initrd", str(image.ramdisk)]
    return [*command, "-append", "console=ttyS0"]
