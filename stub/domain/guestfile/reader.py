"""A configuration file → a DomainConfig and what is to be said about it, as xl_parse.c and libxl read it."""

from __future__ import annotations

import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stub.domain.actions import ACTIONS, SETTINGS
from stub.domain.actions import XL_DEFAULTS as XL_ACTIONS
from stub.domain.config import (
    BUILDERS_PORTS,
    DEFAULT_EVENT_CHANNELS,
    MAX_CMDLINE,
    MAX_MEMORY,
    MIN_MEMORY,
    DomainConfig,
)
from stub.domain.cpuidoption import parse_cpuid
from stub.domain.guestfile import disks, keys, xl, xm
from stub.domain.guestfile.place import Place, Setting, Source, Value
from stub.errors import ConfigError

MAX_FILE = 256 << 10  # bytes
DEFAULT_MEMORY = 256  # MiB
_HEAD = 4096
_LOOKS_LIKE_ONE = re.compile(rb"^[ \t]*[a-zA-Z_]\w*[ \t]*\+?=", re.MULTILINE)
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_NUMBER = re.compile(r"\s*([-+]?)(0[xX][0-9a-fA-F]{1,16}|0[0-7]{0,22}|[1-9][0-9]{0,19})\s*")
_RESTART = {
    "always": ("restart", "restart", "restart"),
    "onreboot": ("destroy", "restart", "destroy"),
    "never": ("destroy", "destroy", "destroy"),
}
_FIRMWARE = {"pvgrub32": "grub-xen32", "pvgrub64": "grub-xen64"}  # images of the catalogue
_NETWORK = ("ip", "nfs_server", "gateway", "netmask", "hostname", "interface", "dhcp")


@dataclass(frozen=True)
class Warned:
    """One warning, and where it is about."""

    at: str
    message: str

    def __str__(self) -> str:
        return f"{self.at}: {self.message}"


@dataclass(frozen=True)
class GuestFile:
    """What a file says. ``language``: ``xl`` or ``xm``; ``kernel`` as it is written, before it was looked for."""

    path: Path
    language: str
    config: DomainConfig
    kernel: str
    max_memory: int
    warnings: tuple[Warned, ...]
    keys: frozenset[str] = frozenset()
    """The keys that the file sets."""


