"""The debugger's ``monitor`` commands: a table of rows (``registry``), one file a family beside it."""

from __future__ import annotations

import traceback

from stub.errors import PvstubError
from stub.gdb.monitor import (  # noqa: F401 - each fills the table
    addresses,
    cpu,
    dmesg,
    domain,
    events,
    general,
    log,
    pagetables,
    qemu,
    stops,
    xenstore,
)
from stub.gdb.monitor.context import Context, Names
from stub.gdb.monitor.faults import MonitorError
from stub.gdb.monitor.registry import COMMANDS, command, execute
from stub.memory.guest import GuestFault


def run(context: Context, line: str) -> str:
    """Answer one command with text that ends its last line. Whatever is wrong is said in the text."""
    try:
        answer = execute(context, line.strip() or "help")
    except (MonitorError, PvstubError) as error:
        answer = str(error)
    except GuestFault as fault:
        answer = f"{line.strip()}: nothing is mapped at {fault.vaddr:#x}"
    except Exception:  # noqa: BLE001 - a fault in a command must not end the session of whoever debugs
        answer = f"monitor {line.strip()}: this is a fault of pvstub, please report it\n{traceback.format_exc()}"
    return answer if not answer or answer.endswith("\n") else answer + "\n"


__all__ = ["COMMANDS", "Context", "MonitorError", "Names", "command", "run"]
