"""``pvstub bisect``: which commit, image, version, memory size, placement, option or setting a failure is due to."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

from stub.command_line import INTERRUPTED, Parser, ended
from stub.errors import PvstubError, UsageError

from .. import catalogue, package_versions
from .environment import (
    Builder,
    Environment,
    MemorySizes,
    NamedPoints,
    PackageVersions,
    Ready,
    Seeds,
    WordSets,
    like,
    seeds,
    sizes,
)
from .journal import Journal
from .live import Live
from .minimise import as_words
from .processes import Workers
from .report import as_object, headline, markdown
from .repository import Repository
from .rounds import Judge, Rounds
from .search import Found, Refused, Rules
from .verdicts import SKIP_STATUS, Judged, Signature

REFUSED, UNDECIDED = 3, 4
_ONCE_STATUS: Final = {"good": 0, "bad": 1, "skip": SKIP_STATUS, "trouble": 128}
_EPILOG = """\
--fail, --ends, --hypercall (all that are given must hold of a bad boot), --pass, --script or --pytest say what a bad
boot is. One that fails in another way is skipped. Words after -- go to every `pvstub boot`. Each boot has its own
--seed, as one that is repeated with the same would end the same, unless --same-seed is given or a seed after --.
  pvstub bisect git --good v1 --bad HEAD --build 'make' --image vmlinux --fail 'Kernel panic' -- --memory 64
  pvstub bisect list old.bin middle.bin new.bin --ends crash
  pvstub bisect list 6.1.1 6.1.2 6.1.3 --build './fetch $PVSTUB_POINT' --image 'vmlinuz-{point}' --pass 'login:'
  pvstub bisect packages linux-image-amd64 --good 6.1.140-1 --bad 6.1.153-1 --like debian-amd64 --pass 'init reached'
  pvstub bisect memory debian-cloud 256..32:8 --fail 'Out of memory'
  pvstub bisect seeds vmlinux 0..99 -j 2 --fail 'BUG:'
  pvstub bisect options debian-cloud quiet nosmp debug --fail 'BUG:'
  pvstub bisect settings guest.cfg memory=64 'extra="debug"' --ends crash
  git bisect run pvstub bisect once --build make --image vmlinux --ends crash
