"""Console output as a report shows it: printable lines, the tail, the line that is nearest to what was wanted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher

TAIL_LINES = 40
TAIL_BYTES = 64 * 1024
NEAR_MISS_LINES = 2000
NEAR_MISS_FLOOR = 0.6

# ECMA-48 control sequences (CSI, OSC, two-byte escapes): a report must not move the reader's cursor.
_ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_TIMESTAMP = re.compile(r"^\[ *\d+\.\d{6}\] ")
_REGEX_ESCAPE = re.compile(r"\\([^\w\s])")
_REGEX_SYNTAX = re.compile(r"\\[a-zA-Z]|\(\?[^)]*\)|\[[^\]]*\]|\{[\d,]*\}|[.^$*+?|()]")


def printable(text: str) -> str:
    """Console text as a report may show it: no carriage returns, no escape sequences, controls as ``\\xNN``."""
    text = _ESCAPE_SEQUENCE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def console_lines(output: bytes | bytearray | str, last: int | None = None) -> list[str]:
    """The console's lines, printable; the ``last`` ones only when given."""
    if not isinstance(output, str):
        output = bytes(output if last is None else output[-TAIL_BYTES:]).decode("utf-8", "replace")
    lines = printable(output).split("\n")
    if lines and not lines[-1]:
        lines.pop()
    return lines if last is None else lines[-last:]


def console_tail(output: bytes | bytearray | str, last: int = TAIL_LINES) -> str:
    """The last lines of a console as one text, or a word that there are none."""
    return "\n".join(console_lines(output, last)) or "(the guest has written nothing)"


def plain_words(pattern: str) -> str:
    """The literal text of a regular expression: what a person would look for in the console."""
    literal = _REGEX_SYNTAX.sub(" ", _REGEX_ESCAPE.sub(lambda match: f"\0{ord(match[1]):x}\0", pattern))
    literal = re.sub("\0([0-9a-f]+)\0", lambda match: chr(int(match[1], 16)), literal)
    return " ".join(literal.split())


def likeness(wanted: str, line: str) -> float:
    """How much of ``wanted`` stands in the part of ``line`` that is most like it: 0 to 1, case ignored."""
    wanted, line = wanted.lower(), line.lower()
    longest = SequenceMatcher(None, wanted, line, autojunk=False).find_longest_match()
    if not longest.size:
        return 0.0
    start = max(0, longest.b - longest.a)
    return SequenceMatcher(None, wanted, line[start : start + len(wanted)], autojunk=False).ratio()


def near_miss(patterns: Iterable[str], lines: Sequence[str]) -> tuple[float, str] | None:
    """The console line most like one of the ``patterns``, with its likeness; None when none is close."""
    best: tuple[float, str] | None = None
    wanted = [words for words in map(plain_words, patterns) if words]
    for line in lines[-NEAR_MISS_LINES:]:
        said = _TIMESTAMP.sub("", line)
        for words in wanted:
            score = likeness(words, said)
            if score >= NEAR_MISS_FLOOR and (best is None or score >= best[0]):
                best = (score, line)
    return best
