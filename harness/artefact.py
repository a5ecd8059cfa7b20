"""One file that holds a failed boot: its kernel, ramdisk and disks, all it depends on, its logs and digests.

A zip archive. ``artefact.json`` has a boot's inputs (`stub.inputs`) and what came of it; the other members have fixed
names. The same boot anywhere gives the same digests, and ``pvstub replay`` shows whether it did. Disks are kept as they
were before the boot, while no more than `MOST_DISKS` of them is not zeros; a larger one is named by its SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from harness import sparse
from harness.again import Boot, check_unchanged
from harness.cache import sha256_of
from stub.domain.disk import Disk
from stub.errors import PvstubError, UsageError
from stub.hypervisor.verdict import EXIT_STATUS
from stub.inputs import Inputs, disk_of
from stub.machine import Machine
from stub.trace import summary

SCHEMA: Final = 2
MANIFEST: Final = "artefact.json"
KERNEL, RAMDISK = "kernel", "ramdisk"
LOGS: Final = ("console.log", "xenstore.log", "hypercalls", summary.FILE_NAME)
MOST_BYTES: Final = 1 << 30
MOST_DISKS: Final = 128 << 20
MOST_SAID: Final = 64 << 20  # bytes of the manifest, of which typed input may be most

_DATE: Final = (1980, 1, 1, 0, 0, 0)  # the archive of one boot is the same file wherever it is made
_MOST_DISK: Final = 1 << 44
_DAMAGE: Final = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError,  # RuntimeError: what zipfile says of encrypted ones
    ValueError, LookupError, TypeError, AttributeError, RecursionError, EOFError, OverflowError,
)  # fmt: skip
_VERSION: Final = re.compile(r"[0-9A-Za-z.+!_-]{1,64}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class _Image(NamedTuple):
    """A disk's image in an artefact: its open file and which pieces of it are kept; None: none, it is too large."""

    file: int
    pieces: list[tuple[int, int]] | None


# -- writing


def write(path: Path, machine: Machine, end: tuple[int, int]) -> None:
    """Write the artefact of a machine that has been closed, where it was at its ``end`` (as `Boot` has it).

    UsageError for one that cannot be booted again.
    """
    inputs, folder = machine.inputs(), machine.run_directory
    config = inputs.config
    if config.realtime or folder is None:
        raise UsageError("a guest on the wall clock, or without a folder, leaves no artefact")
    for disk in config.disks:
        check_unchanged(disk)
    kept, said = summary.load(folder), inputs.as_object()
    del said["files"]
    files = {KERNEL: config.kernel.read_bytes()}
    if config.ramdisk is not None:
        files[RAMDISK] = config.ramdisk_bytes()
    logs = {name: (folder / name).read_bytes() for name in LOGS if (folder / name).exists()}
    with _images(config.disks) as images, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, image in images.items():
            said["disks"][number] |= _kept(archive, number, image)
        manifest = {
            "schema": SCHEMA,
            "pvstub": kept["pvstub"],
            **said,
            "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
            "end": {"now_ns": end[0], "output": end[1]},
            "verdict": machine.verdict.kind if machine.verdict is not None else None,
            "digests": kept["digests"],
        }
        for name, data in {MANIFEST: json.dumps(manifest, indent=2).encode() + b"\n", **files, **logs}.items():
            archive.writestr(_member(name), data)


@contextmanager
def _images(disks: tuple[Disk, ...]) -> Iterator[dict[int, _Image]]:
    """The images of those that have one, by number; as many of them kept as there is room for."""
    opened: dict[int, _Image] = {}
    room = MOST_DISKS
    try:
        for number, disk in enumerate(disks):
            if disk.target is None:
                continue
            file = os.open(disk.target, os.O_RDONLY | os.O_CLOEXEC)
            opened[number] = _Image(file, None)
            size = 0
            for _, data in sparse.blocks(file):
                size += len(data)
                if size > room:
                    break
            else:
                room -= size
                opened[number] = _Image(file, sparse.pieces(file))
        yield opened
    finally:
        for image in opened.values():
            os.close(image.file)


def _kept(archive: zipfile.ZipFile, number: int, image: _Image) -> dict[str, Any]:
    """What the manifest says of an image, which is put into the archive if it is to be kept."""
    size = os.lseek(image.file, 0, os.SEEK_END)
    if image.pieces is None:
        os.lseek(image.file, 0, os.SEEK_SET)
        with open(image.file, "rb", closefd=False) as whole:
            return {"size": size, "sha256": hashlib.file_digest(whole, "sha256").hexdigest()}
    digest = hashlib.sha256()
    with archive.open(_member(_disk(number)), "w", force_zip64=True) as content:
        for _, data in sparse.blocks(image.file):
            digest.update(data)
            content.write(data)
    return {"size": size, "sha256": digest.hexdigest(), "pieces": image.pieces}


def _disk(number: int) -> str:
    return f"disk-{number}"


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, _DATE)
    member.compress_type, member.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
    return member


# -- reading


