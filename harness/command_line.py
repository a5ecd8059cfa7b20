"""How the harness's commands read their words and end: trouble is one line on standard error and exit status 2."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Final, NoReturn

from stub.errors import PvstubError, UsageError

TROUBLE: Final = 2
INTERRUPTED: Final = 130


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error of pvstub's."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def ended(command: str, act: Callable[[], int], unread: int = 0) -> int:
    """The exit status of ``act``, or of what went wrong in it; ``unread`` where nobody reads its output any more."""
    try:
        status = act()
        sys.stdout.flush()
        return status
    except PvstubError as error:
        print(f"{command}: {error}", file=sys.stderr)
    except BrokenPipeError:
        # Whoever read has read enough; the interpreter's own flush at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return unread
    except OSError as error:
        print(f"{command}: {error.filename or 'standard output'}: {error.strerror}", file=sys.stderr)
    except KeyboardInterrupt:
        return INTERRUPTED
    return TROUBLE
