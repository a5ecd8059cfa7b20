"""The cache: a file counts only with its record, one process makes it, and whatever is damaged is made again."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from harness import cache
from harness.cache import Made, Unit
from stub.errors import PvstubError

CONTENT = b"what was made"
SPAWN = multiprocessing.get_context("spawn")


class Maker:
    """Makes the file and counts how often."""

    def __init__(self, content: bytes = CONTENT, name: str = "file") -> None:
        self.content, self.name, self.times = content, name, 0

    def __call__(self) -> Made:
        self.times += 1
        return Made(self.name, self.content, {"version": "1"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "unit"


def ensured(folder: Path, maker: Maker, recipe: str = "recipe") -> Unit:
    unit = cache.ensure(folder, recipe, maker)
    assert unit.path.read_bytes() == maker.content
    return unit


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    both = {"PVSTUB_CACHE": "/a", "XDG_CACHE_HOME": "/b"}
    assert cache.cache_folder(both) == Path("/a")
    assert cache.cache_folder({"XDG_CACHE_HOME": "/b"}) == Path("/b/pvstub")
    assert cache.cache_folder({"PVSTUB_CACHE": ""}) == tmp_path / ".cache/pvstub"


def test_a_file_is_made_once_and_its_record_says_what_it_is(folder: Path) -> None:
    maker = Maker()
    first, second = ensured(folder, maker), ensured(folder, maker)
    assert first == second == cache.find(folder, "recipe")
    assert maker.times == 1
    assert first.record.sha256 == cache.sha256_of(first.path)
    assert first.record.facts == {"version": "1"}
    assert json.loads((folder / cache.RECORD).read_text())["schema"] == cache.SCHEMA


def test_another_recipe_is_another_file_and_the_old_one_goes(folder: Path) -> None:
    ensured(folder, Maker(name="old"))
    maker = Maker(b"newer", name="new")
    ensured(folder, maker, "another recipe")
    assert maker.times == 1
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "new", "record.json"]


def truncate(path: Path) -> None:
    path.write_bytes(CONTENT[:-1])


def flip(path: Path) -> None:
    path.write_bytes(CONTENT.replace(b"made", b"mode"))
    os.utime(path, ns=(1, 1))


def flip_and_hide_the_time(path: Path) -> None:
    before = path.stat()
    flip(path)
    # File systems stamp with a coarse clock: until it ticks, this change has the time of the one before.
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def forget(path: Path) -> None:
    (path.parent / cache.RECORD).unlink()


def garble(path: Path) -> None:
    (path.parent / cache.RECORD).write_bytes(b'{"schema": 1, "stat": []}')


def cut_record(path: Path) -> None:
    record = path.parent / cache.RECORD
    record.write_bytes(record.read_bytes()[:20])


def from_the_future(path: Path) -> None:
    record = path.parent / cache.RECORD
    record.write_text(record.read_text().replace('"schema": 1', '"schema": 2'))


HARMS = (truncate, flip, flip_and_hide_the_time, Path.unlink, forget, garble, cut_record, from_the_future)


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_a_damaged_file_or_record_is_made_again(folder: Path, harm: Callable[[Path], object]) -> None:
    maker = Maker()
    harm(ensured(folder, maker).path)
    assert cache.find(folder, "recipe") is None
    ensured(folder, maker)
    assert maker.times == 2


@pytest.mark.parametrize(
    ("harm", "words"),
    [(truncate, "12 bytes instead of 13"), (flip_and_hide_the_time, "SHA-256"), (Path.unlink, "missing")],
)
def test_damage_is_told_in_words_and_discarded(folder: Path, harm: Callable[[Path], object], words: str) -> None:
    unit = ensured(folder, Maker())
    assert cache.damage(folder) is cache.discard_damaged(folder) is None
    harm(unit.path)
    found = cache.discard_damaged(folder)
    assert found is not None
    assert found.startswith(f"{unit.path}: ")
    assert words in found
    assert cache.read_record(folder) is None


def test_damage_that_no_time_stamp_shows_is_found_by_hashing(folder: Path) -> None:
    flip(ensured(folder, Maker()).path)
    record = json.loads((folder / cache.RECORD).read_text())
    seen = (folder / "file").stat()
    record["stat"] = [seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns]
    (folder / cache.RECORD).write_text(json.dumps(record))
    assert cache.find(folder, "recipe") is not None
    assert "SHA-256" in str(cache.discard_damaged(folder))


def test_a_copied_cache_is_hashed_once_and_kept(folder: Path) -> None:
    maker = Maker()
    path = ensured(folder, maker).path
    os.utime(path, ns=(1, 1))
    unit = ensured(folder, maker)
    assert maker.times == 1
    assert unit.record.stat[1] == 1
    assert cache.read_record(folder) == unit.record


def test_a_maker_that_fails_leaves_the_cache_as_it_was(folder: Path) -> None:
    unit = ensured(folder, Maker())

    def fail() -> Made:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.remake(folder, "recipe", fail)
    assert cache.find(folder, "recipe") == unit


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    with pytest.raises(OSError, match="target"):
        cache.write_atomically(tmp_path / "target", b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PvstubError, match=r"Not a directory while writing the cache; .*PVSTUB_CACHE") as error:
        cache.ensure(tmp_path / "file" / "unit", "recipe", Maker())
    assert "\n" not in str(error.value)


def _die_while_writing(folder: Path, before_record: bool) -> None:
    """Runs in a process of its own and dies without any clean-up."""
    write = cache.write_atomically

    def write_and_die(path: Path, data: bytes) -> None:
        (path.parent / f"{cache.PARTIAL}left").write_bytes(data[:3])
        if before_record:
            write(path, data)
        os.kill(os.getpid(), signal.SIGKILL)

    cache.write_atomically = write_and_die
    cache.ensure(folder, "newer recipe", Maker(b"newer"))


@pytest.mark.parametrize("before_record", [False, True])
def test_a_process_that_is_killed_holds_nothing_up(folder: Path, before_record: bool) -> None:
    old = Maker()
    ensured(folder, old)
    process = SPAWN.Process(target=_die_while_writing, args=(folder, before_record))
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    ensured(folder, old)
    assert old.times == (2 if before_record else 1)
    ensured(folder, Maker(b"newer"), "newer recipe")
    assert sorted(path.name for path in folder.iterdir()) == ["file", "lock", "record.json"]


def _make_with_others(folder: Path, together: Barrier, log: Path) -> None:
    def make() -> Made:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return Maker()()

    together.wait(30)
    assert cache.ensure(folder, "recipe", make).path.read_bytes() == CONTENT


def test_of_many_processes_one_makes_the_file(folder: Path, tmp_path: Path) -> None:
    together, log = SPAWN.Barrier(3), tmp_path / "log"
    processes = [SPAWN.Process(target=_make_with_others, args=(folder, together, log)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(log.read_text().splitlines()) == 1


def test_who_has_to_wait_is_told_once(folder: Path) -> None:
    told: list[str] = []
    context = SPAWN.Event(), SPAWN.Event()
    holder = SPAWN.Process(target=_hold, args=(folder, *context))
    holder.start()
    assert context[0].wait(30)

    def waiting() -> None:
        told.append("waiting")
        context[1].set()

    cache.ensure(folder, "recipe", Maker(), waiting)
    holder.join(30)
    assert told == ["waiting"]
    assert holder.exitcode == 0


def _hold(folder: Path, holding: multiprocessing.synchronize.Event, release: multiprocessing.synchronize.Event) -> None:
    with cache.locked(folder):
        holding.set()
        assert release.wait(30)


def test_programs_of_several_checkouts_do_not_take_each_others_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its own file; of old ones eight stay."""
    monkeypatch.setenv("PVSTUB_CACHE", str(tmp_path))
    made = [cache.program("guest", f"{number:064x}"[::-1], Maker(str(number).encode())) for number in range(12)]
    assert made[11] == cache.program("guest", f"{11:064x}"[::-1], Maker(b"not made again"))
    assert made[11].read_bytes() == b"11"
    kept = [path for path in made if path.exists()]
    assert made[11] in kept
    assert len(kept) == 8
