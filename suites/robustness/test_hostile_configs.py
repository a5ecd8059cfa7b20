"""Configuration files that somebody made to do harm: each is an error with its place, soon, and runs nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stub.cli import main
from stub.domain.guestfile.reader import MAX_FILE, read, read_text
from stub.errors import ConfigError

HERE = Path("g.cfg")
DOUBLED = "".join(f"a{i + 1} = [a{i}, a{i}]\n" for i in range(60))

HOSTILE = {
    "deep lists": "kernel = " + "[" * 100_000,
    "deep lists of Python": "kernel = -" + "[" * 100_000,
    "deep parentheses": "kernel = " + "(" * 100_000 + ")" * 100_000,
    "many minus signs": "kernel = " + "-" * 100_000 + "1",
    "a long sum": "kernel = 1" + " + 1" * 50_000,
    "a long chain of attributes": "kernel = a" + ".a" * 50_000,
    "deep ifs": "".join(" " * i + "if 1:\n" for i in range(90)) + " " * 90 + "a = 1",
    "a huge number": "memory = " + "9" * 100_000,
    "a huge number of Python": "memory = 1 + " + "9" * 100_000,
    "a power": "memory = 9 ** 9 ** 9",
    "a shift": "memory = 1 << 1 << 40",
    "shifts in a row": "a = 1\n" + "a = a << 120\n" * 10,
    "a long string": "name = 'a' * 10 ** 9",
    "a longer string": "name = 'a' * 999999999",
    "a doubling string": "a = 'a'\n" + "a = a + a\n" * 60,
    "a doubling list": "a = [1]\n" + "a += a\n" * 60,
    "lists that hold each other": "a0 = 1\n" + DOUBLED,
    "comparing lists that hold each other": "a0 = 1 + 0\nb = [" + DOUBLED + "]",
    "a key that takes for ever": "t = (1, 2)\nd = {(t, t): 1}",
    "a wide field": "name = '%999999999d' % 1",
    "a field as wide as it likes": "name = '%*d' % (999999999, 1)",
    "many wide fields": "name = '%999d' * 10000 % (1,)",
    "many copies of a string": "a = 'a' * 60000\nname = '%(a)s' * 10000 % {'a': a}",
    "a loop in a loop": "r = range(60000)\n" + "".join(" " * i + "for a in r:\n" for i in range(8)) + " " * 8 + "b = 1",
    "a long range": "a = range(10000000000)",
    "an odd escape": "name = 'a' + '\\N{DASH'",
    "a NUL": "name = 'a' + \0",
    "a surrogate": "name = 'a' + \udcff",
    "reading a file": "kernel = open('/etc/passwd').read()",
    "all that there is": "kernel = ().__class__.__bases__[0].__subclasses__()",
    "a name that is not meant": "kernel = __builtins__",
    "a name of the reader's": "kernel = self",
    "many disks' commas": "disk = ['" + "," * 4096 + "']",
    "a disk without an end": "disk = ['" + "a" * 100_000 + "']",
    "a kernel that is no name": "kernel = 'a\\0b'",
    "a ramdisk that is no name": "kernel = 'a'\nramdisk = 'a\\0b'",
    "a long command line": "kernel = 'a'\nextra = '" + "a" * 200_000 + "'",
    "a long name": "kernel = 'a'\nname = '" + "a" * 200_000 + "'",
    "escapes of the terminal's": "kernel = 'a'\nname = '\\x1b[2J'",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_file_is_an_error_with_its_place(what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_text(HOSTILE[what], HERE)
    lines = str(caught.value).split("\n")
    assert lines[0].startswith("g.cfg:")
    assert sum(map(len, lines)) < 1000


def test_error_shows_nothing_that_a_terminal_would_obey() -> None:
    with pytest.raises(ConfigError) as caught:
        read_text("a = 'x' \x1b[2J\x07", HERE)
    assert str(caught.value).replace("\n", "").isprintable()


def test_many_small_additions_end_soon() -> None:
    """A file of the largest size that is all +=: each makes a longer value, up to a bound."""
    with pytest.raises(ConfigError, match="grows too long"):
        read_text("a += [0]\n" * (MAX_FILE // 9), HERE)
    with pytest.raises(ConfigError, match="grows too long"):
        read_text("a += '0'\n" * (MAX_FILE // 9), HERE)


def test_large_file_that_is_right_is_read() -> None:
    text = "kernel = 'k'\n" + "vif = [ '' ]\n" * 15_000
    assert len(read_text(text, HERE).warnings) == 1


def test_what_is_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe that never ends, a folder, a file that is too large: one line and exit status 2."""
    os.mkfifo(tmp_path / "fifo.cfg")
    (tmp_path / "folder.cfg").mkdir()
    (tmp_path / "large.cfg").write_bytes(b"a = 1\n" * MAX_FILE)
    (tmp_path / "loop.cfg").symlink_to("loop.cfg")
    for name in ("fifo", "folder", "large", "loop", "nowhere"):
        path = tmp_path / f"{name}.cfg"
        with pytest.raises(ConfigError, match=str(path)):
            read(path)
        assert main(["config", "check", str(path)]) == 2
        assert "Traceback" not in capsys.readouterr().out
