"""Disk specifications (xl-disk-configuration(5); Xen's libxlu_disk_l.l), old prefixes and all.

A specification is parameters with commas between: ``key=value``, flags, and up to four positional ones, target, format,
vdev and access. ``target=`` takes the rest of the string. What reads it is a table of parameters, as xl's lexer is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from stub.domain.disk import DEVICE_TYPES, FORMATS, Disk, vdev_number
from stub.domain.guestfile.place import Place, Source, Value
from stub.errors import ConfigError

_ACCESS = {"r": True, "ro": True, "w": False, "rw": False, "": False}  # read-only or not
_BACKENDS = ("phy", "tap", "qdisk", "standalone")
_FORMAT_PREFIXES = ("raw", "qcow", "qcow2", "vhd")
_PLAIN_PREFIXES = ("file", "phy", "tap", "tap2", "tapdisk", "aio", "ioemu")
_SCRIPT_PREFIXES = ("iscsi", "nbd", "enbd", "drbd")
_FLAGS = frozenset({"direct-io-safe", "discard", "no-discard", "trusted", "untrusted", "colo", "no-colo"})
_CHANGEABLE = frozenset({"access", "devtype"})
_IGNORED = frozenset({"grant_usage", "colo-host", "colo-port", "colo-export", "active-disk", "hidden-disk"})
_KEY = re.compile(r"[a-z][-_a-z0-9]*=")
_PREFIX = re.compile(r"([a-z][a-z0-9]*):")
MAX_SPEC = 4096  # characters


@dataclass
class _Reading:
    """A specification while it is read; ``at`` is the offset of what is being looked at."""

    source: Source
    value: Value
    at: int = 0
    named: dict[str, str] = field(default_factory=dict)
    where: dict[str, int] = field(default_factory=dict)
    prefixed: bool = False

    def error(self, message: str, at: int | None = None) -> ConfigError:
        line, column = self.value.place
        inside = (self.at if at is None else at) + 1 if self.value.text else 0
        return self.source.error(Place(line, column + inside), message)

    def put(self, name: str, text: str) -> None:
        """Set a parameter; but for some, only once, or to the same again (savestring, DSET)."""
        if self.named.get(name, "") not in ("", text) and name not in _CHANGEABLE:
            raise self.error(f"the disk's {name} is given twice")
        self.named[name] = text
        self.where[name] = self.at


def parse(source: Source, value: Value, base: Path, warn: Callable[[Place, str], None]) -> Disk:
    """A disk from its specification; ConfigError with the place for what is none.

    ``base`` is the folder that a relative target is in; ``warn`` is told of what has no effect here.
    """
    if not isinstance(value.data, str):
        raise source.error(value.place, f"a disk is a string, as 'disk.img,raw,xvda,rw', not {value.kind}")
    spec = value.data
    if len(spec) > MAX_SPEC:
        raise source.error(value.place, f"a disk's specification has more than {MAX_SPEC} characters")
    reading = _Reading(source, value)
    while reading.at < len(spec):
        reading.at += len(spec[reading.at :]) - len(spec[reading.at :].lstrip(" \t\n"))
        if reading.at >= len(spec):
            break
        _parameter(reading, spec)
    return _disk(reading, base, warn)


def _parameter(reading: _Reading, spec: str) -> None:
    """Take one parameter, with its comma."""
    rest = spec[reading.at :]
    prefix = _PREFIX.match(rest)
    if prefix and "target" not in reading.named and _is_prefix(prefix[1], rest[prefix.end() :]):
        _prefix(reading, prefix[1])
        reading.at += prefix.end()
        return
    if rest.startswith("target="):
        reading.at += len("target=")
        reading.put("target", rest[len("target=") :].removesuffix(","))
        reading.at = len(spec)
        return
    text = rest.split(",", 1)[0]
    key = _KEY.match(text)
    if key:
        _keyed(reading, key[0][:-1], text[key.end() :])
    elif "=" in text:
        raise reading.error(f"{text[:40]}: no parameter of a disk; give a file name with = in it with target=, last")
    elif text == "cdrom":
        reading.put("devtype", "cdrom")
    elif text not in _FLAGS:
        _positional(reading, text)
    reading.at += len(text) + 1


def _is_prefix(name: str, rest: str) -> bool:
    """Whether a name with a colon is a prefix, and not a target's beginning: known, or before no letter or digit."""
    known = name in _FORMAT_PREFIXES or name in _SCRIPT_PREFIXES or name in _PLAIN_PREFIXES
    return known or not (rest[:1].isascii() and rest[:1].isalnum())