def is_one(path: Path) -> bool:
    """Whether a file looks like a configuration: text in which something is set."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    return path.suffix == ".cfg" or (b"\0" not in head and bool(_LOOKS_LIKE_ONE.search(head)))


def read(path: Path, changes: Sequence[str] = (), *, devices: bool = False) -> GuestFile:
    """Read a file, with ``changes`` (``key=value`` in xl's grammar) after it, as xl create takes them.

    ``devices``: a disk may be a device of the host's. ConfigError with file, line, column and a caret.
    """
    return read_text(_text(path), path, changes, devices=devices)


def read_text(text: str, path: Path, changes: Sequence[str] = (), *, devices: bool = False) -> GuestFile:
    """The same, of a text that is there."""
    source = Source(str(path), text)
    settings, language, used = _settings(source)
    said = {name: (source, setting) for name, setting in settings.items()}
    for change in changes:
        said |= _changed(change, settings)
    return _Reader(path, language, said, used, devices).guest()


def _text(path: Path) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError(f"{path}: the configuration is not a file; name one")
        if path.stat().st_size > MAX_FILE:
            raise ConfigError(f"{path}: the configuration is larger than {MAX_FILE >> 10} KiB; name another file")
        return path.read_bytes().decode(errors="surrogateescape").replace("\r\n", "\n")
    except OSError as error:
        raise ConfigError(f"{path}: cannot read it: {error.strerror}; name a readable file") from error


def _settings(source: Source) -> tuple[dict[str, Setting], str, frozenset[str]]:
    """By xl's grammar, else as Python; the error of the one that comes further."""
    try:
        return xl.read(source), "xl", frozenset()
    except xl.NotXl as error:
        not_xl = error
    try:
        tree = xm.parse(source)
    except ConfigError as error:
        raise (error if _line(error) > _line(not_xl) else not_xl) from None
    settings, used = xm.read(source, tree)
    return settings, "xm", used


def _line(error: ConfigError) -> int:
    found = re.search(r":([0-9]+):[0-9]+: ", str(error))
    return int(found[1]) if found else 0


def _changed(change: str, before: dict[str, Setting]) -> dict[str, tuple[Source, Setting]]:
    """The settings of one ``--set key=value``; a value that is not of xl's grammar is a string."""
    source = Source("--set", change)
    name, equals, text = change.partition("=")
    if not equals or not re.fullmatch(r"[a-z][_0-9a-z]*", name.strip()):
        raise ConfigError(f"--set {change}: give key=value, as in --set memory=512")
    try:
        made = xl.read(source)
    except xl.NotXl:
        if text.lstrip()[:1] in ("'", '"', "["):
            raise
        place = Place(1, len(name) + 2)
        made = {name.strip(): Setting(name.strip(), Value(text, place), Place(1, 1))}
    return {name: (source, setting) for name, setting in made.items()}


@dataclass
class _Reader:
    """Takes the settings one by one; each that is read has a method in ``_READ``."""

    path: Path
    language: str
    settings: dict[str, tuple[Source, Setting]]
    used: frozenset[str]
    devices: bool
    warnings: list[Warned] = field(default_factory=list)

    def warn(self, source: Source, place: Place, message: str) -> None:
        self.warnings.append(Warned(source.at(place), message))

    def guest(self) -> GuestFile:
        self._refuse()
        kernel = self.string("kernel") or _FIRMWARE.get(self.string("firmware"), "")
        if not kernel:
            raise ConfigError(f'{self.path}: there is no kernel; say which with kernel = "FILE", or --set kernel=FILE')
        memory, max_memory = self._memory()
        self._vcpus()
        config = DomainConfig(
            kernel=self.file("kernel" if self.string("kernel") else "firmware", kernel),
            name=self._name(),
            ramdisk=self.file("ramdisk", self.string("ramdisk")) if self.string("ramdisk") else None,
            cmdline=self._cmdline(),
            memory=memory,
            uuid=self._uuid(),
            disks=self._disks(),
            event_channels=self._event_channels(),
            without=self._without(),
            **self._actions(),
        )
        for name, (source, setting) in self.settings.items():
            if name not in READ and not (name in self.used or name.startswith("_")):
                self.warn(source, setting.place, keys.warning(name))
        warnings = tuple(self.warnings)
        return GuestFile(self.path, self.language, config, kernel, max_memory, warnings, frozenset(self.settings))

    # -- values

    def error(self, name: str, message: str) -> ConfigError:
        source, setting = self.settings[name]
        return source.error(setting.value.place, message)

    def string(self, name: str) -> str:
        """A key's string; empty without one. A number is as good."""
        if name not in self.settings:
            return ""
        data = self.settings[name][1].value.data
        if not isinstance(data, (str, int)):
            raise self.error(name, f"{name} is a string, not {self.settings[name][1].value.kind}")
        if "\0" in str(data):
            raise self.error(name, f"{name} holds a NUL; remove it")
        return str(data)

    def number(self, name: str) -> int | None:
        """A key's number, which may be a string with one in it; None without one."""
        if name not in self.settings:
            return None
        data = self.settings[name][1].value.data
        found = _NUMBER.fullmatch(data) if isinstance(data, str) else None
        if isinstance(data, int):
            return int(data)
        if found is None:
            shown = f"{data[:40]!r}" if isinstance(data, str) else self.settings[name][1].value.kind
            raise self.error(name, f"{name} is a number, not {shown}")
        base = 16 if found[2][:2] in ("0x", "0X") else 8 if found[2][0] == "0" else 10
        return int(found[1] + found[2], base)

    def file(self, name: str, text: str) -> Path:
        """A file that is named: beside the configuration, or in the current folder if it is only there."""
        beside = self.path.parent / text
        if "\0" in text:
            raise self.error(name, f"{name} holds a NUL; remove it")
        here = Path(text)
        return here if not there(beside) and there(here) else beside

    # -- keys

    def _refuse(self) -> None:
        """What would make it another kind of guest."""
        for name, kinds in (("type", ("pv",)), ("builder", ("generic", "linux"))):
            kind = self.string(name)
            if kind and kind not in kinds:
                raise self.error(
                    name, f'a guest of {name} {kind[:20]!r}: pvstub boots PV guests; set {name} = "{kinds[0]}"'
                )
        if self.string("bootloader"):
            loader = self.string("bootloader")[:40]
            raise self.error(
                "bootloader",
                f"{loader} takes the kernel out of the guest's disk, in dom0: do that yourself and name it with "
                'kernel = and ramdisk =, or have firmware = "pvgrub64" do it in the guest; --set bootloader= leaves it '
                "out",
            )
        if self.string("firmware") not in ("", *_FIRMWARE):
            raise self.error("firmware", f"the firmware of a PV guest is one of {', '.join(_FIRMWARE)}")

    def _name(self) -> str:
        name = self.string("name") or self.path.stem
        if len(name) > 255 or not name.isprintable() or "/" in name:
            raise self.error("name", "a name has at most 255 characters that can be printed, and no /")
        return name

    def _uuid(self) -> str:
        text = self.string("uuid")
        if text and not _UUID.fullmatch(text):
            raise self.error("uuid", "a UUID looks like 01234567-89ab-cdef-0123-456789abcdef")
        return text.lower()

    def _memory(self) -> tuple[int, int]:
        memory, most = self.number("memory"), self.number("maxmem")
        name = "maxmem" if memory is None and most is not None else "memory"
        memory = memory if memory is not None else most if most is not None else DEFAULT_MEMORY
        if not MIN_MEMORY <= memory <= MAX_MEMORY:
            raise self.error(name, f"{name} is in MiB, {MIN_MEMORY} to {MAX_MEMORY}, not {memory}")
        if most is None or most == memory:
            return memory, memory
        if most < memory:
            raise self.error("maxmem", f"maxmem {most} is less than memory {memory}")
        source, setting = self.settings["maxmem"]
        self.warn(source, setting.place, f"maxmem has no effect: the guest keeps the {memory} MiB that it starts with")
        return memory, most

    def _vcpus(self) -> None:
        """Xen's limits, and ours."""
        count, most = self.number("vcpus"), self.number("maxvcpus")
        if count is not None and count != 1:
            raise self.error("vcpus", f"vcpus is {count}: pvstub gives a guest one; set vcpus = 1, or --set vcpus=1")
        if most is not None and most < 1:
            raise self.error("maxvcpus", f"maxvcpus is {most}, less than vcpus")
        if most is not None and most > 1:
            source, setting = self.settings["maxvcpus"]
            self.warn(source, setting.place, "maxvcpus has no effect: pvstub gives a guest one vCPU")

    def _event_channels(self) -> int:
        """The highest port that the guest may have; libxl takes 0 for its default."""
        most = self.number("max_event_channels") or DEFAULT_EVENT_CHANNELS
        if not BUILDERS_PORTS <= most < 1 << 31:
            raise self.error("max_event_channels", f"max_event_channels is {most}: use {BUILDERS_PORTS} or more")
        return most

    def _without(self) -> tuple[str, ...]:
        """``cpuid``: a string of libxl's form, or xend's list of leaves, which has no effect."""
        if "cpuid" not in self.settings:
            return ()
        source, setting = self.settings["cpuid"]
        if isinstance(setting.value.data, tuple):
            self.warn(source, setting.place, 'a list of leaves has no effect; cpuid = "host,NAME=0" hides a feature')
            return ()
        try:
            return parse_cpuid(self.string("cpuid"), lambda text: self.warn(source, setting.value.place, text))
        except ConfigError as error:
            raise self.error("cpuid", str(error)) from None

    def _cmdline(self) -> str:
        """``cmdline``, else ``root=ROOT`` and ``extra`` (parse_cmdline); before them what xm makes of ``ip``."""
        whole = self.string("cmdline")
        parts = [("root", f"root={self.string('root').removeprefix('root=')}"), ("extra", self.string("extra"))]
        given = [name for name, _ in parts if self.string(name)]
        if whole and given:
            source, setting = self.settings[given[0]]
            self.warn(source, setting.place, f"{' and '.join(given)} have no effect: cmdline is set")
        text = whole or " ".join([*self._network(), *(text for name, text in parts if self.string(name))])
        if len(text.encode(errors="surrogateescape")) > MAX_CMDLINE:
            name = "cmdline" if whole else given[-1] if given else "ip"
            raise self.error(name, f"the command line has more than {MAX_CMDLINE} bytes; shorten it")
        return text

    def _network(self) -> list[str]:
        """xm's own: ``ip=ADDRESS:SERVER:GATEWAY:MASK:NAME:INTERFACE:DHCP`` (create.py, preprocess_ip)."""
        if self.language != "xm":
            return []
        given = {name: self.string(name) for name in _NETWORK}
        dhcp = given["dhcp"] if given["dhcp"] not in ("", "0", "False") else "off"
        words = []
        if given["ip"] or dhcp != "off":
            given |= {"nfs_server": given["nfs_server"] or "127.0.255.255", "dhcp": dhcp}
            given["interface"] = given["interface"] or "eth0"
            words.append("ip=" + ":".join(given.values()))
        root = self.string("nfs_root")
        return [*words, f"nfsroot={given['nfs_server']}:{root}"] if root and given["nfs_server"] else words

    def _disks(self) -> tuple[Any, ...]:
        if "disk" not in self.settings:
            return ()
        source, setting = self.settings["disk"]
        specs = setting.value.data
        if not isinstance(specs, tuple):
            raise self.error("disk", f"disk is a list, as ['disk.img,raw,xvda,rw'], not {setting.value.kind}")
        made = []
        numbers: dict[int, str] = {}
        for spec in specs:
            disk = disks.parse(source, spec, self.path.parent, lambda place, text: self.warn(source, place, text))
            if disk.number in numbers:
                raise source.error(
                    spec.place, f"two disks are the guest's {disk.number}: {numbers[disk.number]} and {disk.vdev}"
                )
            numbers[disk.number] = disk.vdev
            if disk.target is not None and disk.target.parts[:2] == ("/", "dev") and not self.devices:
                raise source.error(
                    spec.place, f"{disk.target} is a device of this host's: --allow-devices lets the guest read it"
                )
            made.append(disk)
        return tuple(made)

    def _actions(self) -> dict[str, Any]:
        """on_…, xm's older ``restart`` and ``on_shutdown`` before them."""
        actions: dict[str, Any] = dict(XL_ACTIONS)
        if "restart" in self.settings:
            word = self.string("restart")
            if word not in _RESTART:
                raise self.error("restart", f"restart is one of {', '.join(_RESTART)}")
            actions |= dict(zip(("on_poweroff", "on_reboot", "on_crash"), _RESTART[word], strict=True))
        for name in ("on_shutdown", *SETTINGS.values()):
            if name in self.settings:
                word = self.string(name)
                if word not in ACTIONS:
                    raise self.error(name, f"{word[:30]!r} is no action; {name} is one of {', '.join(ACTIONS)}")
                actions["on_poweroff" if name == "on_shutdown" else name] = word
        return actions


def there(path: Path) -> bool:
    """Whether there is a file of this name, which may be no name at all."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


READ = frozenset(
    "name uuid type builder memory maxmem vcpus maxvcpus kernel ramdisk cmdline root extra bootloader firmware disk "  # noqa: SIM905
    "restart on_shutdown nfs_root max_event_channels cpuid".split()
) | {*SETTINGS.values(), *_NETWORK}
"""The keys that have an effect."""
