"""``pvstub`` with a hypercall log that keeps nothing; with the word ``log`` first, the log as it is.

What the handlers gather for the log they gather in both: nearly all of it they need themselves.
"""

import sys
from typing import Any

import stub.machine
from stub.cli import main
from stub.trace.writer import HypercallLog


class NoLog(HypercallLog):
    """Has no file, and throws every record away."""

    def __init__(self, _: object, *, identity: Any) -> None:
        super().__init__(None, identity=identity)
        self.off = True


if sys.argv[1] == "log":
    del sys.argv[1]
else:
    setattr(stub.machine, "HypercallLog", NoLog)  # noqa: B010 - the module does not export it
sys.exit(main())
