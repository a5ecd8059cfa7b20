"""The table of monitor commands: a row has its words, its arguments and a line of help, and the handler beside it.

A row is written as the help shows it, for example ``xen vtop VA [cr3 N]``:

- the words in lower case up to the first argument are the command's name (``-m`` is such a word, too);
- ``VA`` is an argument: a number, unless ``kinds`` names another parser for it; ``TEXT...`` takes the rest of the line;
- ``show|hide`` is one of these words;
- what stands in brackets may be left out; with a word before it, as in ``[cr3 N]``, it may stand in any order.

The handler gets the context and each argument that was given by keyword: ``va``; after a word, the word's name
(``cr3``); a choice of several words as ``choice``, a single ``[word]`` under its own name.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stub.gdb.monitor.faults import MonitorError
from stub.gdb.monitor.values import number

if TYPE_CHECKING:
    from stub.gdb.monitor.context import Context

Handler = Callable[..., str]
Parser = Callable[["Context", str], Any]

COMMANDS: dict[tuple[str, ...], Command] = {}

__all__ = ["COMMANDS", "Command", "MonitorError", "Parameter", "command", "describe", "execute"]


@dataclass(frozen=True)
class Parameter:
    """One argument: the handler's keyword, the word that must precede it, the words it may be, its parser."""

    name: str
    shown: str
    word: str = ""
    choices: tuple[str, ...] = ()
    optional: bool = False
    rest: bool = False
    parse: Parser | None = None


@dataclass(frozen=True)
class Command:
    """A row of the table."""

    words: tuple[str, ...]
    usage: str
    help: str
    parameters: tuple[Parameter, ...]
    handler: Handler

    @property
    def name(self) -> str:
        """Its words, as typed."""
        return " ".join(self.words)


def command(usage: str, help: str, kinds: Mapping[str, Parser] | None = None) -> Callable[[Handler], Handler]:
    """Register the decorated function for ``usage``; ``kinds``: parsers of arguments that are no numbers, by name."""
    words, parameters = _grammar(usage, kinds or {})

    def register(handler: Handler) -> Handler:
        if words in COMMANDS:
            raise ValueError(f"monitor command {' '.join(words)!r} is registered twice")
        known = inspect.signature(handler).parameters
        takes_all = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in known.values())
        for parameter in parameters:
            if parameter.name not in known and not takes_all:
                raise ValueError(f"monitor command {usage!r}: its handler has no parameter {parameter.name}")
        COMMANDS[words] = Command(words, usage, help, parameters, handler)
        return handler

    return register


def execute(context: Context, line: str) -> str:
    """Do what a line says; :class:`MonitorError` where it cannot be done."""
    found, rest = _find(line.split())
    try:
        arguments = _arguments(context, found, rest)
    except MonitorError as error:
        raise MonitorError(f"{found.name}: {error}\nusage: monitor {found.usage}") from error
    return found.handler(context, **arguments)


def describe(words: list[str]) -> str:
    """Help on the commands that begin with ``words``; on one of them, all that there is to say."""
    prefix = _expanded(words)
    rows = [row for name, row in sorted(COMMANDS.items()) if name[: len(prefix)] == prefix]
    if not prefix:
        rows = sorted(COMMANDS.values(), key=lambda row: (row.words[0] == "info", row.words))
    if len(rows) == 1:
        row = rows[0]
        doc = inspect.getdoc(row.handler) or ""
        return f"monitor {row.usage}\n  {row.help}\n" + "".join(f"  {part}\n" for part in doc.splitlines())
    width = min(max(len(row.usage) for row in rows), 34)
    head = "" if prefix else "Words may be cut short; numbers are as in C, $register or a symbol, and sums of these.\n"
    return head + "".join(f"{row.usage:{width}}  {row.help}\n" for row in rows)


# -- which command


def _find(words: list[str]) -> tuple[Command, list[str]]:
    """The command that ``words`` begin with, cut short or not, and the words behind its name."""
    prefix: tuple[str, ...] = ()
    for word in words:
        following = _following(prefix)
        if prefix in COMMANDS and _match(word, following) is None:
            break
        if not following:
            break
        prefix = (*prefix, _chosen(word, following, prefix))
    found = COMMANDS.get(prefix)
    if found is None:
        raise MonitorError(f"{' '.join(prefix)}: what of it? {_list(_following(prefix))}; see monitor help")
    return found, words[len(prefix) :]


def _expanded(words: list[str]) -> tuple[str, ...]:
    """A command's first words, written out."""
    prefix: tuple[str, ...] = ()
    for word in words:
        following = _following(prefix)
        if not following:
            break
        prefix = (*prefix, _chosen(word, following, prefix))
    return prefix


