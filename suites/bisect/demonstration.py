"""A history to bisect: 64 commits of a small guest kernel with two regressions, and three commits that do not build."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

from harness.small_guests import FREESTANDING, KIT, LINK, OF_WIDTH, kit_object, with_kit

COMMITS = 64
WRITABLE = 23  # maps a page table writable, from here on
BY_CHANCE = 41  # fails with one placement of its memory in three, from here on
BROKEN = (11, 40, 50)  # do not compile; the next commit mends it
ONLY_NOTES = 4  # every fourth commit changes no code

_ENVIRONMENT = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
_OWN = KIT / "64"


def guest(number: int) -> str:
    """The guest's source at a commit."""
    steps = [f'    check(1, "step {step}", "no");' for step in range(1, number + 1) if step % ONLY_NOTES]
    if number >= WRITABLE:
        steps.append("    (void)map((word)at, frame_address(root_mfn()) | DATA);")
    if number >= BY_CHANCE:
        steps.append('    check(mfn_of_pfn(spare_pfn()) % 3, "placement", "in the third frame");')
    if number in BROKEN:
        steps.append("    this does not compile;")
    head = [
        '#include "kit.h"',
        'VARIATION(demo, "a guest that grows")',
        "{",
        "    void *at = page();",
        "    watch(at);",
    ]
    return "\n".join([*head, *steps, "}", ""])


def git(folder: Path, *words: str, stdin: str = "", status: int = 0) -> str:
    """What git says."""
    done = subprocess.run(
        ["git", "-C", str(folder), *words], input=stdin, capture_output=True, text=True, check=False,
        env={**os.environ, **_ENVIRONMENT},
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    return done.stdout


def repository(folder: Path, files: Mapping[str, str] | None = None) -> Path:
    """The history, checked out, with the tags ``c1`` to ``c64``; ``files`` are in all its commits."""
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    stream = []
    for number in range(1, COMMITS + 1):
        stream += ["commit refs/heads/main", f"mark :{number}", f"committer A <a@b.c> {number} +0000"]
        stream += _data(f"Commit {number}\n")
        for name, text in {"guest.c": guest(number), "notes": f"{number}\n", **(files or {})}.items():
            stream += [f"M 644 inline {name}", *_data(text)]
    for number in range(1, COMMITS + 1):
        stream += [f"reset refs/tags/c{number}", f"from :{number}", ""]
    git(folder, "fast-import", "--quiet", stdin="\n".join(stream) + "\n")
    git(folder, "checkout", "--quiet", "main")
    return folder


def _data(text: str) -> list[str]:
    return [f"data {len(text)}", text]


def build_command(kit: Path) -> str:
    """The shell command that builds the guest in its folder; ``kit`` is what the guest is linked with."""
    words = ["gcc", *OF_WIDTH[64], *FREESTANDING, "-I", str(KIT), "-I", str(_OWN)]
    words += [LINK.format(script=_OWN / "link.ld"), "guest.c", str(kit), "-o", "guest"]
    return shlex.join(words)


def with_its_build(folder: Path) -> Path:
    """The history as a person would have it: ``sh build`` builds the guest."""
    return repository(folder, {"build": build_command(kit_object(64)) + "\n", ".gitignore": "guest\n"})


def built(folder: Path, number: int) -> Path:
    """The guest of a commit, outside of any repository."""
    source = folder / f"guest{number}.c"
    source.write_text(guest(number))
    return with_kit(f"demonstration-{number}", [source])
