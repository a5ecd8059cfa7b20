"""gdb's agent bytecode: what it computes, what is refused, and that the quick way and the slow way are one."""

from __future__ import annotations

import ctypes
import timeit
from array import array
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stub.gdb import agent
from stub.gdb.agent import AgentError, compile_expression, interpret
from stub.gdb.agent_code import MAX_LENGTH, MAX_STACK, OPERATIONS, REFUSED, decode

QUICK = {0: 2, 1: 1, 2: 0, 4: 7, 5: 5, 7: 4, 16: 16}  # gdb's number: place in the register file
RAX, RBX, RCX, RSI, RDI, RSP, RIP, CS = 0, 1, 2, 4, 5, 7, 16, 18  # gdb's numbers
MEMORY = range(0x1000, 0x2000)
ALL = (1 << 64) - 1
TOP = 1 << 63

EDGES = [0, 1, 2, 3, 5, 7, 8, 31, 32, 63, 64, 65, 127, 128, 255, 256, 0x1000, 0x1FF8, TOP - 1, TOP, ALL - 1, ALL]
numbers = st.sampled_from(EDGES) | st.integers(0, ALL) | st.integers(ALL - 300, ALL) | st.integers(0, 300)


class World:
    """Registers and memory of a guest that stands still."""

    def __init__(self, registers: dict[int, int] | None = None, memory: bytes = b"") -> None:
        self.registers = registers or {}
        self.memory = memory.ljust(len(MEMORY), b"\0")
        self.file = memoryview(array("Q", [0] * 51))
        for number, index in QUICK.items():
            self.file[index] = self.registers.get(number, 0)
        self.loads: list[tuple[int, int]] = []

    def words(self) -> memoryview:
        return self.file

    def register(self, number: int) -> int:
        assert number not in QUICK, "the quick way was not taken"
        if number > 200:
            raise AgentError(f"no register {number}")
        return self.registers.get(number, 0)

    def load(self, address: int, size: int) -> int:
        assert 0 <= address <= ALL
        self.loads.append((address, size))
        if address not in MEMORY or address + size > MEMORY.stop:
            raise AgentError(f"no memory at {address:#x}")
        at = address - MEMORY.start
        return int.from_bytes(self.memory[at : at + size], "little")

    def compiled(self, code: bytes) -> Callable[[], int]:
        return compile_expression(code, words=self.words, index_of=QUICK, register=self.register, load=self.load)

    def value(self, code: bytes) -> int:
        return self.compiled(code)()

    def interpreted(self, code: bytes) -> int:
        return interpret(decode(code), words=self.words, index_of=QUICK, register=self.register, load=self.load)


def outcome(work: Callable[[], int]) -> int | str:
    try:
        return work()
    except AgentError as error:
        return str(error)


# The manual's opcodes (F.2 "Bytecode Descriptions"), written down a second time.
ADD, SUB, MUL, DIV_S, DIV_U, REM_S, REM_U, LSH, RSH_S, RSH_U = range(2, 12)
LOG_NOT, AND, OR, XOR, NOT, EQUAL, LESS_S, LESS_U, EXT, REF8, REF16, REF32, REF64 = range(14, 27)
IF_GOTO, GOTO, CONST8, CONST16, CONST32, CONST64, REG, END, DUP, POP, ZERO_EXT, SWAP = range(32, 44)
PICK, ROT = 50, 51


def const(value: int) -> bytes:
    return bytes([CONST64]) + (value & ALL).to_bytes(8, "big")


def reg(number: int) -> bytes:
    return bytes([REG]) + number.to_bytes(2, "big")


def jump(operation: int, target: int) -> bytes:
    return bytes([operation]) + target.to_bytes(2, "big")


def s64(value: int) -> int:
    return ctypes.c_int64(value).value


def s32(value: int) -> int:
    return ctypes.c_int32(value).value


def s16(value: int) -> int:
    return ctypes.c_int16(value).value


def s8(value: int) -> int:
    return ctypes.c_int8(value).value


