"""The loop of a bisection: ask the search, make its points ready, boot them, judge, save; until there is an answer."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import minimise, sample
from .environment import Environment, Ready
from .journal import BootNote, Journal
from .live import Live
from .minimise import Needed
from .processes import Ended, Work, Workers, boot_command, boot_words, pytest_words
from .sample import Share
from .search import Boot, Found, Refused, Result
from .verdicts import Judged, Signature, by_pytest, by_status

End = Found | Refused | Needed | Share


@dataclass(frozen=True)
class Judge:
    """How a point is booted and judged: by a signature of its own boot, by a script, or by a pytest node.

    ``words``: more of ``pvstub boot``. A script and a test find the image in ``$PVSTUB_IMAGE``, the boot's command in
    ``$PVSTUB_BOOT`` and a folder of their own in ``$PVSTUB_RUN``.
    """

    signature: Signature
    words: Sequence[str] = ()
    script: str | None = None
    node: str | None = None

    def work(self, ready: Ready, folder: Path) -> Work:
        """What to run for a boot into ``folder``."""
        words = [ready.image, *ready.words, *self.words]
        environment = {
            "PVSTUB_IMAGE": ready.image,
            "PVSTUB_BOOT": boot_command(words),
            "PVSTUB_RUN": str(folder),
        }
        if self.script is not None:
            return Work(["sh", "-c", self.script], folder, environment)
        if self.node is not None:
            return Work(pytest_words(self.node), folder, environment)
        return Work(boot_words(words, folder), folder, environment, boots=True)

    def judge(self, folder: Path, end: Ended) -> Judged:
        """What a boot says."""
        if self.script is not None:
            return by_status(end)
        return by_pytest(end) if self.node is not None else self.signature.judge(folder, end)

    def again(self, ready: Ready) -> str:
        """The command that does the same boot."""
        words = boot_command([ready.image, *ready.words, *self.words])
        if self.script is None and self.node is None:
            return words
        command = ["sh", "-c", self.script] if self.script is not None else ["pytest", self.node or ""]
        return shlex.join(["env", f"PVSTUB_IMAGE={ready.image}", f"PVSTUB_BOOT={words}", *command])


@dataclass
class Rounds:
    """A bisection at work, which says what it does to ``live``; ``after`` is called when the state has been saved."""

    journal: Journal
    environment: Environment
    judge: Judge
    jobs: int
    name: Callable[[int], str]
    live: Live
    after: Callable[[], None] = lambda: None
    seeds: bool = False  # each boot has another
    words: int = 0  # of a set that is to be minimised; 0 searches for the first bad point
    sampled: bool = False  # the points have no order: all are booted
    workers: Workers = field(default_factory=Workers)

    def run(self) -> End:
        """To the answer, or to the reason why there is none."""
        try:
            while isinstance(step := self._step(), Boot):
                self._boot(step)
        finally:
            self.live.doing("")
        return step

    def _step(self) -> Boot | End:
        search = self.journal.search
        if self.words:
            return minimise.step(self.words, search.results, search.rules.repeats)
        if self.sampled:
            return sample.step(search, self.jobs)
        return search.step(self.jobs)

    def _boot(self, step: Boot) -> None:
        ready = self._ready(step)
        if ready is None:
            return
        first = self.journal.new_run()
        booted = sum(boot.run > 0 for boot in self.journal.boots)
        runs = [
            (point, self._seeded(made, booted + number), first + number) for number, (point, made) in enumerate(ready)
        ]
        for start in range(0, len(runs), self.jobs):
            batch = runs[start : start + self.jobs]
            folders = [self.journal.run_folder(number) for _, _, number in batch]
            self._tell("boots", [point for point, _, _ in batch])
            works = [self.judge.work(made, folder) for (_, made, _), folder in zip(batch, folders, strict=True)]
            with self.workers.started(works) as waits:
                for (point, made, number), folder, wait in zip(batch, folders, waits, strict=True):
                    judged = self.judge.judge(folder, wait())
                    self._told(step, point, judged, number, self.judge.again(made))

    def _seeded(self, ready: Ready, number: int) -> Ready:
        return replace(ready, words=(*ready.words, f"--seed={number}")) if self.seeds else ready

    def _ready(self, step: Boot) -> list[tuple[int, Ready]] | None:
        """The points made ready; None if that alone told something, so that the search may want others now."""
        found: list[tuple[int, Ready]] = []
        known = dict(self.journal.search.digests)
        told = False
        for point in dict.fromkeys(step.points):
            self._tell("makes ready", [point])
            made = self.environment.ready(point)
            if not isinstance(made, Ready):
                self._told(step, point, made, 0, "")
                told = True
                continue
            if made.digest is not None and not self.words and point not in known:
                self.journal.search.identified(point, made.digest)
                same = next((other for other, digest in known.items() if digest == made.digest), None)
                if same is not None:
                    self.live.say(f"{self.name(point)}: boots the same as {self.name(same)}")
                    told = True
            found += [(point, made)] * step.points.count(point)
        if told:
            self.journal.save()
        return None if told else found

    def _tell(self, what: str, points: Sequence[int]) -> None:
        """What is done now, and in a search how far it is."""
        names = ", ".join(self.name(point) for point in dict.fromkeys(points))
        ordered = not (self.words or self.sampled)
        left, chance = self.journal.search.outlook() if ordered else (0, 0.0)
        far = f"{left} points left, the likeliest {chance:.0%}; " if ordered else ""
        self.live.doing(f"{len(self.journal.boots)} boots; {far}{what} {names}")

    def _told(self, step: Boot, point: int, judged: Judged, run: int, command: str) -> None:
        word, reason = judged
        self.journal.search.told(Result(point, word, reason, step.phase))
        self.journal.boots.append(BootNote(point, word, reason, run, command))
        self.journal.save()
        self.after()
        self.live.say(f"{len(self.journal.boots):3}  {step.phase:6}  {word:7}  {self.name(point)}  ({reason})")
