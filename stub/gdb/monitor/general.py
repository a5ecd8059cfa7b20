"""Commands about the commands: ``help``, ``xen extension``."""

from __future__ import annotations

from stub.gdb.extension import PATH
from stub.gdb.monitor.context import Context
from stub.gdb.monitor.registry import command, describe
from stub.gdb.monitor.values import text


@command("help [COMMAND...]", "the commands, or all about one of them", {"COMMAND": text})
def help_(_: Context, command: str = "") -> str:
    """Words may be cut short: monitor h x vt."""
    return describe(command.split())


@command("xen extension", "the path of the Python script for gdb: source it for xen-vtop, xen-ptdump and the others")
def extension(_: Context) -> str:
    """In gdb: source PATH. It needs a gdb with Python."""
    return f"{PATH}\n"
