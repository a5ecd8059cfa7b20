"""What sets up a vCPU's traps, stacks, segments and assists, and the old form of event_channel_op.

Sources: xen/arch/x86/pv/{callback,misc-hypercalls,iret}.c, xen/common/{kernel,event_channel,sched/core}.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stub.abi import arch_x86 as arch
from stub.abi import event_channel as events
from stub.abi import xen as abi
from stub.abi.errno import EINVAL, ENOSYS
from stub.abi.xen import Hypercall
from stub.engine.base import FS_BASE, GS_BASE
from stub.hypervisor import assists, segments, traps
from stub.hypervisor.arguments import numbers
from stub.hypervisor.debugregs import read_debug, write_debug
from stub.hypervisor.hypercalls.event_channel import event_channel_op
from stub.hypervisor.privileged import set_task_switched
from stub.hypervisor.refusals import bad_pointer, refuse
from stub.hypervisor.registry import hypercall
from stub.hypervisor.vcpu import TrapGate
from stub.memory.guest import GuestFault
from stub.units import U64, is_canonical

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

_TRAP_INFO = {64: arch.TrapInfo64, 32: arch.TrapInfo32}
A_TIME = 1024  # entries of a trap table before the guest is made to ask again


@hypercall(Hypercall.set_trap_table)
def set_trap_table(xen: Hypervisor, table: int, second: int, _: int, __: int, ___: int) -> int:
    """Register exception handlers; a null list clears all, an entry with address 0 ends it."""
    vcpu, guest = xen.vcpu, xen.domain.guest
    if not table:
        for vector in range(256):
            vcpu.set_trap(vector, None)
        return 0
    seen, layout = [], _TRAP_INFO[xen.domain.bits]
    try:
        for _i in range(A_TIME):
            data = guest.read(table, layout.size)
            seen.append(data)
            trap = layout.unpack_from(data)
            if not trap.address:
                return 0
            if not is_canonical(trap.address):
                return refuse(xen, EINVAL, f"handler {trap.address:#x} of vector {trap.vector} is not canonical")
            gate = TrapGate(
                vcpu.fixed(trap.cs), trap.address, trap.flags & arch.TI_DPL_MASK, bool(trap.flags & arch.TI_IF)
            )
            vcpu.set_trap(trap.vector, gate)
            table = (table + layout.size) & U64
    except GuestFault as fault:
        return bad_pointer(xen, fault)
    finally:
        xen.payload = b"".join(seen)
    return xen.continue_later(Hypercall.set_trap_table, table, second)


@hypercall(Hypercall.stack_switch)
def stack_switch(xen: Hypervisor, ss: int, sp: int, _: int, __: int, ___: int) -> int:
    """The stack that the next entry from user mode uses."""
    xen.vcpu.kernel_ss, xen.vcpu.kernel_sp = xen.vcpu.fixed(ss & 0xFFFF), sp
    return 0


@hypercall(Hypercall.fpu_taskswitch)
def fpu_taskswitch(xen: Hypervisor, on: int, _: int, __: int, ___: int, ____: int) -> int:
    """Set or clear the guest's CR0.TS."""
    set_task_switched(xen, bool(on & 0xFFFFFFFF))
    return 0


@hypercall(Hypercall.set_debugreg)
def set_debugreg(xen: Hypervisor, number: int, value: int, _: int, __: int, ___: int) -> int:
    """Write a debug register."""
    return write_debug(xen, number & 0xFFFFFFFF, value)


@hypercall(Hypercall.get_debugreg)
def get_debugreg(xen: Hypervisor, number: int, _: int, __: int, ___: int, ____: int) -> int:
    """Read a debug register."""
    value = read_debug(xen.vcpu, number & 0xFFFFFFFF)
    return value if value >= 0 else refuse(xen, -value, "there is no such debug register")


