"""Who called: the callers of a place in a guest, by the unwind table that its symbols' file has (`callframes`).

Where an address has no row in it, the chain of frame pointers is followed, as the System V ABI has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from harness import dwarf
from harness.callframes import Expression, FromCfa, Register, Row, Table
from harness.dwarf import Cursor, Ended

MOST_FRAMES: Final = 64
_STACK_REACH: Final = 1 << 16  # bytes in which the next frame pointer has to be

Read = Callable[[int, int], bytes]
"""So many bytes of the guest at an address, or fewer."""


class _Width(NamedTuple):
    """An architecture: bytes of a word, and the numbers of its registers in DWARF."""

    word: int
    registers: tuple[str, ...]
    frame: int
    stack: int
    place: int


# System V ABI, AMD64: figure 3.36; Intel386: table 2.14.
_WIDTHS: Final[Mapping[int, _Width]] = {
    64: _Width(8, ("rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", *(f"r{n}" for n in range(8, 16)), "rip"),
               6, 7, 16),
    32: _Width(4, ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "rip"), 5, 4, 8),
}  # fmt: skip


class Frame(NamedTuple):
    """``place``: where it is; ``caller``: it is there after a call, so the call itself is before."""

    place: int
    caller: bool


class Unwinder:
    """By the unwind table of an ELF file; without one there are frame pointers."""

    def __init__(self, path: Path | None, bits: int = 64) -> None:
        self._width = _WIDTHS[bits]
        self._table = Table(path, self._width.word)

    def frames(self, registers: Mapping[str, int], read: Read) -> Iterator[Frame]:
        """The frames of a vCPU, innermost first, as far as they can be followed."""
        width = self._width
        values = {number: registers[name] for number, name in enumerate(width.registers)}
        step, caller = _Step(width, values, read), False
        for _ in range(MOST_FRAMES):
            yield Frame(step.place, caller)
            try:
                found = self._table.row(step.place - caller)
                if found is None:
                    after, caller = step.by_frame_pointer(), True
                else:
                    row, signal = found
                    after, caller = step.by_row(row), not signal
            except Ended:
                return
            if not after.place or (caller and after.stack <= step.stack):
                return
            step = after


class _Step:
    """The registers of one frame, and the way from them to its caller's."""

    def __init__(self, width: _Width, values: Mapping[int, int], read: Read) -> None:
        self._width, self._read = width, read
        self._mask = (1 << 8 * width.word) - 1
        self._values = {number: value & self._mask for number, value in values.items()}

    @property
    def place(self) -> int:
        return self._values[self._width.place]

    @property
    def stack(self) -> int:
        return self._values[self._width.stack]

    def by_frame_pointer(self) -> _Step:
        word, frame = self._width.word, self._values[self._width.frame]
        if not self.stack <= frame < self.stack + _STACK_REACH:
            raise Ended
        return self._caller(
            {
                self._width.frame: self._word(frame),
                self._width.place: self._word(frame + word),
                self._width.stack: frame + 2 * word,
            }
        )

    def by_row(self, row: Row) -> _Step:
        if row.cfa is None or row.saved.get(self._width.place) is None:
            raise Ended
        cfa = self._value(row.cfa)
        above = {self._width.stack: cfa}
        for number, rule in row.saved.items():
            if rule is not None:
                value = self._value(rule.value, cfa)
                above[number] = self._word(value) if rule.in_memory else value
        return self._caller(above)

    def _caller(self, changed: Mapping[int, int]) -> _Step:
        return _Step(self._width, {**self._values, **changed}, self._read)

    def _value(self, value: Register | FromCfa | Expression, *cfa: int) -> int:
        """``cfa`` where there is one, which is then on the stack of an expression."""
        match value:
            case Register(number, offset):
                return self._register(number) + offset & self._mask
            case FromCfa(offset):
                return cfa[0] + offset & self._mask
            case Expression(code):
                return self._evaluated(code, list(cfa))

    def _register(self, number: int) -> int:
        if number not in self._values:
            raise Ended
        return self._values[number]

    def _word(self, at: int) -> int:
        data = self._read(at, self._width.word)
        if len(data) < self._width.word:
            raise Ended
        return int.from_bytes(data, "little")

    def _evaluated(self, code: bytes, stack: list[int]) -> int:
        """As much of DWARF 4, section 2.5 as frames of x86 need."""
        cursor = Cursor(memoryview(code))
        while cursor.more:
            operation = cursor.take(1)[0]
            if dwarf.DW_OP_breg0 <= operation < dwarf.DW_OP_breg0 + 32:
                stack.append(self._register(operation - dwarf.DW_OP_breg0) + cursor.sleb() & self._mask)
            elif operation == dwarf.DW_OP_deref and stack:
                stack.append(self._word(stack.pop()))
            elif operation == dwarf.DW_OP_plus_uconst and stack:
                stack.append(stack.pop() + cursor.uleb() & self._mask)
            else:
                raise Ended
        if not stack:
            raise Ended
        return stack[-1]
