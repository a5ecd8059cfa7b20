"""One of the two runs that are compared: its log, its kernel's symbols, what it takes to boot it again."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from harness import again, artefact, cache, catalogue, symbols
from harness.diff.backtrace import Backtrace, backtrace
from harness.diff.compare import Entry, Run
from harness.diff.places import Places
from stub.errors import UsageError
from stub.gdb.symbols import Symbols
from stub.inputs import Inputs
from stub.trace import summary
from stub.trace.reader import LogReader, Packed


class Side:
    """``path``: a run's folder, its file ``hypercalls``, or an artefact, unpacked while ``opened`` lasts.

    ``given``: a file with its symbols, if it is another than the image's.
    """

    def __init__(self, path: Path, given: Path | None, opened: ExitStack) -> None:
        self._artefact = path if artefact.is_one(path) else None
        self._files = Path()
        if self._artefact is not None:
            self._files = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="pvstub-diff-")))
            path = self._files / "logs"
            artefact.unpack_logs(self._artefact, path)
        self.reader = opened.enter_context(LogReader(path))
        self.name = self._artefact or self.reader.path.parent
        self.identity = self.reader.identity
        self.run = Run(self._packed(), self.reader.unpack, Places(self.identity, self._symbols(given)))

    def backtrace(self, entry: Entry | None) -> Backtrace | None:
        """Who called, at an event; None where there is no event."""
        if entry is None:
            return None
        kernels = cache.cache_folder() / "kernels"
        return backtrace(self.reader.path, entry.record, self._inputs, self.run.places, kernels)

    def _inputs(self) -> Inputs:
        if self._artefact is not None:
            return artefact.unpack(self._artefact, self._files).inputs
        return again.of_run(self.reader.path.parent).inputs

    def _packed(self) -> Iterator[Packed]:
        yield from self.reader.packed()
        yield from self.reader.packed_rest()
        if not self.reader.complete:
            print(f"pvstub diff: {self.name}: the log has no end yet; compared to its last record", file=sys.stderr)

    def _symbols(self, given: Path | None) -> Symbols:
        """Those given, those in the cache, or made from the kernel's file or an image that is in the cache."""
        if given is not None:
            return Symbols(given)
        kernel = self.identity.get("kernel")
        if not isinstance(kernel, str) or not kernel.isalnum():
            return Symbols(None)
        unit = cache.find(cache.cache_folder() / "symbols" / kernel, str(symbols.SYMBOLS_FORMAT))
        if unit is not None:
            return Symbols(unit.path)
        file = self._kernel(kernel)
        return Symbols(None if file is None else symbols.executable(file))

    def _kernel(self, digest: str) -> Path | None:
        """The kernel's file, if it can still be had."""
        try:
            if self._artefact is not None:
                return self._inputs().config.kernel
            run = self.reader.path.parent
            kept = summary.load(run)
            name, said = kept["image"].get("name"), kept.get("inputs", {}).get("files", {}).get("kernel")
        except UsageError:  # a run that was killed has no summary
            return None
        there = catalogue.cached(name) if name in catalogue.names() else None
        for file in (there.kernel if there is not None else None, Path(said) if said else None):
            if file is not None and file.is_file() and cache.sha256_of(file) == digest:
                return file
        return None
