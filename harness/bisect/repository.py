"""A git repository's commits, from a good one to a bad one, each built in a work tree of the search's own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from stub.command_line import line
from stub.errors import UsageError

from .environment import Builder, Ready
from .processes import git
from .search import Found, Search
from .verdicts import Judged

_SHORT = 12


@dataclass
class Repository:
    """The commits after ``good`` up to ``bad``, along first parents. The user's own work tree is never touched."""

    path: Path
    good: str
    bad: str
    builder: Builder
    tree: Path

    @cached_property
    def commits(self) -> list[str]:
        """Their full names, ``good`` first. UsageError unless ``good`` comes before ``bad``."""
        good, bad = (git(self.path, "rev-parse", "--verify", f"{name}^{{commit}}") for name in (self.good, self.bad))
        if git(self.path, "merge-base", good, bad) != good or good == bad:
            raise UsageError(f"{self.good} is no ancestor of {self.bad}: name a good commit from before the bad one")
        return [good, *git(self.path, "rev-list", "--first-parent", "--reverse", f"{good}..{bad}").split()]

    @cached_property
    def names(self) -> Sequence[str]:
        """``abbreviated subject`` of each commit."""
        words = ("log", "--no-walk=unsorted", "--stdin", "-z", "--format=%H %s")
        shown = git(self.path, *words, told="\n".join(self.commits)).rstrip("\0").split("\0")
        return [f"{each[:_SHORT]} {line(each.partition(' ')[2])}" for each in shown]

    def ready(self, point: int) -> Ready | Judged:
        """Check a commit out and build it. Build products of the commit before are left, as git bisect leaves them."""
        if not self.tree.exists():
            git(self.path, "worktree", "prune")
            git(self.path, "worktree", "add", "--quiet", "--force", "--detach", str(self.tree), self.commits[point])
        git(self.tree, "checkout", "--quiet", "--force", "--detach", self.commits[point])
        return self.builder.build(self.commits[point], self.tree)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """With a fresh work tree, as one that a killed search left may be half-way in anything; it is gone after."""
        self._remove_tree()
        try:
            yield
        finally:
            self._remove_tree()

    def _remove_tree(self) -> None:
        if self.tree.exists():
            shutil.rmtree(self.tree)
            git(self.path, "worktree", "prune")

    def further(self, point: int) -> str | None:
        """What finds the commit on the side that a merge brought in; None for a commit that is no merge."""
        parents = git(self.path, "rev-list", "--parents", "-1", self.commits[point]).split()[1:]
        if len(parents) < 2:
            return None
        base = git(self.path, "merge-base", parents[0], parents[1])
        return f"it is a merge: go on with --good {base} --bad {self.commits[point]}^2"

    def log(self, search: Search) -> str:
        """The search so far as ``git bisect replay`` takes it, without passes of commits that turned out bad."""
        words: dict[int, str] = {}
        for result in search.results:
            if result.word == "bad" or (result.word == "good" and words.get(result.point) != "bad"):
                words[result.point] = result.word
        first = min((point for point, word in words.items() if word == "bad"), default=len(self.commits))
        step = search.step()
        first = step.first_bad if isinstance(step, Found) else first
        words |= dict.fromkeys(search.skipped(), "skip")
        lines = ["git bisect start"]
        for point, word in sorted(words.items(), reverse=True):  # to git the bad one is the last that it is told
            if word == "good" and point >= first:
                continue
            lines += [f"# {word}: [{self.commits[point]}] {self.names[point][_SHORT + 1 :]}"]
            lines += [f"git bisect {word} {self.commits[point]}"]
        return "\n".join(lines) + "\n"
