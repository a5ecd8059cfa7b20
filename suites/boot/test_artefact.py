"""A failed boot leaves one file, from which it comes out the same in another folder: ``pvstub replay``."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from harness import artefact
from harness.guests import Guest
from harness.replay_command import main
from stub.abi.sched import SHUTDOWN_crash
from stub.domain.config import DomainConfig
from stub.errors import UsageError
from stub.machine import Limits, Machine
from stub.trace import summary
from suites.boot.small_guest import SPIN, kernel, shutdown

pytestmark = pytest.mark.usefixtures("pv_engine")


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """The artefact of a small kernel that crashes; the folder that it was made in is gone."""
    first = tmp_path / "first"
    first.mkdir()
    config = DomainConfig(kernel=kernel(first, shutdown(SHUTDOWN_crash)), memory=64, seed=5, ramdisk=b"ramdisk")
    with Machine(config, first / "run") as machine:
        verdict = machine.run()
        end = machine.now_ns, len(machine.console.output)
    assert verdict is not None
    assert verdict.kind == "crash"
    path = tmp_path / "left.zip"
    artefact.write(path, machine, end)
    shutil.rmtree(first)
    return path


def changed(path: Path, **changes: object) -> Path:
    """The same artefact with other things said in it."""
    other = path.with_name("changed.zip")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == artefact.MANIFEST:
                data = json.dumps(json.loads(data) | changes).encode()
            new.writestr(name, data)
    return other


def test_the_same_digests_in_another_folder(left: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    second = tmp_path / "second"
    assert main([str(left), "--run", str(second)]) == 0
    out = capsys.readouterr().out
    assert out.count("the same") == 2
    assert "reproduced: crash" in out
    assert summary.load(second)["verdict"]["kind"] == "crash"
    assert main([str(left)]) == 0


def test_another_boot_is_told_apart(left: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with zipfile.ZipFile(left) as archive:
        config = json.loads(archive.read(artefact.MANIFEST))["config"]
    run = tmp_path / "run"
    assert main([str(changed(left, config=config | {"seed": 6})), "--run", str(run)]) == 1
    out = capsys.readouterr().out
    assert "hypercalls" in out
    assert f"pvstub diff {run / 'artefact'} {run}" in out
    assert (run / "artefact" / "hypercalls").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"schema": 1}, "of format 1, not 2"),
        ({"sha256": {"kernel": "0"}}, "its kernel is another one"),
        ({"config": {"nonsense": 1}}, "nonsense in its configuration"),
        ({"config": {"memory": 1}}, "memory of 1 MiB"),
        ({"typed": [{"now_ns": "soon"}]}, "no artefact of pvstub's, or a damaged one"),
        ({"limits": None}, "no artefact of pvstub's, or a damaged one"),
        ({"schema": "\x1b[31m\n"}, r"of format \x1b[31m\n, not 2"),
        ({"config": {"seed": 1.5}}, "seed is float"),
        ({"config": {"name": "\ud800"}}, "surrogates not allowed"),
        ({"config": {"faults": [1]}}, "int is no text"),
        ({"config": {"without": [1]}}, "int is no text"),
        ({"config": {"realtime": True}}, "a guest on the wall clock"),
        ({"verdict": "\ud800"}, r"its verdict '\ud800'"),
        ({"digests": {"console": "\x1b[2J", "hypercalls": "0" * 64}}, "its version or its digests"),
    ],
)
def test_a_file_that_says_nonsense(
    left: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], says: str
) -> None:
    assert main([str(changed(left, **changes))]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("at", ["flag", "method", "data"])
def test_an_archive_that_is_damaged(left: Path, capsys: pytest.CaptureFixture[str], at: str) -> None:
    """Encrypted, packed in a way that is not known, or not as it was packed (zipfile has an exception for each)."""
    data = bytearray(left.read_bytes())
    if at == "data":
        start = data.index(b"artefact.json") + len("artefact.json")
        data[start : start + 8] = b"\xff" * 8
    else:
        entry = data.index(b"PK\1\2")  # the first of the central directory
        data[entry + 8 if at == "flag" else entry + 10] ^= 1 if at == "flag" else 0x60
    left.write_bytes(data)
    assert main([str(left)]) == 2
    err = capsys.readouterr().err
    assert "no artefact of pvstub's, or a damaged one" in err
    assert err.count("\n") == 1


def test_a_file_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text").write_text("no zip")
    for name in ("text", "nowhere"):
        assert main([str(tmp_path / name)]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_what_leaves_none(tmp_path: Path) -> None:
    config = DomainConfig(kernel=kernel(tmp_path, SPIN), memory=64)
    with Machine(config, None, Limits(instructions=100)) as machine:
        machine.run()
    with pytest.raises(UsageError, match="without a folder"):
        artefact.write(tmp_path / "left.zip", machine, (0, 0))


@pytest.mark.guest("debian-cloud", memory=128, extra="pvstub=shell", seed=3)
def test_what_was_typed_is_typed_again_at_its_time(
    guest: Guest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two lines, the second after a wait, in a shell that is still there at the end."""
    guest.console.expect_exact("# ")
    guest.console.sendline("echo $((6 * 7))")
    guest.console.expect_line("^42$")
    guest.run(0.25)
    guest.console.sendline("cat /proc/uptime")
    guest.console.expect_line(r"^\d+\.\d+ ")
    guest.close()
    guest.leave_artefact(tmp_path / "left.zip")
    assert main([str(tmp_path / "left.zip"), "--run", str(tmp_path / "again")]) == 0, capsys.readouterr().out
    again = (tmp_path / "again" / "console.log").read_bytes()
    assert again == (guest.run_directory / "console.log").read_bytes()
    assert b"42\r\n" in again
