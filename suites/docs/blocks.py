"""The console blocks of README and docs, and how what they show is compared with what happens.

A block opens with ```` ```console ````; a line that starts with ``$ `` is a command, the lines below it are what
it prints. Output is compared line by line; ``…`` stands for anything within a line, and a line that is only ``…``
for any number of lines. A block whose opening line says ``console image`` needs a guest image and is run by
``suites/docs``; one that says ``console person`` is for a person at a terminal or takes long, and only its
commands' names and options are checked, as are everybody's.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
NUMBER = re.compile(r" *(?:\b[0-9a-f]{16,}\b|\d[\d,]*)")
FENCE = re.compile(r"^```(?P<info>.*)$")
KINDS = {"console": "quick", "console image": "image", "console person": "person"}


@dataclass(frozen=True)
class Command:
    """One command of a block, with the output lines that the page shows for it (none: nothing is claimed)."""

    text: str
    output: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        """The command's words, without variable assignments before it or a comment after it."""
        words = shlex.split(self.text, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        return words


@dataclass(frozen=True)
class Block:
    """One fenced block: ``kind`` is quick, image or person."""

    page: Path
    line: int
    kind: str
    commands: tuple[Command, ...]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def fences(page: Path) -> Iterator[tuple[int, str, list[str]]]:
    """(line number, info string, lines) of each fenced block."""
    info, start, body = None, 0, []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = FENCE.match(line)
        if fence and info is None:
            info, start, body = fence["info"].strip(), number, []
        elif fence and info is not None:
            yield start, info, body
            info = None
        elif info is not None:
            body.append(line)
    if info is not None:
        raise ValueError(f"{page}:{start}: block without an end")


def commands(lines: list[str]) -> Iterator[Command]:
    """The commands of a console block."""
    text, output = None, []
    for line in [*lines, "$ "]:
        if line.startswith("$ "):
            if text is not None:
                yield Command(text, tuple(output))
            text, output = line[2:].strip(), []
        else:
            output.append(line)


def python_tests() -> dict[Path, str]:
    """Page → its Python blocks as one test file, for the pages that show tests."""
    files = {}
    for page in PAGES:
        code = "\n\n".join("\n".join(body) for _, info, body in fences(page) if info == "python")
        if "def test_" in code:
            files[page] = code + "\n"
    return files


def blocks() -> list[Block]:
    """Every console block of README, CONTRIBUTING and docs, in order."""
    return [
        Block(page, line, KINDS[info], tuple(commands(lines)))
        for page in PAGES
        if page.exists()
        for line, info, lines in fences(page)
        if info.split()[:1] == ["console"]
    ]


def literal(text: str) -> str:
    """The pattern of shown text without ``…``: as it stands, but for its numbers and digests."""
    parts, at = [], 0
    for number in NUMBER.finditer(text):
        digits = "[0-9a-f]+" if len(number[0].strip()) >= 16 else r"\d[\d,]*"
        space = " +" if number[0].startswith(" ") else ""
        parts += [re.escape(text[at : number.start()]), space, digits]
        at = number.end()
    return "".join([*parts, re.escape(text[at:])])


def pattern(expected: tuple[str, ...]) -> re.Pattern[str]:
    """What the shown output lines match: ``…`` is a wildcard, numbers are numbers, trailing space does not count."""
    parts = []
    for line in expected:
        if line.strip() == "…":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(".*".join(literal(piece) for piece in line.rstrip().split("…")) + r"[ \t]*\n")
    return re.compile("".join(parts))


def matches(expected: tuple[str, ...], actual: str) -> bool:
    """Whether a command's output is what the page shows."""
    lines = actual.replace("\r", "").splitlines()
    return pattern(expected).fullmatch("".join(line + "\n" for line in lines)) is not None
