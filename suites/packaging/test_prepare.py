"""``make`` on a machine that lacks something names it and the command that installs it, in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def prepare(*words: str, path: str) -> subprocess.CompletedProcess[str]:
    """Run .ci/prepare with nothing but ``path`` to find programs in; there is no apt there."""
    command = ["/bin/bash", ".ci/prepare", *words]
    return subprocess.run(command, cwd=ROOT, env={"PATH": path}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("need", "python", "packages"),
    [
        ("build", "/nonexistent", "python3 python3-venv gcc libc6-dev python3-dev"),
        ("build", sys.executable, "gcc libc6-dev python3-dev"),
        ("test", sys.executable, "gcc libc6-dev python3-dev libxen-dev"),
        ("bench", sys.executable, "gcc libc6-dev python3-dev qemu-system-x86"),
    ],
)
def test_what_is_missing_is_named_with_its_package(need: str, python: str, packages: str, tmp_path: Path) -> None:
    result = prepare(need, python, path=str(tmp_path))
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("pvstub: this machine lacks ")
    assert f"; install with: sudo apt-get install {packages}" in line


def test_an_unknown_need_is_refused(tmp_path: Path) -> None:
    result = prepare("everything", path=str(tmp_path))
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
