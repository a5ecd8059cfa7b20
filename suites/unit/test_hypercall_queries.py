"""Questions and assertions on a hypercall log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.hypercalls import Hypercalls, tail
from stub.abi.errno import EINVAL
from stub.abi.event_channel import EVTCHNOP_bind_virq, EVTCHNOP_send
from stub.abi.xen import MMUEXT_NEW_BASEPTR, MMUEXT_PIN_L4_TABLE, Hypercall, MmuextOp64
from stub.errors import UsageError
from stub.trace.writer import HypercallLog

RIP = 0xFFFFFFFF81001000


class Log:
    """Writes a log call by call, a microsecond each."""

    def __init__(self, folder: Path) -> None:
        self.log = HypercallLog(folder / "hypercalls", identity={"domain": 1, "bits": 64})
        self.time = 0

    def call(self, name: str, *args: int, rc: int = 0, payload: bytes = b"", nested: bool = False) -> None:
        self.time += 1000
        write = self.log.nested if nested else self.log.hypercall
        write(self.time, RIP, Hypercall[name], *(*args, 0, 0, 0, 0, 0)[:5], rc, payload, b"")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = Log(tmp_path)
    yield log
    log.log.close()


@pytest.fixture
def hypercalls(log: Log, tmp_path: Path) -> Iterator[Hypercalls]:
    log.call("set_trap_table", 0x1000)
    log.call("event_channel_op", EVTCHNOP_bind_virq, 0x2000)
    log.call("event_channel_op", EVTCHNOP_send, 0x2000, rc=-EINVAL)
    pins = MmuextOp64.pack(cmd=MMUEXT_PIN_L4_TABLE) + MmuextOp64.pack(cmd=MMUEXT_NEW_BASEPTR)
    log.call("mmuext_op", 0x3000, 2, payload=pins, nested=True)
    log.call("stack_switch", 0xE02B, 0x4000, nested=True)
    log.call("multicall", 0x5000, 2)
    log.log.exception(log.time, RIP, 14, 2, 0xDEAD, 0, 0, False)
    asked = Hypercalls(lambda: tmp_path)
    yield asked
    asked.close()


def names(records: list) -> list[str]:
    return [record.name for record in records]


def test_select_and_count(hypercalls: Hypercalls) -> None:
    assert names(hypercalls.select()) == [
        "set_trap_table", "event_channel_op", "event_channel_op", "multicall", "mmuext_op", "stack_switch",
    ]  # fmt: skip
    assert hypercalls.count("event_channel_op") == 2
    assert hypercalls.count("event_channel_op", subop="EVTCHNOP_send") == 1
    assert hypercalls.count("event_channel_op:bind_virq rc=0") == 1
    assert hypercalls.count("mmuext_op", subop="MMUEXT_NEW_BASEPTR") == 1
    assert hypercalls.count("exception:#PF") == 1
    assert names(hypercalls.select(rc="EINVAL")) == names(hypercalls.select(rc=-22)) == ["event_channel_op"]
    assert names(hypercalls.select(where=lambda call: call.args[1] == 0x4000)) == ["stack_switch"]
    assert hypercalls.by_name() == {
        "event_channel_op": 2, "set_trap_table": 1, "multicall": 1, "mmuext_op": 1, "stack_switch": 1,
    }  # fmt: skip
    assert [call.subop for call in hypercalls.errors()] == ["EVTCHNOP_send"]


def test_a_log_that_grows(hypercalls: Hypercalls, log: Log) -> None:
    mark = hypercalls.mark()
    later = hypercalls.since(mark)
    assert later.count() == 0
    log.call("mmu_update", rc=1)
    assert names(later.select()) == ["mmu_update"]
    assert hypercalls.count("mmu_update") == 1
    assert later.mark() == hypercalls.mark() == mark + 1


def test_assert_never(hypercalls: Hypercalls, log: Log) -> None:
    hypercalls.assert_never("grant_table_op")
    hypercalls.assert_never("event_channel_op", rc="EPERM")
    with pytest.raises(
        AssertionError, match=r"(?s)2 of what should never be \(event_channel_op\):.*EVTCHNOP_bind_virq"
    ):
        hypercalls.assert_never("event_channel_op")
    for _ in range(9):
        log.call("fpu_taskswitch", 1)
    with pytest.raises(AssertionError, match=r"9 of what .*(\n.*fpu_taskswitch\(1\) = 0){5}\n +… and 4 more$"):
        hypercalls.assert_never("fpu_taskswitch")


def test_assert_order(hypercalls: Hypercalls) -> None:
    steps = ["set_trap_table", "event_channel_op:send", "multicall", "mmuext_op:MMUEXT_PIN_*"]
    assert names(hypercalls.assert_order(steps))[-1] == "mmuext_op"
    with pytest.raises(AssertionError) as caught:
        hypercalls.assert_order(["multicall", "set_trap_table"])
    first, second = str(caught.value).split("\n")
    assert first.startswith("step 2 (set_trap_table) is not after [")
    assert "it is before that" in second
    with pytest.raises(AssertionError, match=r"^step 1 \(iret\) is not in the log$"):
        hypercalls.assert_order(["iret"])


@pytest.mark.parametrize("what", ["mmu_updte", "event_channel_op:sned", "rc<<3", "mmu_update colour=red"])
def test_a_misspelt_question_is_refused(hypercalls: Hypercalls, what: str) -> None:
    with pytest.raises(UsageError, match=r"^hypercalls: .* means nothing here"):
        hypercalls.assert_never(what)


def test_tail(hypercalls: Hypercalls, log: Log, tmp_path: Path) -> None:
    log.log.console(log.time, RIP, 0, 10)
    lines = tail(tmp_path, 2)
    assert "stack_switch(" in lines[0]
    assert "#PF(error_code=0x2, cr2=0xdead)" in lines[1]
