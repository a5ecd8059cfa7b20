"""Commands for gdb on a guest of pvstub's: ``source`` this file; ``monitor xen extension`` says where it is.

It runs in gdb's own Python and needs nothing but that. Each command works out its arguments as gdb expressions, asks
the stub by ``monitor xen …`` and shows the answer, in colour where gdb itself uses colour.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

import gdb

_MASK = (1 << 64) - 1
_RED, _GREEN, _YELLOW, _BLUE, _CYAN, _DIM = "31", "32", "33", "34", "36", "2"


def ask(line: str) -> str:
    """The stub's answer to a monitor command; GdbError where nobody or somebody else is there."""
    try:
        version = gdb.execute("monitor info version", to_string=True)
    except gdb.error as error:
        raise gdb.GdbError(f"not connected to pvstub ({error}); connect with: target remote HOST:PORT") from None
    if not version.startswith("pvstub"):
        raise gdb.GdbError(f"this target is not pvstub; it says {version.strip()[:60]!r}")
    try:
        answer: str = gdb.execute(f"monitor {line}", to_string=True)
    except gdb.error as error:
        raise gdb.GdbError(f"monitor {line}: {error}") from None
    return answer


def evaluate(expression: str) -> int:
    """A number, pointer or register as it is; of a function, array or structure, its address."""
    try:
        value = gdb.parse_and_eval(expression)
        kind = value.type.strip_typedefs().code
    except gdb.error as error:
        if "unknown type" not in str(error):
            raise gdb.GdbError(str(error)) from None
        value = gdb.parse_and_eval(f"&({expression})")  # a variable of a program without debugging information
        kind = value.type.strip_typedefs().code
    if kind in (gdb.TYPE_CODE_FUNC, gdb.TYPE_CODE_ARRAY, gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION):
        if value.address is None:
            raise gdb.GdbError(f"{expression} has no address")
        value = value.address
    try:
        return int(value) & _MASK
    except (gdb.error, ValueError, OverflowError) as error:
        raise gdb.GdbError(f"{expression} is no number: {error}") from None


# -- colour


def coloured() -> bool:
    """Whether gdb's own output would be in colour."""
    return bool(gdb.parameter("style enabled")) and os.isatty(1) and os.environ.get("TERM", "dumb") != "dumb"


def _paint(code: str) -> str:
    return rf"{chr(27)}[{code}m\g<0>{chr(27)}[m"


_STYLES = (
    (re.compile(r"(?<=d\dv\d )\s*\w+(?=\()"), _paint(_GREEN)),
    (
        re.compile(r"^usage:.*|^.*there is no .*|\bdo NOT agree\b| ends here:.*|-E[A-Z0-9]+ \(-\d+\)", re.M),
        _paint(_RED),
    ),
    (re.compile(r"\b[kuX]rwx\b|\burwx\b"), _paint(_RED)),
    (re.compile(r"\b[0-9a-f]{16}\b|\b0x[0-9a-f]{9,}\b"), _paint(_BLUE)),
    (re.compile(r"<[\w.+-]+>"), _paint(_YELLOW)),
    (re.compile(r"\b(?:mfn|pfn) (?:0x[0-9a-f]+|-)"), _paint(_CYAN)),
    (re.compile(r"^\[ *\d+\.\d+\] d\d+v\d+", re.M), _paint(_DIM)),
)


def painted(text: str) -> str:
    """``text`` with its addresses, frames, names and failures in colour."""
    for pattern, replacement in _STYLES:
        text = pattern.sub(replacement, text)
    return text


def show(text: str) -> None:
    """Write an answer, page by page as gdb does."""
    gdb.write(painted(text) if coloured() else text)


# -- the commands


