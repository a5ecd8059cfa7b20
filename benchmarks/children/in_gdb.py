"""Runs inside gdb: each measure's commands, and how long they took. ``peer`` is what to connect to."""

import time

import gdb

PEER, STEPS = gdb.parse_and_eval("$peer").string(), 10_000
SCRATCH = gdb.parse_and_eval("$scratch").string()
FIRST_PFN, HITS = 4096, 10_000
MEMORY, KERNEL, MIB = 0xFFFF888000000000, 16, 1 << 20  # where Linux maps all memory, and itself in it


def timed(what, *commands):
    """Run commands and say how long they took."""
    started = time.perf_counter()
    for command in commands:
        gdb.execute(command, to_string=True)
    print(f"benchmark: {what} {time.perf_counter() - started:.6f}", flush=True)


def dump(starts, size):
    """The commands that dump the ``size`` MiB from each MiB of ``starts``."""
    for start in starts:
        first = MEMORY + start * MIB
        yield f"append binary memory {SCRATCH} {first:#x} {first + size * MIB:#x}"


for setting in ("confirm off", "pagination off", "breakpoint condition-evaluation auto"):
    gdb.execute(f"set {setting}")
gdb.execute(f"target remote {PEER}", to_string=True)
# From the first frame of ZONE_DMA32 on, each page of memory is one hit.
gdb.execute(f"tbreak *__init_single_page if $rsi == {FIRST_PFN}")
gdb.execute("continue", to_string=True)
timed("stepi", f"stepi {STEPS}")
gdb.execute(f"break *__init_single_page if $rsi == {FIRST_PFN + HITS + 1000}")
gdb.execute(f"tbreak *__init_single_page if $rsi == {FIRST_PFN + 1000}")
gdb.execute("continue", to_string=True)
timed("condition", "continue")
assert int(gdb.parse_and_eval("$rsi")) == FIRST_PFN + HITS + 1000
gdb.execute("delete")
timed("dump", *dump(range(0, 256, 16), 4))
timed("dense", *dump([KERNEL], 64))
gdb.execute("kill")
