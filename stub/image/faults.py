"""What is wrong with an image, before it is known which file the user named.

Parsers raise ``Fault``; ``load_image`` adds the file's name and makes the ``ImageError`` of it. Text that comes
out of a file goes through ``printable`` before a person sees it: a kernel must not be able to drive a terminal.
"""

from __future__ import annotations

from pathlib import Path

from stub.errors import ImageError

TEXT_LIMIT = 256


class Fault(Exception):
    """A fault of the file: what is wrong, and what would help."""

    def __init__(self, fault: str, remedy: str) -> None:
        super().__init__(fault)
        self.fault = fault
        self.remedy = remedy

    def named(self, path: Path | str) -> ImageError:
        """The same as the one line that the user reads: file, fault, remedy."""
        return ImageError(f"{printable(str(path), 4096)}: {self.fault}; {self.remedy}")


def printable(text: str | bytes | memoryview, limit: int = TEXT_LIMIT) -> str:
    """``text`` (bytes: UTF-8) on one line, what is not printable written as escapes, cut at ``limit`` characters."""
    if not isinstance(text, str):
        text = bytes(text[: 4 * limit]).decode("utf-8", "backslashreplace")
    if len(text) <= limit and text.isprintable():
        return text
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: limit + 1])
    return shown if len(shown) <= limit else shown[:limit] + "…"


def c_string(data: bytes | memoryview) -> str:
    """The NUL-terminated string that ``data`` starts with, as UTF-8 with escapes for what is none."""
    return bytes(data).split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
