"""Disk images: what is read is what was written; an overlay never changes its file, and takes no room for zeros."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stub.devices.block.images import SECTOR, NoDisc, RawImage
from stub.devices.block.overlay import CLUSTER, Overlay, WriteCache
from stub.errors import ConfigError

SIZE = 40 * SECTOR  # ends in the middle of a cluster


def read(image: Overlay | RawImage, position: int, length: int, cut: int = 0) -> bytes:
    """Bytes of the disk, got in two pieces when there is a ``cut``."""
    into = memoryview(bytearray(length))
    image.read(position, [into[:cut], into[cut:]] if 0 < cut < length else [into])
    return bytes(into)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(random.Random(1).randbytes(SIZE + 100))
    return path


def test_a_raw_image_is_the_file_in_whole_sectors(base: Path) -> None:
    image = RawImage(base)
    assert image.size == SIZE
    assert read(image, SECTOR, 3 * SECTOR, cut=700) == base.read_bytes()[SECTOR : 4 * SECTOR]
    with pytest.raises(OSError, match="Bad file descriptor"):
        image.write(0, [memoryview(bytearray(SECTOR))])
    image.close()


def test_a_direct_image_is_written_through(base: Path) -> None:
    image = RawImage(base, writable=True)
    image.write(SECTOR, [memoryview(b"x" * SECTOR), memoryview(b"y" * SECTOR)])
    image.flush()
    assert base.read_bytes()[SECTOR : 3 * SECTOR] == b"x" * SECTOR + b"y" * SECTOR
    image.close()


def test_one_writes_or_many_read(base: Path) -> None:
    readers = [RawImage(base), RawImage(base)]
    with pytest.raises(ConfigError, match="being used by another run"):
        RawImage(base, writable=True)
    for reader in readers:
        reader.close()
    writer = RawImage(base, writable=True)
    with pytest.raises(ConfigError, match="being written by another run"):
        RawImage(base)
    writer.close()


def test_a_file_that_became_shorter_is_an_io_error(base: Path) -> None:
    image = RawImage(base)
    with base.open("r+b") as file:
        file.truncate(SECTOR)
    with pytest.raises(OSError, match="the file ends"):
        read(image, 0, SIZE)
    image.close()


def test_what_is_no_disk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no-such.*cannot be read"):
        RawImage(tmp_path / "no-such")
    with pytest.raises(ConfigError, match="a file or a block device"):
        RawImage(Path("/dev/null"))


def test_an_empty_drive_has_no_sectors() -> None:
    assert NoDisc.size == 0
    with pytest.raises(OSError, match="No medium"):
        NoDisc().read(0, [])


sectors = st.integers(0, SIZE // SECTOR - 1)
changes = st.lists(
    st.tuples(st.sampled_from(["write", "zero", "discard", "read"]), sectors, sectors, st.integers(0, SIZE)),
    max_size=30,
)


@given(changes)
def test_an_overlay_reads_as_a_file_that_was_written(changes: list[tuple[str, int, int, int]]) -> None:
    """Against a plain bytearray: any writes and discards, in any pieces."""
    content = random.Random(2).randbytes(SIZE)
    model = bytearray(content)
    overlay = Overlay(_Memory(content))
    for what, a, b, cut in changes:
        position, stop = min(a, b) * SECTOR, (max(a, b) + 1) * SECTOR
        length = stop - position
        if what == "read":
            assert read(overlay, position, length, cut) == model[position:stop]
        elif what == "discard":
            overlay.discard(position, length)
            model[position:stop] = bytes(length)
        else:
            data = bytes(length) if what == "zero" else random.Random(a * 64 + b).randbytes(length)
            whole = memoryview(data)
            overlay.write(position, [whole[: cut % length], whole[cut % length :]] if cut % length else [whole])
            model[position:stop] = data
    assert read(overlay, 0, SIZE) == model
    assert overlay.base.size == SIZE
    overlay.close()


class _Memory:
    """A read-only image in memory."""

    can_discard = False

    def __init__(self, content: bytes) -> None:
        self.content, self.size = content, len(content)

    def read(self, position: int, into: list[memoryview]) -> None:
        for piece in into:
            piece[:] = self.content[position : position + len(piece)]
            position += len(piece)

    def write(self, position: int, data: object) -> None:
        raise AssertionError("an overlay wrote to what is below")

    def flush(self) -> None:
        raise AssertionError("an overlay flushed what is below")

    def discard(self, position: int, length: int) -> None:
        raise AssertionError("an overlay discarded what is below")

    def close(self) -> None:
        pass


def test_the_file_below_stays(base: Path, tmp_path: Path) -> None:
    before = base.read_bytes()
    overlay = Overlay(RawImage(base), tmp_path)
    overlay.write(0, [memoryview(b"z" * SIZE)])
    overlay.flush()
    assert read(overlay, 0, SIZE) == b"z" * SIZE
    overlay.close()
    assert base.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["disk.img"]


def test_a_large_disk_costs_what_was_written(tmp_path: Path) -> None:
    """SEEDS B16: an 8 GB disk, sparse below and above; zeros and discards take nothing."""
    path = tmp_path / "large.img"
    with path.open("wb") as file:
        file.truncate(8 << 30)
    overlay = Overlay(RawImage(path), tmp_path)
    overlay.write(4 << 30, [memoryview(bytes(1 << 20))])
    overlay.discard(0, 8 << 30)
    overlay.write(5 << 30, [memoryview(b"data" * 1024)])
    assert read(overlay, 5 << 30, CLUSTER) == b"data" * 1024
    assert overlay.stored <= 64 << 10
    assert path.stat().st_blocks == 0
    overlay.close()


def test_a_cache_loses_what_was_not_flushed(base: Path) -> None:
    before = base.read_bytes()
    cache = WriteCache(RawImage(base, writable=True))
    cache.write(SECTOR, [memoryview(b"x" * SECTOR)])
    assert read(cache, 0, 3 * SECTOR) == before[:SECTOR] + b"x" * SECTOR + before[2 * SECTOR : 3 * SECTOR]
    assert base.read_bytes() == before
    cache.flush()
    kept = before[:SECTOR] + b"x" * SECTOR + before[2 * SECTOR :]
    assert base.read_bytes() == kept
    cache.write(0, [memoryview(bytes(CLUSTER))])
    cache.write(SIZE - SECTOR, [memoryview(b"y" * SECTOR)])
    assert read(cache, SIZE - SECTOR, SECTOR) == b"y" * SECTOR
    cache.close()
    assert base.read_bytes() == kept


def test_a_full_cache_is_written_back(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WriteCache, "_MOST", 2)
    cache = WriteCache(RawImage(base, writable=True))
    for cluster in range(4):
        cache.write(cluster * CLUSTER, [memoryview(b"z" * CLUSTER)])
    cache.close()
    assert base.read_bytes()[: 3 * CLUSTER] == b"z" * 3 * CLUSTER
    assert base.read_bytes()[3 * CLUSTER : 4 * CLUSTER] != b"z" * CLUSTER


@pytest.mark.parametrize("writable", [False, True])
def test_what_is_no_disk_is_refused_at_once(tmp_path: Path, writable: bool) -> None:
    """A FIFO, too, which nobody has open at its other end."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError, match="a disk is a file or a block device"):
        RawImage(tmp_path / "fifo", writable=writable)
