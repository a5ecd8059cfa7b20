"""What sets up a vCPU's traps, stacks, segments and assists, and the calls that a domU is plainly refused.

Sources: xen/arch/x86/pv/{callback,misc-hypercalls,iret}.c, xen/common/kernel.c (vm_assist).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from stub.abi import arch_x86 as arch
from stub.abi import xen as abi
from stub.abi.errno import EFAULT, EINVAL, ENOSYS, EOPNOTSUPP, EPERM
from stub.abi.xen import Hypercall
from stub.engine.base import FS_BASE, GS_BASE
from stub.hypervisor import segments, traps
from stub.hypervisor.debugregs import read_debug, write_debug
from stub.hypervisor.hypercalls.event_channel import event_channel_op
from stub.hypervisor.privileged import set_task_switched
from stub.hypervisor.registry import hypercall
from stub.hypervisor.vcpu import Gate, TrapGate
from stub.memory.guest import GuestFault
from stub.units import is_canonical

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

_TRAP = struct.Struct("<BBHxxxxQ")
_VM_ASSISTS = frozenset({0, 1, 2, 3, 4, 5, 32})


@hypercall(Hypercall.set_trap_table)
def set_trap_table(xen: Hypervisor, table: int, _: int, __: int, ___: int, ____: int) -> int:
    """Register exception handlers; a null list clears all, an entry with address 0 ends it."""
    vcpu, guest = xen.vcpu, xen.domain.guest
    if not table:
        for vector in range(256):
            vcpu.set_trap(vector, None)
        return 0
    seen = []
    try:
        for _i in range(512):
            data = guest.read(table, _TRAP.size)
            seen.append(data)
            vector, flags, cs, address = _TRAP.unpack(data)
            if not address:
                break
            if not is_canonical(address):
                xen.payload = b"".join(seen)
                return -EINVAL
            vcpu.set_trap(vector, TrapGate(cs | 3, address, flags & 3, bool(flags & 4)))
            table += _TRAP.size
    except GuestFault:
        return -EFAULT
    xen.payload = b"".join(seen)
    return 0


@hypercall(Hypercall.stack_switch)
def stack_switch(xen: Hypervisor, ss: int, sp: int, _: int, __: int, ___: int) -> int:
    """The stack that the next entry from user mode uses."""
    xen.vcpu.kernel_ss, xen.vcpu.kernel_sp = (ss | 3) & 0xFFFF, sp
    return 0


@hypercall(Hypercall.set_callbacks)
def set_callbacks(xen: Hypervisor, event: int, failsafe: int, syscall: int, _: int, __: int) -> int:
    """The old way to register the three entry points."""
    if not all(map(is_canonical, (event, failsafe, syscall))):
        return -EINVAL
    vcpu = xen.vcpu
    vcpu.event, vcpu.failsafe, vcpu.syscall = Gate(event, True), Gate(failsafe), Gate(syscall)
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
    return read_debug(xen.vcpu, number & 0xFFFFFFFF)


@hypercall(Hypercall.set_segment_base)
def set_segment_base(xen: Hypervisor, which: int, base: int, _: int, __: int, ___: int) -> int:
    """FS base, either GS base, or the user's GS selector."""
    words, vcpu = xen.words, xen.vcpu
    which &= 0xFFFFFFFF
    if which == arch.SEGBASE_GS_USER_SEL:
        return segments.load_user_gs(xen, base & 0xFFFF)
    if not is_canonical(base):
        return -EINVAL
    if which == arch.SEGBASE_FS:
        words[FS_BASE] = base
    elif which == arch.SEGBASE_GS_USER:
        vcpu.gs_base_other = base
    elif which == arch.SEGBASE_GS_KERNEL:
        words[GS_BASE] = base
    else:
        return -EINVAL
    return 0


@hypercall(Hypercall.vm_assist)
def vm_assist(xen: Hypervisor, command: int, kind: int, _: int, __: int, ___: int) -> int:
    """Enable or disable an assist."""
    command, kind = command & 0xFFFFFFFF, kind & 0xFFFFFFFF
    if kind not in _VM_ASSISTS:
        return -EINVAL
    if command == abi.VMASST_CMD_enable:
        xen.assists.add(kind)
    elif command == abi.VMASST_CMD_disable:
        xen.assists.discard(kind)
    else:
        return -ENOSYS
    xen.vcpu.writable_pagetables = abi.VMASST_TYPE_writable_pagetables in xen.assists
    xen.vcpu.architectural_iopl = abi.VMASST_TYPE_architectural_iopl in xen.assists
    return 0


@hypercall(Hypercall.iret)
def iret(xen: Hypervisor, _: int, __: int, ___: int, ____: int, _____: int) -> None:
    """Return from a trap; sets every register itself."""
    traps.iret(xen)


@hypercall(Hypercall.set_timer_op)
def set_timer_op(xen: Hypervisor, when: int, _: int, __: int, ___: int, ____: int) -> int:
    """One timer event at an absolute system time, 0 to cancel; nonsense far ahead fires in 100 ms (do_set_timer_op)."""
    now = xen.clock.now
    if when == 0:
        xen.clock.arm("timer_op", None)
    elif when >> 63 or when - now > 1 << 50:
        xen.clock.arm("timer_op", now + 100_000_000)
    else:
        xen.clock.arm("timer_op", when)
    return 0


@hypercall(Hypercall.nmi_op)
def nmi_op(xen: Hypervisor, command: int, arg: int, _: int, __: int, ___: int) -> int:
    """Register or drop the NMI handler (the compat form of callback_op's)."""
    if command == 0:
        try:
            address = xen.domain.guest.read_u64(arg)
        except GuestFault:
            return -EFAULT
        if not is_canonical(address):
            return -EINVAL
        xen.vcpu.nmi = Gate(address)
        return 0
    if command == 1:
        xen.vcpu.nmi = Gate()
        return 0
    return -ENOSYS


@hypercall(Hypercall.event_channel_op_compat)
def event_channel_op_compat(xen: Hypervisor, operation: int, _: int, __: int, ___: int, ____: int) -> int:
    """The old form: one pointer to a command and its argument."""
    try:
        command = xen.domain.guest.read_u32(operation)
    except GuestFault:
        return -EFAULT
    return event_channel_op(xen, command, operation + 4, 0, 0, 0) or 0


@hypercall(Hypercall.xenpmu_op)
def xenpmu_op(*_: object) -> int:
    """No virtual performance counters."""
    return -EOPNOTSUPP


@hypercall(Hypercall.platform_op)
def platform_op(*_: object) -> int:
    """The hardware domain's."""
    return -EPERM


@hypercall(Hypercall.sysctl)
def sysctl(*_: object) -> int:
    """The toolstack's."""
    return -EPERM


@hypercall(Hypercall.domctl)
def domctl(*_: object) -> int:
    """The toolstack's."""
    return -EPERM


@hypercall(Hypercall.arch_0)
def mca(*_: object) -> int:
    """Machine checks are the hardware domain's."""
    return -EPERM
