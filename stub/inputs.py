"""What a boot depends on, all of it, as an object of JSON: in a run's summary, and in the artefact of a failed test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, asdict, fields
from pathlib import Path
from types import NoneType
from typing import Any, Final, NamedTuple

from stub.domain.config import DomainConfig
from stub.domain.disk import Disk

_APART: Final = frozenset({"kernel", "ramdisk", "disks"})
_CONFIG: Final = frozenset(field.name for field in fields(DomainConfig)) - _APART
_LISTS: Final = ("faults", "without")  # of text
_DISK: Final = frozenset(field.name for field in fields(Disk)) - {"target"}


def _kinds(field: Field[Any]) -> tuple[type, ...]:
    """What a field is, by what it is where nobody says anything; what may be missing is text."""
    default = field.default if field.default_factory is MISSING else field.default_factory()
    return (str, NoneType) if default is None else (type(default),)


_OPTIONAL: Final = [
    field
    for kind in (DomainConfig, Disk)
    for field in fields(kind)
    if field.default is not MISSING or field.default_factory is not MISSING
]
_KINDS: Final = {field.name: _kinds(field) for field in _OPTIONAL} | {
    **dict.fromkeys(_LISTS, (list,)),
    "vdev": (str,),
    "number": (int,),
}


class Typed(NamedTuple):
    """Console input: the virtual time in ns, the bytes of console output that were there by then, what was typed."""

    now_ns: int
    output: int
    data: bytes


class Inputs(NamedTuple):
    """``config`` names the files. Limits as `stub.limits.Limits` has them, ``audit`` as `stub.machine.Machine`."""

    config: DomainConfig
    virtual_ns: int | None = None
    instructions: int | None = None
    audit: int | None = None
    typed: Sequence[Typed] = ()

    def as_object(self) -> dict[str, Any]:
        """Files by their absolute paths; None for a ramdisk that is in none."""
        config, ramdisk = self.config, self.config.ramdisk
        return {
            "files": {
                "kernel": str(config.kernel.absolute()),
                "ramdisk": str(ramdisk.absolute()) if isinstance(ramdisk, Path) else None,
            },
            "config": {name: getattr(config, name) for name in sorted(_CONFIG)}
            | {name: list(getattr(config, name)) for name in _LISTS},
            "disks": [
                asdict(disk) | {"target": None if disk.target is None else str(disk.target.absolute())}
                for disk in config.disks
            ],
            "limits": {"virtual_ns": self.virtual_ns, "instructions": self.instructions},
            "audit": self.audit,
            "typed": [{"now_ns": one.now_ns, "output": one.output, "hex": one.data.hex()} for one in self.typed],
        }

    @classmethod
    def of_object(cls, said: Mapping[str, Any], kernel: Path, ramdisk: Path | None, disks: Sequence[Disk]) -> Inputs:
        """The same back, with the files where they are now. ConfigError, or ValueError, KeyError, TypeError and
        AttributeError, for what none of ours has written."""
        given = dict(said["config"])
        if set(given) - _CONFIG:
            raise ValueError(f"{min(set(given) - _CONFIG)} in its configuration")
        _check_kinds(given)
        given |= {name: tuple(_text(one) for one in given.get(name, ())) for name in _LISTS}
        limits = said["limits"]
        return cls(
            DomainConfig(kernel=kernel, ramdisk=ramdisk, disks=tuple(disks), **given),
            _count(limits["virtual_ns"]),
            _count(limits["instructions"]),
            _count(said["audit"]),
            [Typed(int(one["now_ns"]), int(one["output"]), bytes.fromhex(one["hex"])) for one in said["typed"]],
        )


def _check_kinds(said: Mapping[str, Any]) -> None:
    for name, value in said.items():
        if type(value) not in _KINDS[name]:
            raise TypeError(f"{name} is {type(value).__name__}")
        if isinstance(value, str):
            _text(value)


def _text(said: Any) -> str:
    """Text as a host can hand it over. ValueError or TypeError for anything else."""
    if not isinstance(said, str):
        raise TypeError(f"{type(said).__name__} is no text")
    said.encode(errors="surrogateescape")
    return said


def _count(said: Any) -> int | None:
    return None if said is None else int(said)


def disk_of(said: Mapping[str, Any], target: Path | None) -> Disk:
    """One of the ``disks`` back, with its image where it is now."""
    if set(said) - _DISK - {"target"}:
        raise ValueError(f"{min(set(said) - _DISK - {'target'})} of a disk")
    known = {name: said[name] for name in _DISK if name in said}
    _check_kinds(known)
    return Disk(target, **known)
