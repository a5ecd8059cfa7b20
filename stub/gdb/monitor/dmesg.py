"""``dmesg``: the log of a Linux guest, whatever it has shown on its console."""

from __future__ import annotations

from stub.gdb.dmesg import read_log
from stub.gdb.model import TargetError
from stub.gdb.monitor.context import Context
from stub.gdb.monitor.faults import MonitorError
from stub.gdb.monitor.registry import command
from stub.memory.guest import GuestMemory


@command("xen dmesg [N]", "the Linux guest's log, read from its memory, or the last N lines of it")
def dmesg(context: Context, n: int | None = None) -> str:
    """Linux 3.5 and later; all that it needs is symbols: monitor xen dmesg works on Debian's kernels as they come."""
    xen = context.xen
    memory = GuestMemory(xen.domain.ram)
    memory.root = xen.vcpu.kernel_tables  # user code runs on tables that have nothing of the kernel
    try:
        lines = read_log(context.symbols.address_of, memory.read_available, n)
    except TargetError as error:
        raise MonitorError(str(error)) from error
    return "".join(f"{line}\n" for line in lines) or "no lines\n"
