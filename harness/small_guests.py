"""Small test guests of our own (``images/tests``): found, built with the host's gcc, and what they print read back.

A test is a folder ``images/tests/GROUP/TEST`` with C files that use ``images/tests/kit``. Its variations stand in the
C files themselves, as ``VARIATION(name, "story")`` or ``CRASHING_VARIATION(name, "reason", "story")``; each is booted
on its own, with its name as the command line. One that stands between ``#if BITS == 64`` and ``#endif`` is for 64-bit
guests only. ``docs/small-guests.md`` tells how to write one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from stub.errors import UsageError

from .images_folder import images_folder
from .programs import compiled

if TYPE_CHECKING:
    import pytest

    from .guests import Guest

TESTS = images_folder() / "tests"
KIT = TESTS / "kit"
MEMORY = 32  # MiB, the least that a domain can have
TIMEOUT = 20.0  # virtual seconds
BOTH = (64, 32)  # bits, in the order in which a test's boots are made
FREESTANDING = (
    "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-g", "-O1", "-static", "-nostdlib", "-ffreestanding", "-fno-pic",
    "-no-pie", "-mgeneral-regs-only", "-fno-stack-protector", "-fcf-protection=none", "-fno-omit-frame-pointer",
    "-fno-asynchronous-unwind-tables",
)  # fmt: skip
OF_WIDTH = {64: ("-m64", "-mcmodel=kernel", "-mno-red-zone"), 32: ("-m32", "-march=i686", "-mregparm=3")}
LINK = "-Wl,--build-id=none,-z,max-page-size=4096,--no-warn-rwx-segments,-T,{script}"

_VARIATION = re.compile(
    r'^(?:VARIATION\((?P<name>\w+)|CRASHING_VARIATION\((?P<crashing>\w+),\s*"(?P<crash>[^"]*)"),\s*"(?P<story>[^"]*)"\)',
    re.MULTILINE,
)
_BEGINNING = re.compile(r"^(?:CRASHING_)?VARIATION\(", re.MULTILINE)
_OF_WIDTH = re.compile(r"#\s*if BITS == (?P<bits>64|32)\b")
_CHECK = re.compile(r"(?:(?P<ok>ok)|not ok) (?P<name>[^:\r\n]+)(?:: (?P<reason>.*))?")
_RESULT = re.compile(r"Test result: (?P<result>SUCCESS|SKIP|ERROR|FAILURE)(?:: (?P<reason>.*))?")


class Variation(NamedTuple):
    """One boot of a test: ``crash`` is the text that the domain's crash must give as its reason, None for no crash."""

    folder: Path
    name: str
    story: str
    crash: str | None
    bits: int = 64

    @property
    def id(self) -> str:
        """``TEST-NAME``, as pytest shows it; with ``-32`` for a 32-bit guest."""
        return f"{self.folder.name}-{self.name}{suffix(self.bits)}"


class Check(NamedTuple):
    """A check that the guest made: ``reason`` says what was wrong, None if nothing was."""

    name: str
    reason: str | None


class Outcome(NamedTuple):
    """What a console says: the checks in their order, and each result line as (result, reason)."""

    checks: tuple[Check, ...]
    results: tuple[tuple[str, str], ...]


def suffix(bits: int) -> str:
    """What tells the names of a 32-bit guest from those of its 64-bit twin."""
    return {64: "", 32: "-32"}[bits]


def find(group: str, widths: Sequence[int] = (64,)) -> list[Variation]:
    """All variations of the tests of ``images/tests/GROUP``. UsageError for a group or a test without any."""
    folders = sorted(path for path in (TESTS / group).glob("*/") if any(path.glob("*.c")))
    found = [variation for folder in folders for variation in variations(folder, widths)]
    if not found:
        raise UsageError(f"{TESTS / group}: no test guests there")
    return found


def variations(folder: Path, widths: Sequence[int] = (64,)) -> list[Variation]:
    """The variations that a test's C files declare. UsageError when there are none, or two of a name."""
    found = [variation for bits in widths for variation in _declared(folder, bits)]
    if not found or len({variation.id for variation in found}) < len(found):
        names = [variation.name for variation in found]
        raise UsageError(f'{folder}: each test has a VARIATION(name, "story"), and no two of one name; found {names}')
    return found


def _declared(folder: Path, bits: int) -> list[Variation]:
    text = "".join(_of_width(path.read_text(), bits) for path in sorted(folder.glob("*.c")))
    found = [
        Variation(folder, match["name"] or match["crashing"], match["story"], match["crash"], bits)
        for match in _VARIATION.finditer(text)
    ]
    if len(found) < len(_BEGINNING.findall(text)):
        names = [variation.name for variation in found]
        raise UsageError(f"{folder}: a variation's name, reason or story cannot be read; after {names}")
    return found


def _of_width(source: str, bits: int) -> str:
    """A C source without its parts for the other width, from ``#if BITS == …`` to ``#else`` or ``#endif``."""
    kept: list[str] = []
    hidden: list[bool | None] = []  # of each #if that is open: None where it is about something else
    for line in source.splitlines(keepends=True):
        directive = line.lstrip("# \t").split(None, 1)[0] if line.startswith("#") else ""
        if directive in ("if", "ifdef", "ifndef"):
            about = _OF_WIDTH.match(line.rstrip())
            hidden.append(int(about["bits"]) != bits if about else None)
        elif directive == "else" and hidden and hidden[-1] is not None:
            hidden[-1] = not hidden[-1]
        elif directive == "endif" and hidden:
            hidden.pop()
        elif not any(hidden):
            kept.append(line)
    return "".join(kept)


