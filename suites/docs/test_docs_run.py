"""Runs the console blocks that need a guest image: each block is one session in one empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from suites.docs.blocks import ROOT, Block, blocks, matches

SESSIONS = [block for block in blocks() if block.kind == "image"]


@pytest.mark.parametrize("block", SESSIONS, ids=str)
def test_block_prints_what_the_page_shows(block: Block, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "200",
        "NO_COLOR": "1",
        "MAKEFLAGS": f"-s -C {ROOT}",
    }
    for command in block.commands:
        result = subprocess.run(
            ["bash", "-c", command.text],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if command.output:
            assert matches(command.output, result.stdout), f"$ {command.text}\n{result.stdout}"
        else:
            assert result.returncode == 0, f"$ {command.text}\n{result.stdout}"
