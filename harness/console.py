"""Expect on a guest's console, by pulling.

The guest runs only while a test waits for it: reading runs the engine until there is output or until a *virtual*
deadline. So a match depends on nothing but the guest, a wait of an hour costs nothing, and there is no thread and no
sleep. A guest whose run is over is end of file. Patterns, searchers and exceptions are pexpect's.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import pexpect
from pexpect.expect import searcher_re, searcher_string
from pexpect.spawnbase import SpawnBase

from .console_text import console_lines, console_tail, near_miss
from .machine import NS_PER_SECOND, MachineLike

Pattern = str | re.Pattern[str] | type[pexpect.EOF] | type[pexpect.TIMEOUT]
DEFAULT_TIMEOUT = 60.0
MAX_READ = 65536
# How far back a match may begin before the output that completes it. All output is searched at least once, whatever
# its size: pexpect's own window would pass over all but the last 4096 characters of a burst.
SEARCH_WINDOW = 4096
_MESSAGE_TAIL = 12

# Linux's printk prefix (`[    1.234567]`, with the caller as `[T1]` or `[C0]` under CONFIG_PRINTK_CALLER). A message
# that cuts into a line which a program was writing is one or more of these that do not begin at a line's start.
_MESSAGE = r" *\d+\.\d{6}\](?:\[ *[TC]\d+\])? [^\n]*\n"
_INTRUDERS = re.compile(rf"\[(?<=[^\n]\[){_MESSAGE}(?:\[{_MESSAGE})*")
_LINE = re.compile(r"([^\r\n]*)\r*\n")


class ConsoleTimeout(pexpect.TIMEOUT):  # type: ignore[misc]
    """The virtual deadline passed with no match."""


class ConsoleEnded(pexpect.EOF):  # type: ignore[misc]
    """The guest's run is over, so there will be no match."""


def without_intruders(text: str) -> tuple[str, list[tuple[int, int]]]:
    """``text`` without kernel messages that cut into a line, and where they were: (offset in the result, length)."""
    kept: list[str] = []
    cuts: list[tuple[int, int]] = []
    position = length = 0
    for match in _INTRUDERS.finditer(text):
        kept.append(text[position : match.start()])
        length += match.start() - position
        cuts.append((length, match.end() - match.start()))
        position = match.end()
    kept.append(text[position:])
    return "".join(kept), cuts


class _LineSearcher(searcher_re):  # type: ignore[misc]
    """Finds whole lines, without their ends, in which a pattern matches."""

    def search(self, buffer: str, freshlen: int, searchwindowsize: int | None = None) -> int:
        for line in _LINE.finditer(buffer):
            for index, pattern in self._searches:
                if match := pattern.search(line[1]):
                    self.match, self.start, self.end = match, line.start(), line.end(1)
                    return int(index)
        return -1


