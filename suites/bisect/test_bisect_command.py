"""``pvstub bisect`` on a history of a small guest: each environment, what a kill leaves, git's view."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from demonstration import BROKEN, BY_CHANCE, COMMITS, WRITABLE, build_command, built, git, repository

from harness import small_guests
from harness.bisect.command import main
from harness.bisect.environment import Builder
from harness.bisect.repository import Repository

pytestmark = pytest.mark.usefixtures("pv_engine")

PVSTUB = [sys.executable, "-c", "import sys; from stub.cli import main; sys.exit(main())"]
BOOT = ["--", "--memory=32", "--cmdline=demo"]
REFUSAL = "update_va_mapping rc=-EBUSY"
BY_CHANCE_SAYS = "^not ok placement"

Bisected = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture(scope="module")
def kit() -> Path:
    return small_guests.kit_object(64)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repository(tmp_path_factory.mktemp("history") / "guest")


@pytest.fixture
def bisected(tmp_path: Path) -> Bisected:
    """Runs a bisection with its state in ``state``: the exit status and the report."""

    def run(*words: str) -> tuple[int, dict[str, Any]]:
        cut = words.index("--") if "--" in words else len(words)
        status = main([*words[:cut], f"--state={tmp_path / 'state'}", *words[cut:]])
        report = tmp_path / "state" / "report.json"
        return status, json.loads(report.read_text()) if report.exists() else {}

    return run


def on(history: Path, kit: Path) -> list[str]:
    return [
        "git", f"--repository={history}", "--good=c1", f"--bad=c{COMMITS}", "--build", build_command(kit),
        "--image=guest",
    ]  # fmt: skip


def subject(point: str) -> str:
    return point.split(" ", 1)[1]


# -- git


def test_the_commit_that_makes_a_page_table_writable(
    history: Path, kit: Path, bisected: Bisected, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, report = bisected(*on(history, kit), "--hypercall", REFUSAL, *BOOT)
    assert status == 0
    assert [subject(point) for point in report["first_bad"]] == [f"Commit {WRITABLE}"]
    assert subject(report["last_good"]) == f"Commit {WRITABLE - 1}"
    assert report["confidence"] >= 0.99
    assert len(report["boots"]) < 20
    assert report["failing"]["console"][-1].startswith("Test result:")
    assert report["failing"]["rerun"].startswith("pvstub boot /")
    said = capsys.readouterr().out
    assert f"First bad: {report['first_bad'][0]}" in said
    page = (tmp_path / "state" / "report.md").read_text()
    assert page.startswith(f"# First bad: {report['first_bad'][0]}\n")
    assert report["failing"]["rerun"] in page
    parting = report["divergence"]["divergence"]
    assert parting["bad"]["event"]["asked"] == ["mov from cr3"]  # the guest looks up its table before it maps it
    assert parting["good"]["event"]["asked"][0] == "sched_op:SCHEDOP_shutdown"
    assert page.count("\nLast milestone: entry at ") == 2  # the failing boot's and the last good one's
    assert "## Where their hypercall logs part" in page
    assert re.search(r"^- bad at root_mfn.*, from run_demo\+\w+, from kit_start\+", page, re.MULTILINE), "who called"
    assert re.search(r"^    \+ .* update_va_mapping\(.*\) = -EBUSY .*writable", page, re.MULTILINE)
    again = [*PVSTUB, *shlex.split(report["failing"]["rerun"])[1:], "--run", str(tmp_path / "again")]
    done = subprocess.run(again, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-20:] == report["failing"]["console"]
    assert not (tmp_path / "state" / "tree").exists()
    assert git(history, "status", "--porcelain") == ""
    assert len(git(history, "worktree", "list").splitlines()) == 1
    told = git(history, "bisect", "replay", str(tmp_path / "state" / "bisect.log"))
    git(history, "bisect", "reset")
    first = git(history, "rev-parse", f"c{WRITABLE}").strip()
    assert f"{first} is the first bad commit" in told


def test_the_commit_that_fails_one_time_in_three(history: Path, kit: Path, bisected: Bisected) -> None:
    """The commit before it does not build, so both may be the first one."""
    assert BY_CHANCE - 1 in BROKEN
    ends = {"--good=c1": "--good=c36", f"--bad=c{COMMITS}": "--bad=c48"}
    words = [ends.get(word, word) for word in on(history, kit)]
    status, report = bisected(*words, "--fail", BY_CHANCE_SAYS, "-j", "2", *BOOT)
    assert status == 0
    assert [subject(point) for point in report["first_bad"]] == [f"Commit {BY_CHANCE - 1}", f"Commit {BY_CHANCE}"]
    assert "does not build" in next(iter(report["skipped"].values()))
    assert 0.1 < report["failure_rate"] < 0.7


def test_a_killed_search_goes_on(history: Path, kit: Path, bisected: Bisected, tmp_path: Path) -> None:
    words = [*on(history, kit), "--hypercall", REFUSAL]
    command = [*PVSTUB, "bisect", *words, f"--state={tmp_path / 'state'}", *BOOT]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as lines:
        first = [next(lines) for _ in range(4)]
        process.kill()
    assert process.wait() == -signal.SIGKILL
    kept = json.loads((tmp_path / "state" / "state.json").read_text())["boots"]
    assert len(kept) >= len(first) - 1
    status, report = bisected(*words, *BOOT)
    assert status == 0
    assert [subject(point) for point in report["first_bad"]] == [f"Commit {WRITABLE}"]
    assert [boot["reason"] for boot in report["boots"]][: len(kept)] == [boot["reason"] for boot in kept]


def test_under_git_bisect_run(history: Path, kit: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(history), str(clone))
    git(clone, "bisect", "start", "c32", "c16")
    once = [*PVSTUB, "bisect", "once", "--build", build_command(kit), "--image=guest", "--hypercall", REFUSAL, *BOOT]
    said = git(clone, "bisect", "run", *once)
    assert f"{git(clone, 'rev-parse', f'c{WRITABLE}').strip()} is the first bad commit" in said


def test_ends_the_wrong_way_round_are_refused(history: Path, kit: Path, bisected: Bisected) -> None:
    words = [word.replace("--good=c1", "--good=c30") for word in on(history, kit)]
    status, report = bisected(*words, "--hypercall", REFUSAL, *BOOT)
    assert status == 3
    assert report["refusal"] == "good-end-fails"


def test_a_failure_of_another_kind_is_not_the_one(history: Path, kit: Path, bisected: Bisected) -> None:
    status, report = bisected(*on(history, kit), "--ends", "crash", "--failure-rate=1", *BOOT)
    assert status == 3
    assert report["refusal"] == "bad-end-passes"


def test_a_merge_that_is_the_first_bad_commit_says_how_to_go_on(
    bisected: Bisected, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merged = tmp_path / "merged"
    merged.mkdir()
    git(merged, "init", "--quiet", "--initial-branch=main")
    for key, value in (("user.name", "A"), ("user.email", "a@b.c"), ("commit.gpgsign", "false")):
        git(merged, "config", key, value)
    for step in ("one", "two"):
        git(merged, "commit", "--quiet", "--allow-empty", "-m", step)
    git(merged, "checkout", "--quiet", "-b", "side", "HEAD~1")
    (merged / "bad").write_text("bad")
    git(merged, "add", "bad")
    git(merged, "commit", "--quiet", "-m", "bad on the side")
    git(merged, "checkout", "--quiet", "main")
    git(merged, "merge", "--quiet", "--no-edit", "side")
    build = "if [ -e bad ]; then echo bad; else git rev-parse HEAD; fi > image"
    status, _ = bisected(
        "git", f"--repository={merged}", "--good=HEAD~2", "--bad=HEAD", "--build", build, "--image=image",
        "--script=! grep -q bad $PVSTUB_IMAGE", "--same-seed",
    )  # fmt: skip
    assert status == 0
    head = git(merged, "rev-parse", "HEAD").strip()
    assert f"a merge: go on with --good {git(merged, 'merge-base', 'main~1', 'side').strip()} --bad {head}^2" in (
        capsys.readouterr().out
    )


# -- the other environments


def test_a_list_of_images(bisected: Bisected, tmp_path: Path) -> None:
    images = [str(built(tmp_path, number)) for number in (20, 21, 22, 23, 24)]
    status, report = bisected("list", *images, "--hypercall", REFUSAL, "--same-seed", *BOOT)
    assert status == 0
    assert report["first_bad"] == [images[3]]


SCRIPT = 'case "$PVSTUB_BOOT" in {pattern}) echo bad; exit 1;; esac'


def test_versions_that_a_command_fetches(bisected: Bisected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """9 does not build; 7 and 8 are the same file."""
    monkeypatch.chdir(tmp_path)
    build = "[ $PVSTUB_POINT != 9 ] && echo $((PVSTUB_POINT == 8 ? 7 : PVSTUB_POINT)) > v$PVSTUB_POINT"
    script = "[ $(cat $PVSTUB_IMAGE) -lt 12 ]"
    status, report = bisected(
        "list", *map(str, range(1, 20)), "--build", build, "--image=v{point}", "--script", script, "--same-seed"
    )
    assert (status, report["first_bad"], report["last_good"]) == (0, ["12"], "11")


def test_memory_sizes(bisected: Bisected) -> None:
    script = SCRIPT.format(pattern="*--memory=[0-9]\\ *|*--memory=[1-3][0-9]\\ *")
    status, report = bisected("memory", "any", "128..8:4", "--script", script)
    assert (status, report["first_bad"], report["last_good"]) == (0, ["36 MiB"], "40 MiB")


def test_seeds(bisected: Bisected, tmp_path: Path) -> None:
    """The guest is wrong where one frame has a number that three divides; the smallest such seed is an example."""
    image = str(built(tmp_path, BY_CHANCE))
    status, report = bisected("seeds", image, "0..11", "40", "--fail", BY_CHANCE_SAYS, "-j2", *BOOT)
    assert status == 0
    failing, passing = report["failing_points"], report["passing_points"]
    assert len(failing) + len(passing) == 13
    low, high = report["between"]
    assert low < 1 / 3 < high
    assert report["failing"]["point"] == failing[0]
    assert f"--{failing[0].replace(' ', '=')}" in report["failing"]["rerun"]
    assert report["passing"]["point"] == passing[0]
    page = (tmp_path / "state" / "report.md").read_text()
    assert page.startswith(f"# {len(failing)} of 13 fail (")
    assert f"- failing: {', '.join(failing)}" in page


@pytest.mark.parametrize("kind", ["options", "settings"])
def test_the_words_that_matter(kind: str, bisected: Bisected) -> None:
    words = [f"w{number}=x" for number in range(12)]
    status, report = bisected(kind, "any", *words, "--script", SCRIPT.format(pattern="*w3=x*w9=x*"))
    assert status == 0
    assert report["needed"] == ["w3=x", "w9=x"]
    assert report["passing"]["point"] in ("w3=x", "w9=x")
    assert report["divergence"] is None  # the script left no logs
    assert len(report["boots"]) < 70


# -- verdicts


def test_a_pytest_node(bisected: Bisected, tmp_path: Path) -> None:
    test = tmp_path / "test_image.py"
    test.write_text("import os\ndef test_it(): assert int(os.environ['PVSTUB_IMAGE']) < 5\n")
    status, report = bisected("list", "4", "5", "6", "--pytest", f"{test}::test_it", "--same-seed", "--spots=0")
    assert (status, report["first_bad"]) == (0, ["5"])


EXPECT = """
import os, sys, pexpect
console = pexpect.spawn(os.environ["PVSTUB_BOOT"], timeout=60)
sys.exit(console.expect([r"Test result: SUCCESS", r"not ok", pexpect.EOF]))
"""


def test_an_expect_script(bisected: Bisected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It boots the guest itself, by the command that it is given, and talks with it."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    script = tmp_path / "expect.py"
    script.write_text(EXPECT)
    images = [str(built(tmp_path, number)) for number in (BY_CHANCE - 2, BY_CHANCE)]
    words = ["list", *images, f"--script={sys.executable} {script}", "--same-seed"]
    status, report = bisected(*words, "--", "--memory=32", "--cmdline=demo", "--seed=0")
    assert (status, report["first_bad"]) == (0, [images[1]])


def test_trouble_is_tried_again_and_then_skipped(bisected: Bisected) -> None:
    script = "[ $PVSTUB_IMAGE = 4 ] && exit 127; [ $PVSTUB_IMAGE -lt 4 ]"
    status, report = bisected("list", *map(str, range(9)), "--script", script, "--same-seed")
    assert (status, report["first_bad"]) == (0, ["4", "5"])
    assert [boot["verdict"] for boot in report["boots"] if boot["point"] == "4"] == ["trouble"] * 3
    assert report["skipped"] == {"4": "trouble 3 times, last: exit status 127: no word"}


def test_several_bad_ranges_are_named(bisected: Bisected) -> None:
    script = "[ $PVSTUB_IMAGE -lt 3 ] || { [ $PVSTUB_IMAGE -gt 5 ] && [ $PVSTUB_IMAGE -lt 9 ]; }"
    status, report = bisected("list", *map(str, range(12)), "--script", script, "--same-seed", "--spots=8", "-j4")
    assert status == 3
    assert report["refusal"] == "several-bad-ranges"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list", "a", "b"], "say what a bad boot is"),
        (["list", "a", "b", "--fail", "("], "no regular expression"),
        (["list", "a", "b", "--ends", "cresh"], "--ends cresh: a boot ends as "),
        (["list", "a", "b", "--hypercall", "mmu_updat"], "did you mean mmu_update"),
        (["list", "a", "b", "--fail", "x", "--script", "y"], "say what a bad boot is"),
        (["list", "a", "--fail", "x"], "1 point to search"),
        (["memory", "a", "64", "--fail", "x"], "no range"),
        (["list", "a", "b", "--fail", "x", "-j0"], "-j 0: use 1 or more"),
        (["seeds", "a", "9..1", "--fail", "x"], "the smaller seed first"),
        (["seeds", "a", "0..9", "--fail", "x", "--", "--seed=1"], "--seed or --p2m after --"),
        (["git", "--good=x", "--bad=y", "--image=i", "--fail=x"], "git "),
        ([], "required"),
    ],
)
def test_what_cannot_be(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert message in said


@pytest.mark.parametrize("words", [[], ["--fail", "("], ["--fail", "x", "--frobnicate"]])
def test_git_bisect_run_takes_no_fault_of_ours_for_a_bad_commit(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stops at a status of 128 or more only (git's bisect documentation)."""
    monkeypatch.chdir(tmp_path)
    assert main(["once", *words]) == 128


