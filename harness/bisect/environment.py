"""What is searched: named points in order, each of which can be made ready to boot."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from stub.errors import ImageError, UsageError

from .. import catalogue, package_versions
from ..cache import sha256_of
from .minimise import as_words
from .processes import shell
from .verdicts import Judged, by_status

_MOST_SEEDS = 100_000
_SEEDS = re.compile(r"(?P<first>\d+)(\.\.(?P<last>\d+))?")
_RANGE = re.compile(r"(?P<first>\d+)\.\.(?P<last>\d+)(:(?P<by>\d+))?")


@dataclass(frozen=True)
class Ready:
    """A point that can be booted: the words after ``pvstub boot``, and the digest of what they boot if it is known."""

    image: str
    words: tuple[str, ...] = ()
    digest: str | None = None


class Environment(Protocol):
    """Points to search, from the good end (number 0) to the bad one."""

    @property
    def names(self) -> Sequence[str]:
        """What people call the points."""

    def ready(self, point: int) -> Ready | Judged:
        """Make a point ready; or why that cannot be, as skip or trouble."""


@dataclass(frozen=True)
class Builder:
    """How a point becomes an image: a shell command in ``folder``, and the file or name it gives.

    ``{point}`` in ``image`` is the point's name; the command finds it in ``$PVSTUB_POINT``. A build that fails is a
    skip; one that is killed, or ends with 126 or more, is trouble. What was built is kept in ``kept`` by its digest.
    """

    command: str | None
    image: str
    folder: Path
    kept: Path

    def build(self, name: str, folder: Path | None = None) -> Ready | Judged:
        """The image of the point ``name``, built in ``folder``."""
        folder = folder or self.folder
        if self.command is not None:
            ended = shell(self.command, folder, {"PVSTUB_POINT": name})
            if ended.status:
                return by_status(ended, "does not build: exit status", "skip")
        image = self.image.replace("{point}", name)
        path = folder / image
        if not path.is_file():
            return ("skip", f"the build made no {image}") if self.command is not None else Ready(image)
        digest = sha256_of(path)
        if self.command is None:
            return Ready(str(path.resolve()), digest=digest)
        kept = self.kept / digest[:16] / path.name
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            partial = kept.with_suffix(".partial")
            shutil.copyfile(path, partial)
            partial.replace(kept)
        return Ready(str(kept), digest=digest)


@dataclass(frozen=True)
class NamedPoints:
    """Images, files, or versions that a command makes images of, oldest first."""

    names: Sequence[str]
    builder: Builder

    def ready(self, point: int) -> Ready | Judged:
        return self.builder.build(self.names[point])


@dataclass(frozen=True)
class PackageVersions:
    """A Debian package's versions, of each of which a file is booted; ``like``: words of ``pvstub boot`` for all."""

    package: str
    names: Sequence[str]
    member: str
    like: tuple[str, ...] = ()

    def ready(self, point: int) -> Ready | Judged:
        try:
            unit = package_versions.file_of(self.package, self.names[point], self.member)
        except ImageError as error:
            return "trouble", str(error)
        return Ready(str(unit.path), self.like, unit.record.sha256)


def like(image: catalogue.CatalogueImage) -> tuple[str, ...]:
    """The words that boot another kernel with an image's ramdisk, command line and memory."""
    ramdisk = (f"--ramdisk={image.ramdisk}",) if image.ramdisk else ()
    return (*ramdisk, f"--cmdline={image.cmdline}", f"--memory={image.memory}")


@dataclass(frozen=True)
class MemorySizes:
    """One image with different sizes of memory, in MiB."""

    sizes: Sequence[int]
    image: str

    @property
    def names(self) -> Sequence[str]:
        return [f"{size} MiB" for size in self.sizes]

    def ready(self, point: int) -> Ready | Judged:
        return Ready(self.image, (f"--memory={self.sizes[point]}",))


@dataclass(frozen=True)
class WordSets:
    """Subsets of words of one guest: of its command line, or settings. A point is ``minimise.as_point``'s number."""

    words: Sequence[str]
    image: str
    settings: bool

    @property
    def names(self) -> Sequence[str]:
        return self.words

    def ready(self, point: int) -> Ready | Judged:
        chosen = [self.words[word] for word in as_words(point)]
        if self.settings:
            return Ready(self.image, tuple(f"--set={word}" for word in chosen))
        return Ready(self.image, (f"--extra={' '.join(chosen)}",))


@dataclass(frozen=True)
class Seeds:
    """One image with different placements of its memory: the seeds of ``--seed``. They have no order."""

    seeds: Sequence[int]
    image: str

    @property
    def names(self) -> Sequence[str]:
        return [f"seed {seed}" for seed in self.seeds]

    def ready(self, point: int) -> Ready | Judged:
        return Ready(self.image, (f"--seed={self.seeds[point]}",))


def seeds(texts: Sequence[str]) -> list[int]:
    """``0..99``, ``17`` or several of these as the seeds, from the smallest. UsageError for what is no seed."""
    found: set[int] = set()
    for text in texts:
        match = _SEEDS.fullmatch(text)
        if match is None:
            raise UsageError(f"{text!r} is no seed: write a number, or FIRST..LAST as in 0..99")
        first, last = int(match["first"]), int(match["last"] or match["first"])
        if last < first or last - first >= _MOST_SEEDS:
            raise UsageError(f"{text!r}: write the smaller seed first, and at most {_MOST_SEEDS:,} of them")
        found.update(range(first, last + 1))
    return sorted(found)


def sizes(text: str) -> list[int]:
    """``256..64:8`` as the numbers from the good to the bad end, up or down. UsageError for what is no range."""
    match = _RANGE.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} is no range: write GOOD..BAD or GOOD..BAD:STEP in MiB, as in 256..64:8")
    first, last, by = int(match["first"]), int(match["last"]), int(match["by"] or 1)
    if not by or first == last or max(first, last) > 1 << 20:
        raise UsageError(f"{text!r}: give two different sizes and a step from 1 on")
    found = list(range(first, last, by if last > first else -by))
    return [*found, last]