class GuestConsole(SpawnBase):  # type: ignore[misc]
    """A guest's console with pexpect's ``expect`` family. All timeouts are seconds of the guest's virtual time.

    ``start`` gives the machine and is called when it is first needed. After a match, ``before``, ``after`` and
    ``match`` are as in pexpect; text is UTF-8, with U+FFFD for what is not.
    """

    # Set by SpawnBase, and by a match.
    timeout: float | None
    before: str | None
    after: str | type[pexpect.EOF] | type[pexpect.TIMEOUT] | None
    match: Any
    match_index: int | None
    _before: io.StringIO

    def __init__(
        self,
        start: Callable[[], MachineLike],
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        super().__init__(
            timeout=timeout, maxread=MAX_READ, searchwindowsize=SEARCH_WINDOW, encoding="utf-8", codec_errors="replace"
        )
        self.delaybeforesend = self.delayafterread = self.delayafterclose = None
        self.name = "<guest console>"
        self._start = start
        self._taken = 0  # bytes of the machine's output that have been read here

    # -- reading -----------------------------------------------------------------------------------------------

    @property
    def buffer(self) -> str:
        """Text that has been read and not yet matched."""
        return str(self._before.getvalue())

    @property
    def text(self) -> str:
        """All that the guest has written so far, matched or not. Runs nothing."""
        return bytes(self._start().console.output).decode("utf-8", "replace")

    def tail(self, lines: int = 40) -> str:
        """The last ``lines`` lines of the console, printable. Runs nothing."""
        return console_tail(self._start().console.output, lines)

    def read_nonblocking(self, size: int = 1, timeout: float | None = -1) -> str:
        """Output of at most ``size`` bytes; runs the guest when none is waiting. ``timeout`` in virtual seconds."""
        machine = self._start()
        return self._pull(machine, size, self._deadline(machine, timeout))

    def _deadline(self, machine: MachineLike, timeout: float | None) -> int | None:
        if timeout == -1:
            timeout = self.timeout
        return None if timeout is None else machine.now_ns + round(timeout * NS_PER_SECOND)

    def _pull(self, machine: MachineLike, size: int, deadline_ns: int | None) -> str:
        output = machine.console.output
        if len(output) == self._taken:
            if machine.verdict is None and deadline_ns is not None and machine.now_ns >= deadline_ns:
                raise pexpect.TIMEOUT("the virtual deadline has passed")
            # Also after a verdict: one verdict is not final, a deadlock that input resolves.
            machine.run(deadline_ns=deadline_ns, until=lambda: len(machine.console.output) > self._taken)
            output = machine.console.output
        data = bytes(output[self._taken : self._taken + size])
        self._taken += len(data)
        if data:
            text = str(self._decoder.decode(data, final=False))
            self._log(text, "read")
            return text
        if machine.verdict is not None:
            self.flag_eof = True
            raise pexpect.EOF("the guest's run is over")
        raise pexpect.TIMEOUT("the virtual deadline has passed")

    # -- expecting ---------------------------------------------------------------------------------------------

    def expect(
        self, pattern: Pattern | Sequence[Pattern], timeout: float | None = -1, searchwindowsize: int | None = -1
    ) -> int:
        """Run until a regular expression matches; the index of the one that did, 0 for a single pattern.

        ``timeout`` is in virtual seconds: -1 for the default, None for as long as the guest's limits let it run.
        Raises ConsoleTimeout or ConsoleEnded unless ``pexpect.TIMEOUT`` or ``pexpect.EOF`` is among the patterns.
        """
        __tracebackhide__ = True
        patterns = list(pattern) if isinstance(pattern, Sequence) and not isinstance(pattern, str) else [pattern]
        compiled = self.compile_pattern_list(patterns)
        return self.expect_loop(searcher_re(compiled), timeout, searchwindowsize)

    def expect_list(
        self, pattern_list: list[Any], timeout: float | None = -1, searchwindowsize: int | None = -1
    ) -> int:
        """As :meth:`expect`, with patterns from ``compile_pattern_list``."""
        __tracebackhide__ = True
        return self.expect_loop(searcher_re(pattern_list), timeout, searchwindowsize)

    def expect_exact(
        self, pattern: str | Sequence[Any], timeout: float | None = -1, searchwindowsize: int | None = -1
    ) -> int:
        """As :meth:`expect`, for plain text in which no character is special."""
        __tracebackhide__ = True
        patterns = list(pattern) if isinstance(pattern, Sequence) and not isinstance(pattern, str) else [pattern]
        return self.expect_loop(searcher_string(patterns), timeout, searchwindowsize)

    def expect_line(self, pattern: str, timeout: float | None = -1) -> str:
        """Run until a *finished* line has a match for ``pattern``; the whole line, without its end.

        ``^`` and ``$`` are the line's ends. The line in which the last match ended begins where that match ended.
        """
        __tracebackhide__ = True
        self.expect_loop(_LineSearcher(self.compile_pattern_list(pattern)), timeout)
        return str(self.after)

    def expect_sequence(self, patterns: Sequence[str], timeout: float | None = -1) -> list[str]:
        """Run until each of ``patterns`` has matched, in order, all within one timeout; the texts that matched."""
        __tracebackhide__ = True
        machine = self._start()
        deadline = self._deadline(machine, timeout)
        found = []
        for pattern in patterns:
            left = None if deadline is None else max(0, deadline - machine.now_ns) / NS_PER_SECOND
            self.expect(pattern, left)
            found.append(str(self.after))
        return found

    def expect_loop(self, searcher: Any, timeout: float | None = -1, searchwindowsize: int | None = -1) -> int:
        """The wait under all of the above. ``searcher`` is one of pexpect's."""
        __tracebackhide__ = True
        machine = self._start()
        start_ns, deadline = machine.now_ns, self._deadline(machine, timeout)
        window = self.searchwindowsize if searchwindowsize in (-1, None) else searchwindowsize
        unsearched = 0
        while not self._search(searcher, max(0, unsearched - window)):
            unsearched = self._before.seek(0, io.SEEK_END)
            try:
                self._before.write(self._pull(machine, self.maxread, deadline))
            except (pexpect.EOF, pexpect.TIMEOUT) as end:
                ended = isinstance(end, pexpect.EOF)
                break
        else:
            return int(self.match_index or 0)
        self.before, self.after = self.buffer, pexpect.EOF if ended else pexpect.TIMEOUT
        index = searcher.eof_index if ended else searcher.timeout_index
        self.match, self.match_index = (self.after, index) if index >= 0 else (None, None)
        if index >= 0:
            return int(index)
        raise (ConsoleEnded if ended else ConsoleTimeout)(self._failure(machine, searcher, ended, start_ns))

    def _search(self, searcher: Any, begin: int) -> bool:
        """Search what is read from ``begin`` on; on a match, take it and all before it."""
        self._before.seek(begin)
        window = self._before.read()
        shown, cuts = window, list[tuple[int, int]]()
        index = searcher.search(window, len(window), None)
        if index < 0:
            shown, cuts = without_intruders(window)
            if not cuts or (index := searcher.search(shown, len(shown), None)) < 0:
                return False
        start = begin + searcher.start + sum(size for at, size in cuts if at <= searcher.start)
        end = begin + searcher.end + sum(size for at, size in cuts if at < searcher.end)
        text = self.buffer
        self.before, self.after = text[:start], shown[searcher.start : searcher.end]
        self.match, self.match_index = searcher.match, index
        self._before = io.StringIO()
        self._before.write(text[end:])
        return True

    # -- failing -----------------------------------------------------------------------------------------------

    def _failure(self, machine: MachineLike, searcher: Any, ended: bool, start_ns: int) -> str:
        searches = [pattern for _, pattern in getattr(searcher, "_searches", None) or searcher._strings]
        wanted = [pattern if isinstance(pattern, str) else pattern.pattern for pattern in searches]
        now = machine.now_ns / NS_PER_SECOND
        waited = (machine.now_ns - start_ns) / NS_PER_SECOND
        what = "the guest's run ended" if ended else "no match"
        lines = [f"{what} after {waited:.3f} virtual seconds of waiting for {' or '.join(map(repr, wanted))}"]
        verdict = machine.verdict
        if verdict is not None:
            lines.append(f"verdict at {now:.3f} s: {verdict.kind}: {verdict.reason}")
            lines += [f"    {detail}" for detail in verdict.details]
        else:
            rip = machine.registers().get("rip")
            place = "" if rip is None else f", at rip {rip:#x}"
            lines.append(f"the guest is still running: virtual time {now:.3f} s{place}")
        lines += self._hint(machine, searches, wanted)
        lines.append("console tail:")
        lines += [f"    {line}" for line in console_tail(machine.console.output, _MESSAGE_TAIL).split("\n")]
        return "\n".join(lines)

    def _hint(self, machine: MachineLike, searches: list[Any], wanted: list[str]) -> list[str]:
        """Where the reader should look first: a match that was passed over, or the line that is nearest to one."""
        consumed = self.text[: len(self.text) - len(self.buffer)]
        for search in searches:
            match = (re.compile(re.escape(search)) if isinstance(search, str) else search).search(consumed)
            if match:
                number = consumed.count("\n", 0, match.start()) + 1
                return [f"it did match earlier, on console line {number}, before the previous match"]
        near = near_miss(wanted, console_lines(self.text))
        return [f"closest console line ({near[0]:.0%} alike): {near[1]}"] if near else []

    # -- writing -----------------------------------------------------------------------------------------------

    def send(self, text: str | bytes) -> int:
        """Queue ``text`` as console input; the number of bytes. The guest reads it when a test next waits."""
        data = text if isinstance(text, bytes) else text.encode("utf-8")
        self._log(data.decode("utf-8", "replace"), "send")
        machine = self._start()
        machine.console.send(data)
        return len(data)

    def sendline(self, line: str | bytes = "") -> int:
        """As :meth:`send`, and a newline."""
        return self.send(line if isinstance(line, bytes) else line.encode("utf-8")) + self.send(b"\n")

    def sendcontrol(self, letter: str) -> int:
        """Send a control character: ``sendcontrol("c")`` is Ctrl-C."""
        return self.send(bytes([ord(letter.upper()) & 0x1F]))

    def close(self, force: bool = True) -> None:
        """Nothing to do: the machine is closed by the guest that owns it."""
