"""A machine without a guest, for tests of what is built on machines: it plays a script on virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from harness.guests import GuestSpec
from harness.machine import NS_PER_SECOND, RunLimits


@dataclass
class FakeConsole:
    output: bytearray = field(default_factory=bytearray)
    input: bytearray = field(default_factory=bytearray)
    answer: Callable[[bytes], bytes] | None = None

    def send(self, data: bytes) -> None:
        self.input += data


def verdict(kind: str, reason: str = "", *details: str) -> SimpleNamespace:
    return SimpleNamespace(kind=kind, reason=reason or kind, details=details, exit_status=0)


class FakeMachine:
    """``script``: what happens when, as (seconds, console text) or (seconds, verdict), in order of time."""

    def __init__(self, script: Iterable[tuple[float, object]], folder: Path | None = None) -> None:
        self.script = [(round(at * NS_PER_SECOND), what) for at, what in script]
        self.console = FakeConsole()
        self.now_ns = 0
        self.verdict: SimpleNamespace | None = None
        self.closed = False
        self.runs = 0
        self.log = (folder / "console.log").open("ab", buffering=0) if folder else None

    def registers(self) -> dict[str, int]:
        assert not self.closed
        return {"rip": 0xFFFFFFFF81000000, "rsp": 0xFFFFC90000003FF8}

    def write(self, data: bytes) -> None:
        self.console.output += data
        if self.log:
            self.log.write(data)

    def run(self, *, deadline_ns: int | None = None, until: Callable[[], bool] | None = None) -> object:
        self.runs += 1
        if self.verdict and self.verdict.kind == "deadlock" and self.console.input:
            self.verdict = None
        if self.console.input and self.console.answer:
            data, self.console.input = bytes(self.console.input), bytearray()
            self.script.insert(0, (self.now_ns, self.console.answer(data)))
        while self.script and self.verdict is None:
            at, what = self.script[0]
            if deadline_ns is not None and at > deadline_ns:
                break
            self.script.pop(0)
            self.now_ns = max(self.now_ns, at)
            if isinstance(what, SimpleNamespace):
                self.verdict = what
            elif callable(what):
                what()
            else:
                self.write(what.encode() if isinstance(what, str) else what)
                if until and until():
                    return None
        if self.verdict is None:
            if deadline_ns is None:
                self.verdict = verdict("deadlock", "every vCPU is blocked and nothing is due")
            else:
                self.now_ns = max(self.now_ns, deadline_ns)
        return self.verdict

    def close(self) -> None:
        self.closed = True
        if self.log:
            self.log.close()


class FakeLaunch:
    """A launch of a script; the image's name says nothing."""

    script: Iterable[tuple[float, object]] = (
        (0.0, "Linux version 6.1\r\n"),
        (0.5, "pvstub: init is up\r\n"),
        (1.0, verdict("poweroff", "the guest powered off")),
    )

    def __init__(self, spec: GuestSpec) -> None:
        self.spec = spec
        self.memory = spec.memory or 128

    def command(self, run_directory: Path) -> list[str]:
        return ["pvstub", "boot", str(self.spec.image), f"--memory={self.memory}"]

    def start(self, run_directory: Path, limits: RunLimits) -> FakeMachine:
        self.limits = limits
        return FakeMachine(self.script, run_directory)
