"""The recordings of real Xen: text, one event a line, as ``reduce.py`` leaves it.

Made with Xen 4.17.7 on an emulated machine: unprivileged PV domains of one vCPU and 256 MiB. The recorder does not show
everything: no ``multicall``, no ``console_io``, no ``SCHEDOP_yield``, no event upcalls, no direct writes to page
tables; and Linux's stops before the ramdisk is unpacked.
"""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from stub.abi.x86_defns import X86_EXC_PF, PFEC_user_mode
from suites.fidelity import events
from suites.fidelity.events import SHOWN, Event, Frames

_CHUNK: Final = 9  # the toolstack gave the guests their memory in 2 MiB pieces


@dataclass(frozen=True)
class Recording:
    """A catalogue image's boot. ``package``: the version of the kernel's package; ``memory`` in MiB.

    ``pieces`` of machine memory, in 2 MiB, and the sum of a piece's machine and pseudo-physical numbers: both ranges
    run backwards. ``ramdisk_pages``: as the frames show that come after it.
    """

    image: str
    package: str
    pieces: tuple[tuple[range, int], ...]
    cmdline: str = ""
    memory: int = 256
    ramdisk_pages: int = 0

    @property
    def file(self) -> Path:
        """Where it lies."""
        return Path(__file__).with_name(f"{self.image}.trace.xz")

    def frame(self, mfn: int) -> str:
        """A machine frame in the guest's own words."""
        piece = mfn >> _CHUNK
        for pieces, total in self.pieces:
            if piece in pieces:
                return f"p{(total - piece) << _CHUNK | mfn & (1 << _CHUNK) - 1:x}"
        return "xen" if mfn else "none"

    def read(self) -> list[Event]:
        """The recording's events, in order."""
        with lzma.open(self.file, "rt", encoding="ascii") as file:
            return list(_parse(self.frame, file.read().splitlines()))


LINUX: Final = Recording(
    "debian-cloud",
    "6.1.192-2",
    ((range(0x10, 0x80), 0x7F), (range(0x2A0, 0x2B0), 0x31F)),
    cmdline="console=hvc0 earlyprintk=xen",
    ramdisk_pages=0x1E5,
)
GRUB: Final = Recording("grub-xen64", "2.06-13+deb12u2", ((range(0x150, 0x1C0), 0x1D0), (range(0x2C0, 0x2D0), 0x2C4)))
GNUMACH: Final = Recording("gnumach64", "2:1.8+git20221224-2", ((range(0x243, 0x2C3), 0x2C2),))

_HYPERCALL = re.compile(
    r"(?:HC|MC) (\d+)\(([0-9a-f,]*)\) = ([0-9a-f]+)( PREEMPTED)?(?: in\[([0-9a-f ]*)\])?(?: out\[([0-9a-f ]*)\])?$"
)
_FORCED = re.compile(r"FEP ax ([0-9a-f]+) cx ([0-9a-f]+) -> ([0-9a-f ]+)$")
_PRIVILEGED = re.compile(r"PO ((?:[0-9a-f]{2} )+)in\[([^\]]*)\] out\[([^\]]*)\]$")
_EXCEPTION = re.compile(r"EV vec (\d+) ec ([0-9a-f]+) cr2 ([0-9a-f]+) at ([0-9a-f]+) -> ([0-9a-f]+)$")
_REPEAT = re.compile(r"x(\d+)$")
_IN, _OUT = {0xE4: 1, 0xE5: 4, 0xEC: 1, 0xED: 4}, {0xE6: 1, 0xE7: 4, 0xEE: 1, 0xEF: 4}
_IMMEDIATE = {0xE4, 0xE5, 0xE6, 0xE7}


def _parse(frames: Frames, lines: list[str]) -> Iterator[Event]:
    event = partial(_event, frames)
    last: Event | None = None
    held: Event | None = None  # preempted: Xen goes on in a call of its own making, which has the result
    for number, line in enumerate(lines, start=1):
        again = _REPEAT.match(line)
        if again:
            assert last is not None
            if held is None:
                yield from [last] * (int(again[1]) - 1)
            continue
        last = event(number, line)
        if held is not None:
            assert held.name == last.name, f"line {number}: what was preempted does not go on"
            last, held = held._replace(answer=last.answer), None
        if " PREEMPTED" in line:
            held = last
        else:
            yield last


def _event(frames: Frames, number: int, line: str) -> Event:
    if found := _HYPERCALL.match(line):
        args = [int(word, 16) for word in found[2].split(",")]
        result = int(found[3], 16)
        result -= (result >> 63) << 64
        before, after = (_bytes(found[index]) for index in (5, 6))
        return events.hypercall(frames, number, int(found[1]), args, result, before, after)
    if found := _FORCED.match(line):
        return events.cpuid(number, True, int(found[1], 16), int(found[2], 16), _numbers(found[3]))
    if found := _PRIVILEGED.match(line):
        return _privileged(number, bytes.fromhex(found[1]), _registers(found[2]), _registers(found[3]))
    if found := _EXCEPTION.match(line):
        error_code, cr2, rip, to_rip = (int(found[index], 16) for index in range(2, 6))
        return _exception(number, int(found[1]), error_code, cr2, rip, to_rip)
    raise ValueError(f"line {number} of the recording: {line}")


def _exception(number: int, vector: int, error_code: int, cr2: int, rip: int, to_rip: int) -> Event:
    """The recorder stands where pv_inject_event begins, which then says that a kernel's fault is none of user code's
    (arch/x86/pv/traps.c). All that were recorded are a kernel's."""
    if vector == X86_EXC_PF:
        error_code &= ~PFEC_user_mode
    return events.exception(number, vector, None if error_code == 0xFFFF_FFFF else error_code, cr2, rip, to_rip)


def _numbers(words: str) -> list[int]:
    return [int(word, 16) for word in words.split()]


def _bytes(words: str | None) -> bytes:
    return b"".join(word.to_bytes(8, "little") for word in _numbers(words or ""))[:SHOWN]


def _registers(text: str) -> dict[str, int]:
    words = text.split()
    return {name: int(value, 16) for name, value in zip(words[::2], words[1::2], strict=True)}


def _privileged(number: int, code: bytes, before: dict[str, int], after: dict[str, int]) -> Event:
    short = code[0] == 0x66
    opcode = code[1] if short else code[0]
    size = _IN.get(opcode) or _OUT.get(opcode)
    if size is None:
        return events.privileged(number, code, before, after)
    which = code[code.index(opcode) + 1] if opcode in _IMMEDIATE else before["dx"] & 0xFFFF
    write = opcode in _OUT
    return events.port(number, write, which, 2 if short and size == 4 else size, before["ax"] if write else after["ax"])