def unpack(path: Path, folder: Path, images: Mapping[str, Path] | None = None) -> Boot:
    """Read an artefact; its files go into ``folder``. ``images``: those that it has not, by the disk's name.

    UsageError for one that is none, or damaged, or lacks an image.
    """
    with _opened(path) as archive:
        manifest = json.loads(_read(archive, MANIFEST, MOST_SAID))
        if manifest["schema"] != SCHEMA:
            raise UsageError(f"{path}: an artefact of format {manifest['schema']}, not {SCHEMA}")
        places = {
            name: _unpack_file(path, archive, name, manifest["sha256"][name], folder)
            for name in (KERNEL, RAMDISK)
            if name in manifest["sha256"]
        }
        if sum(_size(archive, number) for number in range(len(manifest["disks"]))) > MOST_DISKS:
            raise ValueError(f"disks of more than {MOST_DISKS >> 20} MiB")
        wanted = dict(images or {})
        disks = [
            _unpack_disk(path, archive, number, said, folder, wanted.pop(str(said["vdev"]), None))
            for number, said in enumerate(manifest["disks"])
        ]
        if wanted:
            raise UsageError(f"{path}: it has no disk {min(wanted)}")
        return _boot(Inputs.of_object(manifest, places[KERNEL], places.get(RAMDISK), disks), manifest)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """An artefact to read; UsageError for one that cannot be, and for what turns out within to be none."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except OSError as error:
        raise UsageError(f"{error.filename or path}: {error.strerror}") from error
    except PvstubError:
        raise
    except _DAMAGE as error:
        raise UsageError(f"{path}: no artefact of pvstub's, or a damaged one ({error})") from error


def _unpack_file(path: Path, archive: zipfile.ZipFile, name: str, digest: str, folder: Path) -> Path:
    data = _read(archive, name)
    if hashlib.sha256(data).hexdigest() != digest:
        raise UsageError(f"{path}: damaged: its {name} is another one; fetch it again")
    place = folder / name
    place.write_bytes(data)
    return place


def _boot(inputs: Inputs, manifest: dict[str, Any]) -> Boot:
    if inputs.config.realtime:
        raise ValueError("a guest on the wall clock")
    end = int(manifest["end"]["now_ns"]), int(manifest["end"]["output"])
    verdict, version = manifest["verdict"], manifest["pvstub"]
    digests = {name: manifest["digests"][name] for name in ("console", "hypercalls")}
    if verdict is not None and verdict not in EXIT_STATUS:
        raise ValueError(f"its verdict {verdict!r}")
    if not _VERSION.fullmatch(version) or not all(map(_SHA256.fullmatch, digests.values())):
        raise ValueError("its version or its digests")
    return Boot(inputs, end, verdict, digests, version)


def _size(archive: zipfile.ZipFile, number: int) -> int:
    """Bytes of a disk that are in it."""
    name = _disk(number)
    return archive.getinfo(name).file_size if name in archive.NameToInfo else 0


def _unpack_disk(
    path: Path, archive: zipfile.ZipFile, number: int, said: dict[str, Any], folder: Path, given: Path | None
) -> Disk:
    """A disk, with its image under its own name, which the guest may see."""
    about: dict[str, Any] = {name: said.pop(name) for name in ("size", "sha256", "pieces") if name in said}
    disk = disk_of(said, None)
    if said["target"] is None:
        return disk
    check_unchanged(disk)
    hint = Path(said["target"])
    own = folder / _disk(number) / hint.name
    if not hint.name or not 0 <= about["size"] <= _MOST_DISK:
        raise ValueError(f"a disk of {about['size']} bytes in {hint}")
    own.parent.mkdir(exist_ok=True)
    if "pieces" in about:
        if given is not None:
            raise UsageError(f"{path}: its disk {disk.vdev} is in it: leave out --disk {disk.vdev}={given}")
        with own.open("wb") as image, archive.open(_disk(number)) as content:
            sparse.lay_out(image, about["size"], [(int(at), int(size)) for at, size in about["pieces"]], content)
    else:
        places = (hint, path.parent / hint.name) if given is None else (given,)
        own.symlink_to(_found(path, disk.vdev, about, places))
    return replace(disk, target=own)


def _found(path: Path, vdev: str, about: dict[str, Any], places: Sequence[Path]) -> Path:
    """An image that is not in the artefact, in one of the places where it may be."""
    for place in places:
        if not place.is_file() or place.stat().st_size != about["size"]:
            continue
        if sha256_of(place) == about["sha256"]:
            return place.absolute()
    raise UsageError(
        f"{path}: its disk {vdev} is not in it: give --disk {vdev}=FILE, an image of {about['size']:,} bytes "
        f"with SHA-256 {about['sha256']}"
    )


def unpack_logs(path: Path, folder: Path) -> None:
    """The logs that the boot left, for a comparison."""
    folder.mkdir(parents=True, exist_ok=True)
    with _opened(path) as archive:
        for name in LOGS:
            if name in archive.namelist():
                (folder / name).write_bytes(_read(archive, name))


def is_one(path: Path) -> bool:
    """Whether it may be an artefact: a zip archive."""
    return path.is_file() and zipfile.is_zipfile(path)


def _read(archive: zipfile.ZipFile, name: str, most: int = MOST_BYTES) -> bytes:
    if archive.getinfo(name).file_size > most:
        raise ValueError(f"its {name} is larger than {most >> 20} MiB")
    return archive.read(name)
