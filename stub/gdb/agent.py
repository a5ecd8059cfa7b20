"""Conditions of breakpoints, evaluated here: gdb's agent bytecode as something that Python can call.

Bytecode is checked first (``agent_code``). Without loops it becomes a Python function (``agent_source``), with loops it
is interpreted, step by step up to a limit. gdb itself makes no loops; other clients may.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from types import CodeType

from stub.gdb.agent_code import (
    BINARY,
    CONSTANTS,
    MASK,
    REFERENCES,
    UNARY,
    AgentError,
    Instruction,
    Program,
    decode,
    shuffle,
)
from stub.gdb.agent_source import DIVISIONS, source

MAX_STEPS = 10_000  # instructions of one evaluation; some milliseconds
REMEMBERED = 1024  # expressions; gdb sends all of its breakpoints again each time it continues

Words = Callable[[], memoryview]
Register = Callable[[int], int]
Load = Callable[[int, int], int]


def compile_expression(
    code: bytes, *, words: Words, index_of: Mapping[int, int], register: Register, load: Load
) -> Callable[[], int]:
    """What gives an expression's value, from 0 to 2**64 - 1; AgentError now or when called says what is wrong.

    ``index_of`` maps gdb's register numbers to indices in ``words()``, the quick way; ``register(number)`` reads any
    other. ``load(address, size)`` gives 1, 2, 4 or 8 bytes of memory as an unsigned number, or raises AgentError.
    """
    program, compiled = _prepared(bytes(code), tuple(sorted(index_of.items())))
    if compiled is None:
        return lambda: interpret(program, words=words, index_of=index_of, register=register, load=load)
    names: dict[str, object] = {"__builtins__": {}, "words": words, "register": register, "load": load, **DIVISIONS}
    exec(compiled, names)
    run = names["run"]
    assert callable(run)
    return run


@lru_cache(REMEMBERED)
def _prepared(code: bytes, quick: tuple[tuple[int, int], ...]) -> tuple[Program, CodeType | None]:
    """The checked program and, if it has no loops, its function's definition."""
    program = decode(code)
    if program.loops:
        return program, None
    return program, compile(source(program, dict(quick)), "<agent expression>", "exec")


def interpret(program: Program, *, words: Words, index_of: Mapping[int, int], register: Register, load: Load) -> int:
    """The value of a program, one instruction after the other; a loop is cut off after ``MAX_STEPS``."""
    stack: list[int] = []
    at = 0
    for _ in range(MAX_STEPS):
        one = program.instructions[at]
        match one.name:
            case "end":
                return stack[-1]
            case "goto":
                at = one.operand
            case "if_goto":
                at = one.operand if stack.pop() else one.following
            case "reg":
                quick = index_of.get(one.operand)
                stack.append((register(one.operand) if quick is None else words()[quick]) & MASK)
                at = one.following
            case _:
                _compute(one, stack, load)
                at = one.following
    raise AgentError(f"the expression was cut off after {MAX_STEPS} steps")


def _compute(one: Instruction, stack: list[int], load: Load) -> None:
    """What needs nothing but the stack and memory."""
    if shuffle(one.name, one.operand, stack):
        return
    if one.name in CONSTANTS:
        stack.append(one.operand)
    elif one.name in REFERENCES:
        stack.append(load(stack.pop(), REFERENCES[one.name]))
    elif one.name in BINARY:
        b, a = stack.pop(), stack.pop()
        stack.append(BINARY[one.name](a, b) & MASK)
    else:
        stack.append(UNARY[one.name](stack.pop(), one.operand) & MASK)


__all__ = ["AgentError", "compile_expression", "interpret"]
