"""Modules for kernels that take several in one ramdisk, as GNU Mach's Xen port does.

There a ramdisk is a table of ``struct multiboot_module`` (Multiboot 0.6.96, 3.3) with what it points at behind it:
offsets count from the table, and an entry whose start is 0 ends it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

_ENTRY = struct.Struct("<4I")  # start, end, string, reserved
_PAGE = 4096


def ramdisk(modules: Mapping[str, bytes]) -> bytes:
    """The modules as one ramdisk: each one's command line, its content; contents begin on pages."""
    strings = [line.encode() + b"\0" for line in modules]
    string_at = _ENTRY.size * (len(modules) + 1)
    at = _page_up(string_at + sum(map(len, strings)))
    table, contents = bytearray(), bytearray()
    for string, content in zip(strings, modules.values(), strict=True):
        table += _ENTRY.pack(at, at + len(content), string_at, 0)
        contents += content.ljust(_page_up(len(content)), b"\0")
        string_at += len(string)
        at += _page_up(len(content))
    head = bytes(table) + bytes(_ENTRY.size) + b"".join(strings)
    return head.ljust(_page_up(len(head)), b"\0") + bytes(contents)


def _page_up(size: int) -> int:
    return -(-size // _PAGE) * _PAGE
