"""Checked agent bytecode without loops, as the source text of a Python function.

A condition is asked for at each pass over a breakpoint, so its cost is the guest's speed. The function that comes out
reads registers straight from the engine's register file, keeps the bytecode's stack in Python's expressions and local
variables, and cuts to 64 bits only where the range of a value says that it may matter. ``$rax == 5 && *(int *) $rsp >
3`` becomes::

    def run():
        w = words()
        if (w[0] == 5):
            t1 = load(w[4], 4)
            if (3 < ((t1 ^ 2147483648) - 2147483648)):
                return 1
            return 0
        return 0

Law: text is made of the words in this file and of integers only; nothing that came from a guest or a client is in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from stub.gdb.agent_code import (
    BINARY,
    CONSTANTS,
    MASK,
    REFERENCES,
    SIGN,
    UNARY,
    AgentError,
    Instruction,
    Program,
    shuffle,
    successors,
)

DEEPEST_TEXT = 12  # operators inside operators in one expression; Python's parser ends at 200 parentheses
DEEPEST_BLOCK = 30  # ifs inside ifs; Python ends at 100
SHORT_TAIL = 4  # instructions up to an end that are repeated rather than shared


class Value(NamedTuple):
    """What is on the stack: an expression whose value lies in [low, high] and counts modulo 2**64.

    Ranges stay inside (-2**64, 2**64), so only 0 means 0. ``truth``: the text is a Python bool and low is 0, high 1.
    """

    text: str
    low: int
    high: int
    depth: int = 0
    truth: bool = False

    @property
    def constant(self) -> int | None:
        """Its value modulo 2**64, if that is known."""
        return self.low & MASK if self.low == self.high else None


def _constant(value: int) -> Value:
    return Value(str(value) if value >= 0 else f"({value})", value, value)


def _made(text: str, low: int, high: int, *parts: Value) -> Value:
    """An expression of other ones, cut to 64 bits if it may have outgrown them."""
    depth = 1 + max((part.depth for part in parts), default=0)
    if low == high:
        return _constant(low & MASK)
    if low <= -(1 << 64) or high >= 1 << 64:
        return Value(f"(({text}) & {MASK})", 0, MASK, depth + 1)
    return Value(f"({text})", low, high, depth)


def _truth(text: str, *parts: Value) -> Value:
    return Value(f"({text})", 0, 1, 1 + max((part.depth for part in parts), default=0), truth=True)


def _number(value: Value) -> Value:
    return Value(f"(1 if {value.text} else 0)", 0, 1, value.depth + 1) if value.truth else value


def _unsigned(value: Value) -> Value:
    """The same value as a number from 0 to 2**64 - 1."""
    if value.constant is not None:
        return _constant(value.constant)
    return value if value.low >= 0 else Value(f"({value.text} & {MASK})", 0, MASK, value.depth + 1)


def _extend(value: Value, bits: int) -> Value:
    """The low bits of a value as a two's complement number."""
    sign = 1 << (bits - 1)
    if -sign <= value.low and value.high < sign:
        return value
    if value.constant is not None:
        return _constant(UNARY["ext"](value.constant, bits))
    kept = _keep(value, bits)
    return Value(f"(({kept.text} ^ {sign}) - {sign})", -sign, sign - 1, kept.depth + 2)


def _keep(value: Value, bits: int) -> Value:
    """The low bits of a value as a number from 0."""
    mask = (1 << bits) - 1
    if value.low >= 0 and value.high <= mask:
        return value
    if value.constant is not None:
        return _constant(value.constant & mask)
    return Value(f"({value.text} & {mask})", 0, mask, value.depth + 1)


def _signed(value: Value) -> Value:
    """The same value as a number from -2**63 to 2**63 - 1."""
    if value.constant is not None:
        return _constant((value.constant ^ SIGN) - SIGN)
    return _extend(value, 64)


def _add(a: Value, b: Value) -> Value:
    return _made(f"{a.text} + {b.text}", a.low + b.low, a.high + b.high, a, b)


def _sub(a: Value, b: Value) -> Value:
    return _made(f"{a.text} - {b.text}", a.low - b.high, a.high - b.low, a, b)


def _mul(a: Value, b: Value) -> Value:
    ends = [x * y for x in (a.low, a.high) for y in (b.low, b.high)]
    return _made(f"{a.text} * {b.text}", min(ends), max(ends), a, b)


def _and(a: Value, b: Value) -> Value:
    if a.low < 0 and b.low < 0:
        a = _unsigned(a)
    return _made(f"{a.text} & {b.text}", 0, min(x.high for x in (a, b) if x.low >= 0), a, b)