def c_divide(a: int, b: int) -> int:
    return (abs(a) // abs(b)) * (-1 if (a < 0) ^ (b < 0) else 1)


TWO: dict[int, Callable[[int, int], int]] = {
    ADD: lambda a, b: a + b,
    SUB: lambda a, b: a - b,
    MUL: lambda a, b: a * b,
    DIV_S: lambda a, b: c_divide(s64(a), s64(b)),
    DIV_U: lambda a, b: a // b,
    REM_S: lambda a, b: s64(a) - s64(b) * c_divide(s64(a), s64(b)),
    REM_U: lambda a, b: a % b,
    LSH: lambda a, b: a * 2**b if b < 64 else 0,
    RSH_S: lambda a, b: s64(a) // 2 ** min(b, 70),
    RSH_U: lambda a, b: a // 2 ** min(b, 70),
    AND: lambda a, b: a & b,
    OR: lambda a, b: a | b,
    XOR: lambda a, b: a ^ b,
    EQUAL: lambda a, b: a == b,
    LESS_S: lambda a, b: s64(a) < s64(b),
    LESS_U: lambda a, b: a < b,
}


@pytest.mark.parametrize("operation", TWO, ids=lambda number: OPERATIONS[number].name)
@settings(deadline=None)
@given(a=numbers, b=numbers)
@example(a=TOP, b=ALL)
def test_operations_on_two_values(operation: int, a: int, b: int) -> None:
    """With registers, with numbers in the code, and interpreted: one answer."""
    tail = bytes([operation, END])
    world = World({RAX: a, RBX: b})
    codes = [reg(RAX) + reg(RBX), const(a) + reg(RBX), reg(RAX) + const(b), const(a) + const(b)]
    if b == 0 and operation in (DIV_S, DIV_U, REM_S, REM_U):
        for code in codes:
            with pytest.raises(AgentError, match="division by zero"):
                world.value(code + tail)
        return
    wanted = int(TWO[operation](a, b)) & ALL
    assert [world.value(code + tail) for code in codes] == [wanted] * 4
    assert world.interpreted(codes[0] + tail) == wanted


@settings(deadline=None)
@given(a=numbers, bits=st.integers(1, 255))
def test_operations_on_one_value(a: int, bits: int) -> None:
    kept = a % 2 ** min(bits, 64)
    extended = kept - 2**bits if bits < 64 and kept >= 2 ** (bits - 1) else kept
    for code, wanted in (
        (bytes([LOG_NOT]), int(a == 0)),
        (bytes([LOG_NOT, LOG_NOT]), int(a != 0)),
        (bytes([NOT]), ALL - a),
        (bytes([EXT, bits]), extended & ALL),
        (bytes([ZERO_EXT, bits]), kept),
    ):
        for start in (reg(RAX), const(a)):
            assert World({RAX: a}).value(start + code + bytes([END])) == wanted
            assert World({RAX: a}).interpreted(start + code + bytes([END])) == wanted


@pytest.mark.parametrize(
    ("code", "stack"),
    [
        (bytes([DUP]), [1, 2, 3, 3]),
        (bytes([POP]), [1, 2]),
        (bytes([SWAP]), [1, 3, 2]),
        (bytes([ROT]), [3, 1, 2]),
        (bytes([PICK, 0]), [1, 2, 3, 3]),
        (bytes([PICK, 2]), [1, 2, 3, 1]),
    ],
)
def test_moves_on_the_stack(code: bytes, stack: list[int]) -> None:
    """Each value in turn is brought to the top."""
    for down, wanted in enumerate(reversed(stack)):
        whole = b"".join(map(reg, (RAX, RBX, RCX))) + code + bytes([POP]) * down + bytes([END])
        world = World({RAX: 1, RBX: 2, RCX: 3})
        assert (world.value(whole), world.interpreted(whole)) == (wanted, wanted)


@pytest.mark.parametrize(("operation", "size"), [(REF8, 1), (REF16, 2), (REF32, 4), (REF64, 8)])
def test_memory_is_little_endian_and_not_sign_extended(operation: int, size: int) -> None:
    memory = bytes(range(0xF1, 0xF9))
    world = World({RSP: 0x1000}, memory)
    assert world.value(reg(RSP) + bytes([operation, END])) == int.from_bytes(memory[:size], "little")
    assert world.loads == [(0x1000, size)]
    with pytest.raises(AgentError, match="no memory at 0xffffffffffffffff"):
        world.value(const(-1) + bytes([operation, END]))


def test_a_load_happens_though_its_value_is_dropped() -> None:
    with pytest.raises(AgentError, match="no memory"):
        World().value(const(1) + bytes([DUP, REF8, POP, END]))


def test_constants_are_big_endian_and_unsigned() -> None:
    for operation, size in ((CONST8, 1), (CONST16, 2), (CONST32, 4), (CONST64, 8)):
        data = bytes(range(0xF0, 0xF0 + size))
        assert World().value(bytes([operation]) + data + bytes([END])) == int.from_bytes(data, "big")


def test_other_registers_are_asked_for_and_cut_to_64_bits() -> None:
    assert World({CS: 0xE033}).value(reg(CS) + bytes([END])) == 0xE033
    assert World({40: 1 << 64 | 5}).value(reg(40) + bytes([END])) == 5
    with pytest.raises(AgentError, match="no register 300"):
        World().value(reg(300) + bytes([END]))


def test_a_register_file_that_is_replaced_is_seen() -> None:
    world = World({RAX: 1})
    run = world.compiled(reg(RAX) + bytes([END]))
    assert run() == 1
    world.file = memoryview(array("Q", [7] * 51))
    assert run() == 7


# What gdb 13.1 sent in Z0 packets for these conditions.
FROM_GDB: list[tuple[str, str, Callable[[World], object]]] = [
    (
        "$rax == 5 && *(int*)$rsp > 3",
        "260000164022051320000e2100252600072a4019162022032b142000202100252201210027220027",
        lambda w: w.registers[RAX] == 5 and s32(w.load(w.registers[RSP], 4)) > 3,
    ),
    ("$rip == 0x401000", "2600102a4024004010001327", lambda w: w.registers[RIP] == 0x401000),
    (
        "(char)$rdi < -3 || *(unsigned short*)($rsp+8)==7",
        "2600051640160822fd1608142000252600072a402208022a40182207132000252200210027220127",
        lambda w: s8(w.registers[RDI]) < -3 or w.load((w.registers[RSP] + 8) & ALL, 2) == 7,
    ),
    (
        "(unsigned)$rax / 3u >> 1 == 4",
        "26000016402a202203062a2022012a200b2a2022042a201327",
        lambda w: (w.registers[RAX] % 2**32 // 3) >> 1 == 4,
    ),
    (
        "$rax % 7 == -3",
        "2600001640220707164022fd16081327",
        lambda w: s64(w.registers[RAX]) - 7 * c_divide(s64(w.registers[RAX]), 7) == -3,
    ),
    (
        "!$rax && ~$rbx == -1",
        "26000016400e20000c210024260001164012164022ff16081320001f2100242201210026220027",
        lambda w: not w.registers[RAX] and ~s64(w.registers[RBX]) == -1,
    ),
    (
        "(*(long*)$rsp | $rcx ^ 0xff00) & 0x1000000000",
        "2600072a401a16402600021640240000ff0011102500000010000000000f27",
        lambda w: (w.load(w.registers[RSP], 8) | w.registers[RCX] ^ 0xFF00) & 0x1000000000,
    ),
    ("$rax >= $rbx", "26000016402600011640140e27", lambda w: s64(w.registers[RAX]) >= s64(w.registers[RBX])),
    (
        "(unsigned long)$rax > (unsigned long)$rbx || $rcx",
        "26000016402a4026000116402a402b1520002026000216402000202200210022220127",
        lambda w: w.registers[RAX] > w.registers[RBX] or w.registers[RCX] != 0,
    ),
    (
        "$rdi * 3 - $rsi << 2 != 12",
        "2600051640220304164026000416400316402202091640220c130e27",
        lambda w: (w.registers[RDI] * 3 - w.registers[RSI] << 2) & ALL != 12,
    ),
    ("$cs == 0xe033", "2600121620240000e0331327", lambda w: s32(w.registers[CS]) == 0xE033),
    (
        "(short)$rax >> 3 == -2 && (*(unsigned long*)($rsp + $rcx*8) & 1) == 0",
        "2600001640161022030a162022fe16081320001721003f2600072a4026000216402208041640022a401a22012a400f22002a40132000"
        "3a21003f2201210041220027",
        lambda w: (
            s16(w.registers[RAX]) >> 3 == -2 and w.load((w.registers[RSP] + w.registers[RCX] * 8) & ALL, 8) & 1 == 0
        ),
    ),
]

likely = st.sampled_from([0, 1, 4, 5, 7, 9, 12, 0x1000, 0x1FF0, 0x401000, 0xE033, -1 & ALL, -3 & ALL, -10 & ALL, -16])


@pytest.mark.parametrize(("text", "code", "meaning"), FROM_GDB, ids=[row[0] for row in FROM_GDB])
@settings(deadline=None)
@given(values=st.lists(likely | numbers, min_size=8, max_size=8), word=likely | numbers)
def test_what_gdb_sends_means_what_its_user_wrote(
    text: str, code: str, meaning: Callable[[World], object], values: list[int], word: int
) -> None:
    registers = dict(zip((RAX, RBX, RCX, RSI, RDI, RSP, RIP, CS), (value & ALL for value in values), strict=True))
    data = (word & ALL).to_bytes(8, "little") * 3
    wanted = outcome(lambda: int(bool(meaning(World(registers, data)))))
    got = outcome(World(registers, data).compiled(bytes.fromhex(code)))
    assert (int(bool(got)) if isinstance(got, int) else got) == wanted
    assert outcome(lambda: World(registers, data).interpreted(bytes.fromhex(code))) == got


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (b"", "no code"),
        (b"\x00", "byte 0: 0x00 is not an operation"),
        (bytes([CONST8, 1, END, 0xFF]), "byte 3: 0xff is not an operation"),
        (bytes([CONST32, 1, 2, 3]), "byte 0: the code ends inside const32"),
        (bytes([CONST8, 1]), "byte 0: the code ends after const8, with no end"),
        (bytes([END]), "byte 0: end wants 1 values, and the stack has 0"),
        (bytes([CONST8, 1, ADD, END]), "byte 2: add wants 2 values, and the stack has 1"),
        (bytes([CONST8, 1, PICK, 1, END]), "byte 2: pick wants 2 values, and the stack has 1"),
        (bytes([CONST8, 1] * (MAX_STACK + 1) + [END]), f"more than {MAX_STACK} values"),
        (jump(GOTO, 4) + bytes([END]), "byte 0: goto 4, and no operation begins there"),
        (bytes([CONST8, 1]) + jump(IF_GOTO, 1) + bytes([CONST8, 1, END]), "if_goto 1, and no operation begins there"),
        (bytes([CONST8, 1]) + jump(IF_GOTO, 7) + bytes([CONST8, 1, END]), "byte 7: reached with"),
        (bytes([CONST8, 1, EXT, 0, END]), "ext of no bits"),
        (bytes([CONST8, 1, END]) + bytes([CONST8, 1]) * MAX_LENGTH, f"{MAX_LENGTH} is the most"),
    ],
)
def test_bad_code_is_refused_at_once_and_says_why(code: bytes, reason: str) -> None:
    with pytest.raises(AgentError, match=reason):
        World().compiled(code)


