"""Artefacts of guests with disks: in the file while they are small, else named by their digest."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness import artefact, disks
from harness.replay_command import main
from stub.abi.sched import SHUTDOWN_crash
from stub.domain.config import DomainConfig
from stub.domain.disk import Disk
from stub.domain.diskoption import parse_disks
from stub.errors import UsageError
from stub.machine import Machine
from stub.trace import summary
from suites.boot.small_guest import kernel, shutdown

pytestmark = pytest.mark.usefixtures("pv_engine")

SOURCES = Path(__file__).resolve().parents[2]
SIZE = 64 << 20
TEXT = b"something" * 9000


def image(path: Path) -> Path:
    """A sparse one: something in its second block and at its very end."""
    with path.open("wb") as file:
        file.seek(1 << 16)
        file.write(TEXT)
        file.seek(SIZE - len(TEXT))
        file.write(TEXT)
    return path


Left = Callable[..., Path]


@pytest.fixture
def left(tmp_path: Path) -> Left:
    """The artefact of a small guest with these disks, that crashes."""

    def leave(*said: str, more: Sequence[Disk] = ()) -> Path:
        given = (*parse_disks(said), *more)
        config = DomainConfig(kernel=kernel(tmp_path, shutdown(SHUTDOWN_crash)), memory=64, disks=given)
        with Machine(config, tmp_path / "run") as machine:
            machine.run()
            end = machine.now_ns, len(machine.console.output)
        artefact.write(tmp_path / "left.zip", machine, end)
        return tmp_path / "left.zip"

    return leave


def test_a_small_image_is_in_it(left: Left, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its zeros are not: 64 MiB take no more than what is in them. An empty drive is one again, too."""
    disk = image(tmp_path / "root.img")
    before = disk.read_bytes()
    path = left(f"{disk},xvda", more=[Disk(None, "hdc", 0x1600, True, "cdrom", "empty")])
    disk.unlink()
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo("disk-0").file_size <= len(TEXT) * 2 + (4 << 16)
    folder = tmp_path / "unpacked"
    folder.mkdir()
    found = artefact.unpack(path, folder)
    first, second = found.inputs.config.disks
    assert first.target is not None
    assert first.target.name == "root.img"
    assert first.target.read_bytes() == before
    assert second.target is None
    assert main([str(path)]) == 0, capsys.readouterr()
    capsys.readouterr()
    assert main([str(path), "--disk", f"xvda={tmp_path / 'run'}"]) == 2
    assert "its disk xvda is in it" in capsys.readouterr().err


def test_a_large_image_is_named_and_looked_for(
    left: Left, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artefact, "MOST_DISKS", 1000)
    disk = image(tmp_path / "root.img")
    path = left(f"{disk},xvda")
    with zipfile.ZipFile(path) as archive:
        assert "disk-0" not in archive.namelist()
    assert main([str(path)]) == 0, "it is where it was"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(path, elsewhere)
    disk.rename(tmp_path / "moved.img")
    capsys.readouterr()
    assert main([str(elsewhere / path.name)]) == 2
    says = capsys.readouterr().err
    assert "its disk xvda is not in it: give --disk xvda=FILE, an image of 67,108,864 bytes with SHA-256" in says
    assert main([str(elsewhere / path.name), "--disk", f"xvda={tmp_path / 'moved.img'}"]) == 0
    (tmp_path / "moved.img").rename(elsewhere / "root.img")
    assert main([str(elsewhere / path.name)]) == 0, "it is beside the artefact"
    with (elsewhere / "root.img").open("r+b") as file:
        file.write(b"changed")
    assert main([str(elsewhere / path.name)]) == 2, "another image of the same name and size"
    assert main([str(elsewhere / path.name), "--disk", "xvdb=nothing"]) == 2


def test_one_that_was_written_through_leaves_none(left: Left, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="its disk xvda was written through"):
        left(f"{image(tmp_path / 'root.img')},xvda,w,direct")


