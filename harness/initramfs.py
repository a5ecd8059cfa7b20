"""Builds the ramdisk: one static program, an init script, device nodes, a few links. No root, nothing installed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from harness.cpio import Archive

# Not compressed: 2 MB are copied in no time, while a guest that runs in an emulator would unpack them slowly.


class Layout(NamedTuple):
    """What is in the ramdisk beside the program's and init's bytes; the fields of ``[ramdisks.NAME]``."""

    program: str
    directories: Sequence[str]
    links: Sequence[str]
    devices: Sequence[tuple[str, str, int, int, int]]


def build(layout: Layout, program: bytes, init: bytes) -> bytes:
    """The ramdisk's bytes; the same arguments give the same bytes."""
    archive = Archive()
    archive.file(layout.program, program)
    archive.file("/init", init)
    for path in layout.directories:
        archive.directory(path, 0o1777 if path == "/tmp" else 0o755)
    for path in layout.links:
        archive.symlink(path, os.path.relpath(layout.program, os.path.dirname(path)))
    for path, kind, major, minor, mode in layout.devices:
        archive.device(path, kind, major, minor, mode)
    return archive.bytes()
