"""Where in a configuration file something is said, and the values that are said there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from stub.errors import ConfigError

_SHOWN = 160  # characters of a line in an error


def printable(line: str) -> str:
    """A line that a terminal only shows, whatever a file has in it."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


class Place(NamedTuple):
    """Of a file: line and column, both from 1 on."""

    line: int
    column: int


class Mapping(dict[object, object]):
    """What a dict of an xm file holds; no setting can use one, but an expression may look into it."""


@dataclass(frozen=True)
class Value:
    """What a setting, or an element of its list, is set to, and where that is written.

    ``text``: the content of a string begins one column behind ``place``, a character a column.
    """

    data: str | int | tuple[Value, ...] | Mapping
    place: Place
    text: bool = False

    @property
    def kind(self) -> str:
        """In words."""
        return {str: "a string", int: "a number", tuple: "a list"}.get(type(self.data), "a dict")


@dataclass(frozen=True)
class Setting:
    """One key of a file: its last value, and where its name stands."""

    name: str
    value: Value
    place: Place


@dataclass(frozen=True)
class Source:
    """A configuration file's name and text, in which errors show their place."""

    name: str
    text: str

    def error(self, place: Place, message: str) -> ConfigError:
        """A ConfigError that names file, line and column, and shows the line with a caret under the place."""
        lines = self.text.split("\n")
        line = lines[place.line - 1] if place.line <= len(lines) else ""
        column = min(place.column, len(line) + 1)
        start = max(column - _SHOWN // 2, 0) if len(line) > _SHOWN else 0
        shown = "".join(c if c.isprintable() else " " for c in line[start : start + _SHOWN])
        caret = " " * (column - 1 - start) + "^"
        message = printable(message)  # it may quote the file
        return ConfigError(f"{self.at(place)}: {message}\n    {shown}\n    {caret}")

    def at(self, place: Place) -> str:
        """``guest.cfg:3:8``."""
        return f"{self.name}:{place.line}:{place.column}"
