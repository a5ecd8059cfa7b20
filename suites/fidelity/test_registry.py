"""What Linux 6.1 and 6.12 ask of Xen as a PV domU of one vCPU has a handler; the rest is refused, and counted by name.

The lists are read off Linux's source: arch/x86/xen, drivers/xen and drivers/tty/hvc, with the numbers of Xen's public
headers. A guest of a few instructions makes every call, most of them with arguments that are zero: what they are
answered does not matter here, but it is not -ENOSYS.
"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from harness.guests import Guest
from stub.abi import callback, event_channel, grant_table, memory, physdev, sched, vcpu, version, xen
from stub.abi.errno import ENOSYS
from stub.abi.sched import SHUTDOWN_poweroff
from stub.abi.xen import DOMID_SELF, Hypercall
from stub.hypervisor import hypercalls
from stub.hypervisor.registry import HYPERCALLS
from stub.trace import summary
from stub.trace.records import HypercallRecord
from suites.boot.small_guest import CODE, DATA_OFFSET, call, shutdown
from suites.unit.elf_builder import PAGE, PSTART, Load, elf, xen_notes

WITHOUT_COMMANDS = (
    Hypercall.set_trap_table,
    Hypercall.mmu_update,
    Hypercall.set_gdt,
    Hypercall.stack_switch,
    Hypercall.fpu_taskswitch,
    Hypercall.set_debugreg,
    Hypercall.get_debugreg,
    Hypercall.update_descriptor,
    Hypercall.multicall,
    Hypercall.update_va_mapping,
    Hypercall.set_timer_op,
    Hypercall.console_io,
    Hypercall.iret,
    Hypercall.set_segment_base,
    Hypercall.mmuext_op,
    Hypercall.xenpmu_op,
)
COMMANDS: dict[Hypercall, tuple[int, ...]] = {
    Hypercall.memory_op: (
        memory.XENMEM_decrease_reservation,
        memory.XENMEM_populate_physmap,
        memory.XENMEM_memory_map,
        memory.XENMEM_machphys_mapping,
    ),
    Hypercall.xen_version: (
        version.XENVER_version,
        version.XENVER_extraversion,
        version.XENVER_compile_info,
        version.XENVER_capabilities,
        version.XENVER_changeset,
        version.XENVER_platform_parameters,
        version.XENVER_get_features,
        version.XENVER_pagesize,
        version.XENVER_guest_handle,
        version.XENVER_build_id,
    ),
    Hypercall.grant_table_op: (
        grant_table.GNTTABOP_setup_table,
        grant_table.GNTTABOP_query_size,
        grant_table.GNTTABOP_set_version,
        grant_table.GNTTABOP_get_status_frames,
    ),
    Hypercall.vm_assist: (xen.VMASST_CMD_enable, xen.VMASST_CMD_disable),
    Hypercall.vcpu_op: (
        vcpu.VCPUOP_initialise,
        vcpu.VCPUOP_up,
        vcpu.VCPUOP_is_up,
        vcpu.VCPUOP_register_runstate_memory_area,
        vcpu.VCPUOP_stop_periodic_timer,
        vcpu.VCPUOP_set_singleshot_timer,
        vcpu.VCPUOP_stop_singleshot_timer,
        vcpu.VCPUOP_register_vcpu_info,
        vcpu.VCPUOP_send_nmi,
        vcpu.VCPUOP_register_vcpu_time_memory_area,
    ),
    Hypercall.sched_op: (sched.SCHEDOP_yield, sched.SCHEDOP_poll),
    Hypercall.event_channel_op: (
        event_channel.EVTCHNOP_bind_interdomain,
        event_channel.EVTCHNOP_bind_virq,
        event_channel.EVTCHNOP_close,
        event_channel.EVTCHNOP_send,
        event_channel.EVTCHNOP_status,
        event_channel.EVTCHNOP_alloc_unbound,
        event_channel.EVTCHNOP_bind_ipi,
        event_channel.EVTCHNOP_bind_vcpu,
        event_channel.EVTCHNOP_unmask,
        event_channel.EVTCHNOP_init_control,
        event_channel.EVTCHNOP_expand_array,
        event_channel.EVTCHNOP_set_priority,
    ),
    Hypercall.physdev_op: (physdev.PHYSDEVOP_set_iopl, physdev.PHYSDEVOP_pirq_eoi_gmfn_v2),
    Hypercall.callback_op: (callback.CALLBACKOP_register,),
}
"""Left out: SCHEDOP_block, SCHEDOP_shutdown and VCPUOP_down, which end a guest that does nothing else; the boots of
the other suites make them."""

MMU_COMMANDS = (xen.MMU_NORMAL_PT_UPDATE, xen.MMU_MACHPHYS_UPDATE, xen.MMU_PT_UPDATE_PRESERVE_AD)
MMUEXT_COMMANDS = (
    xen.MMUEXT_PIN_L1_TABLE,
    xen.MMUEXT_PIN_L2_TABLE,
    xen.MMUEXT_PIN_L3_TABLE,
    xen.MMUEXT_PIN_L4_TABLE,
    xen.MMUEXT_UNPIN_TABLE,
    xen.MMUEXT_NEW_BASEPTR,
    xen.MMUEXT_TLB_FLUSH_LOCAL,
    xen.MMUEXT_INVLPG_LOCAL,
    xen.MMUEXT_TLB_FLUSH_MULTI,
    xen.MMUEXT_INVLPG_MULTI,
    xen.MMUEXT_TLB_FLUSH_ALL,
    xen.MMUEXT_INVLPG_ALL,
    xen.MMUEXT_SET_LDT,
    xen.MMUEXT_NEW_USER_BASEPTR,
)
CALLBACKS = (
    callback.CALLBACKTYPE_event,
    callback.CALLBACKTYPE_failsafe,
    callback.CALLBACKTYPE_syscall,
    callback.CALLBACKTYPE_sysenter,
    callback.CALLBACKTYPE_syscall32,
)
NOBODYS = {"xsm_op": Hypercall.xsm_op, "tmem_op": Hypercall.tmem_op, "44": 44, "1099511627776": 1 << 40}
"""Numbers that no PV guest gets an answer to: two that Xen has names for, two that it has none for."""

DATA = CODE + PAGE
"""A page of the guest's, writable, with what a test puts there and then zeros."""

