"""xl's configuration grammar (xl.cfg(5); Xen's libxlu_cfg_l.l and libxlu_cfg_y.y).

``key = value`` or ``key += value``, each ended by a newline or ``;``. A value is a string in either quote, a number, or
a list of values in brackets, with newlines and a last comma wherever one likes. ``#`` begins a comment. Keys are small
letters, digits and ``_``; a number is kept as it is written, and read as strtol would: 0x… is hexadecimal, 0… octal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from stub.domain.guestfile.place import Place, Setting, Source, Value
from stub.errors import ConfigError

MAX_DEPTH = 32  # of lists in lists
MAX_JOINED = 1 << 12  # characters, or elements, that += may make of a value

_TOKEN = re.compile(
    r"""(?P<blank>[ \t\r]+|\#[^\n]*)
      | (?P<newline>\n)
      | (?P<key>[a-z][_0-9a-z]*)
      | (?P<number>[0-9][0-9a-fx]*)
      | (?P<string>'(?:[^'\\\n]|\\.)*' | "(?:[^"\\\n]|\\.)*")
      | (?P<mark>\+= | [][,=;])
      | (?P<other>.)""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{1,2})|([0-7]{1,3})|(.))")
_ESCAPED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", '"': '"', "'": "'", "\\": "\\"}


class NotXl(ConfigError):
    """A file that is not of xl's grammar; it may be of another."""


class _Token(NamedTuple):
    kind: str
    text: str
    place: Place


def _tokens(source: Source) -> Iterator[_Token]:
    line, start = 1, 0
    for found in _TOKEN.finditer(source.text):
        kind = found.lastgroup or ""
        if kind != "blank":
            yield _Token(kind, found[0], Place(line, found.start() - start + 1))
        if kind == "newline":
            line, start = line + 1, found.end()
    yield _Token("end", "", Place(line, len(source.text) - start + 1))


def read(source: Source) -> dict[str, Setting]:
    """The settings of a file, in the order in which their keys first stand there.

    NotXl for what is not of the grammar; ConfigError for what is, and means nothing.
    """
    return _Parser(source).file()


class _Parser:
    """Reads statements from tokens; one token is looked ahead."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.tokens = _tokens(source)
        self.token = next(self.tokens)

    def _next(self) -> _Token:
        """Take a token."""
        token = self.token
        if token.kind != "end":
            self.token = next(self.tokens)
        return token

    def _wanted(self, what: str) -> NotXl:
        token = self.token
        found = {"newline": "the end of the line", "end": "the end of the file"}.get(token.kind, token.text)
        hint = "; close the quote on the same line" if token.text in ("'", '"') else ""
        return NotXl(*self.source.error(token.place, f"{what} is expected, not {found}{hint}").args)

    def file(self) -> dict[str, Setting]:
        settings: dict[str, Setting] = {}
        while self.token.kind != "end":
            if self.token.kind == "newline" or self.token.text == ";":
                self._next()
                continue
            if self.token.kind != "key":
                raise self._wanted("a key (small letters, digits and _)")
            key = self._next()
            if self.token.text not in ("=", "+="):
                raise self._wanted("= or +=")
            added = self._next().text == "+="
            value = self._value(0)
            before = settings.get(key.text)
            if added and before is not None:
                value = self._joined(before.value, value)
            settings[key.text] = Setting(key.text, value, key.place)
            if self.token.kind not in ("newline", "end") and self.token.text != ";":
                raise self._wanted("the end of the line, or ;")
        return settings

    def _value(self, depth: int) -> Value:
        token = self.token
        if token.kind == "string":
            self._next()
            return Value(self._string(token), token.place, "\\" not in token.text)
        if token.kind == "number":
            self._next()
            return Value(token.text, token.place)
        if token.text != "[":
            raise self._wanted("a string in quotes, a number or a list")
        if depth >= MAX_DEPTH:
            raise self.source.error(token.place, f"lists in lists more than {MAX_DEPTH} deep; have them flatter")
        return self._list(depth + 1)

    def _list(self, depth: int) -> Value:
        opened = self._next().place
        values: list[Value] = []
        self._skip_newlines()
        while self.token.text != "]":
            values.append(self._value(depth))
            self._skip_newlines()
            if self.token.text == ",":
                self._next()
                self._skip_newlines()
            elif self.token.text != "]":
                raise self._wanted(f", or the ] of the list that line {opened.line} opens")
        self._next()
        return Value(tuple(values), opened)

    def _skip_newlines(self) -> None:
        while self.token.kind == "newline":
            self._next()

    def _string(self, token: _Token) -> str:
        def escaped(found: re.Match[str]) -> str:
            if found[3] is not None and found[3] not in _ESCAPED:
                place = Place(token.place.line, token.place.column + 1 + found.start())
                message = f"{found[0]} is no escape; write \\\\ for a backslash"
                raise NotXl(*self.source.error(place, message).args)
            return _ESCAPED[found[3]] if found[3] else chr(int(found[1], 16) if found[1] else int(found[2], 8) & 0xFF)

        return _ESCAPE.sub(escaped, token.text[1:-1])

    def _joined(self, before: Value, value: Value) -> Value:
        """What += makes of two values: both strings, or both lists (xlu__cfg_concat_vals)."""
        if isinstance(before.data, str) and isinstance(value.data, str):
            if len(before.data) + len(value.data) > MAX_JOINED:
                raise self.source.error(value.place, "the value grows too long")
            return Value(before.data + value.data, value.place)
        if isinstance(before.data, tuple) and isinstance(value.data, tuple):
            if len(before.data) + len(value.data) > MAX_JOINED:
                raise self.source.error(value.place, "the list grows too long")
            return Value(before.data + value.data, value.place)
        raise self.source.error(value.place, f"{value.kind} cannot be added to {before.kind}")
