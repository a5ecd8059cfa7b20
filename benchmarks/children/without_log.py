"""``pvstub`` with a hypercall log that keeps nothing; with the word ``log`` first, the log as it is.

What the handlers gather for the log they gather in both: nearly all of it they need themselves.
"""

import sys
from typing import Any

import stub.machine
from stub.cli import main
from stub.trace.writer import HypercallLog

KEPT = {"digest", "counts", "size", "close"}
RECORDERS = [name for name in vars(HypercallLog) if not name.startswith("_") and name not in KEPT]


def nothing(*_: Any) -> None:
    """In place of each recorder."""


class NoLog(HypercallLog):
    """Has no file, and its recorders do nothing."""

    def __init__(self, _: object, *, identity: Any) -> None:
        super().__init__(None, identity=identity)


for name in RECORDERS:
    setattr(NoLog, name, nothing)

if sys.argv[1] == "log":
    del sys.argv[1]
else:
    setattr(stub.machine, "HypercallLog", NoLog)  # noqa: B010 - the module does not export it
sys.exit(main())
