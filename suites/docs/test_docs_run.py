"""Runs what README and docs show: console blocks that need a guest image, each a session in an empty folder, and tests.

Sessions with a debugger are carried out by ``sessions.py``, beside it.
``make`` runs in the repository, where the Makefile is; a page's Python blocks, if they show tests, are one test file.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from suites.bisect import demonstration
from suites.docs.blocks import ROOT, Block, blocks, matches, python_tests
from suites.docs.sessions import Session
from suites.gdb.own_guest import build

pytestmark = pytest.mark.usefixtures("pv_engine")

SESSIONS = [block for block in blocks() if block.kind in ("image", "history")]
TESTS = python_tests()
MACHINE_WATCH = "monitor xen wp -m"  # typed into gdb


def _marks(block: Block) -> list[pytest.MarkDecorator]:
    """What not every engine can do is asked for."""
    typed = [line.text for command in block.commands if command.words[0] == "gdb" for line in command.typed]
    return [pytest.mark.pv_needs("watches")] if any(line.startswith(MACHINE_WATCH) for line in typed) else []


DEBUGGED = [
    pytest.param(block, id=str(block), marks=_marks(block)) for block in blocks() if block.kind.startswith("gdb")
]


def run(words: list[str], folder: Path, state: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as a reader would, what it keeps going below ``state``."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "MAKE", "MFLAGS"))},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "XDG_STATE_HOME": str(state),
        "COLUMNS": "200",
        "NO_COLOR": "1",
    }
    return subprocess.run(
        words,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )


@pytest.mark.parametrize("block", SESSIONS, ids=str)
def test_block_prints_what_the_page_shows(block: Block, tmp_path: Path) -> None:
    folder = tmp_path / "session"
    folder.mkdir()
    if block.kind == "history":
        demonstration.with_its_build(folder / "guest")
    for command in block.commands:
        place = ROOT if command.words[0] == "make" else folder
        result = run(["bash", "-c", command.text], place, tmp_path)
        if command.output:
            assert matches(command.output, result.stdout), f"$ {command.text}\n{result.stdout}"
        else:
            assert result.returncode == 0, f"$ {command.text}\n{result.stdout}"


@pytest.mark.parametrize("block", DEBUGGED)
def test_debugger_prints_what_the_page_shows(block: Block, tmp_path: Path) -> None:
    folder = tmp_path / "session"
    folder.mkdir()
    if block.kind == "gdb own":
        (folder / "vmlinux").symlink_to(build())
    with Session(folder, tmp_path) as session:
        session.run(block)


@pytest.mark.parametrize(
    ("page", "name"),
    [
        pytest.param(page, name, id=f"{page.relative_to(ROOT)}:{name}")
        for page, code in sorted(TESTS.items())
        for name in re.findall(r"^def (test_\w+)", code, re.MULTILINE)
    ],
)
def test_tests_shown_pass(page: Path, name: str, tmp_path: Path) -> None:
    (tmp_path / "test_shown.py").write_text(TESTS[page])
    words = [sys.executable, "-m", "pytest", "-q", "--rootdir", str(tmp_path), f"test_shown.py::{name}"]
    result = run(words, tmp_path, tmp_path)
    assert result.returncode == 0, result.stdout
