"""Stop points that the protocol has no packet for: ``xen catch``, ``xen wp``, ``xen stop``, and their list."""

from __future__ import annotations

from collections.abc import Mapping

from stub.abi import errno
from stub.abi.xen import MMUEXT_OPS, Hypercall
from stub.engine.base import READS, WRITES
from stub.gdb.monitor.context import Context
from stub.gdb.monitor.faults import MonitorError
from stub.gdb.monitor.registry import command
from stub.gdb.monitor.values import number
from stub.gdb.points import EventCatch, Extra, HypercallCatch, MachineWatch, Place, PortWatch, Retired
from stub.trace.schema import CALLS
from stub.units import PAGE_SHIFT, PAGE_SIZE

_LONGEST_WATCH = 4096
_ACCESS = {"r": READS, "w": WRITES, "rw": READS | WRITES}


def _set(context: Context, extra: Extra) -> str:
    if context.points is None:
        raise MonitorError("there is nobody here to stop the guest for")
    return f"stop {context.points.add(extra)}: {extra}"


def _hypercall(_: Context, text: str) -> Hypercall:
    name = text.removeprefix("HYPERVISOR_").removeprefix("__HYPERVISOR_")
    for call in Hypercall:
        if name == call.name or (name.isdigit() and int(name) == call):
            return call
    raise MonitorError(f"{text[:40]}: no hypercall of that name; as in 'xen catch hypercall mmu_update'")


def _operations(call: Hypercall) -> Mapping[int, str]:
    row = CALLS.get(call)
    return MMUEXT_OPS if call == Hypercall.mmuext_op else row.commands if row is not None else {}


def _operation(context: Context, call: Hypercall, text: str) -> int:
    names = _operations(call)
    for value, name in names.items():
        if text.casefold() in (name.casefold(), name.partition("_")[2].casefold()):
            return value
    if not text[:1].isdigit():
        raise MonitorError(f"{text[:40]}: {call.name} has {', '.join(names.values()) or 'no operations'}")
    return number(context, text)


def _result(_: Context, text: str) -> int:
    sign, name = (-1, text[1:]) if text.startswith("-") else (1, text)
    value = getattr(errno, name, None) if name.startswith("E") else None
    try:
        return sign * (value if value is not None else int(name, 0))
    except ValueError:
        raise MonitorError(f"{text[:40]}: a result is a number, or an error such as -EINVAL") from None


@command(
    "xen catch hypercall NAME [OPERATION] [result RESULT]",
    "stop before a hypercall; with a result, after one that gives it",
    {"NAME": _hypercall, "OPERATION": lambda _, text: text, "RESULT": _result},
)
def catch_hypercall(context: Context, name: Hypercall, operation: str | None = None, result: int | None = None) -> str:
    """The operation is a number, or its name as ``pvstub trace`` shows it; results are as -EINVAL or 0.

    Of a multicall each entry counts; of mmuext_op each operation.
    """
    which = None if operation is None else _operation(context, name, operation)
    shown = "" if which is None else _operations(name).get(which, "")
    return _set(context, HypercallCatch(int(name), name.name, which, result, shown))


@command("xen catch upcall", "stop before each event upcall")
def catch_upcall(context: Context) -> str:
    """The guest stands where the event finds it; its callback is next."""
    return _set(context, EventCatch("upcall"))


@command("xen catch page-type", "stop when a change to page tables or types was refused")
def catch_page_type(context: Context) -> str:
    """The stop says why, and comes behind the hypercall or the write that was refused."""
    return _set(context, EventCatch("page-type"))


@command("xen catch crash", "stop when the guest crashes, before it is torn down")
def catch_crash(context: Context) -> str:
    """Registers and memory are as they were then; continuing lets it end."""
    return _set(context, EventCatch("crash"))


@command("xen guest-traps show|hide", "whether to stop at the guest's own int3 and single steps")
def guest_traps(context: Context, choice: str) -> str:
    """They are the guest's, and it gets them either way: when shown, after you continue."""
    points = context.points
    shown = points.catches("guest-traps") if points is not None else None
    if choice == "show":
        return _set(context, EventCatch("guest-traps")) if shown is None else f"stop {shown}: guest-traps"
    if points is not None and shown is not None:
        points.delete(shown)
    return "the guest's own traps are not shown"


@command("xen wp -m MADDR [len LENGTH] [access ACCESS]", "watch machine memory, whatever address it is reached by",
         {"ACCESS": lambda _, text: text})  # fmt: skip
def watch_machine(context: Context, maddr: int, len: int = 8, access: str = "w") -> str:
    """``access`` is r, w (if not given) or rw; ``len`` is in bytes, 8 if not given."""
    if access not in _ACCESS:
        raise MonitorError(f"{access[:20]}: access is r, w or rw")
    if not 1 <= len <= _LONGEST_WATCH:
        raise MonitorError(f"a length of {len}: use 1 to {_LONGEST_WATCH} bytes")
    if maddr + len > context.xen.domain.types.frames.frames * PAGE_SIZE:
        raise MonitorError(f"{maddr:#x} is beyond machine memory")
    return _set(context, MachineWatch(maddr, maddr + len - 1, _ACCESS[access]))


@command("xen wp -i PORT", "watch an I/O port")
def watch_port(context: Context, port: int) -> str:
    """The guest stops behind the instruction that read or wrote the port."""
    if port > 0xFFFF:
        raise MonitorError(f"{port:#x}: a port has 16 bits")
    return _set(context, PortWatch(port))


@command("xen stop at ADDRESS [cr3 N]", "stop at an address in one address space only")
def stop_at(context: Context, address: int, cr3: int | None = None) -> str:
    """``cr3`` is the register's value, or the MFN of the root table; the one in use if not given."""
    root = context.xen.domain.root_in_use << PAGE_SHIFT if cr3 is None else cr3
    if root < context.xen.domain.types.frames.frames:
        root *= PAGE_SIZE
    return _set(context, Place(address, root & ~(PAGE_SIZE - 1)))


@command("xen stop retired COUNT", "stop when so many instructions have retired")
def stop_retired(context: Context, count: int) -> str:
    """The count is that of $retired, since the first boot."""
    if count <= context.machine.retired:
        raise MonitorError(f"{context.machine.retired:,} have retired already")
    return _set(context, Retired(count))


@command("xen stops", "list the stop points set by xen catch, xen wp and xen stop")
def stops(context: Context) -> str:
    """Each with the number to delete it by."""
    extras = context.points.extras if context.points is not None else {}
    return "\n".join(f"stop {number}: {extra}" for number, extra in extras.items()) or "none is set"


@command("xen delete N", "take away a stop point of that list")
def delete(context: Context, n: int) -> str:
    """See ``xen stops`` for the numbers."""
    if context.points is None or not context.points.delete(n):
        raise MonitorError(f"there is no stop {n}; see monitor xen stops")
    return f"stop {n} is gone"
