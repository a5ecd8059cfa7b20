"""The ``pvstub`` command: parse, call, print. No logic of its own.

Other sub-commands, and the names of images, are found through entry points (``pvstub.commands``,
``pvstub.images``), so that this side never imports the harness.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from stub.command_line import INTERRUPTED, Signalled, ended_in_order
from stub.errors import PvstubError, UsageError
from stub.options import add_boot_options, integer

if TYPE_CHECKING:
    from stub.gdb.command import Options
    from stub.hypervisor.verdict import Verdict
    from stub.machine import Machine

_OWN = ("trace RUN", "config check FILE")
COMMANDS_GROUP, SYMBOLS_GROUP = "pvstub.commands", "pvstub.symbols"


def cache_folder() -> Path:
    """Where what can be made again is kept: $PVSTUB_CACHE, else the user's cache folder."""
    own = os.environ.get("PVSTUB_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache") / "pvstub"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:
        raise UsageError("this user has no home folder to keep runs in; set HOME") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    _open_output()
    try:
        return _dispatch(words)
    except PvstubError as error:
        print(f"pvstub: {error}", file=sys.stderr)
        return error.status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # the disk is full, a folder went away
        print(f"pvstub: {error.filename or 'a file of the run'}: {error.strerror}", file=sys.stderr)
        return PvstubError.status
    except KeyboardInterrupt:
        return INTERRUPTED


