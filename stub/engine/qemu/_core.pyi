"""The engine's side of the mailbox (``_core.c``, ``mailbox.h``), as type checkers see it."""

from collections.abc import Sequence
from typing import final

N_WORDS: int
PAGE_EXTENDED: int
PAGE_ROOT: int
PAGE_APIC: int
PAGE_CODE: int
PAGE_MAIL: int
PAGES: int
MAIL_DR: int
MAIL_DR7: int
MAIL_DR6: int
MAIL_LDT: int
MAIL_GDT: int
MAIL_RDTSCP_COUNTED: int
MAIL_SCALE: int
PORT_BELL: int
PORT_GATE: int
COMMAND_SAVE: int
COMMAND_RESTORE: int
COMMAND_LDT: int
COMMAND_DEBUG: int
COMMAND_XCR0: int
MAIL_XCR0: int
MAIL_STATES: int

def spawn(program: str, arguments: tuple[bytes, ...], errors: int, files: tuple[int, ...], /) -> int:
    """Start a program that dies with this process, and has the ``files`` open; its errors go to the file ``errors``."""

class Died(Exception):
    """The process is no more; the message says whether of itself."""

@final
class Core:
    """The shim, by its mailbox at byte ``at`` of the shared ``ram``; as a buffer, its register file.

    ``entries`` is the machine address of the page-table entries that map the window.
    """

    def __new__(cls, ram: object, at: int, entries: int, /) -> Core: ...
    def begin(self, pid: int, bell: int, gate: int, before: int, /) -> None:
        """Wait for the shim in that process, which writes to those pipes; ``before`` instructions count at once."""

    def run(self) -> int: ...
    def command(self, what: int, /) -> None: ...
    def touch(self, maddr: int, /) -> None:
        """This page was written to from outside; code that was translated from it is dropped."""

    def debug(self, slots: Sequence[tuple[int, int, int, bool]], /) -> None:
        """Load the debug registers: address, size, kind as DR7 has it, whether of the second group; at most four."""

    def scan(self, addresses: Sequence[int], /) -> None:
        """Look for these stop points at each instruction."""

    def use_reflex(self, capsule: object, /) -> None: ...
    def close(self) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
