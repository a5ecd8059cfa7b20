"""summary.json: what a run was, how it ended, and the digests that two equal runs share.

`summary.schema.json`, beside this file, is its published shape; a change that is not an added optional member gives
it a new number.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final

from stub.errors import PvstubError, UsageError

FILE_NAME: Final = "summary.json"
SCHEMA_NUMBER: Final = 1


def build(
    *,
    pvstub: str,
    engine: str,
    image: Mapping[str, Any],
    config: Mapping[str, Any],
    verdict: Mapping[str, Any],
    virtual_ns: int,
    retired: int,
    wall_s: float,
    counts: Mapping[str, Any],
    unimplemented: Mapping[str, int],
    digests: Mapping[str, str],
    **optional: Any,
) -> dict[str, Any]:
    """A summary from its parts; ``counts`` as `HypercallLog.counts` gives them. Times in ns and seconds."""
    return {
        "schema": SCHEMA_NUMBER,
        "pvstub": pvstub,
        "engine": engine,
        "image": dict(image),
        "config": dict(config),
        "verdict": {**verdict, "details": list(verdict.get("details", ()))},
        "virtual_ns": virtual_ns,
        "retired": retired,
        "wall_s": round(wall_s, 6),
        "counts": {**counts, "unimplemented": dict(sorted(unimplemented.items()))},
        "digests": dict(digests),
        **optional,
    }


def schema() -> dict[str, Any]:
    """The published JSON schema."""
    loaded: dict[str, Any] = json.loads(resources.files(__package__).joinpath("summary.schema.json").read_bytes())
    return loaded


def write(path: Path, summary: Mapping[str, Any]) -> None:
    """Write a summary so that a reader sees the old file or the whole new one. Not validated: the tests do that."""
    text = json.dumps(summary, indent=2) + "\n"
    temporary = ""
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="ascii", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = file.name
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise PvstubError(f"{path}: cannot write the summary: {error.strerror}; choose another run folder") from error


def load(path: Path) -> dict[str, Any]:
    """Read and validate a summary, given the file or the run's folder. ``UsageError`` names the first fault."""
    import jsonschema

    file = path / FILE_NAME if path.is_dir() else path
    try:
        loaded = json.loads(file.read_bytes())
    except OSError as error:
        raise UsageError(f"{file}: cannot read the summary: {error.strerror}; name a run's folder") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file}: damaged summary: not JSON; run the boot again") from error
    for fault in jsonschema.Draft202012Validator(schema()).iter_errors(loaded):
        where = f"{_place(fault.absolute_path)}: {_line(fault.message)}"
        raise UsageError(f"{file}: not a summary of this version: {where}; run the boot again")
    summary: dict[str, Any] = loaded
    return summary


def _place(path: Sequence[Any]) -> str:
    return ".".join(str(part) for part in path) or "top level"


def _line(message: str) -> str:
    """A validator's message on one line of bearable length."""
    line = " ".join(message.split())
    return line if len(line) <= 200 else line[:197] + "..."
