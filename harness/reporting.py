"""What a failed test shows of its guests: console, last hypercalls, registers, and how to see it again.

For a live guest it asks the machine; for one whose process died it reads what the run folder kept.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from stub.errors import PvstubError, UsageError
from stub.trace import milestones

from .console_text import TAIL_BYTES, console_tail
from .guests import Guest

TAIL_CALLS = 25
Section = tuple[str, str]


def console_tail_of(run_directory: Path) -> str:
    """The console tail of a run that is over: from its folder's ``console.log``."""
    log = run_directory / "console.log"
    if not log.exists():
        return f"(no console.log in {run_directory})"
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        return console_tail(file.read())


def hypercall_tail_of(run_directory: Path, last: int = TAIL_CALLS) -> str:
    """The last records of the run's hypercall log, as ``pvstub trace`` prints them."""
    from .hypercalls import tail

    try:
        return "\n".join(tail(run_directory, last)) or "(none)"
    except UsageError as error:  # the run died before it had a log, or damaged it: that is worth a line, not a crash
        return f"({error})"


def registers_text(registers: Mapping[str, int], width: int = 4) -> str:
    """Registers in hexadecimal, four to a line, in the order given."""
    cells = [f"{name:>8} {value:016x}" for name, value in registers.items()]
    return "\n".join("".join(cells[row : row + width]) for row in range(0, len(cells), width))


def guest_sections(guest: Guest) -> list[Section]:
    """The sections on one guest that was started, whether it still runs or not."""
    machine = guest.machine
    verdict = machine.verdict
    state = f"running at {machine.now_ns / 1e9:.6f} s" if verdict is None else f"{verdict.kind}: {verdict.reason}"
    details = () if verdict is None else verdict.details
    passed = milestones.last(guest.run_directory)
    stage = [f"last milestone: {passed}"] if passed is not None else []
    return [
        ("guest", "\n".join((f"{guest.spec.image or 'guest'}, {guest.memory} MiB: {state}", *stage, *details))),
        ("guest console (tail)", console_tail(machine.console.output)),
        ("last hypercalls", hypercall_tail_of(guest.run_directory)),
        ("registers", registers_text(guest.registers())),
    ]


def failure_sections(guests: Sequence[Guest], pytest_command: str) -> list[Section]:
    """All sections of a failed test; titles are numbered when it has several guests."""
    sections = []
    for number, guest in enumerate(guests, start=1):
        suffix = f" [{number}]" if len(guests) > 1 else ""
        sections += [(title + suffix, text) for title, text in guest_sections(guest)]
    boots = [f"{guest.rerun}\n    (this run: {guest.run_directory})" for guest in guests]
    return [*sections, ("rerun", "\n".join((pytest_command, *boots)))]


def leave_artefact(guest: Guest, folder: Path, name: str) -> str:
    """Write a closed guest's file for ``pvstub replay`` into ``folder``; its path, or why there is none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        place, path = tempfile.mkstemp(".zip", f"{name}-", folder)
    except OSError as error:
        return f"none: {folder}: {error.strerror}"
    os.close(place)
    try:
        guest.leave_artefact(Path(path))
        os.chmod(path, 0o644)
    except (PvstubError, OSError) as error:
        Path(path).unlink()
        return f"none: {error}"
    return path


def milestone(run_directory: Path) -> list[tuple[str, object]]:
    """How far a run came, as a property."""
    passed = milestones.last(run_directory)
    return [] if passed is None else [("pv milestone", str(passed))]


def digests(run_directory: Path) -> list[tuple[str, object]]:
    """The digests of a run that is over; nothing for a machine of the test's own, which has no summary."""
    file = run_directory / "summary.json"
    if not file.exists():
        return []
    found = json.loads(file.read_bytes())["digests"]
    return [(f"pv digest {name}", digest) for name, digest in found.items()]


def crash_text(index: Iterable[str]) -> str:
    """What is left of the guests of a worker that died: ``index`` are the lines it left when it started them."""
    parts = []
    for line in index:
        entry = json.loads(line)
        run = Path(entry["run"])
        parts += [
            ("guest console (tail)", console_tail_of(run)),
            ("last hypercalls", hypercall_tail_of(run)),
            ("rerun", f"{entry['boot']}\n    (this run: {run})"),
        ]
    return "\n".join(f"{f' {title} ':-^80}\n{text}" for title, text in parts)
