"""Agent bytecode as it arrives (GDB manual, appendix F): its operations, and the checks before anything runs.

A program that :func:`decode` returns cannot underflow or overflow its stack, leave its bytes, jump into an operand or
meet an operation that is not here; what may still go wrong is a division by zero, missing memory, and a loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

MAX_LENGTH = 4096  # bytes; gdb's own conditions take some tens
MAX_STACK = 100  # as in gdbserver (tracepoint.cc, STACK_MAX)

MASK = (1 << 64) - 1
SIGN = 1 << 63

T = TypeVar("T")


class AgentError(Exception):
    """Bytecode that cannot be run, or that failed while it ran; the text says why."""


class Operation(NamedTuple):
    """``operand``: bytes that follow the opcode, big-endian; ``pops`` values are taken, ``pushes`` left."""

    name: str
    operand: int
    pops: int
    pushes: int


OPERATIONS: Mapping[int, Operation] = {
    0x02: Operation("add", 0, 2, 1),
    0x03: Operation("sub", 0, 2, 1),
    0x04: Operation("mul", 0, 2, 1),
    0x05: Operation("div_signed", 0, 2, 1),
    0x06: Operation("div_unsigned", 0, 2, 1),
    0x07: Operation("rem_signed", 0, 2, 1),
    0x08: Operation("rem_unsigned", 0, 2, 1),
    0x09: Operation("lsh", 0, 2, 1),
    0x0A: Operation("rsh_signed", 0, 2, 1),
    0x0B: Operation("rsh_unsigned", 0, 2, 1),
    0x0E: Operation("log_not", 0, 1, 1),
    0x0F: Operation("bit_and", 0, 2, 1),
    0x10: Operation("bit_or", 0, 2, 1),
    0x11: Operation("bit_xor", 0, 2, 1),
    0x12: Operation("bit_not", 0, 1, 1),
    0x13: Operation("equal", 0, 2, 1),
    0x14: Operation("less_signed", 0, 2, 1),
    0x15: Operation("less_unsigned", 0, 2, 1),
    0x16: Operation("ext", 1, 1, 1),
    0x17: Operation("ref8", 0, 1, 1),
    0x18: Operation("ref16", 0, 1, 1),
    0x19: Operation("ref32", 0, 1, 1),
    0x1A: Operation("ref64", 0, 1, 1),
    0x20: Operation("if_goto", 2, 1, 0),
    0x21: Operation("goto", 2, 0, 0),
    0x22: Operation("const8", 1, 0, 1),
    0x23: Operation("const16", 2, 0, 1),
    0x24: Operation("const32", 4, 0, 1),
    0x25: Operation("const64", 8, 0, 1),
    0x26: Operation("reg", 2, 0, 1),
    0x27: Operation("end", 0, 1, 1),
    0x28: Operation("dup", 0, 1, 2),
    0x29: Operation("pop", 0, 1, 0),
    0x2A: Operation("zero_ext", 1, 1, 1),
    0x2B: Operation("swap", 0, 2, 2),
    0x32: Operation("pick", 1, 1, 2),  # pops and pushes one more for each step down; see `effect`
    0x33: Operation("rot", 0, 3, 3),
}

TRACING = "records data for a tracepoint, and there are none here"
VARIABLE = "uses a trace state variable, and there are none here"
FLOATING = "works on floating-point numbers, which gdb's own agents do not have either"

REFUSED: Mapping[int, tuple[str, str]] = {
    0x01: ("float", FLOATING),
    0x0C: ("trace", TRACING),
    0x0D: ("trace_quick", TRACING),
    0x1B: ("ref_float", FLOATING),
    0x1C: ("ref_double", FLOATING),
    0x1D: ("ref_long_double", FLOATING),
    0x1E: ("l_to_d", FLOATING),
    0x1F: ("d_to_l", FLOATING),
    0x2C: ("getv", VARIABLE),
    0x2D: ("setv", VARIABLE),
    0x2E: ("tracev", TRACING),
    0x2F: ("tracenz", TRACING),
    0x30: ("trace16", TRACING),
    0x34: ("printf", "prints, and a condition only answers yes or no"),
}


@dataclass(frozen=True)
class Instruction:
    """``following``: the offset of the next one; ``target``: where a jump goes, None for all others."""

    name: str
    operand: int
    following: int
    target: int | None = None


@dataclass(frozen=True)
class Program:
    """Checked bytecode. ``heights``: how many values are on the stack before each instruction that can be reached."""

    instructions: Mapping[int, Instruction]
    heights: Mapping[int, int]

    @property
    def loops(self) -> bool:
        """Whether any jump goes backward, to itself included."""
        targets = ((at, self.instructions[at].target) for at in self.heights)
        return any(target is not None and target <= at for at, target in targets)


def decode(code: bytes) -> Program:
    """Check bytecode; AgentError says what is wrong with it, and where."""
    if not code:
        raise AgentError("the expression has no code")
    if len(code) > MAX_LENGTH:
        raise AgentError(f"the expression has {len(code)} bytes; {MAX_LENGTH} is the most that is taken")
    instructions = {}
    at = 0
    while at < len(code):
        instructions[at] = one = _decode_at(code, at)
        at = one.following
    for at, one in instructions.items():
        if one.target is not None and one.target not in instructions:
            raise AgentError(f"byte {at}: {one.name} {one.target}, and no operation begins there")
    return Program(instructions, _heights(instructions))


def _decode_at(code: bytes, at: int) -> Instruction:
    operation = OPERATIONS.get(code[at])
    if operation is None:
        name, reason = REFUSED.get(code[at], ("", "is not an operation"))
        raise AgentError(f"byte {at}: {name or f'0x{code[at]:02x}'} {reason}")
    following = at + 1 + operation.operand
    if following > len(code):
        raise AgentError(f"byte {at}: the code ends inside {operation.name}")
    operand = int.from_bytes(code[at + 1 : following], "big")
    if operation.name in ("ext", "zero_ext") and not operand:
        raise AgentError(f"byte {at}: {operation.name} of no bits")
    return Instruction(operation.name, operand, following, operand if operation.name in ("goto", "if_goto") else None)


EFFECTS = {operation.name: (operation.pops, operation.pushes) for operation in OPERATIONS.values()}


def effect(instruction: Instruction) -> tuple[int, int]:
    """How many values an instruction takes from the stack and how many it leaves."""
    pops, pushes = EFFECTS[instruction.name]
    deeper = instruction.operand if instruction.name == "pick" else 0
    return pops + deeper, pushes + deeper


def successors(instruction: Instruction) -> tuple[int, ...]:
    """The offsets where the program may go on."""
    if instruction.name == "end":
        return ()
    if instruction.target is None:
        return (instruction.following,)
    return (instruction.target,) if instruction.name == "goto" else (instruction.target, instruction.following)


def _heights(instructions: Mapping[int, Instruction]) -> dict[int, int]:
    """Follow every path once; all paths to a place must leave it the same number of values (as gdb's ax_reqs asks)."""
    heights = {0: 0}
    waiting = [0]
    while waiting:
        at = waiting.pop()
        one = instructions[at]
        pops, pushes = effect(one)
        if heights[at] < pops:
            raise AgentError(f"byte {at}: {one.name} wants {pops} values, and the stack has {heights[at]}")
        height = heights[at] - pops + pushes
        if height > MAX_STACK:
            raise AgentError(f"byte {at}: {one.name} would put more than {MAX_STACK} values on the stack")
        for successor in successors(one):
            if successor not in instructions:
                raise AgentError(f"byte {at}: the code ends after {one.name}, with no end")
            if successor not in heights:
                heights[successor] = height
                waiting.append(successor)
            elif heights[successor] != height:
                raise AgentError(f"byte {successor}: reached with {heights[successor]} values and with {height}")
    return heights


def signed(value: int) -> int:
    """The two's complement number that 64 bits stand for."""
    return (value ^ SIGN) - SIGN


def _divide(a: int, b: int) -> tuple[int, int]:
    """Quotient and remainder, rounded towards zero as C does it."""
    if not b:
        raise AgentError("division by zero")
    quotient = abs(a) // abs(b)
    if (a < 0) != (b < 0):
        quotient = -quotient
    return quotient, a - quotient * b


# What each operation on two values gives, before it is cut to 64 bits; a is the one below the top. gdb's shifts by 64
# and more leave nothing but the sign, and so do these.
BINARY: Mapping[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div_signed": lambda a, b: _divide(signed(a), signed(b))[0],
    "div_unsigned": lambda a, b: _divide(a, b)[0],
    "rem_signed": lambda a, b: _divide(signed(a), signed(b))[1],
    "rem_unsigned": lambda a, b: _divide(a, b)[1],
    "lsh": lambda a, b: a << b if b < 64 else 0,
    "rsh_signed": lambda a, b: signed(a) >> min(b, 63),
    "rsh_unsigned": lambda a, b: a >> b if b < 64 else 0,
    "bit_and": lambda a, b: a & b,
    "bit_or": lambda a, b: a | b,
    "bit_xor": lambda a, b: a ^ b,
    "equal": lambda a, b: int(a == b),
    "less_signed": lambda a, b: int(signed(a) < signed(b)),
    "less_unsigned": lambda a, b: int(a < b),
}

# The same for one value and the instruction's operand.
UNARY: Mapping[str, Callable[[int, int], int]] = {
    "log_not": lambda a, _: int(not a),
    "bit_not": lambda a, _: ~a,
    "ext": lambda a, n: a if n >= 64 else ((a & ((1 << n) - 1)) ^ (1 << (n - 1))) - (1 << (n - 1)),
    "zero_ext": lambda a, n: a & ((1 << n) - 1),
}

CONSTANTS = frozenset({"const8", "const16", "const32", "const64"})
REFERENCES: Mapping[str, int] = {"ref8": 1, "ref16": 2, "ref32": 4, "ref64": 8}  # bytes


def shuffle(name: str, operand: int, stack: list[T]) -> bool:
    """Do an operation that only moves what is on the stack; False if the operation is another."""
    match name:
        case "dup":
            stack.append(stack[-1])
        case "pick":
            stack.append(stack[-1 - operand])
        case "pop":
            stack.pop()
        case "swap":
            stack[-2:] = stack[-1], stack[-2]
        case "rot":
            stack[-3:] = stack[-1], stack[-3], stack[-2]
        case _:
            return False
    return True