@pytest.mark.parametrize("operation", sorted(REFUSED))
def test_what_has_no_meaning_in_a_condition_is_named(operation: int) -> None:
    with pytest.raises(AgentError, match=f"byte 2: {REFUSED[operation][0]} "):
        World().compiled(bytes([CONST8, 1, operation, 0, 0, END]))


def test_every_opcode_is_known_once() -> None:
    assert not set(OPERATIONS) & set(REFUSED)
    assert set(OPERATIONS) | set(REFUSED) == set(range(1, 0x35)) - {0x31}


def count_to(limit: int) -> bytes:
    """do { rax-like counter } while: 0, then +1 until it equals the limit."""
    loop = bytes([CONST8, 1, ADD, DUP]) + const(limit) + bytes([EQUAL, LOG_NOT])
    return bytes([CONST8, 0]) + loop + jump(IF_GOTO, 2) + bytes([END])


def test_loops_run_and_are_cut_off() -> None:
    assert World().value(count_to(1000)) == 1000
    with pytest.raises(AgentError, match=f"cut off after {agent.MAX_STEPS} steps"):
        World().value(count_to(1 << 40))
    with pytest.raises(AgentError, match="cut off"):
        World().value(jump(GOTO, 0))


def test_long_straight_code() -> None:
    """Deep expressions, many ifs inside each other, and many in a row: all have their limits in Python."""
    world = World({RAX: 3, RBX: 1, RCX: 0})
    deep = reg(RAX) + (reg(RAX) + bytes([MUL, NOT])) * 800 + bytes([END])
    assert world.value(deep) == world.interpreted(deep)
    doubled = reg(RAX) + bytes([NOT, DUP, ADD]) * 1000 + bytes([END])
    assert world.value(doubled) == world.interpreted(doubled)
    many = bytes([CONST8, 0])
    for register in (RAX, RCX) * 200:  # where the register is 0, add another one
        many += reg(register) + jump(IF_GOTO, len(many) + 10) + reg(RBX) + bytes([ADD])
    many += bytes([END])
    assert world.value(many) == world.interpreted(many) == 200
    chain = b""
    for _ in range(300):  # one || of them all
        chain += reg(RCX) + jump(IF_GOTO, 300 * 6 + 3)
    chain += bytes([CONST8, 0, END]) + bytes([CONST8, 1, END])
    assert world.value(chain) == world.interpreted(chain) == 0
    nested = bytes([CONST8, 0])
    for _ in range(200):  # an if in an if in an if, each of which ends in one place
        nested += reg(RAX) + jump(IF_GOTO, len(nested) + 9) + jump(GOTO, 2 + 200 * 13) + reg(RBX) + bytes([ADD])
    nested += bytes([NOT, NOT, NOT, NOT, NOT, END])
    assert world.value(nested) == world.interpreted(nested) == 200 ^ ALL


