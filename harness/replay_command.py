"""``pvstub replay``: a boot once more, from the file that a failed test left, or from a run's folder."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

from harness import again, artefact
from harness.cache import cache_folder
from stub.command_line import TROUBLE, Parser, ended
from stub.errors import UsageError

SAME: Final = 0
DIFFERENT: Final = 1


def main(argv: Sequence[str]) -> int:
    """Run ``pvstub replay``; 0 the same digests, 1 others, 2 trouble."""
    return ended("pvstub replay", lambda: _run(argv), trouble=TROUBLE, unread=DIFFERENT)


def _run(argv: Sequence[str]) -> int:
    parser = Parser(
        prog="pvstub replay",
        description="Boot what an artefact or a run's folder tells of, and say whether it came out the same.",
        epilog="Exit status: 0 the same digests, 1 others, 2 trouble.",
    )
    parser.add_argument("artefact", type=Path, metavar="ARTEFACT", help="the file of a failed test, or a run's folder")
    parser.add_argument("--run", type=Path, metavar="DIR", help="keep the run in this folder")
    parser.add_argument(
        "--disk", type=_disk, action="append", default=[], metavar="VDEV=FILE",
        help="where the image of a disk is that was too large for the artefact; may be given again",
    )  # fmt: skip
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="pvstub-replay-") as files:
        return _replay(options.artefact, Path(files), options.run, dict(options.disk))


def _disk(text: str) -> tuple[str, Path]:
    name, _, file = text.partition("=")
    if not name or not file:
        raise argparse.ArgumentTypeError(f"{text}: write VDEV=FILE, as in xvda=disk.img")
    return name, Path(file)


def _replay(path: Path, files: Path, run: Path | None, images: Mapping[str, Path]) -> int:
    if run is not None and path.is_dir() and run.absolute() == path.absolute():
        raise UsageError(f"{run}: that is the run itself; keep the new one in another folder")
    found = again.of_run(path) if path.is_dir() else artefact.unpack(path, files, images)
    own = metadata.version("pvstub")
    if found.pvstub != own:
        print(f"pvstub replay: made by pvstub {found.pvstub}, this is {own}: logs may differ", file=sys.stderr)
    digests = again.replay(found, run or files / "run", cache_folder() / "kernels")
    for name, digest in digests.items():
        word = "the same" if digest == found.digests[name] else f"was {found.digests[name]}"
        print(f"{name:<10} sha256 {digest}  {word}")
    if digests == found.digests:
        print(f"reproduced: {found.verdict or 'stopped where its test stopped it'}")
        return SAME
    if found.verdict in again.FROM_OUTSIDE:
        print(f"the boot was ended from outside ({found.verdict}), at no exact place: its logs end elsewhere")
    if run is not None:
        good = path
        if not path.is_dir():
            good = run / "artefact"
            artefact.unpack_logs(path, good)
        print(f"where they part: pvstub diff {good} {run}")
    return DIFFERENT
