"""One file that holds a failed boot: its kernel, ramdisk, configuration, what was typed when, its logs and digests.

A zip archive. ``artefact.json`` says what a boot depends on (`Inputs`) and what came of it; the other members have
fixed names. The same boot anywhere gives the same digests, and ``pvstub replay`` shows whether it did.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Final, NamedTuple

from stub.domain.config import DomainConfig
from stub.errors import PvstubError, UsageError
from stub.machine import Limits, Machine
from stub.trace import summary

SCHEMA: Final = 1
MANIFEST: Final = "artefact.json"
KERNEL, RAMDISK = "kernel", "ramdisk"
LOGS: Final = ("console.log", "xenstore.log", "hypercalls", summary.FILE_NAME)
MOST_BYTES: Final = 1 << 30
FROM_OUTSIDE: Final = ("wall-limit", "interrupted", "failure")
"""Ends that come from the wall clock or a person: where exactly is not in the inputs."""

_DATE: Final = (1980, 1, 1, 0, 0, 0)  # the archive of one boot is the same file wherever it is made
_LEFT_OUT: Final = frozenset({"kernel", "ramdisk", "disks"})


class Typed(NamedTuple):
    """Console input: the virtual time in ns, the bytes of console output that were there by then, what was typed."""

    now_ns: int
    output: int
    data: bytes


class Artefact(NamedTuple):
    """``config`` has its files unpacked. ``end``: virtual time and console bytes at the end; ``verdict`` None: stopped
    by its test. ``audit``: as `Machine` takes it."""

    config: DomainConfig
    limits: Limits
    audit: int | None
    typed: tuple[Typed, ...]
    end: tuple[int, int]
    verdict: str | None
    digests: dict[str, str]
    pvstub: str


def write(path: Path, machine: Machine, typed: Sequence[Typed], end: tuple[int, int], audit: int | None) -> None:
    """Write the artefact of a machine that has been closed. UsageError for one that has disks: they are not kept."""
    config, folder = machine.config, machine.run_directory
    if config.disks:
        raise UsageError("a guest with disks leaves no artefact: they may be larger than anybody wants to carry")
    if config.realtime or folder is None:
        raise UsageError("a guest on the wall clock, or without a folder, leaves no artefact")
    kept = summary.load(folder)
    files = {KERNEL: config.kernel.read_bytes()}
    if config.ramdisk is not None:
        files[RAMDISK] = config.ramdisk_bytes()
    manifest = {
        "schema": SCHEMA,
        "pvstub": kept["pvstub"],
        "config": {name: value for name, value in asdict(config).items() if name not in _LEFT_OUT},
        "limits": {"virtual_ns": machine.limits.virtual_ns, "instructions": machine.limits.instructions},
        "audit": audit,
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        "typed": [{"now_ns": one.now_ns, "output": one.output, "hex": one.data.hex()} for one in typed],
        "end": {"now_ns": end[0], "output": end[1]},
        "verdict": machine.verdict.kind if machine.verdict is not None else None,
        "digests": kept["digests"],
    }
    files |= {name: (folder / name).read_bytes() for name in LOGS if (folder / name).exists()}
    files = {MANIFEST: json.dumps(manifest, indent=2).encode() + b"\n", **files}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            member = zipfile.ZipInfo(name, _DATE)
            member.compress_type, member.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(member, data)


def unpack(path: Path, folder: Path) -> Artefact:
    """Read an artefact; its kernel and ramdisk go into ``folder``. UsageError for one that is none, or damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = json.loads(_member(archive, MANIFEST))
            if manifest["schema"] != SCHEMA:
                raise UsageError(f"{path}: an artefact of format {manifest['schema']}, not {SCHEMA}")
            places = {}
            for name in (KERNEL, RAMDISK):
                if name in manifest["sha256"]:
                    data = _member(archive, name)
                    if hashlib.sha256(data).hexdigest() != manifest["sha256"][name]:
                        raise UsageError(f"{path}: damaged: its {name} is another one; fetch it again")
                    places[name] = folder / name
                    places[name].write_bytes(data)
        return _artefact(manifest, places)
    except OSError as error:
        raise UsageError(f"{error.filename or path}: {error.strerror}") from error
    except PvstubError:
        raise
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, AttributeError, RecursionError, EOFError) as error:
        raise UsageError(f"{path}: no artefact of pvstub's, or a damaged one ({error})") from error


def unpack_logs(path: Path, folder: Path) -> None:
    """The logs that the boot left, for a comparison."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path) as archive:
        for name in LOGS:
            if name in archive.namelist():
                (folder / name).write_bytes(_member(archive, name))


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > MOST_BYTES:
        raise ValueError(f"its {name} is larger than {MOST_BYTES >> 20} MiB")
    return archive.read(name)


def _artefact(manifest: dict[str, Any], places: dict[str, Path]) -> Artefact:
    known = {field.name for field in fields(DomainConfig)} - _LEFT_OUT
    given = dict(manifest["config"])
    if set(given) - known:
        raise ValueError(f"{min(set(given) - known)} in its configuration")
    given["faults"] = tuple(given.get("faults", ()))
    config = DomainConfig(kernel=places[KERNEL], ramdisk=places.get(RAMDISK), **given)
    limits = manifest["limits"]
    return Artefact(
        config,
        Limits(limits["virtual_ns"], limits["instructions"]),
        manifest["audit"],
        tuple(Typed(int(one["now_ns"]), int(one["output"]), bytes.fromhex(one["hex"])) for one in manifest["typed"]),
        (int(manifest["end"]["now_ns"]), int(manifest["end"]["output"])),
        manifest["verdict"],
        {name: str(manifest["digests"][name]) for name in ("console", "hypercalls")},
        str(manifest["pvstub"]),
    )


def replay(artefact: Artefact, run_directory: Path, cache: Path) -> dict[str, str]:
    """Boot it again, type what was typed when it was, and end where it ended; the digests."""
    machine = Machine(artefact.config, run_directory, artefact.limits, cache=cache, audit=artefact.audit)
    with machine:
        for typed in artefact.typed:
            _run_to(machine, typed.now_ns, typed.output)
            machine.console.send(typed.data)
        if artefact.verdict is not None and artefact.verdict not in FROM_OUTSIDE:
            machine.run()
        else:
            _run_to(machine, *artefact.end)
    digests: dict[str, str] = summary.load(run_directory)["digests"]
    return digests


def _run_to(machine: Machine, now_ns: int, output: int) -> None:
    """To a virtual time, and in it to where the guest has printed so much."""

    def there() -> bool:
        return machine.now_ns >= now_ns and len(machine.console.output) >= output

    machine.run(deadline_ns=now_ns, until=there)
    if len(machine.console.output) < output:
        machine.run(deadline_ns=now_ns + 1, until=there)