def test_one_that_says_to_write_through_is_refused(
    left: Left, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a file that somebody sends would have a guest write to an image of the host's whose content he knows."""
    monkeypatch.setattr(artefact, "MOST_DISKS", 1000)
    path = left(f"{image(tmp_path / 'root.img')},xvda")
    said = manifest(path)
    said["disks"][0]["overlay"] = False
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "other.zip", "w") as new:
        new.writestr(artefact.MANIFEST, json.dumps(said))
        new.writestr(artefact.KERNEL, old.read(artefact.KERNEL))
    assert main([str(path)]) == 0, "as it was it can be had"
    assert main([str(tmp_path / "other.zip")]) == 2
    assert "its disk xvda was written through" in capsys.readouterr().err


def test_one_that_would_fill_the_host_is_refused(
    left: Left, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = left(f"{image(tmp_path / 'root.img')},xvda")
    monkeypatch.setattr(artefact, "MOST_DISKS", 1000)
    assert main([str(path)]) == 2
    assert "disks of more than 0 MiB" in capsys.readouterr().err


def manifest(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        said: dict[str, Any] = json.loads(archive.read(artefact.MANIFEST))
    return said


def test_a_runs_folder_is_booted_again_too(left: Left, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left(f"{image(tmp_path / 'root.img')},xvda")
    assert main([str(tmp_path / "run")]) == 0
    assert "reproduced: crash" in capsys.readouterr().out
    assert main([str(tmp_path / "run"), "--run", str(tmp_path / "run")]) == 2, "not over itself"
    (tmp_path / "root.img").unlink()
    assert main([str(tmp_path / "run")]) == 2


FAILS = """
import pytest

@pytest.mark.guest("debian-disk", disks=[{root!r}], faults=["disk:write:every=3"], extra="loglevel=4 root=/dev/xvda")
def test_it_lives(guest, console):
    console.expect_exact("a line, please")
    console.sendline("typed")
    guest.wait("reboot")
"""
LIVES = """
mount -o remount,rw /
echo a line, please
read line
echo "it was $line" >/file
sync
poweroff -f
"""


def checkout(folder: Path) -> Path:
    """The sources, with what is built of them, in a folder of its own."""
    for part in ("stub", "harness", "images"):
        shutil.copytree(SOURCES / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def python(sources: Path, folder: Path, *words: str, cache: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python on a checkout, and see that it runs that one."""
    run = [sys.executable, "-c", f"import stub.cli; assert stub.cli.__file__.startswith({str(sources)!r}); {words[0]}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PVSTUB_"))}
    if cache is None and "PVSTUB_CACHE" in os.environ:
        environment["PVSTUB_CACHE"] = os.environ["PVSTUB_CACHE"]
    if cache is not None:
        environment["PVSTUB_CACHE"] = str(cache)
    environment |= {"PYTHONPATH": str(sources), "PYTHONDONTWRITEBYTECODE": "1"}
    folder.mkdir()
    return subprocess.run([*run, *words[1:]], cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.pv_limits(memory=256)
def test_across_two_checkouts_and_folders(tmp_path: Path) -> None:
    """A test fails in one; its artefact alone gives the same digests in the other, with nothing in its cache.

    The guest lives on a disk that fails now and then, and is typed to.
    """
    root = disks.busybox_root(tmp_path / "root.img", LIVES)
    work = tmp_path / "test_it.py"
    work.write_text(FAILS.format(root=f"{root},xvda"))
    first = python(
        checkout(tmp_path / "one"), tmp_path / "here", "import pytest, sys; sys.exit(pytest.main(sys.argv[1:]))",
        "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(work), "--pv-artefacts=left",
    )  # fmt: skip
    assert first.returncode == 1, first.stdout + first.stderr
    assert "expected reboot" in first.stdout
    left = one(list((tmp_path / "here" / "left").iterdir()))
    moved = shutil.copy(left, tmp_path / "moved.zip")
    for gone in (root, work, tmp_path / "here", tmp_path / "one"):
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    second = python(
        checkout(tmp_path / "two"), tmp_path / "there", "import sys; sys.exit(stub.cli.main())",
        "replay", moved, "--run", "again", cache=tmp_path / "cache",
    )  # fmt: skip
    assert second.returncode == 0, second.stdout + second.stderr
    assert second.stdout.count("the same") == 2
    again = tmp_path / "there" / "again"
    assert b"I/O error" in (again / "console.log").read_bytes(), "the disk failed here, too"
    assert summary.load(again)["inputs"]["typed"][0]["hex"] == b"typed".hex()


def one(found: Sequence[Path]) -> Path:
    (only,) = found
    return only