def build(folder: Path, bits: int = 64) -> Path:
    """The kernel of a test, compiled if its sources or the kit's have changed."""
    return with_kit(f"test-{folder.parent.name}-{folder.name}{suffix(bits)}", _sources(folder), bits)


def with_kit(name: str, sources: Sequence[Path], bits: int = 64) -> Path:
    """A guest of these sources and the kit, from pvstub's cache or compiled now (`freestanding`)."""
    own = KIT / str(bits)
    flags = ("-I", str(KIT), "-I", str(own))
    return freestanding(name, [*sources, kit_object(bits)], flags, own / "link.ld", bits, [KIT])


def freestanding(
    name: str,
    sources: Sequence[Path],
    flags: Sequence[str],
    script: Path,
    bits: int = 64,
    headers: Sequence[Path] = (),
) -> Path:
    """A guest linked by ``script``, from pvstub's cache or compiled now; ``flags`` come after :data:`FREESTANDING`.

    Made again when a source changes, or a header beside a source or the script or in a folder of ``headers``.
    UsageError when gcc is missing, or with gcc's message.
    """
    command = ("gcc", *OF_WIDTH[bits], *FREESTANDING, *flags, LINK.format(script=script), *map(str, sources))
    beside = {source.parent for source in sources if source.suffix != ".o"}
    return compiled(name, command, beside | {script.parent} | set(headers))


def kit_object(bits: int) -> Path:
    """The kit as one object: it is the same in all tests of a width, and most of what there is to compile."""
    own = KIT / str(bits)
    flags = (*OF_WIDTH[bits], *FREESTANDING, "-I", str(KIT), "-I", str(own), "-r")
    return compiled(
        f"test-kit{suffix(bits)}.o", ("gcc", *flags, *map(str, [*_sources(KIT), *_sources(own)])), {KIT, own}
    )


def _sources(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.[cS]"))


def parse(console: str) -> Outcome:
    """The checks and the result lines among what a guest printed."""
    lines = [line.rstrip("\r") for line in console.split("\n")]
    checks = (_CHECK.fullmatch(line) for line in lines)
    results = (_RESULT.fullmatch(line) for line in lines)
    return Outcome(
        tuple(
            Check(match["name"], None if match["ok"] else match["reason"] or "no reason given")
            for match in checks
            if match
        ),
        tuple((match["result"], match["reason"] or "") for match in results if match),
    )


def prepare(variation: Variation, guest: Guest) -> Guest:
    """A guest like ``guest`` that will run a variation; nothing of it has run."""
    return guest(build(variation.folder, variation.bits), memory=MEMORY, cmdline=variation.name)


def finish(variation: Variation, running: Guest) -> Outcome:
    """Run what :func:`prepare` gave to its end, which must be a power-off or the variation's crash.

    The harness's WrongVerdict when it ends in another way; AssertionError for a crash with another reason.
    """
    __tracebackhide__ = True
    verdict = running.wait("crash" if variation.crash else "poweroff", timeout=TIMEOUT)
    if variation.crash:
        assert variation.crash in verdict.reason, f"crashed for another reason: {verdict.reason}"
    return parse(running.console.text)


def run(variation: Variation, guest: Guest) -> Outcome:
    """Both at once."""
    __tracebackhide__ = True
    return finish(variation, prepare(variation, guest))


def verdict_of(variation: Variation, outcome: Outcome) -> str | None:
    """What is wrong with a variation as a whole, its checks aside; None if nothing is. A skip counts as right."""
    if variation.crash:
        return f"it printed {outcome.results}" if outcome.results else None
    if len(outcome.results) != 1:
        return f"{len(outcome.results)} result lines instead of one"
    result, reason = outcome.results[0]
    names = [check.name for check in outcome.checks]
    if twice := {name for name in names if names.count(name) > 1}:
        return f"two checks are called {min(twice)!r}"
    failed = any(check.reason is not None for check in outcome.checks)
    if result == "SUCCESS" and (failed or not outcome.checks):
        return "SUCCESS, but a check failed or none was made"
    return None if result in ("SUCCESS", "SKIP") else f"{result}: {reason}"


def judge(variation: Variation, outcome: Outcome, subtests: pytest.Subtests) -> None:
    """What a test makes of an outcome: a subtest for each check, then the result; a guest's skip is the test's."""
    import pytest

    __tracebackhide__ = True
    for check in outcome.checks:
        with subtests.test(check.name):
            assert check.reason is None, f"{check.name}: {check.reason}"
    if reason := skipped(outcome):
        pytest.skip(reason)
    wrong = verdict_of(variation, outcome)
    assert wrong is None, wrong


def skipped(outcome: Outcome) -> str | None:
    """Why a guest skipped its test; None if it did not."""
    return next((reason for result, reason in outcome.results if result == "SKIP"), None)
