"""A disk that may be written while its file stays as it is: changes go aside, and go away with the run.

The law of this file: each cluster is in one of three states. BASE: as in the image below. KEPT: in the file aside, at
the same place, whole. ZERO: all zeros, stored nowhere. So a file system that clears its tables takes no room, and
the file aside is as sparse as what was written.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from stub.devices.block.images import Image, Pieces, move_all
from stub.errors import ConfigError

CLUSTER = 4096  # bytes
BASE, KEPT, ZERO = 0, 1, 2
_GROUP = 1 << 15  # clusters whose states are kept together
_ALL_ZERO = bytes([ZERO]) * _GROUP
_ZEROS = bytes(CLUSTER)


class _States:
    """The state of each cluster, by groups that are made when one of them is no longer BASE."""

    def __init__(self) -> None:
        self._groups: dict[int, bytearray | bytes] = {}

    def get(self, cluster: int) -> int:
        group = self._groups.get(cluster // _GROUP)
        return BASE if group is None else group[cluster % _GROUP]

    def set(self, first: int, end: int, state: int) -> None:
        """Set the clusters from ``first`` to before ``end``."""
        while first < end:
            number, start = divmod(first, _GROUP)
            stop = min(end - number * _GROUP, _GROUP)
            if state == ZERO and stop - start == _GROUP:
                self._groups[number] = _ALL_ZERO
            else:
                group = self._groups.get(number, b"")
                if not isinstance(group, bytearray):
                    group = self._groups[number] = bytearray(group or _GROUP)
                group[start:stop] = bytes([state]) * (stop - start)
            first = number * _GROUP + stop

    def runs(self, first: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(first, end, state) of the neighbours that are alike, from ``first`` to before ``end``."""
        while first < end:
            state, stop = self.get(first), first + 1
            while stop < end and self.get(stop) == state:
                stop += 1
            yield first, stop, state
            first = stop


class Overlay:
    """``base`` as it is, with changes in an unnamed file in ``folder`` (None: where the host has temporary files)."""

    can_discard = True

    def __init__(self, base: Image, folder: Path | None = None) -> None:
        self.base, self.size = base, base.size
        self._states = _States()
        try:
            self._aside = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise ConfigError(
                f"{error.filename or folder}: there is no room for a disk's changes: {error.strerror}; free some"
            ) from error
        self._fd = self._aside.fileno()

    @property
    def stored(self) -> int:
        """Bytes that the changes take on the host."""
        return os.fstat(self._fd).st_blocks * 512

    def read(self, position: int, into: Pieces) -> None:
        """As :class:`Image`."""
        for at, part, state in self._parts(position, into):
            if state == BASE:
                self.base.read(at, part)
            elif state == KEPT:
                move_all(os.preadv, self._fd, part, at)
            else:
                for piece in part:
                    piece[:] = bytes(len(piece))

    def write(self, position: int, data: Pieces) -> None:
        """As :class:`Image`; clusters that become all zeros are not stored."""
        for piece in data:
            self._write_piece(position, piece)
            position += len(piece)

    def _write_piece(self, position: int, piece: memoryview) -> None:
        for at, part in _by_cluster(position, piece):
            cluster, is_whole = at // CLUSTER, len(part) == CLUSTER
            if is_whole and bytes(part) == _ZEROS:
                self._states.set(cluster, cluster + 1, ZERO)
                continue
            if not is_whole:
                self._keep(cluster)
            move_all(os.pwritev, self._fd, [part], at)
            self._states.set(cluster, cluster + 1, KEPT)

    def _keep(self, cluster: int) -> None:
        """Have a cluster aside, whole, as it is: part of it is about to change."""
        state = self._states.get(cluster)
        if state == KEPT:
            return
        start = cluster * CLUSTER
        content = bytearray(min(CLUSTER, self.size - start))
        if state == BASE:
            self.base.read(start, [memoryview(content)])
        move_all(os.pwritev, self._fd, [memoryview(content)], start)
        self._states.set(cluster, cluster + 1, KEPT)

    def flush(self) -> None:
        """Nothing of it is to survive."""

    def discard(self, position: int, length: int) -> None:
        """As :class:`Image`; what is less than a cluster is cleared."""
        first, end = -(-position // CLUSTER), (position + length) // CLUSTER
        if position + length == self.size:
            end = -(-self.size // CLUSTER)
        if first < end:
            self._states.set(first, end, ZERO)
        stop = position + length
        edges = ((position, min(first * CLUSTER, stop)), (max(end * CLUSTER, position), stop)) if first <= end else ()
        for start, edge in edges or ((position, stop),):
            if start < edge:
                self.write(start, [memoryview(bytes(edge - start))])

    def close(self) -> None:
        """Throw the changes away."""
        self._aside.close()
        self.base.close()

    def _parts(self, position: int, pieces: Pieces) -> Iterator[tuple[int, list[memoryview], int]]:
        """(position, pieces, state) for each run of clusters that are alike."""
        length = sum(map(len, pieces))
        left = list(pieces)
        for first, end, state in self._states.runs(position // CLUSTER, -(-(position + length) // CLUSTER)):
            at = max(first * CLUSTER, position)
            yield at, _take(left, min(end * CLUSTER, position + length) - at), state


class WriteCache(Overlay):
    """A disk that keeps writes to itself until they are flushed, as real ones may: the rest is lost with the power.

    So a guest that forgets to flush is found out: when the run ends, ``base`` has what was flushed, and no more than
    that unless the cache was full.
    """

    can_discard = False
    _MOST = 1 << 14  # clusters

    def __init__(self, base: Image, folder: Path | None = None) -> None:
        super().__init__(base, folder)
        self._dirty: dict[int, None] = {}

    def write(self, position: int, data: Pieces) -> None:
        """As :class:`Image`."""
        super().write(position, data)
        end = position + sum(map(len, data))
        self._dirty |= dict.fromkeys(range(position // CLUSTER, -(-end // CLUSTER)))
        if len(self._dirty) > self._MOST:
            self._write_back()

    def flush(self) -> None:
        """As :class:`Image`: ``base`` has everything."""
        self._write_back()
        self.base.flush()

    def _write_back(self) -> None:
        for cluster in sorted(self._dirty):
            start = cluster * CLUSTER
            content = memoryview(bytearray(min(CLUSTER, self.size - start)))
            self.read(start, [content])
            self.base.write(start, [content])
            self._states.set(cluster, cluster + 1, BASE)
        self._dirty.clear()


def _take(left: list[memoryview], length: int) -> list[memoryview]:
    """The first ``length`` bytes of ``left``, which loses them."""
    taken = []
    while length:
        piece = left[0]
        if len(piece) <= length:
            taken.append(left.pop(0))
        else:
            taken.append(piece[:length])
            left[0] = piece[length:]
        length -= len(taken[-1])
    return taken


def _by_cluster(position: int, piece: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The piece cut where clusters begin."""
    done = 0
    while done < len(piece):
        at = position + done
        take = min(len(piece) - done, CLUSTER - at % CLUSTER)
        yield at, piece[done : done + take]
        done += take
