"""Progress bars on standard error, only on a terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PATIENCE_S = 1.0


class Meter:
    """Shows how far a download is, once it lasts more than a second. ``total`` in bytes; None when nobody knows."""

    def __init__(self, title: str, total: int | None) -> None:
        self._title = title
        self._total = total
        self._start = time.monotonic()
        self._bar: tuple[Progress, TaskID] | None = None

    def __enter__(self) -> Meter:
        self._start = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar[0].stop()

    def at(self, done: int) -> None:
        """``done`` bytes are there. Call it as often as you like."""
        if self._bar is None and sys.stderr.isatty() and time.monotonic() - self._start > PATIENCE_S:
            self._bar = self._show()
        if self._bar:
            progress, task = self._bar
            progress.update(task, completed=done)

    def _show(self) -> tuple[Progress, TaskID]:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        progress = Progress(*columns, console=Console(stderr=True), transient=True)
        progress.start()
        return progress, progress.add_task(self._title, total=self._total)


@contextlib.contextmanager
def pulse(title: str) -> Iterator[None]:
    """A bar that only says that something is being done, for work of some seconds that tells nothing of its own."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        progress.add_task(title, total=None)
        yield
