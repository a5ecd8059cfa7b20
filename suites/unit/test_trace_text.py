"""Hypercalls shown: arguments by Xen's names, what is behind their pointers, results and error numbers."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stub.abi import arch_x86, callback, event_channel, grant_table, memory, physdev, sched, vcpu, version, xen
from stub.abi.xen import Hypercall
from stub.trace import jsonlines, schema, text
from stub.trace.insn import mnemonic
from stub.trace.reader import read
from stub.trace.records import HypercallRecord, Record
from stub.trace.rows import Call, registry
from stub.trace.styles import pointer
from stub.trace.writer import HypercallLog
from suites.unit.test_trace_writer import IDENTITY, RIP, write_all

P = 0x5000
SELF = xen.DOMID_SELF


def record(
    name: str, *args: int, rc: int = 0, payload: bytes = b"", out: bytes = b"", bits: int = 64
) -> HypercallRecord:
    registers = (*args, 0, 0, 0, 0, 0)[:5]
    return HypercallRecord(0, 0, 0, RIP, 1, bits, 0, Hypercall[name], registers, rc, payload, out, False)


def shown(made: Record) -> str:
    return text.line(made).removeprefix("[   0.000000000] d1v0 ")


UPDATES = xen.MmuUpdate.pack(ptr=0x1234008, val=0x8000000001234067) + xen.MmuUpdate.pack(ptr=0x9002, val=7)
VIRQ = event_channel.EvtchnBindVirq
RESERVATION = memory.XenMemoryReservation64.pack(extent_start=0x9000, nr_extents=2, domid=SELF)
TRAPS = arch_x86.TrapInfo64.pack(vector=14, flags=4, cs=0xE033, address=0xFFFFFFFF81000000)
QUERY = grant_table.GnttabQuerySize
TIMER = vcpu.VcpuSetSingleshotTimer64
FEATURES = version.XenFeatureInfo

LINES = [
    (record("mmu_update", P, 2, 0, SELF, payload=UPDATES),
     "mmu_update([{ptr=0x1234008|MMU_NORMAL_PT_UPDATE, val=0x8000000001234067}, "
     "{ptr=0x9000|MMU_PT_UPDATE_PRESERVE_AD, val=0x7}], 2, done=NULL, DOMID_SELF) = 0"),
    (record("mmu_update", P, 1, 0x6000, SELF | 3 << 16, rc=-22),
     "mmu_update(0x5000, 1, done=0x6000, DOMID_SELF|pt_owner=2) = -EINVAL (-22)"),
    (record("mmuext_op", P, 1, 0, SELF, payload=xen.MmuextOp64.pack(cmd=3, arg1=0xABC)),
     "mmuext_op([{cmd=MMUEXT_PIN_L4_TABLE, mfn=0xabc}], 1, done=NULL, DOMID_SELF) = 0"),
    (record("mmuext_op", P, 1, 0, SELF, payload=xen.MmuextOp64.pack(cmd=13, arg1=0x1000, arg2=1 << 40 | 5)),
     "mmuext_op([{cmd=MMUEXT_SET_LDT, linear_addr=0x1000, nr_ents=5}], 1, done=NULL, DOMID_SELF) = 0"),
    (record("mmuext_op", P, 1, 0, SELF, payload=xen.MmuextOp32.pack(cmd=8, arg2=0x88), bits=32),
     "mmuext_op([{cmd=MMUEXT_TLB_FLUSH_MULTI, vcpumask=0x88}], 1, done=NULL, DOMID_SELF) = 0"),
    (record("update_va_mapping", 0x1000, 0x2067, 6), "update_va_mapping(0x1000, pte=0x2067, UVMF_INVLPG|UVMF_ALL) = 0"),
    (record("update_va_mapping", 0x1000, 0x2067, 0x80, 1, bits=32),
     "update_va_mapping(0x1000, pte_lo=0x2067, pte_hi=0x80, UVMF_TLB_FLUSH) = 0"),
    (record("event_channel_op", 1, P, payload=VIRQ.pack(virq=0), out=VIRQ.pack(virq=0, port=4)),
     "event_channel_op(EVTCHNOP_bind_virq, {virq=VIRQ_TIMER, vcpu=0, port=0 => 4}) = 0"),
    (record("event_channel_op", 4, P, payload=b"\4\0\0\0"), "event_channel_op(EVTCHNOP_send, {port=4}) = 0"),
    (record("event_channel_op", 99, P, rc=-38), "event_channel_op(99, 0x5000) = -ENOSYS (-38)"),
    (record("event_channel_op", 5, P, payload=event_channel.EvtchnStatus.pack(dom=SELF, port=3, status=4, virq=1)),
     "event_channel_op(EVTCHNOP_status, {dom=DOMID_SELF, port=3, status=EVTCHNSTAT_virq, vcpu=0, "
     "virq=VIRQ_DEBUG}) = 0"),
    (record("event_channel_op_compat", P, payload=event_channel.EvtchnOp.pack(cmd=4, u=b"\7" + bytes(23))),
     "event_channel_op_compat({cmd=EVTCHNOP_send, port=7}) = 0"),
    (record("physdev_op_compat", P, payload=physdev.PhysdevOp64.pack(cmd=6, u=b"\1" + bytes(15))),
     "physdev_op_compat({cmd=PHYSDEVOP_set_iopl, iopl=1}) = 0"),
    (record("physdev_op", 6, P, payload=b"\1\0\0\0"), "physdev_op(PHYSDEVOP_set_iopl, {iopl=1}) = 0"),
    (record("memory_op", 6 | 5 << 6, P, rc=2, payload=RESERVATION + (5).to_bytes(8, "little") * 2),
     "memory_op(XENMEM_populate_physmap, {extent_start=0x9000, nr_extents=2, extent_order=0, mem_flags=0x0, "
     "domid=DOMID_SELF, extents=[0x5, 0x5]}) = 2"),
    (record("memory_op", 12, P, out=memory.XenMachphysMapping64.pack(v_start=1 << 63, v_end=1 << 63, max_mfn=255)),
     "memory_op(XENMEM_machphys_mapping, {v_start=0x8000000000000000, v_end=0x8000000000000000, max_mfn=0xff}) = 0"),
    (record("memory_op", 2, 0, rc=65535), "memory_op(XENMEM_maximum_ram_page, NULL) = 65535"),
    (record("memory_op", 11, P, payload=memory.XenMemoryExchange64.pack(in_=RESERVATION, out=RESERVATION)),
     "memory_op(XENMEM_exchange, {in={extent_start=0x9000, nr_extents=2, extent_order=0, mem_flags=0x0, "
     "domid=DOMID_SELF}, out={extent_start=0x9000, nr_extents=2, extent_order=0, mem_flags=0x0, domid=DOMID_SELF}, "
     "nr_exchanged=0}) = 0"),
    (record("vcpu_op", 3, 1, 0, rc=-2), "vcpu_op(VCPUOP_is_up, vcpu=1, NULL) = -ENOENT (-2)"),
    (record("vcpu_op", 8, 0, P, payload=TIMER.pack(timeout_abs_ns=1_000_000, flags=1)),
     "vcpu_op(VCPUOP_set_singleshot_timer, vcpu=0, {timeout_abs_ns=1000000, flags=VCPU_SSHOTTMR_future}) = 0"),
    (record("sched_op", 1), "sched_op(SCHEDOP_block, NULL) = 0"),
    (record("sched_op", 2, P, payload=sched.SchedShutdown.pack(reason=3)),
     "sched_op(SCHEDOP_shutdown, {reason=SHUTDOWN_crash}) = 0"),
    (record("sched_op", 3, P, payload=sched.SchedPoll64.pack(ports=0x7000, nr_ports=2) + b"\3\0\0\0\4\0\0\0"),
     "sched_op(SCHEDOP_poll, {ports=0x7000, nr_ports=2, timeout=0, polled=[3, 4]}) = 0"),
    (record("sched_op_compat", 2, 0x1203), "sched_op_compat(SCHEDOP_shutdown, 0x1203) = 0"),
    (record("xen_version", 0, rc=0x40011), "xen_version(XENVER_version, NULL) = 0x40011"),
    (record("xen_version", 1, P, out=b".7" + bytes(14)), 'xen_version(XENVER_extraversion, {text=".7"}) = 0'),
    (record("xen_version", 6, P, payload=FEATURES.pack(), out=FEATURES.pack(submap=0x220E0)),
     "xen_version(XENVER_get_features, {submap_idx=0, submap=0x0 => 0x220e0}) = 0"),
    (record("callback_op", 0, P, payload=callback.CallbackRegister64.pack(type=2, flags=1, address=0x10)),
     "callback_op(CALLBACKOP_register, {type=CALLBACKTYPE_syscall, flags=CALLBACKF_mask_events, address=0x10}) = 0"),
    (record("grant_table_op", 6, P, 1, payload=QUERY.pack(dom=SELF), out=QUERY.pack(dom=SELF, nr_frames=1, status=-3)),
     "grant_table_op(GNTTABOP_query_size, [{dom=DOMID_SELF, nr_frames=0 => 1, max_nr_frames=0, "
     "status=GNTST_okay => GNTST_bad_gntref}], 1) = 0"),
    (record("set_trap_table", P, payload=TRAPS),
     "set_trap_table([{vector=0xe, flags=0x4, cs=0xe033, address=0xffffffff81000000}]) = 0"),
    (record("set_gdt", P, 600, payload=(0xCE25).to_bytes(8, "little") * 2), "set_gdt([0xce25, 0xce25], 600) = 0"),
    (record("set_segment_base", 2, 0x10), "set_segment_base(SEGBASE_GS_KERNEL, 0x10) = 0"),
    (record("vm_assist", 0, 2), "vm_assist(VMASST_CMD_enable, VMASST_TYPE_writable_pagetables) = 0"),
    (record("console_io", 0, 9, P, rc=-1, payload=b'a"\n\x1b\xff\x07z'),
     'console_io(CONSOLEIO_write, 9, "a\\"\\n\\e\\\\xff\\x07z") = -EPERM (-1)'),
    (record("get_debugreg", 7, rc=0x400), "get_debugreg(7) = 0x400"),
    (record("get_debugreg", 7, rc=-22), "get_debugreg(7) = 0xffffffffffffffea"),
    (record("set_timer_op", (1 << 64) - 5), "set_timer_op(-5) = 0"),
    (record("stack_switch", 0xE02B, 0x9000), "stack_switch(0xe02b, 0x9000) = 0"),
    (record("iret"), "iret() = 0"),
    (record("iret", payload=arch_x86.IretContext64.pack(rip=0x10, cs=0x33, rflags=0x202, rsp=0x20, ss=0x2B)),
     "iret(rip=0x10, cs=0x33, rflags=0x202, rsp=0x20, ss=0x2b, rax=0x0, flags=0x0) = 0"),
    (record("iret", payload=struct.pack("<4I", 7, 0x10, 0xE019, 0x202), bits=32),
     "iret(eax=0x7, eip=0x10, cs=0xe019, eflags=0x202) = 0"),
    (record("iret", payload=struct.pack("<6I", 7, 0x10, 0xE02B, 0x202, 0x20, 0xE033), bits=32),
     "iret(eax=0x7, eip=0x10, cs=0xe02b, eflags=0x202, esp=0x20, ss=0xe033) = 0"),
    (record("xenpmu_op", 1, 2, rc=-95), "xenpmu_op(0x1, 0x2, 0x0, 0x0, 0x0) = -EOPNOTSUPP (-95)"),
]  # fmt: skip


@pytest.mark.parametrize(("made", "line"), LINES, ids=[line.partition(" =")[0][:50] for _, line in LINES])
def test_a_hypercall_as_a_line(made: HypercallRecord, line: str) -> None:
    assert shown(made) == line


def test_a_hypercall_as_json() -> None:
    made = record("event_channel_op", 1, P, payload=VIRQ.pack(virq=0), out=VIRQ.pack(virq=0, port=4))
    assert json.loads(jsonlines.line(made)) == {
        "seq": 0,
        "time_ns": 0,
        "domain": 1,
        "vcpu": 0,
        "rip": "0xffffffff81001000",
        "console_offset": 0,
        "kind": "hypercall",
        "name": "event_channel_op",
        "nr": 32,
        "subops": ["EVTCHNOP_bind_virq"],
        "args": {"cmd": "EVTCHNOP_bind_virq", "arg": {"virq": "VIRQ_TIMER", "vcpu": 0, "port": 0}},
        "out": {"virq": "VIRQ_TIMER", "vcpu": 0, "port": 4},
        "result": 0,
        "error": None,
        "nested": False,
        "note": None,
    }
    refused = jsonlines.as_object(record("mmu_update", P, 2, 0, SELF, payload=UPDATES, rc=-22))
    assert refused["error"] == "EINVAL"
    assert refused["subops"] == ["MMU_NORMAL_PT_UPDATE", "MMU_PT_UPDATE_PRESERVE_AD"]
    assert refused["args"]["req"][0] == {
        "ptr": "0x1234008", "val": "0x8000000001234067", "cmd": "MMU_NORMAL_PT_UPDATE",
    }  # fmt: skip


def test_events_as_lines_and_json(tmp_path: Path) -> None:
    with HypercallLog(tmp_path / "hypercalls", identity=IDENTITY) as log:
        write_all(log)
    found = read(tmp_path)
    at = "0xffffffff81001000"
    assert [text.line(made).partition("d3v0 ")[2] for made in found] == [
        f"domain starts at {at} sp 0x1000 with 65536 pages",
        "xen_version(XENVER_get_features, {submap_idx=0 => 16843009, submap=0x0 => 0x1010101}) = 0",
        "multicall(0x6000, 1) = 0",
        "    update_va_mapping(0x1, pte=0x2, 0x3) = -EINVAL (-22)",
        f"--- #PF(error_code=0x2, cr2=0xdead) at user {at} sp 0x2000 -> 0xffffffff81001001 ---",
        f"--- #UD() at kernel {at} sp 0x2000 -> 0xffffffff81001002 ---",
        f"--- event upcall at kernel {at} sp 0x2000 -> 0xffffffff81001003 ---",
        f"cpuid(leaf=0x80000001, subleaf=0x2) = a=0x3 b=0x4 c=0x5 d=0xffffffff (forced at {at})",
        f"wrmsr(rax=0x1, rbx=0x2, rcx=0x3, rdx=0x4) = rdx=0x5 (0f 30 at {at})",
        "out(port=0x3f8, size=1, value=0x41)",
        f"page table write(0x1000, maddr=0x2000, value=0x7, size=8) at {at} = -EINVAL (-22)",
        "console output: bytes 100 to 120",
        "# standing alone",
        "domain ends: poweroff: the guest powered off (exit status 0)",
    ]
    objects = [json.loads(jsonlines.line(made)) for made in found]
    assert [made["kind"] for made in objects[4:]] == [
        "exception", "exception", "upcall", "cpuid", "privileged", "port_io", "page_table_write", "console", "note",
        "end",
    ]  # fmt: skip
    assert objects[4] | {"name": "#PF", "vector": 14, "error_code": "0x2", "cr2": "0xdead", "user": True} == objects[4]
    assert objects[8] | {"name": "wrmsr", "insn": "0f30", "after": ["0x1", "0x2", "0x3", "0x5"]} == objects[8]
    assert objects[13] | {"verdict": "poweroff", "exit_status": 0} == objects[13]


@settings(max_examples=200, deadline=None)
@given(
    nr=st.sampled_from(sorted(schema.CALLS)) | st.integers(0, 255),
    command=st.integers(0, 40),
    args=st.lists(st.integers(0, (1 << 64) - 1), min_size=5, max_size=5),
    payload=st.binary(max_size=300),
    out=st.binary(max_size=300),
    bits=st.sampled_from([32, 64]),
)
def test_no_guest_value_is_too_odd_to_show(
    nr: int, command: int, args: list[int], payload: bytes, out: bytes, bits: int
) -> None:
    row = schema.CALLS.get(nr)
    if row is not None and row.command is not None:
        args[row.command] = command
    made = HypercallRecord(0, 0, 0, RIP, 1, bits, 0, nr, tuple(args), -1, payload, out, False)
    assert "\n" not in text.line(made)
    assert json.loads(jsonlines.line(made))["nr"] == nr


@settings(max_examples=200, deadline=None)
@given(
    nr=st.integers(0, 300),
    command=st.integers(0, 40),
    args=st.lists(st.integers(0, (1 << 64) - 1), min_size=5, max_size=5),
    bits=st.sampled_from([32, 64]),
)
def test_spans_are_small_whatever_the_guest_asks(nr: int, command: int, args: list[int], bits: int) -> None:
    row = schema.CALLS.get(nr)
    if row is not None and row.command is not None:
        args[row.command] = command
    for span in (schema.payload_span(nr, args, bits), schema.output_span(nr, args, b"", bits)):
        assert span is None or (span[0] in args and 0 < span[1] <= schema.PAYLOAD_CAP)


@pytest.mark.parametrize("row", schema.CALLS.values(), ids=lambda row: Hypercall(row.number).name)
def test_a_row_is_consistent(row: Call) -> None:
    assert row.pointed.keys() <= ({None} if row.command is None else row.commands.keys())
    assert row.command is None or row.commands
    for pointed in row.pointed.values():
        assert row.args[pointed.arg].style is pointer
        assert pointed.count is None or row.args[pointed.count].name in {"count", "entries"}
        assert pointed.layout(64).size >= pointed.layout(32).size


def test_two_rows_of_one_number_are_refused() -> None:
    row = schema.CALLS[Hypercall.sched_op]
    with pytest.raises(ValueError, match="two rows"):
        registry([row, row])


def test_spans() -> None:
    def spans(name: str, *args: int) -> tuple[schema.Span | None, schema.Span | None]:
        registers = (*args, 0, 0, 0, 0, 0)[:5]
        nr = Hypercall[name]
        return schema.payload_span(nr, registers), schema.output_span(nr, registers)

    assert spans("mmu_update", P, 3, 0, SELF) == ((P, 48), None)
    assert spans("mmuext_op", P, 2, 0, SELF) == ((P, 48), None)
    assert schema.payload_span(Hypercall.mmuext_op, (P, 2, 0, SELF, 0), 32) == (P, 24)
    assert spans("mmuext_op", P, 0x8000_0001, 0, SELF) == ((P, schema.PAYLOAD_CAP), None)
    assert spans("event_channel_op", 1, P) == ((P, 12), (P, 12))
    assert spans("event_channel_op", 4, P) == ((P, 4), None)
    assert spans("event_channel_op", 4, 0) == (None, None)
    assert spans("xen_version", 1, P) == (None, (P, 16))
    assert spans("xen_version", 0, 0) == (None, None)
    assert spans("set_gdt", P, 513) == ((P, 16), None)
    assert spans("grant_table_op", 2, P, 1) == ((P, 24), (P, 24))
    assert spans("console_io", 0, 5, P) == ((P, 5), None)
    assert spans("vcpu_op", 8, 0, P) == ((P, 16), None)
    assert spans("set_trap_table", P) == ((P, 4096), None)
    assert spans("iret") == (None, None)
    traps = TRAPS + bytes(16) + TRAPS
    assert schema.trim(Hypercall.set_trap_table, (P, 0, 0, 0, 0), traps) == TRAPS
    assert schema.trim(Hypercall.mmu_update, (P, 1, 0, 0, 0), traps) == traps


@pytest.mark.parametrize(
    ("insn", "name"),
    [
        ("0f30", "wrmsr"), ("0f32", "rdmsr"), ("0f20d8", "mov from cr3"), ("410f22d8", "mov to cr3"),
        ("0f23f8", "mov to dr7"), ("0f06", "clts"), ("0f0138", "invlpg"), ("0f01d0", "xgetbv"), ("66ef", "out"),
        ("f36c", "insb"), ("f4", "hlt"), ("0fa2", "cpuid"), ("0f00d8", "ltr"), ("90", "instruction"),
        ("9a000000000700", "lcall"), ("ff1b", "lcall"), ("ff2b", "ljmp"), ("ff", "instruction"),
        ("", "instruction"), ("6666", "instruction"), ("0f", "instruction"),
    ],
)  # fmt: skip
def test_mnemonics(insn: str, name: str) -> None:
    assert mnemonic(bytes.fromhex(insn)) == name