@st.composite
def programs(draw: st.DrawFn) -> bytes:
    """Valid code with branches that go forward, built backwards from places of known height."""
    pieces: list[tuple[int, int, int]] = []  # operation, operand, height before
    height = 0
    for _ in range(draw(st.integers(1, 40))):
        fitting = [
            number
            for number, operation in OPERATIONS.items()
            if operation.name not in ("end", "goto", "if_goto") and operation.pops <= height < 12
        ]
        number = draw(st.sampled_from([CONST8, CONST64, REG, REG, *fitting] if height < 12 else [POP, ADD]))
        operation = OPERATIONS[number]
        operand = draw(numbers) % 256**operation.operand if operation.operand else 0
        if number == PICK:
            operand %= height
        elif number == REG:
            operand = draw(st.sampled_from([RAX, RBX, RCX, RSP, CS, 250]))
        elif number in (EXT, ZERO_EXT):
            operand = operand or 64
        pieces.append((number, operand, height))
        height += operation.pushes - operation.pops
        if height and draw(st.booleans()):
            pieces.append((IF_GOTO, 0, height))
            height -= 1
        elif draw(st.integers(0, 9)) == 0:
            pieces.append((GOTO, 0, height))
    while height < 1:
        pieces.append((REG, RAX, height))
        height += 1
    pieces.append((END, 0, height))
    offsets = [0]
    for number, _, _ in pieces:
        offsets.append(offsets[-1] + 1 + OPERATIONS[number].operand)
    code = b""
    for place, (number, operand, before) in enumerate(pieces):
        if number in (IF_GOTO, GOTO):
            after = before - (number == IF_GOTO)
            later = [at for at in range(place + 1, len(pieces)) if pieces[at][2] == after]
            operand = offsets[draw(st.sampled_from(later))]
        code += bytes([number]) + operand.to_bytes(OPERATIONS[number].operand, "big")
    return code


