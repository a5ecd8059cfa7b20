"""``pvstub replay ARTEFACT``: a failed boot once more, from the file that it left."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Final, NoReturn

from harness import artefact
from harness.cache import cache_folder
from stub.errors import PvstubError, UsageError

SAME: Final = 0
DIFFERENT: Final = 1
TROUBLE: Final = 2


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error of pvstub's."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def main(argv: Sequence[str]) -> int:
    """Run ``pvstub replay``; 0 the same digests, 1 others, 2 trouble."""
    parser = _Parser(
        prog="pvstub replay",
        description="Boot what an artefact holds, and say whether it came out the same.",
        epilog="Exit status: 0 the same digests, 1 others, 2 trouble.",
    )
    parser.add_argument("artefact", type=Path, metavar="ARTEFACT", help="the file that a failed test left")
    parser.add_argument("--run", type=Path, metavar="DIR", help="keep the run in this folder")
    try:
        options = parser.parse_args(argv)
        with tempfile.TemporaryDirectory(prefix="pvstub-replay-") as files:
            return _replay(options.artefact, Path(files), options.run)
    except PvstubError as error:
        print(f"pvstub replay: {error}", file=sys.stderr)
    except OSError as error:
        print(f"pvstub replay: {error.filename or 'a file of the run'}: {error.strerror}", file=sys.stderr)
    return TROUBLE


def _replay(path: Path, files: Path, run: Path | None) -> int:
    found = artefact.unpack(path, files)
    own = metadata.version("pvstub")
    if found.pvstub != own:
        print(f"pvstub replay: made by pvstub {found.pvstub}, this is {own}: logs may differ", file=sys.stderr)
    digests = artefact.replay(found, run or files / "run", cache_folder() / "kernels")
    same = digests == found.digests
    for name, digest in digests.items():
        word = "the same" if digest == found.digests[name] else f"was {found.digests[name]}"
        print(f"{name:<10} sha256 {digest}  {word}")
    if same:
        print(f"reproduced: {found.verdict or 'stopped where its test stopped it'}")
        return SAME
    if found.verdict in artefact.FROM_OUTSIDE:
        print(f"the boot was ended from outside ({found.verdict}), at no exact place: its logs end elsewhere")
    if run is not None:
        artefact.unpack_logs(path, run / "artefact")
        print(f"where they part: pvstub diff {run / 'artefact'} {run}")
    return DIFFERENT
