"""One boot of each recorded guest for all of the suite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import catalogue
from harness.cpio import Archive
from harness.guests import GuestSpec, ImageLaunch
from harness.machine import RunLimits
from suites.fidelity import ourlog
from suites.fidelity.compare import Comparison, compare
from suites.fidelity.events import Event
from suites.fidelity.recording import GNUMACH, GRUB, LINUX, Recording

SEED = 0
_LAST_LINE = b"Freeing initrd memory"
"""What Linux says soon after its recording's end."""
_TYPED = "echo hello-from-grub", "ls", "set", "halt"
"""What was typed at GRUB while it was recorded, as far as the places of its console ring show: the lengths are those
of the lines then."""
_PROMPT = b"grub> "


def _linux(machine: Any) -> None:
    verdict = machine.run(until=lambda: _LAST_LINE in machine.console.output)
    assert verdict is None, f"the guest ended before the recording does: {verdict}"


def _grub(machine: Any) -> None:
    """Key by key, each behind the last one's echo, as a person types."""
    output = machine.console.output
    for line in _TYPED:
        assert machine.run(until=lambda: output.endswith(_PROMPT)) is None
        for key in (*line, "\r"):
            seen = len(output)
            machine.console.send(key.encode())
            machine.run(until=lambda seen=seen: len(output) > seen)
    assert machine.run().kind == "poweroff"


def _gnumach(machine: Any) -> None:
    assert machine.run().kind == "poweroff"


_BOOTS: dict[Recording, Callable[[Any], None]] = {LINUX: _linux, GRUB: _grub, GNUMACH: _gnumach}


@pytest.fixture(scope="session")
def boot(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Recording], list[Event]]:
    """What we were asked and answered by a recording's guest, up to its end at least.

    Another version of the kernel asks other things at other addresses: then a new recording is needed, and until there
    is one nothing can be compared.
    """

    def events(recorded: Recording) -> list[Event]:
        image = catalogue.load(recorded.image)
        if image.version != recorded.package:
            pytest.skip(f"the recording is of {recorded.image} {recorded.package}, and Debian now has {image.version}")
        run: Path = tmp_path_factory.mktemp("fidelity")
        spec = GuestSpec(
            image=recorded.image,
            memory=recorded.memory,
            cmdline=recorded.cmdline,
            ramdisk=ramdisk(recorded.ramdisk_pages) if recorded.ramdisk_pages else None,
            seed=SEED,
        )
        machine = ImageLaunch(spec).start(run, RunLimits(virtual=5, wall=300))
        try:
            _BOOTS[recorded](machine)
        finally:
            machine.close()
        return ourlog.read(run, ourlog.frames(recorded.memory, SEED))

    return events


@pytest.fixture(scope="session")
def recorded() -> list[Event]:
    """What real Xen was asked and answered by Linux."""
    return LINUX.read()


@pytest.fixture(scope="session")
def ours(boot: Callable[[Recording], list[Event]]) -> list[Event]:
    """What we were asked and answered by Linux, up to a little after the recording's end."""
    return boot(LINUX)


@pytest.fixture(scope="session")
def comparison(recorded: list[Event], ours: list[Event]) -> Comparison:
    """The two, compared."""
    return compare(recorded, ours)


def ramdisk(pages: int) -> bytes:
    """A ramdisk of just this size: where the guest's first free page is depends on it. Nothing in it is ever run."""
    archive = Archive()
    archive.file("/padding", bytes((pages << 12) - 1024))
    data = archive.bytes()
    assert len(data) <= pages << 12
    return data.ljust(pages << 12, b"\0")