@settings(deadline=None)
@given(code=programs(), values=st.lists(numbers, min_size=5, max_size=5), memory=st.binary(max_size=64))
def test_compiled_and_interpreted_agree(code: bytes, values: list[int], memory: bytes) -> None:
    """In the value, in the failure, and in which memory was read and in what order."""
    registers = dict(zip((RAX, RBX, RCX, RSP, CS), values, strict=True))
    quick, slow = World(registers, memory), World(registers, memory)
    assert outcome(lambda: quick.value(code)) == outcome(lambda: slow.interpreted(code))
    assert quick.loads == slow.loads


@settings(deadline=None)
@given(st.binary(max_size=60) | st.lists(st.sampled_from([*OPERATIONS, 0, 1, 2, 3]), max_size=60).map(bytes))
def test_any_bytes_give_a_number_or_an_agent_error(code: bytes) -> None:
    result = outcome(lambda: World({RAX: 1}).value(code))
    assert isinstance(result, str) or 0 <= result <= ALL


def test_an_evaluation_takes_about_a_microsecond() -> None:
    """A generous bound for a busy machine: the interpreter takes ten times as long."""
    world = World({RAX: 5, RSP: 0x1000})
    run = compile_expression(
        bytes.fromhex(FROM_GDB[0][1]), words=world.words, index_of=QUICK, register=world.register, load=lambda *_: 9
    )
    assert run() == 1
    assert min(timeit.repeat(run, number=1000, repeat=20)) / 1000 < 3e-6
