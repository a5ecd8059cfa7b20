"""Programs that guests run, or are: compiled with the host's gcc, and kept in pvstub's cache."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from stub.errors import UsageError

from . import cache

_INPUTS = frozenset({".c", ".S", ".h", ".ld"})


def compiled(name: str, command: Sequence[str], folders: Iterable[Path]) -> Path:
    """What ``command`` makes (``-o`` is added), from the cache or made now.

    Made again when the command changes, or a source, header or linker script in one of ``folders``. UsageError when
    gcc is missing, or with gcc's message.
    """
    recipe = hashlib.sha256(f"{tuple(command)!r}{digest(folders)}".encode()).hexdigest()
    return cache.program(name, recipe, lambda: _compile(name, command))


def digest(folders: Iterable[Path]) -> str:
    """Changes with the sources, headers and linker scripts in ``folders``, and not with where these are."""
    found = hashlib.sha256()
    for folder in sorted(folders):
        for path in sorted(path for path in folder.iterdir() if path.suffix in _INPUTS):
            found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def _compile(name: str, command: Sequence[str]) -> cache.Made:
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, name)
        try:
            done = subprocess.run([*command, "-o", str(result)], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise UsageError(
                "gcc is not installed: guests' programs are built with it (packages gcc, libc6-dev)"
            ) from None
        if done.returncode:
            raise UsageError(f"gcc cannot build {name}:\n{done.stderr.strip()}")
        return cache.Made(name, result.read_bytes(), {"command": " ".join(command)})