def _or(a: Value, b: Value) -> Value:
    a, b = _unsigned(a), _unsigned(b)
    return _made(f"{a.text} | {b.text}", 0, (1 << max(a.high, b.high).bit_length()) - 1, a, b)


def _xor(a: Value, b: Value) -> Value:
    a, b = _unsigned(a), _unsigned(b)
    return _made(f"{a.text} ^ {b.text}", 0, (1 << max(a.high, b.high).bit_length()) - 1, a, b)


def _equal(a: Value, b: Value) -> Value:
    if not all(x.low >= -SIGN and x.high < SIGN for x in (a, b)):
        a, b = _unsigned(a), _unsigned(b)
    return _truth(f"{a.text} == {b.text}", a, b)


def _less_signed(a: Value, b: Value) -> Value:
    a, b = _signed(a), _signed(b)
    return _truth(f"{a.text} < {b.text}", a, b)


def _less_unsigned(a: Value, b: Value) -> Value:
    a, b = _unsigned(a), _unsigned(b)
    return _truth(f"{a.text} < {b.text}", a, b)


# The count of a shift must be a name or a number: it stands in the text twice.


def _lsh(a: Value, b: Value) -> Value:
    if b.constant is not None:
        n = b.constant
        return _made(f"{a.text} << {n}", a.low << n, a.high << n, a) if n < 64 else _constant(0)
    return Value(f"(({a.text} << {b.text}) & {MASK} if {b.text} < 64 else 0)", 0, MASK, a.depth + 2)


def _rsh_signed(a: Value, b: Value) -> Value:
    a = _signed(a)
    if b.constant is not None:
        n = min(b.constant, 63)
        return _made(f"{a.text} >> {n}", a.low >> n, a.high >> n, a)
    return Value(f"({a.text} >> ({b.text} if {b.text} < 63 else 63))", -SIGN, SIGN - 1, a.depth + 2)


def _rsh_unsigned(a: Value, b: Value) -> Value:
    a = _unsigned(a)
    if b.constant is not None:
        n = min(b.constant, 64)
        return _made(f"{a.text} >> {n}", a.low >> n, a.high >> n, a)
    return Value(f"({a.text} >> {b.text} if {b.text} < 64 else 0)", 0, a.high, a.depth + 2)


PURE: Mapping[str, Callable[[Value, Value], Value]] = {
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "bit_and": _and,
    "bit_or": _or,
    "bit_xor": _xor,
    "equal": _equal,
    "less_signed": _less_signed,
    "less_unsigned": _less_unsigned,
    "lsh": _lsh,
    "rsh_signed": _rsh_signed,
    "rsh_unsigned": _rsh_unsigned,
}
SHIFTS = frozenset({"lsh", "rsh_signed", "rsh_unsigned"})
# What may fail is done when its turn comes, by these functions or by `register` and `load`.
DIVISIONS = {name: BINARY[name] for name in ("div_signed", "div_unsigned", "rem_signed", "rem_unsigned")}


