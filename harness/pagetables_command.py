"""``pvstub pagetables``: a run's snapshots looked at, compared and drawn; or those of a guest that stands now."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stub.command_line import TROUBLE, Parser, ended
from stub.errors import UsageError
from stub.trace.pagetables import census, diff, ranges, reverse, store, walks
from stub.trace.pagetables.moments import Root
from stub.trace.pagetables.snapshot import Snapshot
from stub.trace.pagetables.space import AddressSpace

LIVE = "live"
_KEPT = re.compile(r"tables kept in (?P<path>/.*)\n")
_EXAMPLES = """\
RUN is a run's folder, made with `pvstub boot --snapshot at=…`, or a snapshot's file; `pvstub pagetables live ADDRESS …`
asks the guest of `pvstub boot --gdb`, by the address that it printed. The actions:
  list                                   the snapshots of the run
  walk VA                                one address, level by level
  ranges [--style ptdump|mem|tlb|mdb] [--xen]   all that is mapped
  whomaps MFN | whomaps --pfn PFN        every entry that leads to a frame
  diff A B                               what changed between two snapshots (numbers, or files)
  census                                 tables by level, pages by size and access, frames by type
  map [--svg FILE] [--png FILE]          a picture of the address space and of machine memory
"""


def main(argv: Sequence[str]) -> int:
    """Run ``pvstub pagetables``; the exit status. Faults of files and options are one line on stderr and status 2."""
    return ended("pvstub pagetables", lambda: _run(argv), trouble=TROUBLE)


def _run(argv: Sequence[str]) -> int:
    options = _parser(live=argv[:1] == [LIVE]).parse_args(argv)
    act: Callable[[argparse.Namespace], None] = options.act
    act(options)
    return 0


# -- the command line


def _parser(live: bool) -> argparse.ArgumentParser:
    made = Parser(
        prog="pvstub pagetables",
        description="A guest's page tables at moments of its run.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("run", metavar="RUN", help="a run's folder, a snapshot's file, or: live ADDRESS")
    if live:
        made.add_argument("address", metavar="ADDRESS")
    common: Any = _common(argparse.SUPPRESS)
    for action in _common(None)._actions:
        made._add_action(action)
    actions = made.add_subparsers(metavar="ACTION", parser_class=Parser)
    made.set_defaults(act=_list)

    def add(name: str, act: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        parser = actions.add_parser(name, parents=[common], add_help=False)
        parser.set_defaults(act=act)
        return parser

    add("list", _list)
    add("walk", _walk).add_argument("vaddr", type=_number, metavar="VA")
    shown = add("ranges", _ranges)
    shown.add_argument("--style", choices=tuple(ranges.STYLES), default="ptdump")
    shown.add_argument("--xen", action="store_true")
    frame = add("whomaps", _whomaps)
    frame.add_argument("mfn", type=_number, nargs="?", metavar="MFN")
    frame.add_argument("--pfn", type=_number, metavar="PFN")
    both = add("diff", _diff)
    both.add_argument("before", metavar="A")
    both.add_argument("after", metavar="B")
    add("census", _census)
    drawn = add("map", _map)
    drawn.add_argument("--svg", type=Path, metavar="FILE")
    drawn.add_argument("--png", type=Path, metavar="FILE")
    return made


def _common(default: str | None) -> argparse.ArgumentParser:
    """What may stand before the action and behind it; the second does not undo the first."""
    made = Parser(add_help=False, argument_default=default)
    made.add_argument("--snapshot", metavar="N", help="which snapshot, by number (default: the last)")
    made.add_argument(
        "--root", metavar="ROOT",
        help="which root table: 'in use' (default), kernel, user, an MFN, a machine address, or FORMAT:MADDR with "
        "FORMAT long, raw, pae or legacy",
    )  # fmt: skip
    made.add_argument("--by-pfn", action="store_true", default=default or False, help="the entries hold PFNs, not MFNs")
    made.add_argument("--json", action="store_true", default=default or False, help="as JSON")
    return made


def _number(text: str) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 64:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 64 bits: write 1234 or 0x4d2")
    return value


# -- what is looked at


def _snapshot(options: argparse.Namespace) -> Snapshot:
    if options.run == LIVE and hasattr(options, "address"):
        return _live(options.address, options.root or "")
    return _named(Path(options.run), options.snapshot)


def _named(run: Path, which: str | None) -> Snapshot:
    """A snapshot by its number in a run, or by its file; the last one where nothing is said."""
    if which is not None and not which.isdecimal():
        return store.load(Path(which))
    if run.is_file() and which is None:
        return store.load(run)
    if not run.is_dir():
        raise UsageError(f"{run}: no such run: name a run's folder or a snapshot's file")
    found = store.listed(run)
    if not found:
        raise UsageError(f"{run}: no snapshots there; boot with --snapshot at=hypercall:N, at=2.5s or at=end")
    number = max(found) if which is None else int(which)
    if number not in found:
        raise UsageError(f"{run}: there is no snapshot {number}; there are {', '.join(map(str, found))}")
    return store.load(found[number])


def _live(address: str, root: str = "") -> Snapshot:
    """A snapshot of a guest with a debugger's port, taken now; the guest goes on as when a debugger leaves."""
    from .debugger import Debugger, DebuggerError

    try:
        with Debugger(address) as debugger:
            answer = debugger.monitor(f"xen snapshot {root if ':' in root else ''}")
            debugger.detach()
    except DebuggerError as error:
        raise UsageError(" ".join(str(error).split())) from error
    except OSError as error:
        raise UsageError(f"{address}: cannot reach a guest there: {error.strerror or error}") from error
    kept = _KEPT.search(answer)
    if kept is None:
        raise UsageError(f"{address}: it did not take a snapshot: {' '.join(answer.split())}")
    return store.load(Path(kept["path"]))