class _Command(gdb.Command):
    """One that takes an expression and hands it to ``monitor xen``. The docstring is gdb's help."""

    name = ""
    request = ""
    optional = False

    def __init__(self) -> None:
        super().__init__(self.name, gdb.COMMAND_DATA)

    def complete(self, text: str, word: str) -> object:
        """Symbols and registers, as for print."""
        return gdb.COMPLETE_EXPRESSION

    def invoke(self, argument: str, from_tty: bool) -> None:
        """Run it."""
        self.dont_repeat()
        show(ask(self.line(argument.strip())))

    def line(self, argument: str) -> str:
        """The monitor command for an argument."""
        if not argument:
            if self.optional:
                return self.request
            raise gdb.GdbError(f"{self.name}: an expression is missing; see help {self.name}")
        return f"{self.request} {evaluate(argument):#x}"


class Vtop(_Command):
    """Translate a virtual address, level by level.
    Usage: xen-vtop EXPR [cr3 EXPR]

    Shows each level of the walk with the type and counts of its frame, the machine and pseudo-physical address, and the
    rights; or where the walk ends and why. With cr3, another root table: the machine address of an L4 table."""

    name, request = "xen-vtop", "xen vtop"

    def line(self, argument: str) -> str:
        address, *root = re.split(r"\s+cr3\s+", argument, maxsplit=1)
        line = super().line(address.strip())
        return f"{line} cr3 {evaluate(root[0]):#x}" if root else line


class Ptdump(_Command):
    """Show all that is mapped, ranges of like rights in a line.
    Usage: xen-ptdump [cr3 | EXPR]

    EXPR is the machine address of an L4 table; without it, or with cr3, the one in use. Rights: u user, k guest kernel,
    X Xen alone; read, write, execute."""

    name, request, optional = "xen-ptdump", "xen ptdump", True

    def complete(self, text: str, word: str) -> object:
        return ["cr3"] if word and "cr3".startswith(word) else gdb.COMPLETE_EXPRESSION

    def line(self, argument: str) -> str:
        if argument in ("", "cr3"):
            return self.request
        return f"{self.request} cr3 {evaluate(argument):#x}"


class Hypercalls(_Command):
    """Show the last hypercalls, decoded.
    Usage: xen-hypercalls [N]

    N is 20 if it is not given."""

    name, request, optional = "xen-hypercalls", "xen hypercalls", True


class P2m(_Command):
    """Show the machine frame of a pseudo-physical one, and whether the tables agree.
    Usage: xen-p2m [PFN]

    Without a PFN, the guest's whole list is compared with Xen's table."""

    name, request, optional = "xen-p2m", "xen p2m", True


class M2p(_Command):
    """Show the pseudo-physical frame of a machine frame, and whether the tables agree.
    Usage: xen-m2p MFN"""

    name, request = "xen-m2p", "xen m2p"


class Whomaps(_Command):
    """Show every mapping of a machine frame, and who else holds it.
    Usage: xen-whomaps MFN"""

    name, request = "xen-whomaps", "xen whomaps"


class Xen(_Command):
    """Ask the hypervisor: any monitor xen command, with completion and colour.
    Usage: xen COMMAND [ARGUMENT]...

    Arguments are the stub's: numbers as in C, $registers. "xen help" lists the commands."""

    name = "xen"

    def complete(self, text: str, word: str) -> object:
        return sorted(_following(text[: len(text) - len(word)].split(), word))

    def line(self, argument: str) -> str:
        words = argument.split()
        return f"help xen {' '.join(words[1:])}" if not words or words[0] == "help" else f"xen {argument}"


_names: list[list[str]] = []


def _following(before: list[str], word: str) -> Iterable[str]:
    """The words that may stand behind ``before``, of all that the stub's help names."""
    if not _names:
        try:
            text = ask("help xen")
        except gdb.GdbError:
            return []
        for line in text.splitlines():
            usage = re.match(r"xen((?: [a-z0-9-]+)+)", line)
            if usage:
                _names.append(usage[1].split())
    at = len(before)
    return {name[at] for name in _names if len(name) > at and name[:at] == before and name[at].startswith(word)}


for _command in (Vtop, Ptdump, Hypercalls, P2m, M2p, Whomaps, Xen):
    _command()
