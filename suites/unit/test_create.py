"""``pvstub create``: the same boot as ``pvstub boot``, told as xm tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from stub.cli import main
from stub.trace import summary
from suites.boot.small_guest import kernel, shutdown


@pytest.fixture
def nevada(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PVSTUB_CACHE", str(tmp_path / "cache"))
    kernel(tmp_path, shutdown(0))
    file = tmp_path / "nevada"
    file.write_text('name = "nevada"\nmemory = "32"\nkernel = "small"\non_reboot = "restart"\n')
    return file


def test_it_begins_with_xms_two_lines(nevada: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever else is shown, and the exit status and the run's folder are those of boot."""
    assert main(["create", "-c", str(nevada), "--run", str(tmp_path / "created")]) == 0
    shown = capfd.readouterr()
    assert shown.out.splitlines()[:2] == [f'Using config file "{nevada}".', "Started domain nevada"]
    assert "poweroff: " in shown.err
    assert main(["boot", str(nevada), "--run", str(tmp_path / "booted")]) == 0
    assert shown.out.splitlines()[2:] == capfd.readouterr().out.splitlines()
    created, booted = (summary.load(tmp_path / name) for name in ("created", "booted"))
    assert (created["config"], created["digests"]) == (booted["config"], booted["digests"])


def test_the_console_is_not_shown_without_c(nevada: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["create", str(nevada)]) == 0
    assert capfd.readouterr() == (f'Using config file "{nevada}".\nStarted domain nevada\n', "")


def test_a_crash_has_boots_exit_status(nevada: Path, tmp_path: Path) -> None:
    kernel(tmp_path, shutdown(3))
    assert main(["create", str(nevada)]) == main(["boot", str(nevada)]) == 3


def test_what_cannot_be_started_is_not_said_to_be(
    nevada: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    nevada.write_text('kernel = "gone"\n')
    assert main(["create", str(nevada)]) == 2
    shown = capfd.readouterr()
    assert shown.out == f'Using config file "{nevada}".\n'
    assert "gone" in shown.err
    for other in (tmp_path / "small", tmp_path / "nothing"):
        assert main(["create", str(other)]) == 2
        shown = capfd.readouterr()
        assert shown.out == ""
        assert "no configuration file of xl's or xm's" in shown.err
