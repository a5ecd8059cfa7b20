"""QEMU as a process: found, its version checked, started on a guest's memory, its last words."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from functools import cache
from importlib import resources
from typing import NamedTuple

from stub.engine.qemu import _core
from stub.errors import EngineError
from stub.units import PAGE_SIZE

PROGRAM = "qemu-system-x86_64"
OLDEST = (7, 2)
PLUGIN = "counting.so"
_PLUGIN_BELOW = (9, 0)  # from there on QEMU refuses plugins of its interface's version 1
_RDTSCP_EXACT = (8, 1)  # from there on QEMU does not count an rdtscp that faults (helper_rdtscp is no more)
_EIP_BASE = 0x10000  # what has to be added to EIP after a reset, as the base of CS is 0xffff0000
_LAST_WORDS = 4000  # bytes
_FIRMWARE_SIZE = 1 << 16  # zeroes, which never run
_MACHINE = (
    "microvm,memory-backend=ram,acpi=off,pit=off,pic=off,rtc=off,isa-serial=off,x-option-roms=off,"
    "auto-kernel-cmdline=off,ioapic2=off"
)

# The CPU that CPUID shows by itself, where the hypervisor is not asked (cpuid.py): the same features, as far as a model
# can say them.
_FEATURES = (
    "+ss,+ssse3,+pclmulqdq,+cx16,+sse4.1,+sse4.2,+movbe,+popcnt,+aes,+fsgsbase,+bmi1,+bmi2,+adx,+clflushopt,+lahf-lm,+abm,"
    "+sse4a,+mmxext,+rdtscp,+svm,-vme,-pse,-pge,-mtrr,-sep,-pse36,-rdrand,-rdseed"
)
_MODEL = (
    f"qemu64,apic-id=0,vendor=AuthenticAMD,family=6,model=6,stepping=3,tcg-cpuid=off,level=0xd,xlevel=0x8000000a,"
    f"model-id=pvstub virtual CPU,{_FEATURES}"
)


class Program(NamedTuple):
    """A QEMU that is installed."""

    path: str
    version: tuple[int, int]
    takes_plugins: bool

    @property
    def counts_rdtscp(self) -> bool:
        """Whether an ``rdtscp`` that faults is in its count of instructions."""
        return self.version < _RDTSCP_EXACT


@cache
def program() -> Program:
    """A QEMU that is new enough; EngineError without one."""
    found = shutil.which(PROGRAM)
    if found is None:
        raise EngineError(f"qemu engine: {PROGRAM} is not installed; on Debian, apt install qemu-system-x86")
    try:
        text = subprocess.run([found, "--help"], capture_output=True, text=True, check=False).stdout
    except OSError as error:
        raise EngineError(f"qemu engine: {found} cannot be run: {error.strerror}") from error
    said = re.search(r"version (\d+)\.(\d+)", text)
    version = (int(said[1]), int(said[2])) if said else (0, 0)
    if said is None or version < OLDEST:
        needed = ".".join(map(str, OLDEST))
        raise EngineError(f"qemu engine: {found} says {said[0] if said else 'no version'}; {needed} or newer is needed")
    return Program(found, version, version < _PLUGIN_BELOW and "\n-plugin " in text)


def plugin_option() -> tuple[str, ...]:
    """The option that has QEMU count at less cost (plugin/counting.c); nothing where it cannot have one."""
    file = resources.files(__package__ or "stub.engine.qemu") / PLUGIN
    usable = program().takes_plugins and file.is_file()
    return ("-plugin", "file=" + str(file).replace(",", ",,")) if usable else ()


class Process:
    """One QEMU on the memory ``file`` of ``size`` bytes, its CPU about to run at machine address ``entry``.

    ``bell`` and ``gate`` are the ends of pipes that its shim writes to; the gate holds one write at a time.
    """

    def __init__(self, file: int, size: int, entry: int) -> None:
        self._errors = os.memfd_create("pvstub-qemu-errors")
        self._firmware = os.memfd_create("pvstub-qemu-firmware")
        os.truncate(self._firmware, _FIRMWARE_SIZE)
        self.bell, self._bell_in = os.pipe()
        self.gate, self._gate_in = os.pipe2(os.O_CLOEXEC | os.O_DIRECT)
        fcntl.fcntl(self.gate, fcntl.F_SETPIPE_SZ, PAGE_SIZE)
        os.write(self._gate_in, b"\0")
        os.set_blocking(self.gate, False)
        kept = (file, self._firmware, self._bell_in, self._gate_in)
        arguments = [
            "-machine", _MACHINE,
            "-object", f"memory-backend-file,id=ram,size={size},share=on,mem-path=/proc/self/fd/{file}",
            "-m", f"size={size // PAGE_SIZE * 4}K",
            "-accel", "tcg,thread=single,tb-size=128",
            "-icount", "shift=0", *plugin_option(),
            "-cpu", _MODEL,
            "-bios", f"/proc/self/fd/{self._firmware}",
            "-device", f"loader,addr={_EIP_BASE + entry:#x},cpu-num=0",
            *_pipe("bell", 1, self._bell_in, _core.PORT_BELL),
            *_pipe("gate", 2, self._gate_in, _core.PORT_GATE),
            "-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none", "-name", "pvstub",
        ]  # fmt: skip
        path = program().path
        try:
            self.pid = _core.spawn(path, tuple(os.fsencode(word) for word in (path, *arguments)), self._errors, kept)
        except OSError as error:
            self.close()
            raise EngineError(f"qemu engine: {path} cannot be started: {error.strerror}") from error

    def started(self) -> None:
        """The shim is up: its pipes are QEMU's alone, whose writes wait from now on."""
        fcntl.fcntl(self._bell_in, fcntl.F_SETFL, 0)
        fcntl.fcntl(self._gate_in, fcntl.F_SETFL, os.O_DIRECT)
        self._close("_bell_in", "_gate_in", "_firmware")

    @property
    def last_words(self) -> str:
        """What it wrote to its standard error, in one line."""
        size = os.fstat(self._errors).st_size
        data = os.pread(self._errors, _LAST_WORDS, max(size - _LAST_WORDS, 0))
        return "; ".join(data.decode(errors="replace").split("\n")).strip("; ") or "nothing"

    def close(self) -> None:
        """Let go of its files; the process is ended by the one who runs it."""
        self._close("_errors", "_firmware", "bell", "_bell_in", "gate", "_gate_in")

    def _close(self, *names: str) -> None:
        for name in names:
            file = getattr(self, name)
            if file >= 0:
                os.close(file)
                setattr(self, name, -1)


def _pipe(name: str, number: int, file: int, port: int) -> tuple[str, ...]:
    """A port whose bytes go into an open file."""
    return (
        "-add-fd", f"fd={file},set={number}",
        "-chardev", f"file,id={name},path=/dev/fdset/{number},append=on",
        "-device", f"isa-debugcon,iobase={port:#x},chardev={name}",
    )  # fmt: skip
