"""Disk images by what is in them: the pieces that are not zeros, to keep in little room and to lay out again."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import IO, Final

BLOCK: Final = 1 << 16
_ZEROS: Final = bytes(BLOCK)


def blocks(file: int) -> Iterator[tuple[int, bytes]]:
    """The blocks of an open file that hold anything but zeros, each with its offset, ascending; holes are not read."""
    end, at = os.lseek(file, 0, os.SEEK_END), 0
    while at < end:
        start = _data_from(file, at)
        if start is None:
            return
        at = start - start % BLOCK
        data = os.pread(file, min(BLOCK, end - at), at)
        if not data:  # it has become shorter meanwhile
            return
        if data != _ZEROS[: len(data)]:
            yield at, data
        at += len(data)


def _data_from(file: int, at: int) -> int | None:
    """The next byte that is not in a hole (lseek(2)); None when the rest is one."""
    try:
        return max(os.lseek(file, at, os.SEEK_DATA), at)
    except OSError:
        return None


def pieces(file: int) -> list[tuple[int, int]]:
    """Offset and length of what `blocks` gives, neighbours taken together."""
    found: list[tuple[int, int]] = []
    for at, data in blocks(file):
        if found and sum(found[-1]) == at:
            found[-1] = found[-1][0], found[-1][1] + len(data)
        else:
            found.append((at, len(data)))
    return found


def lay_out(file: IO[bytes], size: int, places: Sequence[tuple[int, int]], content: IO[bytes]) -> None:
    """Write an image of ``size`` bytes whose pieces are ``content``, one behind the other. ValueError for nonsense."""
    at = 0
    for offset, length in places:
        if not at <= offset <= offset + length <= size:
            raise ValueError(f"a piece of a disk at {offset}")
        at = offset + length
        file.seek(offset)
        while length:
            data = content.read(min(length, 1 << 20))
            if not data:
                raise ValueError("a disk that is shorter than it says")
            file.write(data)
            length -= len(data)
    if content.read(1):
        raise ValueError("a disk that is longer than it says")
    file.truncate(size)
