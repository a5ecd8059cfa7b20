"""The versions of a Debian package: which there are, in Debian's order, and a file out of one of them.

What was fetched once stays in the cache, CACHE/packages/NAME/VERSION, and is there for good: the archive forgets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from harness import cache, packages
from stub.errors import ImageError, UsageError

KERNEL: Final = "boot/vmlinuz-.*"
# A package without files, whose versions depend on the one that has them.
_META: Final = re.compile(r"linux-image-(?!\d).*")
_META_DEPENDS: Final = r"linux-image-\d\S*"
_PACKAGE: Final = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_VERSION: Final = re.compile(r"(?:(?P<epoch>\d+):)?(?P<upstream>[A-Za-z0-9.+~:-]*?)(?:-(?P<revision>[A-Za-z0-9.+~]*))?")
_PARTS: Final = re.compile(r"(\D*)(\d*)")
_LETTERS_FIRST: Final = 1 << 8


def between(package: str, good: str, bad: str) -> list[str]:
    """The versions from ``good`` to ``bad``, up or down, that apt's lists have or that are in the cache.

    UsageError for an end that neither has, with what there is. Without apt, or a network that it needs, the cache's.
    """
    if not _PACKAGE.fullmatch(package):
        raise UsageError(f"{package!r} is no package's name")
    found, trouble = set(_cached(package)), ""
    try:
        found.update(packages.versions(package, package))
    except ImageError as error:
        trouble = f" ({error})"
    ordered = sorted(found, key=version_order)
    for end in (good, bad):
        if end not in found:
            there = f"there are {', '.join(ordered)}" if ordered else "there are none"
            raise UsageError(f"{package}: no version {end} in apt's lists or in the cache; {there}{trouble}")
    low, high = sorted((ordered.index(good), ordered.index(bad)))
    chosen = ordered[low : high + 1]
    return chosen if chosen[0] == good else chosen[::-1]


def file_of(package: str, version: str, member: str = KERNEL) -> cache.Unit:
    """The file of a package's version that matches ``member`` as a whole, from the cache or fetched now.

    Of a package that only stands for the newest kernel, the file of the one that this version depends on. ImageError
    when it cannot be had.
    """
    depends = _META_DEPENDS if _META.fullmatch(package) else None
    wanted = packages.Wanted(package, member, depends, version=version)
    return cache.ensure(_folder(package) / version, f"file {member}", _maker(wanted))


def version_order(version: str) -> tuple[Any, ...]:
    """What versions are sorted by, as deb-version(7) has it: epoch, upstream version, revision."""
    match = _VERSION.fullmatch(version)
    if match is None:
        return ()
    return int(match["epoch"] or 0), _order(match["upstream"]), _order(match["revision"] or "")


def _order(part: str) -> tuple[tuple[tuple[int, ...], int], ...]:
    """Text and number in turns. The end of a text is 0: after a tilde, before a letter, and that before the rest."""
    return tuple(((*map(_rank, text), 0), int(number or 0)) for text, number in _PARTS.findall(part))


def _rank(letter: str) -> int:
    if letter == "~":
        return -1
    return ord(letter) if letter.isalpha() else ord(letter) + _LETTERS_FIRST


def _maker(wanted: packages.Wanted) -> Callable[[], cache.Made]:
    def make() -> cache.Made:
        found = packages.unpack(wanted, f"{wanted.package} {wanted.version}")
        facts = {"package": found.package, "version": found.version, "package_sha256": found.package_sha256}
        return cache.Made(found.name, found.data, facts)

    return make


def _cached(package: str) -> Iterator[str]:
    for record in _folder(package).glob(f"*/{cache.RECORD}"):
        yield record.parent.name


def _folder(package: str) -> Path:
    return cache.cache_folder() / "packages" / package
