"""What a domain is made of, as the user asks for it."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from stub.abi.cpufeatureset import FEATURES
from stub.domain.actions import ACTIONS, SETTINGS
from stub.domain.disk import Disk
from stub.errors import ConfigError

MIN_MEMORY, MAX_MEMORY = 32, 8192  # MiB
MAX_RAMDISK = 512 << 20  # bytes
MAX_CMDLINE = 1023  # bytes; start_info.cmd_line less its NUL
P2M_KINDS = ("shuffle", "identity")
DEFAULT_EVENT_CHANNELS = 1023  # libxl's
BUILDERS_PORTS = 2  # event channels that a domain has from the start
COMPATIBILITIES = ("xen-3",)
ENGINES = ("unicorn", "qemu")
ENGINE_VARIABLE = "PVSTUB_ENGINE"
"""The environment variable that names the engine of guests that ask for none."""
ACCELERATORS = ("tcg", "kvm")
ACCELERATOR_VARIABLE = "PVSTUB_ACCEL"
"""The same for what the QEMU engine runs on."""
DEFAULT_EPOCH = 1_700_000_000  # seconds since 1970


def default_engine() -> str:
    """The engine of guests that ask for none."""
    return os.environ.get(ENGINE_VARIABLE) or ENGINES[0]


@dataclass(frozen=True)
class DomainConfig:
    """A domain's configuration. ``memory`` is in MiB; ``epoch`` the time of day at boot, seconds since 1970.

    ``p2m`` is how PFNs fall on MFNs: ``shuffle`` (by ``seed``) or ``identity``. ``realtime`` ties virtual time, and
    the time of day, to the host's. ``uuid`` is what the guest is told of itself; none is all zeroes. The ``on_…`` are
    names of :data:`stub.domain.actions.ACTIONS`: what follows each kind of end. ``faults`` are I/O errors on
    purpose (stub/devices/block/faults.py). ``compat``: rules that Xen 4.17 no longer has. ``xen-3``, what GNU Mach was
    written for: the writable_pagetables assist is on from the start, and for tables of every level. ``without``:
    features that the guest's CPU does not have, though the engine's may (stub/abi/cpufeatureset.py). ``engine`` is what
    runs the guest's instructions, and ``accel`` what QEMU does it with, of that engine; they are no part of what the
    guest is.
    """

    kernel: Path
    name: str = "guest"
    ramdisk: Path | bytes | None = None
    cmdline: str = ""
    memory: int = 256
    vcpus: int = 1
    p2m: str = "shuffle"
    seed: int = 0
    epoch: int = DEFAULT_EPOCH
    realtime: bool = False
    uuid: str = ""
    on_poweroff: str = "destroy"
    on_reboot: str = "destroy"
    on_crash: str = "destroy"
    on_watchdog: str = "destroy"
    on_soft_reset: str = "soft-reset"
    disks: tuple[Disk, ...] = ()
    faults: tuple[str, ...] = ()
    event_channels: int = DEFAULT_EVENT_CHANNELS
    compat: str | None = None
    without: tuple[str, ...] = ()
    engine: str = field(default_factory=default_engine)
    accel: str = field(default_factory=lambda: os.environ.get(ACCELERATOR_VARIABLE) or ACCELERATORS[0])

    def __post_init__(self) -> None:
        if not MIN_MEMORY <= self.memory <= MAX_MEMORY:
            raise ConfigError(f"memory of {self.memory} MiB: use {MIN_MEMORY} to {MAX_MEMORY} MiB")
        if self.vcpus != 1:
            raise ConfigError(f"{self.vcpus} vCPUs: one is supported; use --vcpus 1")
        if len(self.cmdline.encode(errors="surrogateescape")) > MAX_CMDLINE:
            raise ConfigError(f"the command line has more than {MAX_CMDLINE} bytes; shorten it")
        if "\0" in self.cmdline:
            raise ConfigError("the command line holds a NUL; remove it")
        if self.p2m not in P2M_KINDS:
            raise ConfigError(f"p2m {self.p2m!r}: use one of {', '.join(P2M_KINDS)}")
        if self.engine not in ENGINES:
            raise ConfigError(f"engine {self.engine!r}: use one of {', '.join(ENGINES)}")
        if self.accel not in ACCELERATORS:
            raise ConfigError(f"accel {self.accel!r}: use one of {', '.join(ACCELERATORS)}")
        if self.engine == "qemu" and self.p2m == "identity":
            raise ConfigError("p2m identity: QEMU's machine has firmware in the first megabyte; use shuffle")
        for name in SETTINGS.values():
            if getattr(self, name) not in ACTIONS:
                raise ConfigError(f"{name} {getattr(self, name)!r}: use one of {', '.join(ACTIONS)}")
        if not BUILDERS_PORTS <= self.event_channels < 1 << 31:
            raise ConfigError(f"{self.event_channels} event channels: use {BUILDERS_PORTS} or more")
        if self.compat is not None and self.compat not in COMPATIBILITIES:
            raise ConfigError(f"compat {self.compat!r}: use one of {', '.join(COMPATIBILITIES)}, or leave it out")
        for name in self.without:
            if name not in FEATURES:
                raise ConfigError(f"without {name!r}: there is no such feature; there are {', '.join(FEATURES)}")
        if not 0 <= self.epoch < 1 << 40:
            raise ConfigError(f"epoch {self.epoch}: use seconds since 1970")

    def ramdisk_bytes(self) -> bytes:
        """The ramdisk's content; empty without one."""
        if self.ramdisk is None:
            return b""
        if isinstance(self.ramdisk, bytes):
            data = self.ramdisk
        else:
            try:
                found = self.ramdisk.stat()
                if not stat.S_ISREG(found.st_mode):  # a pipe or a device may never end
                    raise ConfigError(f"{self.ramdisk}: the ramdisk is not a file; name one")
                if found.st_size > MAX_RAMDISK:
                    raise ConfigError(
                        f"{self.ramdisk}: the ramdisk is larger than {MAX_RAMDISK >> 20} MiB; use a smaller one"
                    )
                data = self.ramdisk.read_bytes()
            except OSError as error:
                raise ConfigError(
                    f"{self.ramdisk}: cannot read the ramdisk: {error.strerror}; name a readable file"
                ) from error
        if len(data) > MAX_RAMDISK:
            raise ConfigError(f"the ramdisk is larger than {MAX_RAMDISK >> 20} MiB; use a smaller one")
        return data
