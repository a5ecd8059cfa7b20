"""The options of ``pvstub boot`` and ``pvstub create``, in the groups in which ``--help`` shows them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from stub.domain.actions import ACTIONS, SETTINGS
from stub.errors import UsageError

if TYPE_CHECKING:
    from stub.trace.pagetables.moments import Moment

_LONGEST = 1e9  # seconds: thirty years


def add_boot_options(parser: argparse.ArgumentParser) -> None:
    """All that can be said of a boot, but for what is booted."""
    for add in (_add_guest_options, _add_machine, _add_ends, _add_run, _add_debugger):
        add(parser)
    parser.add_argument("--quiet", action="store_true", help="print no console output and no summary")


def _add_machine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the guest")
    group.add_argument("--ramdisk", type=Path, help="a ramdisk file instead of the image's own")
    group.add_argument("--cmdline", help="the kernel's command line instead of the image's own")
    group.add_argument("--extra", default="", help="words to add to the command line")
    group.add_argument("--memory", type=integer, help="MiB (default: the image's, or 256)")
    group.add_argument("--seed", type=integer, default=0, help="how PFNs fall on MFNs (default 0)")
    group.add_argument("--p2m", choices=("shuffle", "identity"), default="shuffle", help="default: shuffle")
    group.add_argument("--epoch", type=integer, help="time of day at the start, seconds since 1970")
    group.add_argument(
        "--disk", action="append", default=[], metavar="SPEC",
        help="a disk: PATH[,VDEV[,r|w|cdrom[,direct]]]; writes are thrown away unless direct; may be given again",
    )  # fmt: skip
    group.add_argument(
        "--fault", action="append", default=[], metavar="SPEC",
        help="I/O errors on purpose: disk[=VDEV]:read|write|flush|discard[:sector=N|:every=K]; disk[=VDEV]:unflushed "
        "loses at the end what was not flushed; may be given again",
    )  # fmt: skip
    group.add_argument("--engine", choices=("unicorn", "qemu"), help="what runs its instructions (default: unicorn)")
    group.add_argument("--accel", choices=("tcg", "kvm"), help="what QEMU runs them with (default: tcg)")
    group.add_argument("--realtime", action="store_true", help="tie virtual time to the wall clock")
    group.add_argument("--interactive", action="store_true", help="a terminal on the guest's console; Ctrl-] leaves")
    group.add_argument("--cpuid", type=_cpuid, metavar="host[,NAME=0]…", help="hide features of the CPU")
    group.add_argument("--compat", choices=("xen-3",), help="rules of an older Xen: page tables may be written to")


def _add_ends(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("when it ends")
    for setting in SETTINGS.values():
        group.add_argument(
            f"--{setting.replace('_', '-')}", choices=tuple(ACTIONS), metavar="ACTION",
            help="what follows when the guest ends so (default: the configuration's, or destroy)",
        )  # fmt: skip
    group.add_argument(
        "--core", type=Path, metavar="FILE", help="where core files go, for gdb and crash; one is written at the end"
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the run")
    group.add_argument("--virtual-limit", type=seconds, metavar="S", help="stop at this virtual time")
    group.add_argument("--wall-limit", type=seconds, metavar="S", help="stop after this much wall time")
    group.add_argument("--instructions", type=integer, metavar="N", help="stop after so many instructions")
    group.add_argument("--run", type=Path, dest="run_directory", metavar="DIR", help="keep the run in this folder")
    group.add_argument(
        "--audit", type=_count, metavar="N",
        help="check all invariants of the guest's memory after each Nth hypercall",
    )  # fmt: skip
    group.add_argument(
        "--snapshot", type=_moment, action="append", default=[], metavar="at=WHEN",
        help="keep the page tables at=hypercall:N, at=2.5s or at=end; may be given again",
    )  # fmt: skip


def _add_debugger(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("gdb")
    group.add_argument(
        "--gdb",
        nargs="?",
        const="",
        type=_address,
        metavar="ADDRESS",
        help="let gdb in: PORT, unix:PATH (default: any free port)",
    )
    group.add_argument("--wait", action="store_true", help="with --gdb: stand at the first instruction")
    group.add_argument(
        "--gdb-on-crash", action="store_true", help="let gdb in once the guest crashes (at --gdb's ADDRESS)"
    )
    group.add_argument(
        "--on-detach", choices=("continue", "stop", "kill"),
        help="what the guest does when gdb goes (default: continue)",
    )  # fmt: skip
    group.add_argument("--symbols", type=Path, metavar="FILE", help="the guest's symbols (default: the image's own)")


def _add_guest_options(parser: argparse.ArgumentParser) -> None:
    from stub.domain.guestfile.command import add_options

    add_options(parser)


def integer(text: str) -> int:
    """A number of at most 64 bits, in decimal or with 0x before it."""
    value = int(text, 0)
    if value.bit_length() > 64:
        raise ValueError(text)
    return value


def seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < _LONGEST:
        raise ValueError(text)
    return value


def _count(text: str) -> int:
    """A number from 1 on."""
    number = integer(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a number from 1 on")
    return number


def _cpuid(text: str) -> tuple[str, ...]:
    """What the guest's CPU is to be without."""
    from stub.domain.cpuidoption import parse_cpuid

    return parse_cpuid(text)


def _address(text: str) -> str:
    """Where a debugger comes in, checked while the words are read: the image's name may stand in its place."""
    from stub.gdb.listener import Address

    try:
        Address.parse(text)
    except UsageError as error:
        raise UsageError(f"--gdb {error}. An image's name goes before --gdb") from error
    return text


def _moment(text: str) -> Moment:
    """When to keep a snapshot."""
    from stub.trace.pagetables.moments import Moment

    return Moment.parse(text)