def _prefix(reading: _Reading, name: str) -> None:
    """An old prefix, which says the format or nothing of interest; the target follows."""
    if name in _FORMAT_PREFIXES:
        reading.put("format", name)
    elif name in _SCRIPT_PREFIXES:
        raise reading.error(f"{name}: needs a host's block script; give the disk as a file")
    elif name not in _PLAIN_PREFIXES:
        raise reading.error(f"{name}: is no prefix of a disk; give a file name with : in it with target=, last")
    reading.prefixed = True


def _keyed(reading: _Reading, name: str, text: str) -> None:
    if name not in _KEYS:
        if name in _IGNORED:
            return
        raise reading.error(f"a disk has no parameter {name}; there are {', '.join(sorted(_KEYS))} and target")
    reading.at += len(name) + 1
    _KEYS[name](reading, text)
    reading.put(name, text)
    reading.at -= len(name) + 1


def _one_of(name: str, known: tuple[str, ...]) -> Callable[[_Reading, str], None]:
    def check(reading: _Reading, text: str) -> None:
        if text not in known:
            raise reading.error(f"a disk's {name} is one of {', '.join(each for each in known if each)}")

    return check


def _script(reading: _Reading, _: str) -> None:
    raise reading.error("a host's block script is not run; give the disk as a file")


_KEYS: dict[str, Callable[[_Reading, str], None]] = {
    "format": _one_of("format", ("", *FORMATS)),
    "vdev": lambda *_: None,
    "access": _one_of("access", tuple(_ACCESS)),
    "devtype": _one_of("devtype", DEVICE_TYPES),
    "backendtype": _one_of("backendtype", _BACKENDS),
    "backend": lambda *_: None,
    "specification": _one_of("specification", ("xen",)),
    "script": _script,
}


def _positional(reading: _Reading, text: str) -> None:
    """The next of target, format, vdev and access that has not been given."""
    if "target" not in reading.named:
        reading.put("target", text)
    elif not reading.prefixed and "format" not in reading.named:
        if not reading.named["target"] and ":" in text:  # ",hdc:cdrom,r": an empty drive
            _vdev(reading, text)
            reading.named["format"] = "empty"
        else:
            _KEYS["format"](reading, text)
            reading.put("format", text or "raw")
    elif not reading.named.get("vdev"):
        _vdev(reading, text)
    elif "access" not in reading.named:
        _KEYS["access"](reading, text)
        reading.put("access", text)
    else:
        raise reading.error("a disk has four positional parameters: target, format, vdev and access")


def _vdev(reading: _Reading, text: str) -> None:
    """A vdev, with the device's type behind a colon as xm had it."""
    name, colon, kind = text.rpartition(":")
    if not colon:
        reading.put("vdev", text)
        return
    if kind not in DEVICE_TYPES:
        raise reading.error(f"{kind}: a disk is a cdrom or a disk", reading.at + len(name) + 1)
    reading.put("vdev", name)
    reading.put("devtype", kind)


def _disk(reading: _Reading, base: Path, warn: Callable[[Place, str], None]) -> Disk:
    named = reading.named
    vdev, kind, target = named.get("vdev", ""), named.get("devtype", "disk"), named.get("target", "")
    if not vdev:
        raise reading.error("the disk has no vdev (xvda, hda, sda, 0, …): say what the guest is to find", 0)
    number = vdev_number(vdev)
    if number is None:
        raise reading.error(
            f"{vdev[:40]} is no vdev; as xvda, xvda1, d0p1, hda, sda or a number", reading.where["vdev"]
        )
    form = named.get("format") or "raw"
    if kind == "cdrom" and not target:
        form = "empty"
    if not target and form != "empty":
        raise reading.error("the disk has no target: name the file that it is in", 0)
    if form == "empty" and kind != "cdrom":
        raise reading.error("only a cdrom may be empty", 0)
    if "\0" in target:
        raise reading.error("a file name holds a NUL; remove it", reading.where["target"])
    if named.get("backend") not in (None, "", "0"):
        warn(reading.value.place, "a disk's backend is another domain's; there is none, so pvstub serves it itself")
    readonly = kind == "cdrom" or _ACCESS[named.get("access", "rw")]
    return Disk(base / target if form != "empty" else None, vdev, number, readonly, kind, form)
