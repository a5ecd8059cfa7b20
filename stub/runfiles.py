"""A run's folder: what is written there while the run lasts, and what its log and its summary say of the guest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stub.domain.actions import SETTINGS
from stub.domain.config import DomainConfig
from stub.domain.domain import Domain
from stub.errors import UsageError
from stub.hypervisor.verdict import Verdict


@dataclass
class RunFiles:
    """console.log and xenstore.log; nothing is written without a ``directory``. UsageError if it cannot be."""

    directory: Path | None
    console: int = -1
    xenstore: int = -1
    digest: Any = field(default_factory=hashlib.sha256)

    def __post_init__(self) -> None:
        if self.directory is None:
            return
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self.console = _new_file(self.directory / "console.log")
            self.xenstore = _new_file(self.directory / "xenstore.log")
        except OSError as error:
            raise UsageError(
                f"{self.directory}: cannot keep the run there: {error.strerror}; choose another folder"
            ) from error

    def keep(self, data: bytes) -> None:
        """Console output, on disk at once."""
        self.digest.update(data)
        _append(self.console, data)

    def keep_traffic(self, line: str) -> None:
        """A line of what was said to XenStore and by it, on disk at once."""
        _append(self.xenstore, f"{line}\n".encode())

    def close(self) -> None:
        """No more output."""
        for file in (self.console, self.xenstore):
            if file >= 0:
                os.close(file)
        self.console = self.xenstore = -1


def _new_file(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)


def _append(file: int, data: bytes) -> None:
    while file >= 0 and data:
        data = data[os.write(file, data) :]


def identity(domain: Domain) -> dict[str, Any]:
    """What the header of a run's log and its snapshots say of the guest."""
    config = domain.config
    return {
        "domain": domain.domid,
        "bits": domain.bits,
        "memory": config.memory,
        "seed": config.seed,
        "p2m": config.p2m,
        "epoch": config.epoch,
        "cmdline": config.cmdline,
        "kernel": domain.image.sha256,
        **_exceptions(config),
    }


def _exceptions(config: DomainConfig) -> dict[str, Any]:
    """What the guest's Xen and CPU have otherwise than most; nothing for those of most guests."""
    said = {"compat": config.compat, "without": list(config.without)}
    return {name: value for name, value in said.items() if value}


def image_facts(domain: Domain, provenance: Mapping[str, str]) -> dict[str, Any]:
    """The member ``image`` of a summary: the files by their names and hashes; ``provenance`` is the image's name and
    version in the catalogue."""
    config, ramdisk = domain.config, domain.ramdisk
    return {
        "name": provenance.get("name"),
        "version": provenance.get("version"),
        "kernel": {"file": config.kernel.name, "sha256": domain.image.sha256},
        "ramdisk": {
            "file": config.ramdisk.name if isinstance(config.ramdisk, Path) else "(made for this run)",
            "size": len(ramdisk),
            "sha256": hashlib.sha256(ramdisk).hexdigest(),
        }
        if config.ramdisk is not None
        else None,
    }


def config_facts(config: DomainConfig, disks: list[dict[str, object]]) -> dict[str, Any]:
    """The member ``config`` of a summary, with what is said of the ``disks``."""
    return {
        "name": config.name,
        "memory": config.memory,
        "vcpus": config.vcpus,
        "cmdline": config.cmdline,
        "seed": config.seed,
        "p2m": config.p2m,
        "epoch": config.epoch,
        "realtime": config.realtime,
        **{name: getattr(config, name) for name in SETTINGS.values()},
        **_exceptions(config),
        **({"disks": disks} if config.disks else {}),
        **({"faults": list(config.faults)} if config.faults else {}),
    }


def verdict_facts(verdict: Verdict | None) -> dict[str, Any]:
    """The member ``verdict`` of a summary; None if the run was closed before it had one."""
    if verdict is None:
        return {"kind": "interrupted", "reason": "closed before it ended", "exit_status": 1, "details": []}
    return {
        "kind": verdict.kind,
        "reason": verdict.reason,
        "exit_status": verdict.exit_status,
        "details": list(verdict.details),
    }
