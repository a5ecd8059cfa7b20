"""Expect on a guest's console: pulled, on virtual time, and helpful when it fails."""

from __future__ import annotations

import re
import time

import pexpect
import pytest
from fake_machine import FakeMachine, verdict

from harness.console import ConsoleEnded, ConsoleTimeout, GuestConsole, without_intruders
from harness.console_text import near_miss, plain_words, printable

OFF = verdict("poweroff", "the guest powered off")


def opened(*script: tuple[float, object]) -> tuple[GuestConsole, FakeMachine]:
    machine = FakeMachine(script)
    return GuestConsole(lambda: machine, timeout=60), machine


def test_nothing_runs_until_asked() -> None:
    started: list[str] = []

    def start() -> FakeMachine:
        started.append("yes")
        return FakeMachine([(0, "hello\r\n")])

    console = GuestConsole(start)
    assert not started
    console.expect("hello")
    assert started


def test_expect_stops_the_guest_at_the_output_that_matches() -> None:
    console, machine = opened((1, "one\r\n"), (2, "two\r\n"), (3, "three\r\n"))
    assert console.expect("tw.") == 0
    assert (console.before, console.after, console.buffer) == ("one\r\n", "two", "\r\n")
    assert machine.now_ns == 2_000_000_000
    assert b"three" not in machine.console.output


def test_first_match_in_the_stream_wins_and_tells_which() -> None:
    console, _ = opened((0, "apple pear"))
    assert console.expect(["pear", re.compile("a(p+)le")]) == 1
    assert console.match is not None
    assert console.match[1] == "pp"
    assert console.expect_exact(["pea", "ear"]) == 0


def test_a_burst_is_searched_whole_and_what_follows_a_match_is_kept() -> None:
    """pexpect alone looks at the last `searchwindowsize` characters of a read, and would miss both."""
    console, _ = opened((0, "login: " + "x" * 200_000 + "needle" + "y" * 100_000))
    console.expect_exact("login:")
    console.expect("nee+dle")
    assert set(console.buffer) == {"y"}
    assert console.before == " " + "x" * 200_000


def test_a_match_may_span_outputs() -> None:
    console, _ = opened(*((n / 10, letter) for n, letter in enumerate("Debian GNU/Linux 12 pvstub login: ")))
    console.expect_exact("pvstub login: ")
    assert console.before == "Debian GNU/Linux 12 "


def test_a_character_may_span_outputs() -> None:
    console, _ = opened((0, b"caf\xc3"), (1, b"\xa9 \xff!"))
    console.expect_exact("café \ufffd!")


def test_a_kernel_message_in_the_middle_of_a_prompt() -> None:
    console, _ = opened(
        (0, "/ "), (1, "[    1.234567] random: crng init done\r\n[    1.234570] clocksource: xen\r\n"), (2, "# rest")
    )
    console.expect_exact("/ # ")
    assert console.after == "/ # "
    assert console.buffer == "rest"


def test_kernel_messages_on_their_own_lines_are_not_touched() -> None:
    text = "a\n[    1.000000] one\n[    1.000001] two\nb"
    assert without_intruders(text) == (text, [])
    assert without_intruders("a[    1.000000][    T1] one\nb") == ("ab", [(1, 27)])


def test_expect_line_waits_for_the_end_of_the_line() -> None:
    console, _ = opened((0, "x\r\nMemory: 243"), (1, "004K/262144K available\r\nmore\r\n"))
    assert console.expect_line(r"Memory: \d+") == "Memory: 243004K/262144K available"
    assert console.expect_line("mo") == "more"


def test_expect_sequence_has_one_deadline_for_all() -> None:
    console, machine = opened((1, "one "), (2, "two "), (9, "three "))
    assert console.expect_sequence(["o.e", "t.o"], timeout=5) == ["one", "two"]
    with pytest.raises(ConsoleTimeout):
        console.expect_sequence(["three", "four"], timeout=3)
    assert machine.now_ns == 5_000_000_000


def test_timeouts_are_virtual_time() -> None:
    console, machine = opened((7200, "late"))
    begin = time.perf_counter()
    assert console.expect(["late", pexpect.TIMEOUT], timeout=3600) == 1
    assert machine.now_ns == 3600 * 10**9
    console.expect("late", timeout=3601)
    assert time.perf_counter() - begin < 1