@hypercall(Hypercall.set_segment_base)
def set_segment_base(xen: Hypervisor, which: int, base: int, _: int, __: int, ___: int) -> int:
    """FS base, either GS base, or the user's GS selector; a selector that cannot be loaded is no error."""
    if xen.width.bits == 32:
        return refuse(xen, ENOSYS, "segment bases are for 64-bit guests")
    words, vcpu = xen.words, xen.vcpu
    which &= 0xFFFFFFFF
    if which == arch.SEGBASE_GS_USER_SEL:
        selector = base & 0xFFFF
        return segments.load_user_gs(xen, selector | 3 if selector > 3 else selector)
    if which not in arch.SEGBASES:
        return refuse(xen, EINVAL, f"there is no segment base {which}")
    if not is_canonical(base):
        return refuse(xen, EINVAL, f"segment base {base:#x} is not canonical")
    if which == arch.SEGBASE_FS:
        words[FS_BASE] = base
    elif which == arch.SEGBASE_GS_USER:
        vcpu.gs_base_other = base
    else:
        words[GS_BASE] = base
    return 0


@hypercall(Hypercall.vm_assist)
def vm_assist(xen: Hypervisor, command: int, kind: int, _: int, __: int, ___: int) -> int:
    """Enable or disable an assist."""
    command, kind = command & 0xFFFFFFFF, kind & 0xFFFFFFFF
    if kind not in abi.VM_ASSISTS:
        return refuse(xen, EINVAL, f"there is no assist {kind}")
    if command not in (abi.VMASST_CMD_enable, abi.VMASST_CMD_disable):
        return refuse(xen, ENOSYS, f"an assist is enabled (0) or disabled (1), not {command}")
    assists.switch(xen, kind, command == abi.VMASST_CMD_enable)
    return 0


@hypercall(Hypercall.iret)
def iret(xen: Hypervisor, _: int, __: int, ___: int, ____: int, _____: int) -> None:
    """Return from a trap; sets every register itself."""
    traps.iret(xen)


@hypercall(Hypercall.set_timer_op)
def set_timer_op(xen: Hypervisor, time: int, upper: int, _: int, __: int, ___: int) -> int:
    """The vCPU's one-shot timer at an absolute system time, 0 to cancel; nonsense far ahead fires in 100 ms.

    It is the timer that VCPUOP_set_singleshot_timer sets (do_set_timer_op).
    """
    now, when = xen.clock.now, numbers(xen, time, upper)[0]
    if when == 0:
        xen.clock.arm("singleshot", None)
    elif when >> 63 or when - now >= 1 << 50:
        xen.clock.arm("singleshot", now + 100_000_000)
    else:
        xen.clock.arm("singleshot", when)
    return 0


_OLD_EVENT_OPS = frozenset({
    events.EVTCHNOP_bind_interdomain,
    events.EVTCHNOP_bind_virq,
    events.EVTCHNOP_bind_pirq,
    events.EVTCHNOP_close,
    events.EVTCHNOP_send,
    events.EVTCHNOP_status,
    events.EVTCHNOP_alloc_unbound,
    events.EVTCHNOP_bind_ipi,
    events.EVTCHNOP_bind_vcpu,
    events.EVTCHNOP_unmask,
})  # fmt: skip


@hypercall(Hypercall.event_channel_op_compat)
def event_channel_op_compat(xen: Hypervisor, operation: int, _: int, __: int, ___: int, ____: int) -> int:
    """The old form: one pointer to a command and its argument; it knows the ten oldest commands."""
    try:
        whole = xen.payload = xen.domain.guest.read(operation, events.EvtchnOp.size)
    except GuestFault as fault:
        return bad_pointer(xen, fault)
    command = events.EvtchnOp.unpack_from(xen.payload).cmd
    if command not in _OLD_EVENT_OPS:
        return xen.not_there(Hypercall.event_channel_op_compat, command)
    at = events.EvtchnOp.offset("u")
    rc = event_channel_op(xen, command, (operation + at) & U64, 0, 0, 0) or 0
    xen.payload = whole  # the log has the old form
    if xen.out:
        xen.out = whole[:at] + xen.out + whole[at + len(xen.out) :]
    return rc