class _Writer:
    """Writes one program: each piece where the only jump to it is, pieces with several jumps to them at the end."""

    def __init__(self, program: Program, index_of: Mapping[int, int]) -> None:
        self.program = program
        self.index_of = index_of
        self.lines: list[str] = []
        self.names = 0
        self.waiting: set[int] = set()
        entries = Counter(place for at in program.heights for place in successors(program.instructions[at]))
        self.shared = {at for at, times in entries.items() if times > 1 and not self._short(at)}

    def write(self) -> str:
        """The text of the function ``run``."""
        self._walk(0, [], 1)
        while self.waiting:
            at = min(self.waiting)
            guarded = len(self.waiting) > 1
            self.waiting.remove(at)
            if guarded:
                self._line(1, f"if at == {at}:")
            stack = [Value(f"m{at}_{i}", 0, MASK) for i in range(self.program.heights[at])]
            self._walk(at, stack, 2 if guarded else 1)
        if any("w[" in line for line in self.lines):
            self.lines.insert(0, "    w = words()")
        return "\n".join(["def run():", *self.lines, ""])

    def _line(self, indent: int, text: str) -> None:
        self.lines.append("    " * indent + text)

    def _short(self, at: int) -> bool:
        """Whether it is only a few steps from here to an end."""
        for _ in range(SHORT_TAIL):
            one = self.program.instructions[at]
            if one.name in ("end", "if_goto"):
                return one.name == "end"
            at = one.following if one.target is None else one.target
        return False

    def _named(self, value: Value, indent: int) -> Value:
        """The value in a variable of its own, unless it is a name or a number already."""
        if not value.depth:
            return value
        return self._assigned(_number(value), indent)

    def _assigned(self, value: Value, indent: int) -> Value:
        self.names += 1
        self._line(indent, f"t{self.names} = {value.text}")
        return Value(f"t{self.names}", value.low, value.high)

    def _walk(self, at: int, stack: list[Value], indent: int) -> bool:
        """Write what happens from a place on; True if it always ends in a return, else the jump is in ``at``."""
        start = at
        while True:
            one = self.program.instructions[at]
            if (at != start and at in self.shared) or (indent > DEEPEST_BLOCK and not self._short(at)):
                self._leave(at, stack, indent)
                return False
            if one.name == "end":
                self._line(indent, f"return {_unsigned(_number(stack[-1])).text}")
                return True
            if one.name == "if_goto":
                decided = self._branch(one, stack, indent)
                if isinstance(decided, bool):
                    return decided
                at = decided
            elif one.target is not None:
                at = one.target
            else:
                self._step(one, stack, indent)
                at = one.following

    def _leave(self, at: int, stack: Sequence[Value], indent: int) -> None:
        """Go on at a place whose text is elsewhere."""
        for i, value in enumerate(stack):
            self._line(indent, f"m{at}_{i} = {_unsigned(_number(value)).text}")
        self._line(indent, f"at = {at}")
        self.waiting.add(at)

    def _branch(self, one: Instruction, stack: list[Value], indent: int) -> int | bool:
        """Write an if; the place to go on at, or what `_walk` answers if both ways are written."""
        assert one.target is not None
        condition = stack.pop()
        if condition.constant is not None:
            return one.target if condition.constant else one.following
        self._line(indent, f"if {condition.text}:")
        if self._enter(one.target, list(stack), indent + 1):
            return one.following
        self._line(indent, "else:")
        self._enter(one.following, list(stack), indent + 1)
        return False

    def _enter(self, at: int, stack: list[Value], indent: int) -> bool:
        if at in self.shared:
            self._leave(at, stack, indent)
            return False
        return self._walk(at, stack, indent)

    def _step(self, one: Instruction, stack: list[Value], indent: int) -> None:
        if one.name in ("dup", "pick"):
            stack[-1 - one.operand] = self._named(stack[-1 - one.operand], indent)
        if shuffle(one.name, one.operand, stack):
            return
        if one.name in CONSTANTS:
            made = _constant(one.operand)
        elif one.name == "reg":
            made = self._register(one.operand, indent)
        elif one.name in BINARY:
            b, a = _number(stack.pop()), _number(stack.pop())
            made = self._binary(one.name, a, b, indent)
        else:
            made = self._unary(one, stack.pop(), indent)
        stack.append(self._named(made, indent) if made.depth > DEEPEST_TEXT else made)

    def _register(self, number: int, indent: int) -> Value:
        index = self.index_of.get(number)
        if index is not None:
            return Value(f"w[{index:d}]", 0, MASK)
        return self._assigned(Value(f"register({number}) & {MASK}", 0, MASK), indent)

    def _binary(self, name: str, a: Value, b: Value, indent: int) -> Value:
        if a.constant is not None and b.constant is not None:
            try:
                return _constant(BINARY[name](a.constant, b.constant) & MASK)
            except AgentError:
                pass  # a division by zero counts only if the program comes by
        if name in DIVISIONS:
            text = f"{name}({_unsigned(a).text}, {_unsigned(b).text}) & {MASK}"
            return self._assigned(Value(text, 0, MASK), indent)
        if name in SHIFTS:
            b = self._named(_unsigned(b), indent)
        return PURE[name](a, b)

    def _unary(self, one: Instruction, value: Value, indent: int) -> Value:
        if one.name == "log_not":
            if value.constant is not None:
                return _constant(int(not value.constant))
            return _truth(f"not {value.text}", value)
        value = _number(value)
        if one.name in REFERENCES:
            size = REFERENCES[one.name]
            text = f"load({_unsigned(value).text}, {size})"
            return self._assigned(Value(text, 0, (1 << 8 * size) - 1), indent)
        if one.name == "bit_not":
            return _made(f"~{value.text}", ~value.high, ~value.low, value)
        if one.operand >= 64:
            return value
        return _extend(value, one.operand) if one.name == "ext" else _keep(value, one.operand)


def source(program: Program, index_of: Mapping[int, int]) -> str:
    """The text of a function ``run()`` that does what a program without loops does.

    It uses the names ``words``, ``register``, ``load`` (see ``agent.compile_expression``) and those of ``DIVISIONS``.
    """
    return _Writer(program, index_of).write()
