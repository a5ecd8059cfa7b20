"""Runs inside gdb: each measure's commands, and how long they took. ``peer`` is what to connect to."""

import time

import gdb

PEER, DUMP, STEPS = gdb.parse_and_eval("$peer").string(), 64 << 20, 10_000
SCRATCH = gdb.parse_and_eval("$scratch").string()
FIRST_PFN, HITS = 4096, 10_000


def timed(what, command):
    """Run a command and say how long it took."""
    started = time.perf_counter()
    gdb.execute(command, to_string=True)
    print(f"benchmark: {what} {time.perf_counter() - started:.6f}", flush=True)


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
timed("dump", f"dump binary memory {SCRATCH} 0xffff888001000000 {0xFFFF888001000000 + DUMP:#x}")
gdb.execute("kill")
