"""One boot of the recorded guest for all of the suite."""

from __future__ import annotations

import pytest

from harness import catalogue
from harness.cpio import Archive
from harness.guests import GuestSpec, ImageLaunch
from harness.machine import RunLimits
from suites.fidelity import ourlog, recording
from suites.fidelity.compare import Comparison, compare
from suites.fidelity.events import Event

SEED = 0
_LAST_LINE = b"Freeing initrd memory"
"""What the kernel says soon after the recording's end."""


@pytest.fixture(scope="session")
def recorded() -> list[Event]:
    """What real Xen was asked and answered."""
    return recording.read()


@pytest.fixture(scope="session")
def ours(tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    """What we were asked and answered, up to a little after the recording's end.

    Another version of the kernel asks other things at other addresses: then a new recording is needed, and until there
    is one nothing can be compared.
    """
    image = catalogue.resolve(recording.IMAGE)
    assert image is not None
    if image.version != recording.PACKAGE:
        pytest.skip(f"the recording is of {recording.IMAGE} {recording.PACKAGE}, and Debian now has {image.version}")
    run = tmp_path_factory.mktemp("fidelity")
    spec = GuestSpec(
        image=recording.IMAGE,
        memory=recording.MEMORY,
        cmdline=recording.CMDLINE,
        ramdisk=ramdisk(recording.RAMDISK_PAGES),
        seed=SEED,
    )
    machine = ImageLaunch(spec).start(run, RunLimits(virtual=5, wall=300))
    try:
        verdict = machine.run(until=lambda: _LAST_LINE in machine.console.output)
    finally:
        machine.close()
    assert verdict is None, f"the guest ended before the recording does: {verdict}"
    return ourlog.read(run, ourlog.frames(recording.MEMORY, SEED))


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
