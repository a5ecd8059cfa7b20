"""A boot once more, from what it depended on: its run's folder says that, or the artefact of a failed test."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

from harness.cache import sha256_of
from stub.domain.disk import Disk
from stub.errors import UsageError
from stub.inputs import Inputs, disk_of
from stub.machine import Limits, Machine
from stub.trace import summary

FROM_OUTSIDE: Final = ("wall-limit", "interrupted", "failure")
"""Ends that come from the wall clock or a person: where exactly is not in the inputs."""


class Boot(NamedTuple):
    """What a boot depended on and what came of it. ``end``: virtual time in ns and console bytes at its end;
    ``verdict`` None: stopped by its test. ``pvstub``: the version that it ran on."""

    inputs: Inputs
    end: tuple[int, int]
    verdict: str | None
    digests: dict[str, str]
    pvstub: str


def of_run(folder: Path) -> Boot:
    """The boot that a run's folder tells of, if all of its files are still there. UsageError where it cannot be had."""
    kept = summary.load(folder)
    said = kept.get("inputs")
    if said is None:
        raise UsageError(f"{folder}: a run on the wall clock, or of an older pvstub; it cannot be booted again")
    image, files = kept["image"], said["files"]
    try:
        kernel = _file(folder, files["kernel"], image["kernel"]["sha256"])
        ramdisk = _file(folder, files["ramdisk"], image["ramdisk"]["sha256"]) if image["ramdisk"] else None
        disks = [disk_of(one, None if one["target"] is None else Path(one["target"])) for one in said["disks"]]
        inputs = Inputs.of_object(said, kernel, ramdisk, disks)
        for disk in disks:
            check_unchanged(disk)
        end = kept["virtual_ns"], (folder / "console.log").stat().st_size
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{folder}: a summary that says nonsense ({error}); run the boot again") from error
    stopped = kept["verdict"]["kind"] == "interrupted"
    return Boot(inputs, end, None if stopped else kept["verdict"]["kind"], kept["digests"], kept["pvstub"])


def check_unchanged(disk: Disk) -> None:
    """UsageError for a disk that is not as it was before the boot."""
    if not (disk.overlay or disk.readonly):
        raise UsageError(f"its disk {disk.vdev} was written through: what was on it before the boot is gone")


def _file(folder: Path, said: Any, digest: str) -> Path:
    """A file where it was, or in the run's folder."""
    if said is None:
        raise UsageError(f"{folder}: its ramdisk was made for the run, and is in no file")
    for place in (Path(said), folder / Path(said).name):
        if place.is_file() and sha256_of(place) == digest:
            return place
    raise UsageError(f"{folder}: {said} is no longer there, or another file")


def machine(inputs: Inputs, run_directory: Path | None, cache: Path) -> Machine:
    """A machine that has not run yet, of the same inputs."""
    limits = Limits(inputs.virtual_ns, inputs.instructions)
    return Machine(inputs.config, run_directory, limits, cache=cache, audit=inputs.audit)


def type_to(guest: Machine, inputs: Inputs, now_ns: int | None = None) -> None:
    """Run it and type what was typed when it was, before a virtual time."""
    for typed in inputs.typed:
        if now_ns is not None and typed.now_ns >= now_ns:
            return
        run_to(guest, typed.now_ns, typed.output)
        guest.console.send(typed.data)


def run_to(guest: Machine, now_ns: int, output: int) -> None:
    """To a virtual time, and in it to where the guest has printed so much."""

    def there() -> bool:
        return guest.now_ns >= now_ns and len(guest.console.output) >= output

    guest.run(deadline_ns=now_ns, until=there)
    if len(guest.console.output) < output:  # the rest of it is printed at that very time
        guest.run(deadline_ns=now_ns + 1, until=there)


def replay(boot: Boot, run_directory: Path, cache: Path) -> dict[str, str]:
    """Boot it again, type what was typed when it was, and end where it ended; the digests."""
    with machine(boot.inputs, run_directory, cache) as guest:
        type_to(guest, boot.inputs)
        if boot.verdict is not None and boot.verdict not in FROM_OUTSIDE:
            guest.run()
        else:
            run_to(guest, *boot.end)
    digests: dict[str, str] = summary.load(run_directory)["digests"]
    return digests