_TOO_MANY_PORTS = sched.SchedPoll64.pack(nr_ports=129)  # a poll of none would wait for ever
_NO_PORT = b"\xff" * 4  # for a port that there is, Xen has no priority before the FIFO ABI is in use: -ENOSYS, too
_DATA_OF = {Hypercall.sched_op: _TOO_MANY_PORTS, Hypercall.event_channel_op: _NO_PORT}
_SELF = b"\x49\xba" + struct.pack("<Q", DOMID_SELF)  # mov $DOMID_SELF, %r10: the fourth argument
_NUMBER = b"\x48\xb8"  # mov $imm64, %rax


def calls_of(guest: Guest, folder: Path, code: bytes, data: bytes = b"") -> tuple[Guest, list[HypercallRecord]]:
    """A guest that has run ``code`` and powered off, and what it called before it did."""
    code += shutdown(SHUTDOWN_poweroff)
    assert len(code) <= DATA_OFFSET
    first = code.ljust(DATA_OFFSET, b"\xcc") + struct.pack("<8I", *range(8))
    image = folder / "calls"
    image.write_bytes(elf([Load(PSTART, first.ljust(PAGE, b"\0") + data.ljust(PAGE, b"\0"))], xen_notes()))
    done = guest(image)
    done.wait("poweroff")
    return done, [record for record in done.hypercalls.select() if isinstance(record, HypercallRecord)][:-1]


def unanswered(calls: list[HypercallRecord]) -> list[tuple[str, ...]]:
    return [record.subops or (record.name,) for record in calls if record.result == -ENOSYS]


@pytest.mark.parametrize("number", WITHOUT_COMMANDS, ids=lambda number: number.name)
def test_a_hypercall_has_a_handler(number: Hypercall) -> None:
    assert hypercalls.__all__, "the families fill the registry when they are imported"
    assert number in HYPERCALLS


@pytest.mark.parametrize("number", COMMANDS, ids=lambda number: number.name)
def test_a_command_has_a_handler(guest: Guest, tmp_path: Path, number: Hypercall) -> None:
    def made(command: int) -> bytes:
        return call(number, command, 0, DATA) if number == Hypercall.vcpu_op else call(number, command, DATA, 1)

    _, calls = calls_of(guest, tmp_path, b"".join(map(made, COMMANDS[number])), _DATA_OF.get(number, b""))
    assert [record.args[0] for record in calls] == list(COMMANDS[number])
    assert unanswered(calls) == []


BATCHES: dict[Hypercall, tuple[int, list[bytes]]] = {
    Hypercall.mmu_update: (16, [struct.pack("<QQ", command, 0) for command in MMU_COMMANDS]),
    Hypercall.mmuext_op: (24, [struct.pack("<QQQ", command, 0, 0) for command in MMUEXT_COMMANDS]),
}


@pytest.mark.parametrize("number", BATCHES, ids=lambda number: number.name)
def test_a_command_of_a_batch_has_a_handler(guest: Guest, tmp_path: Path, number: Hypercall) -> None:
    size, requests = BATCHES[number]
    code = _SELF + b"".join(call(number, DATA + size * index, 1, 0) for index in range(len(requests)))
    _, calls = calls_of(guest, tmp_path, code, b"".join(requests))
    assert [record.payload for record in calls] == requests
    assert unanswered(calls) == []


def test_an_entry_point_can_be_registered(guest: Guest, tmp_path: Path) -> None:
    requests = [callback.CallbackRegister64.pack(type=kind, address=CODE) for kind in CALLBACKS]
    size = callback.CallbackRegister64.size
    code = b"".join(
        call(Hypercall.callback_op, callback.CALLBACKOP_register, DATA + size * index) for index in range(len(requests))
    )
    _, calls = calls_of(guest, tmp_path, code, b"".join(requests))
    assert [record.result for record in calls] == [0] * len(CALLBACKS)


def test_nobodys_hypercalls_are_counted_by_name(guest: Guest, tmp_path: Path) -> None:
    """-ENOSYS, and in the summary by Xen's name where it has one; by number otherwise."""
    code = b"".join(_NUMBER + struct.pack("<Q", number) + b"\x0f\x05" for number in NOBODYS.values())
    refused, calls = calls_of(guest, tmp_path, code * 2)
    assert [record.result for record in calls] == [-ENOSYS] * 2 * len(NOBODYS)
    refused.close()
    counts = summary.load(refused.run_directory / "summary.json")["counts"]
    assert counts["unimplemented"] == dict.fromkeys(NOBODYS, 2)