def test_timeout_tells_what_is_near_and_what_was_there() -> None:
    console, _ = opened((0, "Linux version 6.1\r\n"), (1, "Welcome to Debain\r\n"), (2, "hvc0 logn:"))
    with pytest.raises(ConsoleTimeout) as caught:
        console.expect(["Debian login: $", "hvc0 login:"], timeout=5)
    message = str(caught.value)
    assert message.startswith("no match after 5.000 virtual seconds of waiting for 'Debian login: $' or 'hvc0 login:'")
    assert "still running: virtual time 5.000 s, at rip 0xffffffff81000000" in message
    assert re.search(r"closest console line \(9\d% alike\): hvc0 logn:", message)
    assert "    Welcome to Debain\n" in message


def test_a_match_that_was_passed_over_is_pointed_at() -> None:
    console, _ = opened((0, "first\r\nsecond\r\nthird\r\n"))
    console.expect("third")
    with pytest.raises(ConsoleTimeout, match="it did match earlier, on console line 2, before the previous match"):
        console.expect_exact("second", timeout=1)


def test_a_dead_guest_is_end_of_file_with_its_verdict() -> None:
    console, _ = opened((0, "Kernel panic - not syncing\r\n"), (0.5, verdict("crash", "panic", "rip somewhere")))
    with pytest.raises(ConsoleEnded) as caught:
        console.expect("login:")
    message = str(caught.value)
    assert "verdict at 0.500 s: crash: panic\n    rip somewhere" in message
    assert "Kernel panic - not syncing" in message
    assert console.expect(pexpect.EOF) == 0
    assert console.flag_eof


def test_last_words_are_read_before_the_end() -> None:
    console, _ = opened((0, "a"), (1, "reboot: Power down\r\n"), (1, OFF))
    console.expect("a")
    assert console.expect(["Power down", pexpect.EOF]) == 0
    assert console.expect(["Power down", pexpect.EOF]) == 1
    assert console.before == "\r\n"


def test_after_a_timeout_the_same_text_can_still_match() -> None:
    console, _ = opened((0, "half "), (10, "whole"))
    with pytest.raises(ConsoleTimeout):
        console.expect("half whole", timeout=1)
    console.expect("half whole")


def test_input_reaches_the_guest_when_it_runs_again() -> None:
    console, machine = opened((0, "# "))
    machine.console.answer = lambda data: data.replace(b"\n", b"\r\n") + b"root\r\n# "
    console.expect_exact("# ")
    assert console.sendline("whoami") == 7
    assert machine.console.input == b"whoami\n"
    assert console.expect_line("^root$") == "root"
    console.sendcontrol("c")
    assert machine.console.input == b"\x03"


def test_input_resolves_a_deadlock() -> None:
    console, machine = opened((0, "# "))
    machine.console.answer = lambda data: b"you said " + data
    assert console.expect(["never", pexpect.EOF], timeout=None) == 1
    console.sendline("go on")
    console.expect("you said go on")


def test_tail_and_text_run_nothing() -> None:
    console, machine = opened((0, "\x1b[1mbold\x1b[0m\r\nx\x07y\r\n"), (1, "more"))
    console.expect("bold")
    assert console.tail() == "bold\nx\\x07y"
    assert console.text.endswith("x\x07y\r\n")
    assert machine.runs == 1


def test_four_megabytes_take_no_time() -> None:
    line = "x" * 62 + "\r\n"
    console, _ = opened(*((0, line * 16) for _ in range(4096)), (1, "login: "))
    begin = time.perf_counter()
    console.expect("login: ")
    assert time.perf_counter() - begin < 2
    assert len(console.before or "") == 4 << 20


def test_words_of_a_pattern() -> None:
    assert plain_words(r"(?i)Debian GNU/Linux \d+ \[ok\].* login:\s*$") == "Debian GNU/Linux [ok] login:"
    assert near_miss(["reached target multi-user"], ["nothing", "alike"]) is None
    said = "[    1.362434] Booting kernel on Xen"
    near = near_miss(["Booting paravirtualized kernel on Xen PV"], ["alike", said, "Boot"])
    assert near is not None
    assert near[1] == said
    assert printable("\x1b]0;title\x07a\x00") == "a\\x00"
