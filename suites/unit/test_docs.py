"""What README and docs show is so: commands exist with the options shown, the quick ones print what the page says.

Blocks that need a guest image are run by suites/docs; here their words are checked.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from stub import cli
from stub.gdb.monitor import COMMANDS
from stub.gdb.monitor.registry import describe
from stub.hypervisor.verdict import EXIT_STATUS
from suites.docs.blocks import PAGES, ROOT, Block, Command, Known, blocks, commands, joined, matches

BLOCKS = blocks()
BIN = Path(sys.executable).parent
CODE = re.compile(r"`((?:stub|harness|images|suites|benchmarks)/[\w./-]+)(?::([A-Za-z_][\w.]*))?`")
LINK = re.compile(r"\[[^\]]*\]\((?!\w+:)([^)#\s]+)[^)]*\)")


def run(*words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(
        words, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


@cache
def help_text(*words: str) -> str:
    """What ``pvstub … --help`` prints, called in this process: it is shown often."""
    if words[0] != "pvstub":
        return run(*words, "--help").stdout
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            status: object = cli.main([*words[1:], "--help"])
        except SystemExit as end:
            status = end.code
    assert not status, f"{' '.join(words)} --help: exit status {status}"
    return out.getvalue()


@cache
def make_targets() -> frozenset[str]:
    rules = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    return frozenset(rules)


def check_pvstub(words: list[str]) -> None:
    """``pvstub SUB … --option``: SUB is in pvstub's help, each option in SUB's; what follows ``--`` is a boot's."""
    if "--" in words:
        check_pvstub(["pvstub", "boot", *words[words.index("--") + 1 :]])
        words = words[: words.index("--")]
    sub = [word for word in words[1:2] if not word.startswith("-")]
    if sub == ["bisect"]:
        sub += [word for word in words[2:3] if not word.startswith("-")]
    if sub:
        assert re.search(rf"\b{re.escape(sub[0])}\b", help_text("pvstub")), f"pvstub has no command {sub[0]}"
    text = help_text("pvstub", *sub)
    for option in (word.split("=")[0] for word in words[1:] if re.match(r"--?[a-z]", word)):
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text), f"no option {option} in: {' '.join(words)}"


def check_make(words: list[str]) -> None:
    targets = {word for word in words[1:] if "=" not in word}
    assert targets <= make_targets(), f"no such make target: {sorted(targets - make_targets())}"


def check_pytest(words: list[str]) -> None:
    text = help_text("pytest")
    for option in (word.split("=")[0] for word in words[1:] if word.startswith("--")):
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text), f"pytest has no option {option}"
    for path in (word.split("::")[0] for word in words[1:] if word.startswith("suites/")):
        assert (ROOT / path).exists(), f"no such path: {path}"


CHECKS = {"pvstub": check_pvstub, "make": check_make, "pytest": check_pytest}
PLAIN = frozenset({"git", "grep", "gdb", "cd", "pip", "python3", "readelf", ".ci/run", "pre-commit"})


def test_there_is_something_to_check() -> None:
    assert any(block.page.name == "README.md" for block in BLOCKS)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_commands_shown_exist(block: Block) -> None:
    assert block.commands, "a console block without a command"
    for command in block.commands:
        words = command.words
        tool = words[0].removeprefix(".venv/bin/")
        assert tool in CHECKS or tool in PLAIN, f"{tool} is not a tool that the pages may show"
        if tool in CHECKS:
            CHECKS[tool]([tool, *words[1:]])


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.kind == "quick"], ids=str)
def test_quick_blocks_print_what_the_page_shows(block: Block, tmp_path: Path) -> None:
    for command in block.commands:
        result = run("bash", "-c", command.text, cwd=tmp_path)
        if command.output:
            assert matches(command.output, result.stdout + result.stderr), result.stdout + result.stderr
        else:
            assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    assert not [target for target in targets if not (page.parent / target).exists()]