def _following(prefix: tuple[str, ...]) -> list[str]:
    """The words that may come behind ``prefix`` in a command's name."""
    at = len(prefix)
    return sorted({name[at] for name in COMMANDS if len(name) > at and name[:at] == prefix})


def _match(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that ``word`` is or begins; None for none, and for several."""
    candidates = list(candidates)
    if word in candidates:
        return word
    begun = [candidate for candidate in candidates if candidate.startswith(word)]
    return begun[0] if len(begun) == 1 else None


def _chosen(word: str, candidates: list[str], prefix: tuple[str, ...]) -> str:
    found = _match(word, candidates)
    if found is not None:
        return found
    where = f"{' '.join(prefix)}: " if prefix else ""
    begun = [candidate for candidate in candidates if candidate.startswith(word)]
    if begun:
        raise MonitorError(f"{where}{word!r} may be {_list(begun)}")
    near = difflib.get_close_matches(word, candidates, n=1)
    hint = f"; did you mean {near[0]}?" if near else f"; there are {_list(candidates)}"
    raise MonitorError(f"{where}there is no {word[:40]!r}{hint}")


def _list(words: Iterable[str]) -> str:
    return ", ".join(words)


# -- its arguments


def _arguments(context: Context, found: Command, words: list[str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    waiting = list(found.parameters)
    at = 0
    while at < len(words):
        parameter = _takes(waiting, words[at])
        if parameter is None:
            raise MonitorError(f"{words[at]!r} is one word too many")
        waiting.remove(parameter)
        if parameter.word:
            at += 1
            if at == len(words):
                raise MonitorError(f"{parameter.word} needs {parameter.shown}")
        text = " ".join(words[at:]) if parameter.rest else words[at]
        given[parameter.name] = _value(context, parameter, text)
        at = len(words) if parameter.rest else at + 1
    for parameter in waiting:
        if not parameter.optional:
            raise MonitorError(f"{parameter.shown} is missing")
    return given


def _takes(waiting: list[Parameter], word: str) -> Parameter | None:
    """Which argument a word is or announces.

    One that must be there comes first; then those that a word of their own tells, and then those in order. Only where
    none of these could take the word may a word of their own be cut short.
    """
    plain = [parameter for parameter in waiting if not parameter.word and not parameter.choices]
    first = next((parameter for parameter in waiting if not parameter.word), None)
    if first is not None and not first.optional:
        return first
    for parameter in waiting:
        announced = [parameter.word] if parameter.word else parameter.choices
        if word in announced or (not plain and _match(word, announced) is not None):
            return parameter
    return plain[0] if plain else None


def _value(context: Context, parameter: Parameter, text: str) -> Any:
    if parameter.choices:
        found = _match(text, parameter.choices)
        if found is None:
            raise MonitorError(f"{text!r} is none of {_list(parameter.choices)}")
        return found
    if parameter.parse is not None:
        return parameter.parse(context, text)
    return number(context, text)


# -- the grammar of a row


def _grammar(usage: str, kinds: Mapping[str, Parser]) -> tuple[tuple[str, ...], tuple[Parameter, ...]]:
    pieces = re.findall(r"\[[^]]*\]|\S+", usage)
    words: list[str] = []
    while pieces and not pieces[0].startswith("[") and pieces[0] == pieces[0].lower() and "|" not in pieces[0]:
        words.append(pieces.pop(0))
    if not words:
        raise ValueError(f"monitor command {usage!r} has no name")
    parameters = tuple(_parameter(piece, kinds) for piece in pieces)
    names = [parameter.name for parameter in parameters]
    if len(set(names)) < len(names):
        raise ValueError(f"monitor command {usage!r} gives two arguments one name")
    return tuple(words), parameters


def _parameter(piece: str, kinds: Mapping[str, Parser]) -> Parameter:
    optional = piece.startswith("[")
    *before, last = piece.strip("[]").split()
    if len(before) > 1:
        raise ValueError(f"{piece}: one word and one argument at most")
    rest = last.endswith("...")
    shown = last.removesuffix("...")
    if shown == shown.lower():
        choices = tuple(shown.split("|"))
        name = before[0] if before else shown if len(choices) == 1 else "choice"
        return Parameter(_identifier(name), shown, "".join(before), choices, optional)
    parse = kinds.get(shown)
    return Parameter(_identifier(before[0] if before else shown), shown, "".join(before), (), optional, rest, parse)


def _identifier(name: str) -> str:
    return name.lower().strip("-").replace("-", "_")
