"""From a marker's parameters to a machine's configuration, and what the guests of one test share."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_machine import FakeLaunch

from harness import catalogue
from harness.admission import MemoryBudget
from harness.guests import Guest, GuestHouse, GuestSpec, ImageLaunch, WrongVerdict
from harness.machine import RunLimits
from stub.errors import ImageError, UsageError


@pytest.fixture
def image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A catalogue of one image; its ramdisk."""
    ramdisk = tmp_path / "base.cpio"
    ramdisk.write_bytes(b"070701base")
    entry = SimpleNamespace(
        name="cloud", version="6.1", kernel=tmp_path / "vmlinuz", ramdisk=ramdisk, cmdline="console=hvc0", memory=192
    )
    monkeypatch.setattr(catalogue, "resolve", {"cloud": entry}.get)
    return ramdisk


def test_the_images_own_values_and_what_replaces_them(image: Path, tmp_path: Path) -> None:
    launch = ImageLaunch(GuestSpec("cloud"))
    assert (launch.memory, launch.cmdline, launch.ramdisk(tmp_path)) == (192, "console=hvc0", image)
    launch = ImageLaunch(GuestSpec("cloud", memory=64, extra="quiet", ramdisk="other"))
    assert (launch.memory, launch.cmdline, launch.ramdisk(tmp_path)) == (64, "console=hvc0 quiet", Path("other"))
    assert ImageLaunch(GuestSpec("cloud", cmdline="", extra="single")).cmdline == "single"


def test_files_are_added_to_the_ramdisk_and_the_rerun_uses_it(image: Path, tmp_path: Path) -> None:
    launch = ImageLaunch(GuestSpec("cloud", files={"/init": "#!/bin/sh\n", "/data": b"\0"}, seed=5))
    path = launch.ramdisk(tmp_path)
    assert path is not None
    assert path.read_bytes().startswith(b"070701base")
    assert b"#!/bin/sh\n" in path.read_bytes()
    assert shlex.join(launch.command(tmp_path)) == (
        f"pvstub boot cloud --memory=192 --cmdline=console=hvc0 --ramdisk={path} --seed=5"
    )


def test_a_configuration_file_is_an_image_too(image: Path, tmp_path: Path) -> None:
    """Its kernel is a file beside it, or an image by name; parameters go before what it says."""
    (tmp_path / "vmlinuz").touch()
    file = tmp_path / "g.cfg"
    file.write_text("kernel = 'vmlinuz'\nramdisk = 'base.cpio'\nmemory = 64\nextra = 'quiet'\n")
    launch = ImageLaunch(GuestSpec(file))
    assert (launch.kernel, launch.memory, launch.cmdline) == (tmp_path / "vmlinuz", 64, "quiet")
    assert launch.ramdisk(tmp_path) == image
    assert shlex.join(launch.command(tmp_path)) == f"pvstub boot {file} --memory=64 --cmdline=quiet"
    assert ImageLaunch(GuestSpec(file, memory=128, extra="single")).cmdline == "quiet single"
    file.write_text("kernel = 'cloud'\n")
    launch = ImageLaunch(GuestSpec(str(file)))
    assert (launch.kernel, launch.memory, launch.cmdline) == (tmp_path / "vmlinuz", 192, "console=hvc0")


def test_a_kernel_file_is_an_image_too(image: Path, tmp_path: Path) -> None:
    kernel = tmp_path / "vmlinuz-6.1"
    kernel.touch()
    for name in (kernel, str(kernel)):
        launch = ImageLaunch(GuestSpec(name, ramdisk=b"made up"))
        assert (launch.kernel, launch.memory) == (kernel, 256)
        ramdisk = launch.ramdisk(tmp_path)
        assert ramdisk is not None
        assert ramdisk.read_bytes() == b"made up"


def test_a_name_that_is_none(image: Path) -> None:
    with pytest.raises(ImageError, match=r"^nowhere/vmlinuz: no such image or file; give a catalogue name"):
        ImageLaunch(GuestSpec(Path("nowhere/vmlinuz")))
    with pytest.raises(ImageError, match="did you mean debian-amd64"):
        ImageLaunch(GuestSpec("debian-amd46"))


def house(tmp_path: Path, capacity: int = 1000, reserve: int = 0) -> GuestHouse:
    folders = (tmp_path / f"run{number}" for number in range(9))

    def new() -> Path:
        folder = next(folders)
        folder.mkdir()
        return folder

    return GuestHouse("a test", FakeLaunch, MemoryBudget(tmp_path / "budget", capacity), new, RunLimits(), 60, reserve)


def test_memory_is_taken_when_a_guest_starts_and_given_back(tmp_path: Path) -> None:
    shared = house(tmp_path)
    guest = Guest(shared, GuestSpec("x", memory=600))
    guest.wait("poweroff")
    with pytest.raises(UsageError, match="all 600 MiB of guest memory are held"):
        guest(memory=500).wait()
    guest.close()
    guest(memory=500).wait()
    shared.close()
    assert all(started.machine.closed for started in shared.started)
    assert shared.budget.acquire(1000, "next").memory == 1000
    shared.budget.close()


def test_a_test_can_reserve_for_all_its_guests(tmp_path: Path) -> None:
    shared = house(tmp_path, reserve=700)
    guest = Guest(shared, GuestSpec("x", memory=300))
    guest.wait()
    guest().wait()
    with pytest.raises(UsageError, match="its guests need more than the 700 MiB"):
        guest().wait()
    shared.close()
    assert shared.budget.acquire(1000, "next").memory == 1000
    shared.budget.close()


def test_wait_tells_what_happened_instead(tmp_path: Path) -> None:
    shared = house(tmp_path)
    guest = Guest(shared, GuestSpec("x"))
    with pytest.raises(WrongVerdict, match=r"still runs at 0.400 virtual seconds, after 0.4 of waiting"):
        guest.wait(timeout=0.4)
    with pytest.raises(WrongVerdict, match=r"expected crash but at 1.000 s: poweroff: the guest powered off"):
        guest.wait("crash")
    shared.close()
    shared.budget.close()
