"""A snapshot's file: ``pagetables/0001.snapshot`` in the run's folder, compressed.

After the magic comes the length of a JSON text, the text, and one zstd frame with the arrays one behind the other, in
the order of ``_COLUMNS``. Nothing of the host gets in, so equal runs give equal files. Every fault of a file is a
``UsageError`` of one line.
"""

from __future__ import annotations

import json
import os
import re
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import zstandard

from stub.errors import PvstubError, UsageError
from stub.memory.formats import FORMATS
from stub.trace.pagetables.moments import Root
from stub.trace.pagetables.snapshot import MOST_TABLES, Facts, Frames, SavedTables, Snapshot
from stub.units import PAGE_SIZE, U64

FOLDER: Final = "pagetables"
_SUFFIX: Final = ".snapshot"
_MAGIC: Final = b"PVTABLES"
_HEAD: Final = struct.Struct("<8sII")
_VERSION: Final = 1
_MOST_FRAMES: Final = 1 << 22  # 16 GiB
_MOST_TEXT: Final = 1 << 24
_LEVEL: Final = 1  # the quick one: tables are mostly zeros

# Arrays as they follow each other: name, type, whether there is one value a frame of the machine or a kept one.
_COLUMNS: Final = (
    ("np_owner", "|u1", "frames"),
    ("np_type", "|u1", "frames"),
    ("np_flags", "|u1", "frames"),
    ("np_type_count", "<i4", "frames"),
    ("np_refs", "<i4", "frames"),
    ("m2p", "<u8", "frames"),
    ("mfns", "<i8", "tables"),
    ("content", "<u8", "words"),
)


class Keeper:
    """The snapshots of one run, numbered from 1 on; those of a run that was in the folder before go."""

    def __init__(self, run_directory: Path) -> None:
        self._folder = run_directory / FOLDER
        self._number = 0
        for number, path in listed(run_directory).items():
            if number:
                path.unlink(missing_ok=True)

    def keep(self, snapshot: Snapshot) -> Snapshot:
        """Write a snapshot; the same, with its number."""
        self._number += 1
        numbered = replace(snapshot, facts=replace(snapshot.facts, number=self._number))
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(self._folder, error) from error
        write(path_of(self._folder.parent, self._number), numbered)
        return numbered


def path_of(run_directory: Path, number: int) -> Path:
    """The file of a run's snapshot."""
    return run_directory / FOLDER / f"{number:04}{_SUFFIX}"


def listed(run_directory: Path) -> dict[int, Path]:
    """The snapshots of a run: number → file."""
    try:
        names = sorted(os.listdir(run_directory / FOLDER))
    except OSError:
        return {}
    found = {}
    for name in names:
        number = re.fullmatch(rf"(\d{{4,9}}){re.escape(_SUFFIX)}", name)
        if number is not None:
            found[int(number[1])] = run_directory / FOLDER / name
    return found


def encode(snapshot: Snapshot) -> bytes:
    """A file's content."""
    frames, tables = snapshot.frames, snapshot.tables
    arrays: dict[str, npt.NDArray[Any]] = {
        **{name: getattr(frames, name) for name, _, of in _COLUMNS if of == "frames"},
        "mfns": tables.mfns,
        "content": tables.content,
    }
    header = {
        "facts": asdict(snapshot.facts),
        "identity": dict(snapshot.identity),
        "roots": [asdict(root) for root in snapshot.roots],
        "frames": frames.frames,
        "tables": len(tables.mfns),
    }
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    body = b"".join(arrays[name].astype(kind, copy=False).tobytes() for name, kind, _ in _COLUMNS)
    packed = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(body)
    return _HEAD.pack(_MAGIC, _VERSION, len(text)) + text + packed


def write(path: Path, snapshot: Snapshot) -> None:
    """Write a snapshot so that a reader sees no file or the whole one."""
    temporary = ""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = file.name
            file.write(encode(snapshot))
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> PvstubError:
    return PvstubError(f"{path}: cannot keep a snapshot: {error.strerror}; choose another run folder")


