"""The cache: files that can be made again, each with a record that says what it should be.

The law of this file: a file counts only when its record does, and the record is written last. Whoever is killed
half-way leaves a record that does not fit (or none), which the next reader takes for "make it again".

    CACHE/images/UNIT/lock          held while the unit is made
    CACHE/images/UNIT/record.json   Record
    CACHE/images/UNIT/FILE          what the record describes
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from stub.errors import PvstubError

SCHEMA = 1
RECORD = "record.json"
LOCK = "lock"
# Files being written; whatever has this prefix while nobody holds the lock is left over from a killed process.
PARTIAL = ".partial-"
_PROGRAMS_KEPT = 8


class Record(NamedTuple):
    """What a unit's file should be and where it came from.

    ``recipe`` names the way it was made: another recipe, another file. ``stat`` is (size in bytes, mtime, ctime in ns):
    while it fits, the content is taken to be what it was. ``facts`` are the maker's own (package, version…).
    """

    recipe: str
    name: str
    sha256: str
    stat: tuple[int, int, int]
    facts: Mapping[str, str]


class Made(NamedTuple):
    """What a maker hands to the cache: the file's name, its bytes and the facts to keep with it."""

    name: str
    data: bytes
    facts: Mapping[str, str]


class Unit(NamedTuple):
    """A cached file that is there, and its record."""

    path: Path
    record: Record


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """``$PVSTUB_CACHE``, else ``$XDG_CACHE_HOME/pvstub``, else ``~/.cache/pvstub``."""
    if own := environment.get("PVSTUB_CACHE"):
        return Path(own)
    if user := environment.get("XDG_CACHE_HOME"):
        return Path(user, "pvstub")
    return Path("~/.cache/pvstub").expanduser()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that is either wholly there or not at all, also after a crash of the machine."""
    partial = path.parent / f"{PARTIAL}{os.urandom(8).hex()}"
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def locked(folder: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the folder's lock; calls ``waiting`` once when another process has it. A dead process holds no lock."""
    with _lock_file(folder) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def find(folder: Path, recipe: str) -> Unit | None:
    """The unit in ``folder`` if it was made by ``recipe`` and its file is whole, as far as a look at it tells.

    The size always counts. The content is hashed only when the file's times are not the recorded ones.
    """
    record = read_record(folder)
    if record is None or record.recipe != recipe:
        return None
    path = folder / record.name
    seen = _stat_of(path)
    if seen is None or seen[0] != record.stat[0]:
        return None
    if seen == record.stat:
        return Unit(path, record)
    return _find_by_content(path, record, seen)


def damage(folder: Path) -> str | None:
    """What is wrong with a recorded file, in words; None if its content is the recorded one, or nothing is recorded."""
    record = read_record(folder)
    if record is None:
        return None
    path = folder / record.name
    seen = _stat_of(path)
    if seen is None:
        return f"{path}: missing"
    if seen[0] != record.stat[0]:
        return f"{path}: {seen[0]} bytes instead of {record.stat[0]}"
    if (digest := sha256_of(path)) != record.sha256:
        return f"{path}: SHA-256 {digest[:12]}… instead of {record.sha256[:12]}…"
    return None


def discard_damaged(folder: Path) -> str | None:
    """Make a damaged file count as not there; says what was wrong with it, None if nothing was."""
    if damage(folder) is None:
        return None
    # Look again with the lock: another process may have been making it.
    with locked(folder):
        found = damage(folder)
        if found:
            (folder / RECORD).unlink(missing_ok=True)
        return found


def ensure(folder: Path, recipe: str, make: Callable[[], Made], waiting: Callable[[], None] = lambda: None) -> Unit:
    """The unit in ``folder``, made now if it is not there. However many processes ask, one of them makes it.

    Raises what ``make`` raises (the cache is then as it was), or PvstubError when the cache cannot be written.
    """
    if unit := find(folder, recipe):
        return unit
    with locked(folder, waiting):
        return find(folder, recipe) or _store(folder, recipe, make())


def program(name: str, recipe: str, make: Callable[[], Made]) -> Path:
    """A guest's program that was compiled here, by the hexadecimal digest of all that it is made of.

    Checkouts that differ have a file each, so that none takes another's away; the eight newest are kept.
    """
    programs = cache_folder() / "programs" / name
    folder = programs / recipe[:16]
    if unit := find(folder, recipe):
        with contextlib.suppress(OSError):
            os.utime(folder)  # used now: the last to go
        return unit.path
    path = ensure(folder, recipe, make).path
    for old in sorted((each for each in programs.iterdir() if each.is_dir()), key=_age)[_PROGRAMS_KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def _age(folder: Path) -> float:
    """Orders folders, the newest first; one that is gone last."""
    try:
        return -folder.stat().st_mtime
    except OSError:
        return 0.0


def remake(folder: Path, recipe: str, make: Callable[[], Made]) -> Unit:
    """Like ensure, but makes the file even if it is there."""
    with locked(folder):
        return _store(folder, recipe, make())


def read_record(folder: Path) -> Record | None:
    """The record in ``folder``; None if there is none, or none that this version can read."""
    try:
        fields: dict[str, Any] = json.loads((folder / RECORD).read_bytes())
        if fields.pop("schema") != SCHEMA:
            return None
        record = Record(**fields)
        return record._replace(stat=(record.stat[0], record.stat[1], record.stat[2]))
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError):
        return None


def _store(folder: Path, recipe: str, made: Made) -> Unit:
    path = folder / made.name
    try:
        _sweep(folder)
        write_atomically(path, made.data)
        seen = _stat_of(path)
        assert seen is not None
        record = Record(recipe, made.name, hashlib.sha256(made.data).hexdigest(), seen, made.facts)
        _write_record(folder, record)
        for other in folder.iterdir():
            if other.name not in (RECORD, LOCK, made.name):
                other.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from None
    return Unit(path, record)


def _find_by_content(path: Path, record: Record, seen: tuple[int, int, int]) -> Unit | None:
    try:
        if sha256_of(path) != record.sha256:
            return None
    except OSError:
        return None
    record = record._replace(stat=seen)
    # The times differ because the cache was copied. A cache that is only readable is hashed each time instead.
    with contextlib.suppress(OSError):
        _write_record(path.parent, record)
    return Unit(path, record)


def _write_record(folder: Path, record: Record) -> None:
    fields = {"schema": SCHEMA, **record._asdict(), "facts": dict(record.facts)}
    write_atomically(folder / RECORD, json.dumps(fields, indent=1, sort_keys=True).encode() + b"\n")


def _stat_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _sweep(folder: Path) -> None:
    for leftover in folder.glob(PARTIAL + "*"):
        leftover.unlink(missing_ok=True)


def _lock_file(folder: Path) -> Any:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / LOCK).open("ab")
    except OSError as error:
        raise _unwritable(folder, error) from None


def _unwritable(folder: Path, error: OSError) -> PvstubError:
    remedy = "make it writable or set PVSTUB_CACHE to another folder"
    return PvstubError(f"{error.filename or folder}: {error.strerror} while writing the cache; {remedy}")
