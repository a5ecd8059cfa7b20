"""Commands run and measured from outside: to their end, or to a line of their output."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.samples import Sample

LIMIT_S = 300.0
_TAIL = 2000


class Unexpected(Exception):
    """A command did something else than what it was measured for."""


def clean_environment() -> Mapping[str, str]:
    """The environment without what changes how Python starts: users have none of that."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def to_line(command: Sequence[str], line: bytes, look: Callable[[int], None] | None = None) -> Sample:
    """From the start of ``command`` to the moment ``line`` is in its output; then it is killed.

    ``look`` is called with the process id at that moment.
    """
    with tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        process = _start(command, errors.fileno())
        try:
            output = _read_until(process, line, started + LIMIT_S)
            wall = time.perf_counter() - started
            if line in output and look is not None:
                look(process.pid)
        finally:
            _kill(process)
            cpu = _reap(process)
        if line not in output:
            raise Unexpected(_story(command, f"its output has no {line.decode()!r}", output, errors.fileno()))
    return Sample(wall, cpu)


def between(command: Sequence[str], first: bytes, last: bytes) -> Sample:
    """From the line ``first`` of its output to the line ``last``; then it is killed."""
    began: list[tuple[float, float]] = []
    ended: list[float] = []
    with tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        process = _start(command, errors.fileno())
        passing = {first: lambda: began.append((time.perf_counter(), _cpu(process.pid)))}
        try:
            output = _read_until(process, last, started + LIMIT_S, passing)
            wall = time.perf_counter()
            if last in output:
                ended.append(_cpu(process.pid))
        finally:
            _kill(process)
            _reap(process)
        if not (began and ended):
            raise Unexpected(_story(command, f"its output has no {last.decode()!r}", output, errors.fileno()))
    return Sample(wall - began[0][0], ended[0] - began[0][1])


def _cpu(pid: int) -> float:
    """The CPU seconds of a process so far (proc_pid_stat(5), utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def printed_by(command: Sequence[str]) -> bytes:
    """What ``command`` prints, which must exit with 0."""
    with tempfile.TemporaryFile() as errors:
        process = _start(command, errors.fileno())
        printed = _read_until(process, None, time.perf_counter() + LIMIT_S)
        _reap(process)
        if process.returncode:
            raise Unexpected(_story(command, f"exit status {process.returncode}", printed, errors.fileno()))
    return printed


def to_end(command: Sequence[str], status: int = 0) -> Sample:
    """The whole of ``command``, which must exit with ``status``."""
    with tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        process = _start(command, errors.fileno())
        output = _read_until(process, None, started + LIMIT_S)
        cpu = _reap(process)
        wall = time.perf_counter() - started
        if process.returncode != status:
            raise Unexpected(_story(command, f"exit status {process.returncode}", output, errors.fileno()))
    return Sample(wall, cpu)


def _start(command: Sequence[str], errors: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        bufsize=0,
        env=clean_environment(),
    )


def _read_until(
    process: subprocess.Popen[bytes],
    line: bytes | None,
    deadline: float,
    passing: Mapping[bytes, Callable[[], None]] | None = None,
) -> bytes:
    """Output up to ``line`` or to its end; what ``passing`` has for a text is called once that has come."""
    assert process.stdout is not None
    output = bytearray()
    waiting = dict(passing or {})
    with process.stdout as pipe:
        while True:
            if not select.select([pipe], [], [], max(deadline - time.perf_counter(), 0))[0]:
                _kill(process)
                break
            data = os.read(pipe.fileno(), 65536)
            if not data:
                break
            seen = max(len(output) - len(line or b""), 0)
            output += data
            for text in [text for text in waiting if text in output]:
                waiting.pop(text)()
            if line is not None and output.find(line, seen) >= 0:
                break
    return bytes(output)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Not by ``Popen.kill``, which would reap a process that has ended, and lose what it used."""
    os.kill(process.pid, signal.SIGKILL)


def _reap(process: subprocess.Popen[bytes]) -> float:
    """Wait for a process; its CPU seconds, with those of the children it waited for."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def _story(command: Sequence[str], what: str, output: bytes, errors: int) -> str:
    size = os.fstat(errors).st_size
    said = output[-_TAIL:] + os.pread(errors, _TAIL, max(size - _TAIL, 0))
    return f"{' '.join(command)}: {what}; it said:\n{said.decode(errors='replace')}"