def _open_output() -> None:
    """An output that is closed is nowhere, and no file that a run opens takes its number. What an output's encoding
    does not have (names of files, subjects of commits) is shown as \\u…"""
    while (free := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(free)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _dispatch(words: list[str]) -> int:
    external = {entry.name: entry for entry in metadata.entry_points(group=COMMANDS_GROUP)}
    if words and words[0] in external:
        command: Callable[[list[str]], int] = external[words[0]].load()
        return command(words[1:])
    if words and words[0] == "trace":
        from stub.trace.command import main as trace

        return trace(words[1:])
    if words and words[0] == "config":
        from stub.asked import check

        return check(words[1:])
    parser = _parser(sorted(external))
    options = parser.parse_args(words)
    run: Callable[[argparse.Namespace], int] = options.run
    return run(options)


def _parser(external: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pvstub",
        description="Boot, debug, test and bisect Xen PV guests with no Xen, no KVM and no root.",
        epilog=f"Also: {', '.join(f'pvstub {name}' for name in [*_OWN, *external])} (each with --help).",
    )
    parser.add_argument("--version", action="version", version=f"pvstub {metadata.version('pvstub')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    boot = commands.add_parser("boot", help="boot an image by name, or a kernel file", description="Boot a guest.")
    boot.add_argument(
        "image", help="an image's name (pvstub images list), a kernel file, or a configuration of xl's or xm's"
    )
    boot.set_defaults(run=_boot)
    create = commands.add_parser("create", help="boot a configuration, as xm create", description="Boot a guest.")
    create.add_argument("image", metavar="FILE", help="a configuration of xl's or xm's")
    create.add_argument("-c", dest="console", action="store_true", help="show the console")
    create.set_defaults(run=_create)
    for each in (boot, create):
        add_boot_options(each)
    inspect = commands.add_parser("inspect", help="say what a file is, and what layout it would get")
    inspect.add_argument("file", type=Path)
    inspect.add_argument("--json", action="store_true", help="as JSON")
    inspect.add_argument("--memory", type=integer, default=256, help="MiB, for the start-of-day layout")
    inspect.set_defaults(run=_inspect)
    return parser


# -- boot


def new_run_directory(name: str) -> Path:
    """A folder of its own for a run, in the user's state folder."""
    base = Path(os.environ.get("XDG_STATE_HOME") or _home() / ".local" / "state") / "pvstub" / "runs"
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return base / f"{stamp}-{Path(name).name}-{os.getpid()}"


def _create(options: argparse.Namespace) -> int:
    """``pvstub boot`` with xm's two lines, and with the console only where it is asked for."""
    from stub.domain.guestfile.reader import is_one

    if not is_one(Path(options.image)):
        raise UsageError(f"{options.image} is no configuration file of xl's or xm's; name one, or use pvstub boot")
    options.quiet |= not (options.console or options.interactive)
    print(f'Using config file "{options.image}".', flush=True)
    return _boot(options, lambda name: print(f"Started domain {name}", flush=True))


def _boot(options: argparse.Namespace, started: Callable[[str], None] = lambda _: None) -> int:
    from stub.asked import configuration
    from stub.machine import Limits, Machine

    if options.interactive and sys.stdin is None:
        raise UsageError("--interactive: standard input is closed; open it, or leave it out")
    if options.core is not None and not options.core.parent.is_dir():
        raise UsageError(f"--core: there is no folder {options.core.parent}; make it, or choose another file")
    debugger = _debugger(options)
    config, provenance = configuration(options, _say)
    if debugger is not None:
        debugger = replace(debugger, executable=lambda: options.symbols or _symbols(str(config.kernel)))
    limits = Limits(
        virtual_ns=None if options.virtual_limit is None else round(options.virtual_limit * 1e9),
        instructions=options.instructions,
        wall_s=options.wall_limit,
    )
    directory = options.run_directory or new_run_directory(config.name)
    show = None if options.quiet or options.interactive else _show
    with ended_in_order() as let_in:
        machine = Machine(
            config,
            directory,
            limits,
            cache=cache_folder() / "kernels",
            on_output=show,
            provenance=provenance,
            snapshots=options.snapshot,
            audit=options.audit,
            core=options.core,
        )
        with machine:
            started(config.name)
            try:
                with let_in():
                    _run(machine, options, debugger)
            except KeyboardInterrupt:
                machine.interrupt()
            except Signalled as end:
                machine.interrupt(f"ended by {end.signal.name}")
                raise
    verdict = machine.verdict
    if verdict is None:
        return INTERRUPTED
    if not options.quiet:
        _print_summary(machine, verdict, directory)
    return 0 if options.interactive and verdict.kind == "interrupted" else verdict.exit_status


def _run(machine: Machine, options: argparse.Namespace, debugger: Options | None) -> None:
    """To the verdict, for the person at the console, the one at the debugger, or nobody."""
    if options.interactive:
        from stub.terminal import attach
    if debugger is not None:
        from stub.gdb.command import serve

        console = (lambda turn, no_more: attach(machine, turn, no_more)) if options.interactive else None
        serve(machine, debugger, _say, console, sys.stdin.fileno() if options.interactive else 0)
    elif options.interactive:
        attach(machine)
    else:
        machine.run()


def _say(line: str) -> None:
    print(f"pvstub: {line}", file=sys.stderr, flush=True)


def _debugger(options: argparse.Namespace) -> Options | None:
    """What was asked of the GDB server; None without one."""
    if options.wait and options.gdb_on_crash:
        raise UsageError("--wait: with --gdb-on-crash nobody is let in before the crash; leave one of them out")
    if options.gdb is None and not options.gdb_on_crash:
        asked_for = (("--wait", options.wait), ("--symbols", options.symbols), ("--on-detach", options.on_detach))
        for name, given in asked_for:
            if given:
                raise UsageError(f"{name}: there is no debugger; add --gdb, or leave it out")
        return None
    from stub.gdb.command import Options, check

    if options.symbols is not None and not options.symbols.is_file():
        raise UsageError(f"{options.symbols}: no such file of symbols")
    asked = Options(
        address=options.gdb or "",
        wait=options.wait,
        on_detach=options.on_detach or "continue",
        on_crash=options.gdb_on_crash,
        executable=lambda: options.symbols,
    )
    check(asked)
    return asked


def _symbols(image: str) -> Path | None:
    """A file with the symbols of an image, from whoever can make one."""
    found = (entry.load()(image) for entry in metadata.entry_points(group=SYMBOLS_GROUP))
    return next((path for path in found if path is not None), None)


def _show(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _print_summary(machine: Machine, verdict: Verdict, directory: Path) -> None:
    """What happened, on standard error, so that standard output is the guest's console alone."""
    facts = machine.summarise()
    counts = facts["counts"]
    lines = [
        f"{verdict.kind}: {verdict.reason}",
        *verdict.details,
        f"virtual time {machine.now_ns / 1e9:.3f} s, {machine.retired:,} instructions,"
        f" {facts['wall_s']:.2f} s of wall time",
        f"{sum(counts['hypercalls'].values()):,} hypercalls, {counts['events']:,} event upcalls,"
        f" {sum(counts['exceptions'].values()):,} exceptions",
    ]
    if counts["unimplemented"]:
        refused = ", ".join(f"{name} {count}" for name, count in counts["unimplemented"].items())
        lines.append(f"hypercalls that are not there (-ENOSYS): {refused}")
    for moment in machine.snapshots.waiting:
        lines.append(f"no snapshot at={moment.text}: the run ended before")
    lines += [f"core file {path}" for path in machine.deaths.cores]
    lines += [
        f"console    sha256 {facts['digests']['console']}",
        f"hypercalls sha256 {facts['digests']['hypercalls']}",
        f"run kept in {directory}",
    ]
    print(*(f"pvstub: {line}" for line in lines), sep="\n", file=sys.stderr)


# -- inspect


def _inspect(options: argparse.Namespace) -> int:
    from stub.domain.config import MAX_MEMORY, MIN_MEMORY
    from stub.domain.layout import plan
    from stub.image.inspect import describe, render

    if not MIN_MEMORY <= options.memory <= MAX_MEMORY:
        raise UsageError(f"memory of {options.memory} MiB: use {MIN_MEMORY} to {MAX_MEMORY} MiB")
    report = describe(
        options.file,
        lambda image: plan(image, options.memory * 256, 0).describe(),
        cache=cache_folder() / "kernels",
    )
    print(json.dumps(report, indent=2) if options.json else render(report))
    return 0 if report["bootable"] else 2
