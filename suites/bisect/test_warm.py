"""Boots from a process that is warm already: as cold ones, and gone with whom they were for."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness import small_guests
from harness.bisect.processes import Work, Workers

pytestmark = pytest.mark.usefixtures("pv_engine")

GUEST = small_guests.TESTS / "families" / "answers"


def boot(folder: Path, *words: str) -> Work:
    return Work(["boot", *words, "--quiet", f"--run={folder}"], folder, {}, boots=True)


def has_reader(fifo: Path) -> bool:
    """Whether a process waits to read there; what it reads then is an end."""
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        return error.errno != errno.ENXIO
    return True


def test_a_warm_boot_is_as_a_cold_one(tmp_path: Path) -> None:
    variation = small_guests.variations(GUEST)[0]
    words = [str(small_guests.build(GUEST)), "--memory=32", f"--cmdline={variation.name}"]
    workers = Workers()
    with workers.started([boot(tmp_path / name, *words) for name in ("one", "other")]) as waits:
        ended = [wait() for wait in waits]
    assert [end.status for end in ended] == [0, 0], ended
    cold = [sys.executable, "-c", "import sys; from stub.cli import main; sys.exit(main())", "boot", *words, "--quiet"]
    subprocess.run([*cold, f"--run={tmp_path / 'cold'}"], check=True)
    for name in ("console.log", "hypercalls"):
        (first, *others) = ((tmp_path / run / name).read_bytes() for run in ("cold", "one", "other"))
        assert first
        assert others == [first, first]
    workers.close()


def test_what_it_says_and_its_status(tmp_path: Path) -> None:
    workers = Workers()
    with workers.started([boot(tmp_path / "run", str(tmp_path / "none"))]) as (wait,):
        end = wait()
    assert end.status == 2
    assert "none" in end.last_line
    workers.close()


@pytest.fixture
def endless(tmp_path: Path) -> Work:
    """It waits to read what nobody writes."""
    os.mkfifo(tmp_path / "fifo")
    return Work(["boot", "--cmdline=x", str(tmp_path / "fifo")], tmp_path / "run", {}, boots=True)


def test_boots_that_are_left_are_ended(endless: Work, tmp_path: Path) -> None:
    workers = Workers()
    with workers.started([endless]):
        warm = workers._warm
    assert warm is not None
    assert warm.poll() == 0
    assert workers._warm is None
    assert not has_reader(tmp_path / "fifo")


def test_a_warm_process_that_is_killed_is_trouble_and_the_next_boot_has_another(endless: Work, tmp_path: Path) -> None:
    workers = Workers()
    with workers.started([endless]) as (wait,):
        assert workers._warm is not None
        workers._warm.kill()
        assert wait().status == -signal.SIGKILL
    has_reader(tmp_path / "fifo")
    with workers.started([boot(tmp_path / "next", str(tmp_path / "none"))]) as (wait,):
        assert wait().status == 2
    workers.close()


def test_a_script_is_gone_with_all_that_it_began(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    workers = Workers()
    script = Work(["sh", "-c", f"cat {tmp_path / 'fifo'} & cat {tmp_path / 'fifo'}"], tmp_path / "run", {})
    with workers.started([script]):
        pass
    assert not has_reader(tmp_path / "fifo")


def test_the_end_of_what_a_script_says_is_kept(tmp_path: Path) -> None:
    workers = Workers()
    words = ["sh", "-c", 'yes | head -c 200000; echo "$LAST"; exit 3']
    with workers.started([Work(words, tmp_path / "run", {"LAST": "last"})]) as (wait,):
        end = wait()
    workers.close()
    assert (end.status, end.last_line) == (3, "last")
    assert len(end.said) <= 1 << 16


def test_boots_are_gone_when_whom_they_were_for_is_killed(tmp_path: Path) -> None:
    """A search that is killed leaves neither a warm process nor a boot behind."""
    os.mkfifo(tmp_path / "fifo")
    code = f"""
from pathlib import Path
from harness.bisect.processes import Work, Workers
workers = Workers()
work = Work(["boot", {str(tmp_path / "fifo")!r}], Path({str(tmp_path / "run")!r}), {{}}, boots=True)
with workers.started([work]) as (wait,):
    print("begun", flush=True)
    wait()
"""
    searching = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert searching.stdout is not None
    assert searching.stderr is not None
    with searching.stdout as said, searching.stderr as held:
        assert said.readline() == b"begun\n"
        searching.kill()
        searching.wait()
        assert held.read() == b""  # to its end: the warm process holds it
    assert not has_reader(tmp_path / "fifo")
