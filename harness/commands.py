"""The sub-commands that harness adds to pvstub. Each takes its arguments and returns the exit status."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence

from harness import catalogue
from stub.command_line import Parser, ended
from stub.errors import UsageError


def images(argv: Sequence[str]) -> int:
    """`pvstub images …`: the catalogue's images, in the cache or not."""
    return ended("pvstub images", lambda: _images(_images_parser().parse_args(argv)))


def _images(arguments: argparse.Namespace) -> int:
    status: int = arguments.run(arguments)
    return status


def _images_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="pvstub images", description="The guest images that pvstub knows by name.")
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    listing = actions.add_parser("list", help="show all images, and which are in the cache")
    listing.set_defaults(run=_list)

    fetch = actions.add_parser("fetch", help="fetch images into the cache; those that are there stay as they are")
    fetch.add_argument("names", nargs="+", metavar="NAME")
    fetch.add_argument("--refresh", action="store_true", help="fetch again, as new as apt's lists know it")
    fetch.set_defaults(run=_fetch)

    path = actions.add_parser("path", help="print the kernel's file and, if it has one, the ramdisk's")
    path.add_argument("name", metavar="NAME")
    path.set_defaults(run=_path)

    symbols = actions.add_parser("symbols", help="print an ELF file with the kernel's symbols, made from its kallsyms")
    symbols.add_argument("name", metavar="NAME", help="an image's name, or a kernel file")
    symbols.set_defaults(run=_symbols)

    verify = actions.add_parser("verify", help="hash the files in the cache; fetch damaged ones again")
    verify.add_argument("names", nargs="*", metavar="NAME", help="default: all that are in the cache")
    verify.set_defaults(run=_verify)
    return parser


def _list(_arguments: argparse.Namespace) -> int:
    rows = []
    for name in catalogue.names():
        there = catalogue.cached(name)
        rows.append((name, there.version if there else "not fetched", catalogue.entry(name).summary))
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for name, version, summary in rows:
        print(f"{name:{widths[0]}}  {version:{widths[1]}}  {summary}")
    return 0


def _fetch(arguments: argparse.Namespace) -> int:
    for name in arguments.names:
        catalogue.entry(name)
    for name in arguments.names:
        before = catalogue.cached(name)
        image = catalogue.load(name, lambda name=name: _say_waiting(name), refresh=arguments.refresh)  # type: ignore[misc]
        same = "no newer one to be had" if arguments.refresh else "already here"
        print(f"{name}: {image.version}, {same if before == image else 'fetched'}")
    return 0


def _path(arguments: argparse.Namespace) -> int:
    image = catalogue.load(arguments.name, lambda: _say_waiting(arguments.name))
    print(image.kernel)
    if image.ramdisk is not None:
        print(image.ramdisk)
    return 0


def _symbols(arguments: argparse.Namespace) -> int:
    from harness.symbols import kernel_file, symbols_for

    kernel = kernel_file(arguments.name, lambda: _say_waiting(arguments.name))
    print(symbols_for(kernel, lambda: _say_waiting(f"{arguments.name}'s symbols", "making them")))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    names = arguments.names or [name for name in catalogue.names() if catalogue.recorded(name)]
    for name in names:
        if not catalogue.recorded(name):
            raise UsageError(f"{name}: not in the cache; run `pvstub images fetch {name}`")
    for name in names:
        found = catalogue.mend(name, lambda name=name: _say_waiting(name))  # type: ignore[misc]
        for damage in found:
            print(f"{name}: {damage}")
        print(f"{name}: {'fetched again' if found else 'whole'}")
    return 0


@functools.cache
def _say_waiting(name: str, doing: str = "fetching it") -> None:
    """Said once, however many of the image's files are being fetched."""
    print(f"pvstub: {name}: another process is {doing}; waiting", file=sys.stderr)