def names(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    """The dotted names that a module or class body defines: functions, classes, their members, constants."""
    for node in body:
        match node:
            case ast.ClassDef():
                yield prefix + node.name
                yield from names(node.body, f"{prefix}{node.name}.")
            case ast.FunctionDef():
                yield prefix + node.name
            case ast.Assign():
                yield from (prefix + target.id for target in node.targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield prefix + name


def defines(path: Path, name: str) -> bool:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return name in names(ast.parse(text).body)
    return re.search(rf"\b{re.escape(name)}\b", text) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_named_in_the_pages_exists(page: Path) -> None:
    """`path` is a file or folder of the repository, `path:name` a function, class or constant in that file."""
    wrong = [
        f"{path}:{name}" if name else path
        for path, name in CODE.findall(page.read_text(encoding="utf-8"))
        if not (ROOT / path).exists() or (name and not defines(ROOT / path, name))
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        (("a", "b"), "a\nb\n", True),
        (("a",), "a\nb\n", False),
        (("a…z",), "a to z\r\n", True),
        (("a", "…", "z"), "a\nz\n", True),
        (("a", "…", "z"), "a\n1\n2\nz\n", True),
        (("…", "z"), "a\ny\n", False),
        (("v1.0-x",), "v1x0-x\n", False),
        (("[   0.5] took 1,234 ms, 6.1.0-9",), "[  12.75] took 9 ms, 6.1.0-56\n", True),
        (("took 1,234 ms",), "took long ms\n", False),
        (("sha256 0123456789abcdef",), "sha256 fedcba9876543210\n", True),
    ],
)
def test_the_wildcards_mean_what_they_say(shown: tuple[str, ...], printed: str, same: bool) -> None:
    assert matches(shown, printed) is same


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        (("at 0xabc", "0xabc"), "at 0x123\n0x123\n", True),
        (("at 0xabc", "0xabc"), "at 0x123\n0x124\n", False),
        (("0xabc  x",), "  0x123456789  x\n", False),
        (("  0xabc  x",), "0x123456789  x\n", False),
        (("  0xabc  x",), " 0x123456789  x\n", True),
        (("<f+0x2f>",), "<f+0x30>\n", True),
        (("0xabc",), "0x12z\n", False),
        (("…", "at 127.0.0.1:40123"), "hm\nat 127.0.0.1:1\n", True),
    ],
)
def test_an_address_stands_for_one_address(shown: tuple[str, ...], printed: str, same: bool) -> None:
    assert matches(shown, printed, Known()) is same


def test_addresses_are_typed_as_they_were_printed() -> None:
    known = Known()
    assert matches(("at 0xabc", "127.0.0.1:40123"), "at 0x123\n127.0.0.1:77\n", known)
    assert not matches(("0xabc 0xdef",), "0x124 0x125\n", known)
    assert known.typed("x/i 0xabc, 0xdef, 0xabcd, 127.0.0.1:40123") == "x/i 0x123, 0xdef, 0xabcd, 127.0.0.1:77"
    assert matches(("0xabc 0xdef",), "0x123 0x125\n", known)
    assert known.typed("0xdef") == "0x125"


def test_a_session_is_taken_apart() -> None:
    fence = [(1, "console gdb", ["$ gdb -q", "hello", "(gdb) p 1", "$1 = 1"]), (9, "console gdb goes on", ["(gdb) q"])]
    ((_, _, lines),) = joined(iter(fence))
    (command,) = commands(lines)
    typed = Command("gdb -q", ("hello",)), Command("p 1", ("$1 = 1",)), Command("q", ())
    assert command.typed == typed


def test_monitor_commands_shown_exist() -> None:
    typed = [line.text for block in BLOCKS for command in block.commands for line in command.typed]
    asked = [text.removeprefix("monitor ") for text in typed if text.startswith("monitor ")]
    assert asked
    for text in asked:
        assert describe(text.split()).startswith(f"monitor {' '.join(text.split()[:2])}")


def test_the_table_of_monitor_commands_is_theirs() -> None:
    page = (ROOT / "docs" / "debugging.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `((?:xen|info|help) .*|help.*)` \| (.*) \|$", page, re.MULTILINE)
    shown = {usage.replace("\\|", "|"): text for usage, text in rows}
    assert shown == {row.usage: row.help for row in COMMANDS.values()}


def test_the_table_of_exit_statuses_is_theirs() -> None:
    """Each end of a run has its row in docs/configuration.md, and no row another."""
    table = (ROOT / "docs" / "configuration.md").read_text().partition("| exit status |")[2].partition("\n\n")[0]
    rows = [line.split("|")[1:3] for line in table.splitlines() if line[:3].strip("| ").isdigit()]
    shown = {kind: int(status) for status, kinds in rows for kind in re.findall(r"`([a-z-]+)`", kinds)}
    assert shown == EXIT_STATUS


def test_options_named_beside_the_transcripts_exist() -> None:
    page = (ROOT / "docs" / "debugging.md").read_text(encoding="utf-8")
    check_pvstub(["pvstub", "boot", *re.findall(r"`(--[a-z-]+)", page)])


def test_variables_and_comments_are_not_the_command() -> None:
    assert Command("A=1 B=2 pvstub boot x # why", ()).words == ["pvstub", "boot", "x"]
