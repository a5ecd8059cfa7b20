"""``pvstub boot`` whose guest is timed from its first instruction to the initramfs's first line.

The first word says whether a gdb is ``attached`` meanwhile, idle, or the guest is ``alone``.
"""

import os
import subprocess
import sys
import tempfile
import time
from typing import Any

from stub import cli
from stub.gdb.server import Server
from stub.gdb.target import MachineTarget

INIT_REACHED = b"pvstub: init reached"


def run(machine: Any, *_: Any) -> None:
    """In place of the command's own: until the line, and out."""
    attached = sys.argv[1] == "attached"
    started: list[tuple[float, float]] = []

    def now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    def reached() -> bool:
        return INIT_REACHED in machine.console.output

    if attached:
        target = MachineTarget(machine)
        go = target.go

        def first_go() -> None:
            started.append(now())
            go()

        target.go = first_go  # type: ignore[method-assign]
        with tempfile.TemporaryDirectory() as folder, Server(target, f"unix:{folder}/s") as server:
            words = ["gdb", "-nx", "-batch", "-ex", f"target remote {folder}/s", "-ex", "continue"]
            gdb = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            server.serve_until(reached)
            ended = now()
            gdb.kill()
            gdb.wait()
    else:
        started.append(now())
        machine.run(until=reached)
        ended = now()
    wall, cpu = (b - a for a, b in zip(started[0], ended, strict=True))
    print(f"\nbenchmark: wall {wall:.6f}\nbenchmark: cpu {cpu:.6f}", flush=True)
    os._exit(0)


setattr(cli, "_run", run)  # noqa: B010 - mypy forbids the plain form
sys.exit(cli.main(sys.argv[2:]))
