"""Unicorn as the CPU: the C part counts, stops and switches; this decodes what it asks about and wraps it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection
from pathlib import Path

from stub.engine.base import EXIT_VALUE, LEARN_END, LEARN_SIZE, LEARN_SLOT, LEARN_START, N_WORDS, Watch
from stub.engine.unicorn import extended
from stub.errors import EngineError

_MAX_INSTRUCTION = 15  # bytes (x86 manual, vol. 2, 2.3.11)


def library() -> Path:
    """The libunicorn that the installed ``unicorn`` package carries (found without importing it: it is quick)."""
    spec = importlib.util.find_spec("unicorn")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(folder, "lib").glob("libunicorn.so*")):
            return path
    raise EngineError("unicorn engine: the unicorn package is not installed; pip install 'unicorn>=2.1.4,<2.2'")


class UnicornEngine:
    """The engine contract on libunicorn. ``fetch(vaddr, size)`` reads guest code (shorter at an unmapped page)."""

    name = "unicorn"
    stops_are_free = True

    def __init__(self, ram: object, fetch: Callable[[int, int], bytes], is_64bit: Callable[[], bool]) -> None:
        from stub.engine.unicorn import _core

        if _core.N_WORDS != N_WORDS:
            raise EngineError("unicorn engine: the C extension is of another version; rebuild it (pip install .)")
        try:
            self._core = _core.Core(str(library()), ram, self._answer)
        except _core.CoreError as error:
            raise EngineError(str(error)) from error
        self.run: Callable[[], int] = self._core.run
        self.words = memoryview(self._core)
        self._fetch = fetch
        self._is_64bit = is_64bit
        self._decoders: dict[bool, object] = {}

    def start(self, trampoline: int, stack: int, gdt: int, gdt_limit: int, empty_root: int) -> None:
        """See :class:`stub.engine.base.Engine`."""
        self._core.start(trampoline, stack, gdt, gdt_limit, empty_root)

    def stop_at(self, addresses: Collection[int]) -> None:
        """See :class:`stub.engine.base.Engine`."""
        self._core.stop_at(addresses)

    def watch(self, ranges: Collection[Watch]) -> None:
        """See :class:`stub.engine.base.Engine`."""
        self._core.watch(ranges)

    def check_watches(self, ranges: Collection[Watch]) -> None:
        """See :class:`stub.engine.base.Engine`; there are none."""

    def keep_branches(self, count: int) -> None:
        """See :class:`stub.engine.base.Engine`."""
        self._core.keep_branches(count)

    def branches(self) -> list[tuple[int, int]]:
        """See :class:`stub.engine.base.Engine`."""
        return self._core.branches()

    def flush_code(self, maddr: int, size: int) -> None:
        """See :class:`stub.engine.base.Engine`."""
        self._core.flush_code(maddr, size)

    def read_extended(self) -> bytes:
        """See :class:`stub.engine.base.Engine`."""
        return extended.read(self._core.read_register)

    def write_extended(self, area: bytes) -> None:
        """See :class:`stub.engine.base.Engine`."""
        extended.write(self._core.write_register, area)

    def use_reflex(self, reflex: object) -> None:
        """See :class:`stub.engine.base.Engine`."""
        self._core.use_reflex(reflex)

    def cpuid(self, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """See :class:`stub.engine.base.Engine`: no more than every engine has."""
        return 0, 0, 0, 0

    def load_xcr0(self, value: int) -> None:
        """See :class:`stub.engine.base.Engine`; EngineError, as there is no XSAVE."""
        raise EngineError("unicorn engine: there is no XCR0")

    def load_ldt(self, base: int, limit: int) -> None:
        """See :class:`stub.engine.base.Engine`."""
        self._core.load_ldt(base, limit)

    def close(self) -> None:
        """Drop the CPU."""
        self._core.close()
        self._fetch = lambda _address, _size: b""
        self._is_64bit = lambda: True

    def _answer(self) -> None:
        """Count the instructions of a block (``LEARN_SIZE``), or those before an address in it (``LEARN_END``)."""
        words = self.words
        start, size = words[LEARN_START], words[LEARN_SIZE]
        if size:
            words[EXIT_VALUE] = self._count(start, start + size)
        else:
            end = words[LEARN_END]
            self._core.learn(words[LEARN_SLOT], end, self._count(start, end))

    def _count(self, start: int, end: int) -> int:
        """How many instructions begin in [start, end)."""
        decoder = self._decoder()
        count, address = 0, start
        code = self._fetch(start, end - start + _MAX_INSTRUCTION)
        for at, length, _, _ in decoder.disasm_lite(code, start):  # type: ignore[attr-defined]
            if at >= end:
                return count
            count, address = count + 1, at + length
        return count + (1 if address < end else 0)

    def _decoder(self) -> object:
        wide = self._is_64bit()
        if wide not in self._decoders:
            import capstone

            self._decoders[wide] = capstone.Cs(
                capstone.CS_ARCH_X86, capstone.CS_MODE_64 if wide else capstone.CS_MODE_32
            )
        return self._decoders[wide]