def load(path: Path) -> Snapshot:
    """Read a snapshot's file."""
    try:
        if not path.is_file():
            raise UsageError(f"{path}: no such snapshot; see pvstub pagetables RUN list")
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot read the snapshot: {error.strerror}") from error
    if not data.startswith(_MAGIC) or len(data) < _HEAD.size:
        raise UsageError(f"{path}: not a snapshot of page tables")
    _, version, length = _HEAD.unpack_from(data)
    if version != _VERSION:
        raise UsageError(f"{path}: a snapshot of format {version}, not {_VERSION}; use the pvstub that wrote it")
    try:
        return decode(data, length)
    except _Damage as damage:
        raise UsageError(f"{path}: damaged snapshot: {damage}; run the boot again") from damage


class _Damage(ValueError):
    """What is wrong with a file's content."""


def decode(data: bytes, length: int) -> Snapshot:
    """A file's content whose header text has ``length`` bytes; ValueError says what is damaged."""
    end = _HEAD.size + length
    if length > _MOST_TEXT or end > len(data):
        raise _Damage("its header is cut")
    try:
        header = json.loads(data[_HEAD.size : end])
    except (ValueError, RecursionError) as error:
        raise _Damage("its header is no JSON") from error
    if not isinstance(header, dict):
        raise _Damage("its header is no object")
    frames, tables = (_number(header, name, most) for name, most in (("frames", _MOST_FRAMES), ("tables", MOST_TABLES)))
    arrays = _arrays(data[end:], {"frames": frames, "tables": tables, "words": tables * PAGE_SIZE // 8})
    mfns = arrays.pop("mfns")
    content = arrays.pop("content").reshape(tables, PAGE_SIZE // 8)
    if tables and ((mfns[1:] <= mfns[:-1]).any() or mfns[0] < 0 or mfns[-1] >= frames):
        raise _Damage("its tables are not in order")
    identity = header.get("identity")
    roots = header.get("roots")
    if not isinstance(identity, dict) or not isinstance(roots, list):
        raise _Damage("its header lacks something")
    return Snapshot(
        _facts(header.get("facts")),
        identity,
        tuple(_root(each) for each in roots),
        Frames(**arrays),
        SavedTables(mfns, content, frames),
    )


def _arrays(packed: bytes, counts: Mapping[str, int]) -> dict[str, npt.NDArray[Any]]:
    size = sum(np.dtype(kind).itemsize * counts[of] for _, kind, of in _COLUMNS)
    try:
        if zstandard.frame_content_size(packed) != size:
            raise _Damage("its arrays have not the length that its header says")
        body = zstandard.ZstdDecompressor().decompress(packed, max_output_size=size)
    except zstandard.ZstdError as error:
        raise _Damage("its arrays do not unpack") from error
    if len(body) != size:
        raise _Damage("its arrays are cut")
    found: dict[str, npt.NDArray[Any]] = {}
    at = 0
    for name, kind, of in _COLUMNS:
        found[name] = np.frombuffer(body, dtype=kind, count=counts[of], offset=at).copy()  # to be aligned
        at += found[name].nbytes
    return found


def _facts(value: object) -> Facts:
    if not isinstance(value, dict):
        raise _Damage("its header lacks something")
    numbers = {
        name: _number(value, name, U64) for name in ("number", "virtual_ns", "hypercalls", "retired", "rip", "boot")
    }
    moment, cut = value.get("moment"), value.get("cut")
    if not isinstance(moment, str) or not isinstance(cut, bool):
        raise _Damage("its header lacks something")
    return Facts(moment=moment, cut=cut, **numbers)


def _root(value: object) -> Root:
    if isinstance(value, dict):
        names, fmt = value.get("names"), value.get("format")
        if isinstance(names, list) and all(isinstance(name, str) for name in names) and fmt in FORMATS:
            return Root(_number(value, "maddr", 1 << 52), fmt, tuple(names))
    raise _Damage("a root in its header is none")


def _number(values: Mapping[str, object], name: str, most: int) -> int:
    value = values.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise _Damage(f"its header's {name} is no number that can be")
    return value
