"""A debugger's stub on standard input and output, for ``target remote | python -m suites.unit.gdb_stdio KERNEL``.

Its guest does not run: it is a machine before its first instruction, for the ``monitor`` commands and its memory.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from stub.domain.config import DomainConfig
from stub.engine.base import N_REGISTERS
from stub.gdb import monitor
from stub.gdb.model import Space
from stub.gdb.session import Session
from stub.machine import Machine
from suites.unit.fake_target import FakeTarget


class StillTarget(FakeTarget):
    """Registers, memory and monitor commands of a machine."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine
        context = monitor.Context(machine)
        self.answer = lambda command: monitor.run(context, command)
        self.words[:N_REGISTERS] = machine.xen.words[:N_REGISTERS]

    def read_memory(self, address: int, size: int, space: Space = Space.VIRTUAL) -> bytes:
        return self.machine.xen.domain.guest.read_available(address, size)


def main() -> None:
    with Machine(DomainConfig(kernel=Path(sys.argv[1]), memory=32, p2m="identity")) as machine:
        session = Session(StillTarget(machine))
        while not session.over:
            data = os.read(0, 1 << 16)
            if not data:
                break
            sys.stdout.buffer.write(session.receive(data))
            while session.pending:
                sys.stdout.buffer.write(session.receive())
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