def test_lines_in_ci_and_a_live_one_on_a_terminal(tmp_path: Path) -> None:
    words = ["bisect", "list", *map(str, range(9)), "--script", "[ $PVSTUB_IMAGE -lt 4 ]", "--same-seed"]
    plain = subprocess.run([*PVSTUB, *words, f"--state={tmp_path / 'one'}"], capture_output=True, text=True, check=True)
    assert plain.stderr == ""
    assert all(line.startswith("bisect: ") for line in plain.stdout.splitlines())
    assert "\x1b" not in plain.stdout
    ours, theirs = pty.openpty()
    with subprocess.Popen([*PVSTUB, *words, f"--state={tmp_path / 'two'}"], stdout=theirs) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # the terminal's other side is gone
            while data := os.read(ours, 4096):
                shown += data
        os.close(ours)
    assert process.returncode == 0
    pieces = [piece.strip() for piece in re.split(r"\r\x1b\[2K|\n", shown.decode())]
    assert "3 boots; 4 points left, the likeliest 25%; boots 2" in pieces
    lasting = [piece for piece in pieces if piece.startswith("bisect: ")]
    assert lasting[:-1] == plain.stdout.splitlines()[:-1]  # but for the folder
    assert pieces[-1] == ""


def test_another_search_in_the_folder_is_not_overwritten(
    bisected: Bisected, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bisected("list", "1", "2", "--script", "[ $PVSTUB_IMAGE = 1 ]")[0] == 0
    assert bisected("list", "1", "3", "--script", "[ $PVSTUB_IMAGE = 1 ]")[0] == 2
    assert "another search" in capsys.readouterr().err


def test_subjects_in_any_encoding_name_their_commits(tmp_path: Path) -> None:
    """With what other programs take for the end of a line, and what a terminal acts on."""
    repository = tmp_path / "repository"
    own = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "--quiet", str(repository)], check=True)
    for subject in (b"first", b"caf\xe9 \x0c \x1b[31m", "one\u2028two".encode(), b"last"):
        subprocess.run([*own, "commit", "--quiet", "--allow-empty", "-F", "-"], input=subject, check=True)
    builder = Builder(None, "kernel", repository, tmp_path)
    history = Repository(repository, "HEAD~3", "HEAD", builder, tmp_path / "tree")
    names = [name.partition(" ")[2] for name in history.names]
    assert len(names) == len(history.commits) == 4
    assert names[0] == "first"
    assert names[2:] == [r"one\u2028two", "last"]
    assert all(name.isprintable() for name in names)
