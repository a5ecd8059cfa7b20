"""xl's grammar (xl.cfg(5)): what is read, and where what is wrong is shown."""

from __future__ import annotations

from typing import Any

import pytest

from stub.domain.guestfile import xl
from stub.domain.guestfile.place import Source, Value
from stub.errors import ConfigError


def plain(value: Value) -> Any:
    """A value without its places."""
    return [plain(each) for each in value.data] if isinstance(value.data, tuple) else value.data


def read(text: str) -> dict[str, Any]:
    return {name: plain(setting.value) for name, setting in xl.read(Source("g.cfg", text)).items()}


READ = {
    "": {},
    "\n\n;;\n# only a comment": {},
    "name = 'a'": {"name": "a"},
    'name="a"  # why\nmemory=64': {"name": "a", "memory": "64"},
    "a=1;b=0x1f;c=017": {"a": "1", "b": "0x1f", "c": "017"},
    "a = '#;=[]'": {"a": "#;=[]"},
    "a = []": {"a": []},
    "a = [ 1, 'two', ]": {"a": ["1", "two"]},
    "a = [\n  'x', # first\n\n  'y'\n , [ 'z', [ ] ] ]": {"a": ["x", "y", ["z", []]]},
    "a = 'x'\na = 'y'": {"a": "y"},
    "a = 'x'\na += 'y'": {"a": "xy"},
    "a += 'x'": {"a": "x"},
    "a = ['x']\na += ['y', 'z']": {"a": ["x", "y", "z"]},
    r"""a = 'it\'s "\\" \x41\102\n\t'""": {"a": 'it\'s "\\" AB\n\t'},
    'a = "it\'s"': {"a": "it's"},
    "a_1\t=\t'tabs'": {"a_1": "tabs"},
    "a = 'grüße'": {"a": "grüße"},
}


@pytest.mark.parametrize("text", READ, ids=range(len(READ)))
def test_grammar(text: str) -> None:
    assert read(text) == READ[text]


WRONG = {
    "name 'a'": (1, 6, "= or +="),
    "name = a": (1, 8, "a string in quotes"),
    "\n\nname = \n": (3, 8, "the end of the line"),
    "a = 'x": (1, 5, "close the quote"),
    "a = ['x'\nb = 2": (2, 1, "that line 1 opens"),
    "a = ['x' 'y']": (1, 10, "of the list"),
    "a = [,]": (1, 6, "a string in quotes"),
    "Name = 'a'": (1, 1, "a key"),
    "a = 1 b = 2": (1, 7, "the end of the line, or ;"),
    r"a = 'x\q'": (1, 7, "is no escape"),
    "a = 'x'\na += ['y']": (2, 6, "cannot be added"),
    "a = -1": (1, 5, "a string in quotes"),
    "a = [": (1, 6, "the end of the file"),
    "a = " + "[" * 40: (1, 37, "flatter"),
}


@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_error_has_its_place_and_a_caret(text: str) -> None:
    """File, line, column, and under the line a caret at that column."""
    line, column, message = WRONG[text]
    with pytest.raises(ConfigError) as caught:
        read(text)
    first, shown, caret = str(caught.value).split("\n")
    assert first.startswith(f"g.cfg:{line}:{column}: ")
    assert message in first
    assert shown == "    " + text.split("\n")[line - 1]
    assert caret == " " * (4 + column - 1) + "^"


def test_long_line_is_cut_around_the_place() -> None:
    with pytest.raises(ConfigError) as caught:
        read("a = 'x' " + "b" * 5000)
    _, shown, caret = str(caught.value).split("\n")
    assert len(shown) < 200
    assert shown[len(caret) - 1] == "b"
