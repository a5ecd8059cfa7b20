"""What the guest did last: ``hypercalls``, ``exceptions``, ``trace``, ``branches``."""

from __future__ import annotations

from collections.abc import Collection

from stub.gdb.monitor import show
from stub.gdb.monitor.context import Context
from stub.gdb.monitor.faults import MonitorError
from stub.gdb.monitor.registry import command
from stub.trace.format import HYPERCALLS, Kind
from stub.trace.recent import recent
from stub.trace.text import line

_COUNT = 20
_BRANCHES = 1024


def _last(context: Context, n: int, kinds: Collection[Kind]) -> str:
    """The last ``n`` records of some kinds as lines, and how many are kept where that is fewer."""
    records = recent(context.machine.log, n, kinds, domain=context.xen.domain.domid, bits=64)
    lines = [line(record) for record in records]
    if n > len(records):
        folder = context.machine.run_directory
        where = f"pvstub trace {folder} shows all" if folder else "no run folder keeps more"
        lines.append(f"({len(records)} are in memory; {where})")
    return "\n".join(lines) + "\n"


@command("xen hypercalls [N]", "the last N hypercalls (20), decoded as pvstub trace prints them")
def hypercalls(context: Context, n: int = _COUNT) -> str:
    """The entries of a multicall stand indented below it and count as hypercalls."""
    return _last(context, n, HYPERCALLS)


@command("xen exceptions [N]", "the last N exceptions and event upcalls (20) that were handed to the guest")
def exceptions(context: Context, n: int = _COUNT) -> str:
    """Each line says where the guest was, and where its handler is."""
    return _last(context, n, (Kind.EXCEPTION, Kind.UPCALL))


@command("xen trace [N]", "the last N records (20) of the log, whatever they are")
def trace(context: Context, n: int = _COUNT) -> str:
    """Hypercalls, exceptions, upcalls, cpuid, privileged instructions, port accesses, page-table writes, console."""
    return _last(context, n, frozenset(Kind))


@command("xen branches [N]", "the last N branches (20) that were taken, while they are kept")
def branches(context: Context, n: int = _COUNT) -> str:
    """On the left is where the instruction ends that branched; ``Xen`` where the hypervisor brought the guest there."""
    if context.points is None or not context.points.branches:
        return "no branches are kept: begin with monitor xen branches keep\n"
    kept = context.xen.engine.branches()
    rows = [(context.label(behind) if behind else "Xen", "->", context.label(to)) for behind, to in kept[-n:]]
    return show.columns(rows, indent="") or "no branch has been taken yet\n"


@command("xen branches keep", f"from now on keep the last {_BRANCHES} branches; the guest runs slower, and the same")
def keep_branches(context: Context) -> str:
    """Those kept before are forgotten."""
    return _keep(context, _BRANCHES)


@command("xen branches drop", "keep them no longer")
def drop_branches(context: Context) -> str:
    """The guest runs at full speed again."""
    return _keep(context, 0)


def _keep(context: Context, count: int) -> str:
    if context.points is None:
        raise MonitorError("nobody debugs this guest")
    context.points.keep_branches(count)
    return f"the last {count} branches are kept\n" if count else "no branches are kept\n"
