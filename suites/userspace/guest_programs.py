"""The programs of ``programs/``: built with the host's gcc, kept in pvstub's cache, and what they print read back."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from harness.programs import compiled

SOURCES = Path(__file__).with_name("programs")
GUEST_FOLDER = "/pvstub"
COMMON = ("gcc", "-Wall", "-Wextra", "-Werror", "-std=gnu11", "-static")

# Program → compiler's arguments and sources. The 32-bit one stands alone: no C library of that width is needed.
RECIPES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "main": (
        (*COMMON, "-O2", "-D_GNU_SOURCE", "-pthread"),
        tuple(sorted(path.name for path in SOURCES.glob("*.c") if path.name != "compat32.c")),
    ),
    "compat32": (
        (*COMMON, "-m32", "-O1", "-nostdlib", "-ffreestanding", "-fno-pic", "-no-pie", "-fno-stack-protector"),
        ("compat32.c",),
    ),
}

_VERDICT = re.compile(r"(?:(?P<ok>ok)|not ok) (?P<name>\w+)(?:: (?P<reason>.*))?")
_NOTE = re.compile(r"# (?P<name>\w+): (?P<text>.*)")


class Verdict(NamedTuple):
    """How a program ended: ``reason`` is None when all was right, ``notes`` what it had to tell."""

    reason: str | None
    notes: tuple[str, ...]


def build(name: str) -> Path:
    """The program's file, compiled if its sources changed. UsageError when the compiler cannot."""
    flags, sources = RECIPES[name]
    names_only = f"-fmacro-prefix-map={SOURCES}/="  # in what a program prints of its own place
    return compiled(name, (*flags, names_only, *(str(SOURCES / source) for source in sources)), [SOURCES])


def guest_files() -> dict[str, Path]:
    """Path in the guest → the host's file, for the marker's ``files``."""
    return {f"{GUEST_FOLDER}/{name}": build(name) for name in RECIPES}


def names(folder: Path) -> list[str]:
    """The names of all programs, as the built one lists them; ``folder`` is where it may be copied to to run it."""
    program = folder / "main"
    program.write_bytes(build("main").read_bytes())
    program.chmod(0o755)
    listing = subprocess.run([program, "--list"], check=True, capture_output=True, text=True)
    return listing.stdout.split()


def verdicts(console: str) -> dict[str, Verdict]:
    """What main.c printed on the console, by program."""
    notes: dict[str, list[str]] = {}
    found: dict[str, Verdict] = {}
    for line in console.splitlines():
        if match := _NOTE.fullmatch(line.strip()):
            notes.setdefault(match["name"], []).append(match["text"])
        elif match := _VERDICT.fullmatch(line.strip()):
            reason = None if match["ok"] else match["reason"] or "no reason given"
            found[match["name"]] = Verdict(reason, tuple(notes.get(match["name"], ())))
    return found