Exit status: 0 found; 1 a fault of pvstub's own; 2 a fault in what was asked for; 3 there is no first bad point (an end
is not what it was said to be, several bad ranges); 4 undecided after --most boots; 130 interrupted. The same command
goes on where it was interrupted. `once`: 0 good, 1 bad, 125 skip, 128 trouble, as git bisect run has it.
"""


def main(argv: Sequence[str]) -> int:
    """Run ``pvstub bisect``; the exit status, as ``--help`` has it."""
    # From 128 on git bisect run stops; by any other status of a fault it would blame a commit.
    trouble = _ONCE_STATUS["trouble"] if list(argv[:1]) == ["once"] else None
    return ended("pvstub bisect", lambda: _run(argv), trouble=trouble, unread=trouble or PvstubError.status)


def _run(argv: Sequence[str]) -> int:
    words = list(argv)
    cut = words.index("--") if "--" in words else len(words)
    options = _parser().parse_args(words[:cut])
    options.boot = words[cut + 1 :]
    act: Callable[[argparse.Namespace], int] = options.act
    try:
        return act(options)
    except KeyboardInterrupt:
        print("pvstub bisect: interrupted; the same command goes on", file=sys.stderr)
        return INTERRUPTED


# -- the command line


def _parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="pvstub bisect",
        description="Find what a failing boot is due to.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = made.add_subparsers(metavar="ACTION", required=True, parser_class=Parser)

    def add(name: str, about: str, environment: Callable[[argparse.Namespace], Environment]) -> argparse.ArgumentParser:
        parser = actions.add_parser(name, help=about, parents=[_verdict_options(), _search_options()])
        parser.set_defaults(act=_bisect, environment=environment, kind=name)
        return parser

    history = add("git", "the commits of a repository", _repository)
    history.add_argument("--repository", type=Path, default=Path(), metavar="DIR", help="default: this folder")
    history.add_argument("--good", required=True, metavar="COMMIT")
    history.add_argument("--bad", required=True, metavar="COMMIT")
    _build_options(history)
    listed = add("list", "images, or versions of which a command makes images; from good to bad", _named)
    listed.add_argument("points", nargs="+", metavar="POINT")
    _build_options(listed)
    packages = add("packages", "versions of a Debian package", _packages)
    packages.add_argument("package", metavar="PACKAGE")
    packages.add_argument("--good", required=True, metavar="VERSION")
    packages.add_argument("--bad", required=True, metavar="VERSION")
    packages.add_argument(
        "--file", default=package_versions.KERNEL, metavar="REGEX", help="the path in the package of what is booted"
    )
    packages.add_argument("--like", metavar="IMAGE", help="boot with this image's ramdisk, command line and memory")
    memory = add("memory", "sizes of memory", lambda options: MemorySizes(sizes(options.range), options.image))
    memory.add_argument("image", metavar="IMAGE")
    memory.add_argument("range", metavar="GOOD..BAD[:STEP]", help="MiB")
    placed = add("seeds", "placements of the guest's memory: how many fail, and which", _seeds)
    placed.add_argument("image", metavar="IMAGE")
    placed.add_argument("seeds", nargs="+", metavar="SEED", help="a number, or FIRST..LAST")
    for name, about in (("options", "words of the kernel's command line"), ("settings", "lines KEY=VALUE of xl.cfg")):
        words = add(name, f"{about}: those that are needed for the failure", _words)
        words.add_argument("image", metavar="IMAGE")
        words.add_argument("words", nargs="+", metavar="WORD")
    once = actions.add_parser("once", help="build and boot here, for git bisect run", parents=[_verdict_options()])
    _build_options(once)
    once.set_defaults(act=_once)
    return made


def _build_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--build", metavar="COMMAND", help="makes the image; the point's name is in $PVSTUB_POINT")
    parser.add_argument("--image", default="{point}", metavar="PATH", help="what to boot; {point} is the point's name")


def _verdict_options() -> Parser:
    made = Parser(add_help=False)
    made.add_argument("--fail", metavar="REGEX", help="what a bad boot has on its console")
    made.add_argument("--pass", dest="passes", metavar="REGEX", help="what a good boot has on its console")
    made.add_argument("--ends", metavar="KIND[:REGEX]", help="how a bad boot ends, as crash or crash:REASON")
    made.add_argument("--hypercall", metavar="FILTER", help="what a bad boot logs, as in pvstub trace --filter")
    made.add_argument("--script", metavar="COMMAND", help="boots $PVSTUB_IMAGE itself; exit 0 good, 125 skip, else bad")
    made.add_argument("--pytest", metavar="NODE", help="a test that boots $PVSTUB_IMAGE")
    return made


def _search_options() -> Parser:
    made = Parser(add_help=False)
    made.add_argument("--confidence", type=float, default=0.99, metavar="P", help="of the answer (default 0.99)")
    made.add_argument(
        "--failure-rate", type=float, metavar="P", help="how often a bad point fails (default: learned; 1: always)"
    )
    made.add_argument("--false-bad", type=float, default=0.0, metavar="P", help="how often a good point fails")
    made.add_argument("--same-seed", action="store_true", help="all boots alike: repeats tell nothing, none are made")
    made.add_argument("--repeats", type=int, default=2, metavar="N", help="boots of both neighbours at least")
    made.add_argument("--spots", type=int, default=2, metavar="N", help="looks for other bad ranges at the end")
    made.add_argument("--most", type=int, default=1000, metavar="N", help="give up after N boots")
    made.add_argument("-j", "--jobs", type=int, default=1, metavar="N", help="boots at once")
    made.add_argument(
        "--state", type=Path, default=Path("pvstub-bisect"), metavar="DIR",
        help="where state, runs and reports are kept (default: pvstub-bisect)",
    )  # fmt: skip
    return made


def _signature(options: argparse.Namespace) -> Signature:
    signature = Signature(options.fail, options.passes, options.ends, options.hypercall)
    given = sum((signature.given, options.script is not None, options.pytest is not None))
    if given != 1:
        raise UsageError("say what a bad boot is, with --fail, --ends, --hypercall, --pass, or --script, or --pytest")
    return signature


def _judge(options: argparse.Namespace) -> Judge:
    return Judge(_signature(options), options.boot, options.script, options.pytest)


# -- the environments


def _builder(options: argparse.Namespace, folder: Path) -> Builder:
    return Builder(options.build, options.image, folder, options.state.resolve() / "images")


def _repository(options: argparse.Namespace) -> Repository:
    if options.image == "{point}":
        raise UsageError("--image: name the file that the build makes, by its path in the repository")
    state = options.state.resolve()
    return Repository(options.repository, options.good, options.bad, _builder(options, state / "tree"), state / "tree")


def _named(options: argparse.Namespace) -> NamedPoints:
    return NamedPoints(options.points, _builder(options, Path.cwd()))


def _packages(options: argparse.Namespace) -> PackageVersions:
    versions = package_versions.between(options.package, options.good, options.bad)
    words = like(catalogue.load(options.like)) if options.like is not None else ()
    return PackageVersions(options.package, versions, options.file, words)


def _words(options: argparse.Namespace) -> WordSets:
    return WordSets(options.words, options.image, options.kind == "settings")


def _seeds(options: argparse.Namespace) -> Seeds:
    if any(word.startswith(("--seed", "--p2m")) for word in options.boot):
        raise UsageError("--seed or --p2m after --: the seeds are what is looked at here")
    return Seeds(seeds(options.seeds), options.image)


# -- the actions


def _bisect(options: argparse.Namespace) -> int:
    judge, environment = _judge(options), options.environment(options)
    words = len(environment.names) if isinstance(environment, WordSets) else 0
    if options.same_seed:
        options.failure_rate, options.repeats = 1.0, 1
    rules = Rules(
        max(2, 1 << words) if words else len(environment.names),
        options.confidence, options.failure_rate, options.false_bad, options.repeats, options.spots, most=options.most,
    )  # fmt: skip
    sampled = isinstance(environment, Seeds)
    seeded = not sampled and not options.same_seed and not any(word.startswith("--seed") for word in options.boot)
    if options.jobs < 1:
        raise UsageError(f"-j {options.jobs}: use 1 or more")
    state = options.state.resolve()
    with Journal.locked(state), ExitStack() as opened:
        journal = Journal.opened(state, _plan(options, environment), rules)
        rounds = Rounds(
            journal, environment, judge, options.jobs, _namer(environment), Live(),
            seeds=seeded, words=words, sampled=sampled,
        )  # fmt: skip
        if isinstance(environment, Repository):
            opened.enter_context(environment.at_work())
            rounds.after = lambda: journal.write("bisect.log", environment.log(journal.search))
        opened.callback(rounds.workers.close)
        return _searched(rounds)


def _plan(options: argparse.Namespace, environment: Environment) -> dict[str, Any]:
    """All that makes it this search and no other, as plain data. The number of boots at once may change."""
    left_out = ("act", "environment", "state", "jobs")
    plan = {name: value for name, value in vars(options).items() if name not in left_out}
    points = list(environment.commits if isinstance(environment, Repository) else environment.names)
    return {**{name: str(value) if isinstance(value, Path) else value for name, value in plan.items()}, "names": points}


def _namer(environment: Environment) -> Callable[[int], str]:
    names = list(environment.names)
    if isinstance(environment, WordSets):
        return lambda point: " ".join(names[word] for word in as_words(point)) or "(none)"
    return lambda point: names[point]


def _searched(rounds: Rounds) -> int:
    journal, environment, say = rounds.journal, rounds.environment, rounds.live.say
    if journal.boots:
        say(f"goes on after {len(journal.boots)} boots, from {journal.folder}")
    end = rounds.run()
    report = as_object(journal, end, rounds.name)
    journal.write("report.json", json.dumps(report, indent=2) + "\n")
    journal.write("report.md", markdown(report))
    say(headline(report))
    if report["result"] == "found":
        say(f"last good: {report['last_good']}; confidence {report['confidence']:.2%}")
    if isinstance(environment, Repository) and isinstance(end, Found) and (more := environment.further(end.first_bad)):
        say(more)
    if report["failing"] is not None and report["failing"]["rerun"]:
        say(f"again: {report['failing']['rerun']}")
    say(f"report: {journal.folder / 'report.md'}")
    if isinstance(end, Refused):
        return UNDECIDED if end.word == "undecided" else REFUSED
    return 0


def _once(options: argparse.Namespace) -> int:
    """One verdict of what stands here, by its exit status."""
    judge = _judge(options)
    with tempfile.TemporaryDirectory(prefix="pvstub-bisect-") as name:
        folder = Path(name)
        judged: Ready | Judged = Builder(options.build, options.image, Path.cwd(), folder / "images").build("here")
        if isinstance(judged, Ready):
            work = judge.work(judged, folder / "run")
            with closing(Workers()) as workers, workers.started([work]) as (wait,):
                judged = judge.judge(folder / "run", wait())
    word, reason = judged
    Live().say(f"{word}: {reason}")
    return _ONCE_STATUS[word]
