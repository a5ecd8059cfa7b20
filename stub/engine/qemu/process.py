"""QEMU as a process: found, its version checked, started on a guest's memory, its last words."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Collection
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
_LAST_WORDS = 4000  # bytes
_LONGEST_HELP = 1 << 20  # bytes
_FIRMWARE_SIZE = 1 << 16
_CODE32 = 8  # SHIM_CODE32 in mailbox.h
_MACHINE = (
    "microvm,memory-backend=ram,acpi=off,pit=off,pic=off,rtc=off,isa-serial=off,x-option-roms=off,"
    "auto-kernel-cmdline=off,ioapic2=off"
)

# The CPU that CPUID shows by itself, where the hypervisor is not asked (cpuid.py): the same features, as far as a model
# can say them.
_FEATURES = (
    "+ss,+ssse3,+pclmulqdq,+cx16,+sse4.1,+sse4.2,+movbe,+popcnt,+aes,+fsgsbase,+bmi1,+bmi2,+adx,+clflushopt,+lahf-lm,"
    "+abm,+sse4a,+mmxext,+rdtscp,+svm,-vme,-pse,-pge,-mtrr,-sep,-pse36,-rdrand,-rdseed"
)
_MODEL = (
    f"qemu64,apic-id=0,vendor=AuthenticAMD,family=6,model=6,stepping=3,tcg-cpuid=off,level=0xd,xlevel=0x8000000a,"
    f"model-id=pvstub virtual CPU,{_FEATURES}"
)
# What it may have besides, as the domain asks: all of it is in 7.2. Whether it is in the one that runs the CPU says.
MORE_FEATURES = ("xsave", "xsaveopt", "xgetbv1", "avx", "fma", "f16c", "avx2", "vaes", "clwb", "3dnow", "3dnowext")


class Program(NamedTuple):
    """A QEMU that is installed."""

    path: str
    version: tuple[int, int]
    takes_plugins: bool

    @property
    def counts_rdtscp(self) -> bool:
        """Whether an ``rdtscp`` that faults is in its count of instructions."""
        return self.version < _RDTSCP_EXACT


TCG, KVM = "tcg", "kvm"
# With KVM the time is the host's: no instruction is counted.
_ACCELERATORS = {
    TCG: ("-accel", "tcg,thread=single,tb-size=128", "-icount", "shift=0"),
    KVM: ("-accel", "kvm"),
}
_MODELS = {TCG: _MODEL, KVM: f"{_MODEL},kvm=off,-x2apic,-svm"}
_KVM_DEVICE = "/dev/kvm"
_USE_TCG = "or use --accel tcg"


def check_kvm() -> None:
    """EngineError unless this process may use the host's KVM."""
    try:
        os.close(os.open(_KVM_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        raise EngineError(
            f"qemu engine: there is no {_KVM_DEVICE}; turn on virtualisation in the firmware and load kvm_intel or "
            f"kvm_amd, {_USE_TCG}"
        ) from None
    except PermissionError:
        raise EngineError(
            f"qemu engine: no right to {_KVM_DEVICE}; become a member of its group (usermod -aG kvm), {_USE_TCG}"
        ) from None
    except OSError as error:
        raise EngineError(
            f"qemu engine: {_KVM_DEVICE} cannot be opened: {error.strerror}; load kvm_intel or kvm_amd, {_USE_TCG}"
        ) from error


def _firmware(entry: int) -> bytes:
    """What runs at the CPU's first address, 0xfffffff0: to protected mode, and to the shim."""
    code, descriptors = 0xFF00, 0xFF20  # below 4 GiB less 64 KiB
    image = bytearray(_FIRMWARE_SIZE)
    struct.pack_into("<Bh", image, 0xFFF0, 0xE9, code - 0xFFF3)  # jmp
    struct.pack_into("<IBH", image, code, 0x010F662E, 0x16, descriptors)  # lgdtl %cs:descriptors
    image[code + 7 : code + 15] = bytes.fromhex("0f20c0 0c01 0f22c0")  # cr0 |= PE
    struct.pack_into("<HIH", image, code + 15, 0xEA66, entry, _CODE32)  # ljmpl
    base = (1 << 32) - _FIRMWARE_SIZE + descriptors + 8
    struct.pack_into("<HI2x4Q", image, descriptors, 31, base, 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0)
    return bytes(image)


def _help(path: str) -> str:
    """What ``--help`` has it say, as far as it is not too much."""
    words = [path, "--help"]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as asked:
        assert asked.stdout is not None
        try:
            text = asked.stdout.read(_LONGEST_HELP)
        finally:
            asked.kill()
    return text.decode(errors="replace")


@cache
def program() -> Program:
    """A QEMU that is new enough; EngineError without one."""
    found = shutil.which(PROGRAM)
    if found is None:
        raise EngineError(f"qemu engine: {PROGRAM} is not installed; on Debian, apt install qemu-system-x86")
    try:
        text = _help(found)
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

    ``accel``: what it runs with, ``TCG`` or ``KVM``; ``features``: what its CPU is to have of ``MORE_FEATURES``.
    ``bell`` and ``gate`` are the ends of pipes that its shim writes to; the gate holds one write at a time.
    """

    def __init__(self, file: int, size: int, entry: int, accel: str = TCG, features: Collection[str] = ()) -> None:
        self._errors = os.memfd_create("pvstub-qemu-errors")
        self._firmware = os.memfd_create("pvstub-qemu-firmware")
        os.pwrite(self._firmware, _firmware(entry), 0)
        self.bell, self._bell_in = os.pipe()
        self.gate, self._gate_in = os.pipe2(os.O_CLOEXEC | os.O_DIRECT)
        fcntl.fcntl(self.gate, fcntl.F_SETPIPE_SZ, PAGE_SIZE)
        os.write(self._gate_in, b"\0")
        os.set_blocking(self.gate, False)
        kept = (file, self._firmware, self._bell_in, self._gate_in)
        more = "".join(f",{'+' if name in features else '-'}{name}" for name in MORE_FEATURES)
        arguments = [
            "-machine", _MACHINE,
            "-object", f"memory-backend-file,id=ram,size={size},share=on,mem-path=/proc/self/fd/{file}",
            "-m", f"size={size // PAGE_SIZE * 4}K",
            *_ACCELERATORS[accel], "-cpu", _MODELS[accel] + more, *(plugin_option() if accel == TCG else ()),
            "-bios", f"/proc/self/fd/{self._firmware}",
            *_pipe("bell", 1, self._bell_in, _core.PORT_BELL),
            *_pipe("gate", 2, self._gate_in, _core.PORT_GATE),
            "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none", "-name", "pvstub",
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
