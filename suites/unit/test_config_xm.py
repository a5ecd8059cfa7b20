"""xm's files are Python: those that only work out values are read, and nothing of them is executed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stub.domain.guestfile import xm
from stub.domain.guestfile.place import Source, Value
from stub.errors import ConfigError


def plain(value: Value) -> Any:
    """A value without its places."""
    return [plain(each) for each in value.data] if isinstance(value.data, tuple) else value.data


def read(text: str) -> dict[str, Any]:
    source = Source("g.xm", text)
    settings, _ = xm.read(source, xm.parse(source))
    return {name: plain(setting.value) for name, setting in settings.items()}


WORKED_OUT = {
    "name = 'a' 'b'": {"name": "ab"},
    "vmid = 3\nname = 'vm%d' % vmid": {"vmid": 3, "name": "vm3"},
    "name = 'a' + 'b' * 2": {"name": "abb"},
    "memory = 2 * 256 + 512 / 2": {"memory": 768},
    "x = ['a', 'b'][1]": {"x": "b"},
    "d = {'k': 'v'}\nx = 'is %(k)s' % d": {"d": {}, "x": "is v"},
    "x = '%s,%03d' % ('a', 7)": {"x": "a,007"},
    "x = 'n' + str(3)": {"x": "n3"},
    "x = int('12') + len('abc')": {"x": 15},
    "x = 'yes' if 2 > 1 and not 0 else 'no'": {"x": "yes"},
    "a = 1\nif a == 1:\n  x = 'one'\nelse:\n  x = 'other'": {"a": 1, "x": "one"},
    "disk = []\nfor i in range(2):\n  disk += ['file:/d%d,%d,w' % (i, i)]": {
        "disk": ["file:/d0,0,w", "file:/d1,1,w"],
        "i": 1,
    },
    "x = 'abc'[1:]": {"x": "bc"},
    "x = 'a' in ['a']": {"x": True},
    "a, b = 1, 'two'": {"a": 1, "b": "two"},
    "a = b = 1": {"a": 1, "b": 1},
    "x = None\ny = [None]": {"y": [""]},
    "'''a text\nin front'''\nx = (\n 'a'\n)": {"x": "a"},
    "x = '''two\nlines'''": {"x": "two\nlines"},
    "x = -1 % 7": {"x": 6},
}


@pytest.mark.parametrize("text", WORKED_OUT, ids=range(len(WORKED_OUT)))
def test_values_are_worked_out(text: str) -> None:
    assert read(text) == WORKED_OUT[text]


REFUSED = {
    "import os": (1, 1, "import is not read"),
    "a = 1\nfrom os import path": (2, 1, "import is not read"),
    "name = __import__('os').system('true')": (1, 8, "a call of __import__('os').system"),
    "name = open('/etc/passwd')": (1, 8, "a call of open"),
    "x = os.path.join('a', 'b')": (1, 5, "a call of os.path.join"),
    "def f():\n  pass": (1, 1, "def is not read"),
    "while 1: pass": (1, 1, "while is not read"),
    "x = 'a'.upper()": (1, 5, "a call of 'a'.upper"),
    "x = ().__class__": (1, 5, "an attribute is not read"),
    "x = [a for a in 'b']": (1, 5, "a comprehension"),
    "x = lambda: 1": (1, 5, "a lambda"),
    "x = f'{1}'": (1, 5, "an f-string"),
    "x = 2 ** 64": (1, 5, "a power"),
    "x = y": (1, 5, "y has no value here"),
    "x = 1 + 'a'": (1, 5, "cannot be worked out"),
    "x = 1 / 0": (1, 5, "cannot be worked out"),
    "x = [1][5]": (1, 5, "cannot be worked out"),
    "x = {'a': 1}['b']": (1, 5, "there is no 'b'"),
    "x = '%*d' % (9, 1)": (1, 5, "the directive '*'"),
    "x = '%s %s' % 'a'": (1, 5, "cannot be worked out"),
    "x = 1.5": (1, 5, "a float"),
    "x.y = 1": (1, 1, "only a plain name"),
    "print 'hello'": (1, 1, "neither xl's grammar nor Python"),
    "grüße = 'ä'; x = y": (1, 18, "y has no value here"),
    "str = len\nx = str(1)": (1, 7, "len has no value here"),
}


@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
def test_what_would_have_to_be_run_is_refused_where_it_stands(text: str) -> None:
    line, column, message = REFUSED[text]
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert str(caught.value).startswith(f"g.xm:{line}:{column}: ")
    assert message in str(caught.value)


def test_nothing_of_a_file_is_executed(tmp_path: Path) -> None:
    """A file that would leave a mark if any of it ran."""
    mark = tmp_path / "mark"
    for text in (
        f"open({str(mark)!r}, 'w')",
        f"x = [open({str(mark)!r}, 'w')]",
        f"a = 0\nif open({str(mark)!r}, 'w'): a = 1",
    ):
        with pytest.raises(ConfigError):
            read(text)
    assert not mark.exists()
