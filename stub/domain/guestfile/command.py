"""``pvstub config``: what a configuration file would boot, and what is to be said about it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from stub.domain.actions import SETTINGS
from stub.domain.disk import Disk
from stub.domain.guestfile.place import printable
from stub.domain.guestfile.reader import GuestFile, read, there
from stub.domain.hostmemory import too_much
from stub.errors import PvstubError


def main(argv: Sequence[str], complete: Callable[[GuestFile], GuestFile]) -> int:
    """Run ``pvstub config …``; its exit status: 0 for files that can be booted, 2 for others.

    ``complete`` puts in the files of a kernel that is an image by name.
    """
    parser = argparse.ArgumentParser(prog="pvstub config", description="Configuration files of guests, xl's and xm's.")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    check = actions.add_parser("check", help="read files, say what they would boot and what is wrong with them")
    check.add_argument("files", nargs="+", type=Path, metavar="FILE")
    add_options(check)
    check.add_argument("--json", action="store_true", help="one JSON object a file")
    check.set_defaults(run=_check, complete=complete)
    options = parser.parse_args(argv)
    status: int = options.run(options)
    return status


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of all that reads a configuration file."""
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="changes",
        help="a setting after those of the file, in xl's grammar; may be given again",
    )  # fmt: skip
    parser.add_argument(
        "--allow-devices", action="store_true", help="a disk may be a device of this host's (the guest can read it)"
    )


def _check(options: argparse.Namespace) -> int:
    status, memory = 0, 0
    for path in options.files:
        faults: list[str] = []
        guest = None
        try:
            guest = options.complete(read(path, options.changes, devices=options.allow_devices))
        except PvstubError as error:
            faults.append(str(error))
        else:
            memory += guest.config.memory
            faults += missing(guest)
        status = 2 if faults else status
        show = _as_json if options.json else _as_text
        for line in "\n".join(show(path, guest, faults)).split("\n"):
            print(printable(line))
    crowd = too_much(memory)
    if crowd:
        print(f"warning: {crowd}", file=sys.stderr)
    return status


def missing(guest: GuestFile) -> list[str]:
    """The files that are not there, a line each."""
    config = guest.config
    files: list[tuple[str, Path]] = [("kernel", config.kernel)]
    if isinstance(config.ramdisk, Path):
        files.append(("ramdisk", config.ramdisk))
    files += [(f"disk {disk.vdev}", disk.target) for disk in config.disks if disk.target is not None]
    return [f"{guest.path}: {what}: there is no file {path}" for what, path in files if not there(path)]


def facts(guest: GuestFile) -> dict[str, Any]:
    """What would be booted, for JSON."""
    config = guest.config
    return {
        "name": config.name,
        "uuid": config.uuid or None,
        "kernel": str(config.kernel),
        "ramdisk": str(config.ramdisk) if config.ramdisk is not None else None,
        "cmdline": config.cmdline,
        "memory": config.memory,
        "maxmem": guest.max_memory if "maxmem" in guest.keys else config.memory,
        "vcpus": config.vcpus,
        **{name: getattr(config, name) for name in SETTINGS.values()},
        "disks": [_disk(disk) for disk in config.disks],
    }


def _disk(disk: Disk) -> dict[str, Any]:
    return {
        "target": str(disk.target) if disk.target is not None else None,
        "vdev": disk.vdev,
        "number": disk.number,
        "device_type": disk.device_type,
        "format": disk.format,
        "readonly": disk.readonly,
        "overlay": disk.overlay,
    }


def _as_json(path: Path, guest: GuestFile | None, faults: list[str]) -> Iterator[str]:
    made: dict[str, Any] = {"file": str(path), "language": guest.language if guest else None}
    made["guest"] = facts(guest) if guest else None
    made["warnings"] = [{"at": each.at, "message": each.message} for each in guest.warnings] if guest else []
    made["errors"] = faults
    yield json.dumps(made)


def _as_text(path: Path, guest: GuestFile | None, faults: list[str]) -> Iterator[str]:
    if guest is not None:
        yield f"{path}: a guest in {'the grammar of xl' if guest.language == 'xl' else 'the Python of xm'}"
        for name, value in facts(guest).items():
            if name != "disks" and value not in (None, ""):
                yield f"  {name:<13} {value}{' MiB' if name in ('memory', 'maxmem') else ''}"
        for disk in guest.config.disks:
            kind = ("read-only " if disk.readonly else "") + disk.device_type
            yield f"  {'disk':<13} {disk.vdev} ({disk.number}): {disk.format} {kind}, {disk.target or 'empty'}"
        for warned in guest.warnings:
            yield f"warning: {warned}"
    for fault in faults:
        yield f"error: {fault}"
