"""A fuzzer that follows the code it reaches, in a process of its own, as libFuzzer ends it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = 8
needs_atheris = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this Python"
)


def fuzz(fuzzer: Path, corpus: Path, folder: Path, *, longest: int) -> None:
    """Run a fuzzer's script for ``SECONDS`` on a corpus, with inputs of up to ``longest`` bytes; fail as it does."""
    options = [f"-max_total_time={SECONDS}", "-timeout=10", "-rss_limit_mb=1024", f"-max_len={longest}"]
    found = folder / "found"
    found.mkdir()
    done = subprocess.run(
        [sys.executable, str(fuzzer), *options, f"-artifact_prefix={folder}/", str(found), str(corpus)],
        cwd=ROOT,
        capture_output=True,
        timeout=SECONDS + 100,
        check=False,
    )
    inputs = "".join(f"\n{path.name}: {path.read_bytes()!r}" for path in folder.iterdir() if path.is_file())
    said = f"it ended with {done.returncode}: {done.stderr.decode(errors='replace')[-5000:]}"
    assert done.returncode == 0, said + inputs
