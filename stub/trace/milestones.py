"""How far a boot came: the last of a few milestones, from what its run's folder has. A table says how each is known.

Linux starting up on Xen passes them in about this order (arch/x86/xen/enlighten_pv.c, drivers/xen/xenbus/
xenbus_probe.c, init/do_mounts.c, init/main.c); with an initramfs, the first program comes before the root file system.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from stub.abi import xen
from stub.errors import UsageError
from stub.trace.format import STRUCTS, TIME, Kind
from stub.trace.reader import FILE_NAME, LogReader

_TABLES: Final = frozenset({xen.MMUEXT_PIN_L3_TABLE, xen.MMUEXT_PIN_L4_TABLE, xen.MMUEXT_NEW_BASEPTR})
_PAYLOAD: Final = STRUCTS[Kind.HYPERCALL].size
_MOST_BYTES: Final = 16 << 20  # of a file that is looked through
_STAMP: Final = re.compile(r"\[ *(\d{1,9}\.\d{6,9})\]")


class Milestone(NamedTuple):
    """``at``: virtual seconds; None where nothing says when it was."""

    name: str
    at: float | None

    def __str__(self) -> str:
        return self.name + ("" if self.at is None else f" at {self.at:.6f} s")


def _roots(data: bytes) -> bool:
    return (
        data[0] in (Kind.HYPERCALL, Kind.NESTED)
        and data[2] == xen.Hypercall.mmuext_op
        and int.from_bytes(data[_PAYLOAD : _PAYLOAD + 4], "little") in _TABLES
    )


LOG: Final[Mapping[str, Callable[[bytes], bool]]] = {
    "entry": lambda data: data[0] == Kind.START,
    "page tables of its own": _roots,
    "event upcalls": lambda data: data[0] == Kind.UPCALL,
}
"""What the record of the hypercall log is."""
LINES: Final[Mapping[str, tuple[str, re.Pattern[str]]]] = {
    "XenStore": ("xenstore.log", re.compile(r" d\d+ (?:read|watch|directory|transaction_start)\b")),
    "a disk connected": ("xenstore.log", re.compile(r' write device/vbd/\d+/state "4"')),
    "a network connected": ("xenstore.log", re.compile(r' write device/vif/\d+/state "4"')),
    "root mounted": ("console.log", re.compile(r"VFS: Mounted root|\): mounted filesystem")),
    "first program": ("console.log", re.compile(r"Run \S+ as init process|pvstub: init reached|INIT: version ")),
}
"""The file, and what a line of it has."""


def reached(run: Path) -> list[Milestone]:
    """Those that a run has passed, by time; of what has none, where the tables have it. What is not there, has none."""
    found = [*_of_log(run), *_of_files(run)]
    times: list[float] = []
    for milestone in found:
        times.append(milestone.at if milestone.at is not None else max(times, default=0.0))
    return [found[number] for number in sorted(range(len(found)), key=lambda number: times[number])]


def last(run: Path) -> Milestone | None:
    """The last of them; None for a run that has not begun."""
    passed = reached(run)
    return passed[-1] if passed else None


def _of_log(run: Path) -> Iterator[Milestone]:
    waiting = dict(LOG)
    try:
        with LogReader(run / FILE_NAME) as reader:
            for packed in reader.packed():
                passed = [name for name, is_one in waiting.items() if is_one(packed.data)]
                for name in passed:
                    del waiting[name]
                    yield Milestone(name, int.from_bytes(packed.data[TIME], "little") / 1e9)
                if not waiting:
                    return
    except UsageError:  # no log, or a damaged one: what was read until there counts
        return


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        return []
    with path.open("rb") as file:
        return file.read(_MOST_BYTES).decode("utf-8", "replace").splitlines()


def _of_files(run: Path) -> Iterator[Milestone]:
    lines: dict[str, list[str]] = {}
    for name, (file, pattern) in LINES.items():
        if file not in lines:
            lines[file] = _lines(run / file)
        line = next((line for line in lines[file] if pattern.search(line)), None)
        if line is not None:
            stamp = _STAMP.search(line)
            yield Milestone(name, float(stamp[1]) if stamp else None)
