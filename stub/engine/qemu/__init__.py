"""QEMU's TCG as the CPU: a process of its own on the guest's memory, driven by a ring-0 shim through a mailbox."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from stub.engine.base import CR3, CS, N_WORDS, Watch
from stub.engine.qemu import _core, debugregisters, process
from stub.engine.qemu.window import FRAMES, Window
from stub.errors import EngineError, UsageError
from stub.units import PAGE_MASK, PAGE_SIZE

if TYPE_CHECKING:
    import mmap

_T = TypeVar("_T")
_FXSAVE_SIZE = 512
_LDT_TYPE = 0x82
_LEAF = struct.Struct("<4I")  # EAX to EDX; before the start, the leaf and sub-leaf that the shim is to ask for
_XSTATES = 0xD
_LEAVES = ((0x1, 0), (0x7, 0), (_XSTATES, 0), (_XSTATES, 1), (_XSTATES, 2), (0x8000_0001, 0))
_AVX = 1 << 28  # of leaf 1, ECX
_ALL_STATES = 7  # of XCR0: x87, SSE, AVX
_TRAMPOLINE = {3: 1, 1: 5}  # instructions that lead into the guest's ring; none runs here, but they count


class QemuEngine:
    """The engine contract on a QEMU process.

    ``ram`` is all of the memory, open as ``file``; ``hidden`` frames behind the guest's are the engine's own, and the
    page-table entries at machine address ``entries`` map them. ``accel`` is what QEMU runs with; ``features`` what its
    CPU may have beyond what every engine's has.
    """

    name = "qemu"
    stops_are_free = False
    hidden = FRAMES

    def __init__(
        self, ram: mmap.mmap, file: int, entries: int, accel: str = process.TCG, features: Collection[str] = ()
    ) -> None:
        if _core.N_WORDS != N_WORDS:
            raise EngineError("qemu engine: the C extension is of another version; rebuild it (pip install .)")
        process.program()
        if accel != process.TCG:
            process.check_kvm()
            self.name = f"qemu, {accel}"
        self._accel, self._features = accel, features
        self._leaves: dict[tuple[int, int], tuple[int, int, int, int]] = {}
        self._ram, self._file = ram, file
        self._window = Window(ram, entries)
        self._core = _core.Core(ram, self._window.mailbox, entries)
        self._process: process.Process | None = None
        self._closed = False
        self._stops: list[int] = []
        self._extended_size = _FXSAVE_SIZE
        self._watched: list[debugregisters.Slot] = []
        self.words = memoryview(self._core)

    def start(self, trampoline: int, stack: int, gdt: int, gdt_limit: int, empty_root: int) -> None:
        """See :class:`stub.engine.base.Engine`."""
        window = self._window
        slot = gdt >> 39 & 511
        root = self.words[CR3] & ~PAGE_MASK
        window.build_first_tables(slot, int.from_bytes(self._ram[root + 8 * slot : root + 8 * slot + 8], "little"))
        window.words(_core.MAIL_GDT, gdt_limit << 48, gdt)
        window.words(_core.MAIL_RDTSCP_COUNTED, process.program().counts_rdtscp)
        window.words(_core.MAIL_SCALE, self._accel != process.TCG)
        at = window.page(_core.PAGE_EXTENDED)
        for number, (leaf, subleaf) in enumerate(_LEAVES):
            _LEAF.pack_into(self._ram, at + _LEAF.size * number, leaf, 0, subleaf, 0)
        made = self._process = process.Process(self._file, len(self._ram), window.entry, self._accel, self._features)
        before = _TRAMPOLINE[self.words[CS] & 3]
        self._do(lambda: self._core.begin(made.pid, made.bell, made.gate, before))
        made.started()
        answers = _LEAF.iter_unpack(self._ram[at : at + _LEAF.size * len(_LEAVES)])
        self._leaves = {asked: (a, b, c, d) for asked, (a, b, c, d) in zip(_LEAVES, answers, strict=True)}
        self._keep_all_states()

    def _do(self, act: Callable[[], _T]) -> _T:
        try:
            return act()
        except _core.Died as error:
            raise EngineError(self._how_it_died(error)) from error

    def _how_it_died(self, error: _core.Died) -> str:
        words = self._process.last_words if self._process is not None else "nothing"
        return f"qemu engine: {process.PROGRAM}: {error}; its last words: {words}"

    @property
    def run(self) -> Callable[[], int]:
        """See :class:`stub.engine.base.Engine`."""
        return partial(self._do, self._core.run)

    def _command(self, what: int) -> None:
        self._do(lambda: self._core.command(what))

    def stop_at(self, addresses: Collection[int]) -> None:
        """See :class:`stub.engine.base.Engine`."""
        self._stops = sorted(addresses)
        self._load_debug_registers()

    def watch(self, ranges: Collection[Watch]) -> None:
        """See :class:`stub.engine.base.Engine`; UsageError for more than the debug registers can watch."""
        self._watched = debugregisters.slots(ranges)
        self._load_debug_registers()

    def check_watches(self, ranges: Collection[Watch]) -> None:
        """See :class:`stub.engine.base.Engine`."""
        debugregisters.slots(ranges)

    def _load_debug_registers(self) -> None:
        """Stop points go there as far as there is room; else they are looked for at each instruction."""
        if self._closed:
            return
        fit = len(self._stops) + len(self._watched) <= debugregisters.COUNT
        stops = [(address, 1, 0, False) for address in self._stops] if fit else []
        self._core.scan([] if fit else self._stops)
        self._do(lambda: self._core.debug([*stops, *self._watched]))

    def keep_branches(self, count: int) -> None:
        """See :class:`stub.engine.base.Engine`."""
        if count:
            raise UsageError("the qemu engine keeps no branches")

    def branches(self) -> list[tuple[int, int]]:
        """See :class:`stub.engine.base.Engine`."""
        return []

    def flush_code(self, maddr: int, size: int) -> None:
        """See :class:`stub.engine.base.Engine`."""
        if self._process is None:
            return
        for page in range(maddr & ~PAGE_MASK, maddr + size, PAGE_SIZE):
            self._do(partial(self._core.touch, page))

    def read_extended(self) -> bytes:
        """See :class:`stub.engine.base.Engine`."""
        self._command(_core.COMMAND_SAVE)
        at = self._window.page(_core.PAGE_EXTENDED)
        return self._ram[at : at + self._extended_size]

    def write_extended(self, area: bytes) -> None:
        """See :class:`stub.engine.base.Engine`."""
        at = self._window.page(_core.PAGE_EXTENDED)
        self._ram[at : at + self._extended_size] = area
        self._command(_core.COMMAND_RESTORE)

    def use_reflex(self, reflex: object) -> None:
        """See :class:`stub.engine.base.Engine`."""
        self._core.use_reflex(reflex)

    def _keep_all_states(self) -> None:
        """Have the AVX registers stored, too, where there are some."""
        if self.cpuid(0x1, 0)[2] & _AVX:
            size, offset, _, _ = self.cpuid(_XSTATES, 2)
            self._extended_size = offset + size
            self._window.words(_core.MAIL_STATES, _ALL_STATES)

    def cpuid(self, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """See :class:`stub.engine.base.Engine`."""
        return self._leaves.get((leaf, subleaf), (0, 0, 0, 0))

    def load_xcr0(self, value: int) -> None:
        """See :class:`stub.engine.base.Engine`."""
        self._window.words(_core.MAIL_XCR0, value)
        self._command(_core.COMMAND_XCR0)

    def load_ldt(self, base: int, limit: int) -> None:
        """See :class:`stub.engine.base.Engine`."""
        low = (
            limit & 0xFFFF
            | (base & 0xFFFFFF) << 16
            | _LDT_TYPE << 40
            | (limit >> 16 & 15) << 48
            | (base >> 24 & 255) << 56
        )
        self._window.words(_core.MAIL_LDT, *((low, base >> 32) if limit else (0, 0)))
        self._command(_core.COMMAND_LDT)

    def close(self) -> None:
        """See :class:`stub.engine.base.Engine`."""
        self._closed = True
        with contextlib.ExitStack() as parts:
            parts.callback(self._core.close)
            if self._process is not None:
                parts.callback(self._process.close)
