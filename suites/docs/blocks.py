"""The console blocks of README and docs, and how what they show is compared with what happens.

A block opens with ```` ```console ````; a line that starts with ``$ `` is a command, the lines below it are what
it prints. Output is compared line by line; ``…`` stands for anything within a line, and a line that is only ``…``
for any number of lines. A block whose opening line says ``console image`` needs a guest image and is run by
``suites/docs``; one that says ``console person`` is for a person at a terminal or takes long, and only its
commands' names and options are checked, as are everybody's.

``console gdb`` is a session with a debugger, run by ``suites/docs`` too: a command that ends with ``&`` goes on while
the others run, and below ``$ gdb …`` a line that starts with ``(gdb) `` is typed into gdb. Addresses differ from
kernel to kernel, so one that is shown stands for the one that is printed in its place, but each for the same one in
the whole block (:class:`Known`), also where it is typed. A next block ``console gdb goes on`` is the same session.
``console gdb own`` has a kernel of our own with DWARF in the file ``vmlinux``. ``console history`` is run like an
image's, beside the repository ``guest``: the 64 commits of a small guest (``suites/bisect/demonstration.py``).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
NUMBER = re.compile(r" *(?:\b0x[0-9a-f]+\b|\b[0-9a-f]{16,}\b|\d[\d,]*)")
ADDRESS = re.compile(r"( *)(\b0x[0-9a-f]{3,}\b|\b127\.0\.0\.1:\d+\b)")
PROMPT = "(gdb) "
FENCE = re.compile(r"^```(?P<info>.*)$")
KINDS = {
    "console": "quick",
    "console image": "image",
    "console person": "person",
    "console gdb": "gdb",
    "console gdb own": "gdb own",
    "console history": "history",
}


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

    @property
    def typed(self) -> tuple[Command, ...]:
        """Of a command that starts gdb: itself, with what gdb prints before its first prompt, and what is typed."""
        return tuple(commands([f"{PROMPT}{self.text}", *self.output], PROMPT))


@dataclass(frozen=True)
class Block:
    """One fenced block: ``kind`` is one of the words in ``KINDS``."""

    page: Path
    line: int
    kind: str
    commands: tuple[Command, ...]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def fences(page: Path) -> Iterator[tuple[int, str, list[str]]]:
    """(line number, info string, lines) of each fenced block."""
    info: str | None = None
    start, body = 0, list[str]()
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


def commands(lines: list[str], prompt: str = "$ ") -> Iterator[Command]:
    """The commands of a console block."""
    text: str | None = None
    output: list[str] = []
    for line in [*lines, prompt]:
        if line.startswith(prompt):
            if text is not None:
                yield Command(text, tuple(output))
            text, output = line.removeprefix(prompt).strip(), []
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
        for line, info, lines in joined(fences(page))
        if info.split()[:1] == ["console"]
    ]


def joined(found: Iterator[tuple[int, str, list[str]]]) -> Iterator[tuple[int, str, list[str]]]:
    """Fences, with those that only go on added to the ones before."""
    before: tuple[int, str, list[str]] | None = None
    for fence in found:
        if before is not None and fence[1] == f"{before[1]} goes on":
            before[2].extend(fence[2])
            continue
        if before is not None:
            yield before
        before = fence
    if before is not None:
        yield before


class Known:
    """Which address is meant by each that a block shows: what stood in its place when it was first printed."""

    def __init__(self) -> None:
        self._actual: dict[str, str] = {}
        self._new: list[str] = []

    def pattern(self, text: str) -> str:
        """What shown text matches, its addresses noted."""
        parts, at = [], 0
        for found in ADDRESS.finditer(text):
            parts += [literal(text[at : found.start()]), " +" if found[1] else "", self._address(found[2])]
            at = found.end()
        return "".join([*parts, literal(text[at:])])

    def _address(self, shown: str) -> str:
        if shown in self._actual:
            return re.escape(self._actual[shown])
        if shown in self._new:
            return rf"(?P=a{self._new.index(shown)})"
        self._new.append(shown)
        kind = r"127\.0\.0\.1:\d+" if "." in shown else r"0x[0-9a-f]+\b"
        return rf"(?P<a{len(self._new) - 1}>{kind})"

    def learn(self, found: re.Match[str] | None) -> None:
        """Remember what the addresses noted since the last call turned out to be; forget them if nothing matched."""
        if found is not None:
            self._actual |= {shown: found[f"a{number}"] for number, shown in enumerate(self._new)}
        self._new.clear()

    def typed(self, text: str) -> str:
        """A shown command with the addresses as they are."""
        return ADDRESS.sub(lambda found: found[1] + self._actual.get(found[2], found[2]), text)


def literal(text: str) -> str:
    """The pattern of shown text without ``…``: as it stands, but for its numbers and digests."""
    parts, at = [], 0
    for number in NUMBER.finditer(text):
        parts += [re.escape(text[at : number.start()]), " +" if number[0].startswith(" ") else ""]
        parts.append(_digits(number[0].strip()))
        at = number.end()
    return "".join([*parts, re.escape(text[at:])])


def _digits(number: str) -> str:
    if number.startswith("0x"):
        return "0x[0-9a-f]+"
    return "[0-9a-f]+" if len(number) >= 16 else r"\d[\d,]*"


def pattern(expected: tuple[str, ...], known: Known | None = None) -> re.Pattern[str]:
    """What the shown output lines match: ``…`` is a wildcard, numbers are numbers, trailing space does not count."""
    of = known.pattern if known is not None else literal
    parts = []
    for line in expected:
        if line.strip() == "…":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(".*".join(of(piece) for piece in line.rstrip().split("…")) + r"[ \t]*\n")
    return re.compile("".join(parts))


def matches(expected: tuple[str, ...], actual: str, known: Known | None = None) -> bool:
    """Whether a command's output is what the page shows, and what is known of the block's addresses."""
    lines = actual.replace("\r", "").splitlines()
    found = pattern(expected, known).fullmatch("".join(line + "\n" for line in lines))
    if known is not None:
        known.learn(found)
    return found is not None
