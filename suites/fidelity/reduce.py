"""Make the suite's recording from the recorder's own output (standard input to standard output).

Left out: ``rdtsc`` and ``rdtscp``, which that machine emulates and ours does not log; the domain's number, addresses
of instructions, registers that say nothing. Lines that repeat the last one become ``xN`` (N in all).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator

_TIME_STAMPS = re.compile(r"insn (?:0f 31|0f 01 f9) ")
_RULES = (
    (re.compile(r"^(HC|MC) d\d+v\d+ "), r"\1 "),
    (re.compile(r"^FEP d\d+ #UD-emul rc 1 at [0-9a-f]+ "), "FEP "),
    (re.compile(r"^PO d\d+v\d+ at e033:[0-9a-f]+ insn ((?:[0-9a-f]{2} ){3}).*?rc 0 (.*)$"), r"PO \1\2"),
    (re.compile(r"\bout\[ax (\S+) bx \S+ cx \S+ dx (\S+)\]$"), r"out[ax \1 dx \2]"),
    (
        re.compile(r"^EV d\d+v\d+ vec (\d+) type \d+ ec (\S+) cr2 (\S+) at e033:(\S+) sp \S+ -> [0-9a-f]+:(\S+)$"),
        r"EV vec \1 ec \2 cr2 \3 at \4 -> \5",
    ),
)
_PIT = re.compile(r"^PO e4 42 .*out\[ax \S*?([0-9a-f]{2}) dx \S+\]$")


def reduced(lines: Iterable[str]) -> Iterator[str]:
    """The lines that stay, each made short."""
    last, times = "", 0
    for line in (*lines, ""):
        if _TIME_STAMPS.search(line):
            continue
        short = line.rstrip("\n")
        for pattern, text in _RULES:
            short = pattern.sub(text, short)
        # the loop that waits for the timer chip: of 100,000 reads only the port and the byte matter
        short = _PIT.sub(r"PO e4 42 00 in[ax 0 cx 0 dx 0] out[ax \1 dx 0]", short)
        if short == last:
            times += 1
            continue
        if times > 1:
            yield f"x{times}"
        last, times = short, 1
        if short:
            yield short


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in reduced(sys.stdin))