def _space(options: argparse.Namespace, snapshot: Snapshot, root: Root | None = None) -> AddressSpace:
    return AddressSpace(snapshot, root or snapshot.root(options.root or ""), by_pfn=options.by_pfn)


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))


# -- the actions


def _list(options: argparse.Namespace) -> None:
    if options.run == LIVE and hasattr(options, "address"):
        found = [_live(options.address, options.root or "")]
    else:
        run = Path(options.run)
        paths = store.listed(run) if run.is_dir() else {}
        found = [store.load(path) for path in paths.values()] or [_named(run, None)]
    if options.json:
        _print_json([_row(snapshot) for snapshot in found])
        return
    for snapshot in found:
        row = _row(snapshot)
        print(f"{snapshot.facts} (at={row['moment']}): {row['tables']} tables, {row['roots']} roots, rip {row['rip']}")


def _row(snapshot: Snapshot) -> Mapping[str, object]:
    facts = snapshot.facts
    return {
        "number": facts.number,
        "moment": facts.moment,
        "virtual_ns": facts.virtual_ns,
        "hypercalls": facts.hypercalls,
        "retired": facts.retired,
        "rip": f"{facts.rip:#x}",
        "boot": facts.boot,
        "tables": len(snapshot.tables.mfns),
        "roots": len(snapshot.roots),
        "cut": facts.cut,
    }


def _walk(options: argparse.Namespace) -> None:
    space = _space(options, _snapshot(options))
    if options.json:
        _print_json(walks.as_object(space, options.vaddr))
    else:
        _print(walks.lines(space, options.vaddr))


def _ranges(options: argparse.Namespace) -> None:
    space = _space(options, _snapshot(options))
    if options.json:
        _print_json(list(ranges.as_objects(space, options.xen)))
    else:
        _print(ranges.lines(space, options.style, options.xen))


def _whomaps(options: argparse.Namespace) -> None:
    if (options.mfn is None) == (options.pfn is None):
        raise UsageError("whomaps: give an MFN, or --pfn PFN")
    snapshot = _snapshot(options)
    mfn = options.mfn if options.pfn is None else reverse.frame_of(snapshot, options.pfn)
    if options.json:
        _print_json(reverse.as_object(snapshot, mfn))
    else:
        _print(reverse.lines(snapshot, mfn))


def _diff(options: argparse.Namespace) -> None:
    run = Path(options.run)
    before, after = _named(run, options.before), _named(run, options.after)
    found = diff.compare(*diff.same_root(before, after, options.root or "", by_pfn=options.by_pfn))
    if options.json:
        _print_json(diff.as_object(found))
    else:
        _print(diff.lines(found))


def _census(options: argparse.Namespace) -> None:
    space = _space(options, _snapshot(options))
    if options.json:
        _print_json(census.as_object(space))
    else:
        _print(census.lines(space))


def _map(options: argparse.Namespace) -> None:
    from stub.trace.pagetables import picture, png, svg

    if options.svg is None and options.png is None:
        raise UsageError("map: name a file with --svg FILE or --png FILE")
    drawn = picture.draw(_space(options, _snapshot(options)))
    if options.svg is not None:
        _write(options.svg, svg.render(drawn).encode())
    if options.png is not None:
        _write(options.png, png.render(drawn))


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise UsageError(f"{path}: cannot write the picture: {error.strerror}; name another file") from error
