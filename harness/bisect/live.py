"""What a bisection says: lines as they come; on a terminal, below them what is being done now."""

from __future__ import annotations

import shutil
import sys
from typing import Final

from stub.command_line import line

_CLEAR: Final = "\r\x1b[2K"


class Live:
    """``terminal``: whether a person looks on, who may see a line replaced; anything else gets plain lines only."""

    def __init__(self, terminal: bool | None = None) -> None:
        self._terminal = sys.stdout.isatty() if terminal is None else terminal
        self._now = ""

    def say(self, text: str) -> None:
        """A line that stays."""
        self._write(f"bisect: {line(text)}\n")

    def doing(self, what: str) -> None:
        """What is being done now, until something else is; nothing for nothing."""
        if self._terminal:
            self._now = line(what)[: shutil.get_terminal_size().columns - 1]
            self._write("")

    def _write(self, lines: str) -> None:
        if self._terminal:
            lines = f"{_CLEAR}{lines}{self._now}"
        sys.stdout.write(lines)
        sys.stdout.flush()
