"""From the words of ``pvstub boot`` to a domain's configuration: an image by name, a kernel file, or xl's or xm's file.

The names of images are found through entry points (``pvstub.images``), so that this side never imports the harness.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from stub.domain.actions import SETTINGS
from stub.domain.config import DomainConfig
from stub.domain.diskoption import parse_disks
from stub.domain.guestfile.command import main
from stub.domain.guestfile.reader import GuestFile, is_one, read, there
from stub.domain.hostmemory import too_much
from stub.errors import UsageError

IMAGES_GROUP = "pvstub.images"


def resolve(name: str) -> Any | None:
    """The image of that name, from whoever knows it."""
    for entry in metadata.entry_points(group=IMAGES_GROUP):
        found = entry.load()(name)
        if found is not None:
            return found
    return None


def configuration(options: argparse.Namespace, say: Callable[[str], None]) -> tuple[DomainConfig, dict[str, str]]:
    """The domain that the options of ``pvstub boot`` describe, and what is known of its image; ``say`` warns."""
    image = None if os.sep in options.image or os.path.isfile(options.image) else resolve(options.image)
    if image is None and not os.path.lexists(options.image):
        raise UsageError(f"{options.image}: no image of that name and no such file; see pvstub images list")
    if image is None and is_one(Path(options.image)):
        config, image = _guest_file(options, say)
    elif options.changes:
        raise UsageError(f"--set: {options.image} is no configuration file; use the options, or name one")
    else:
        name = options.image if image else Path(options.image).name
        config = DomainConfig(kernel=Path(options.image), name=name)
        config = _with_image(config, image, ()) if image else config
    cmdline = options.cmdline if options.cmdline is not None else config.cmdline
    asked = {
        "ramdisk": options.ramdisk,
        "memory": options.memory,
        "epoch": options.epoch,
        "compat": options.compat,
        "without": options.cpuid,
        "engine": options.engine,
        "accel": options.accel,
        **{name: getattr(options, name) for name in SETTINGS.values()},
    }
    provenance = {"name": image.name, "version": str(image.version)} if image else {}
    made = replace(
        config,
        cmdline=" ".join(filter(None, (cmdline, options.extra))),
        p2m=options.p2m,
        seed=options.seed,
        realtime=options.realtime or options.interactive,
        disks=(*config.disks, *parse_disks(options.disk, config.disks, devices=options.allow_devices)),
        faults=tuple(options.fault),
        **{name: value for name, value in asked.items() if value is not None},
    )
    if options.accel is not None and made.engine != "qemu":
        raise UsageError(f"--accel {options.accel}: the {made.engine} engine has none to choose; add --engine qemu")
    return made, provenance


def _guest_file(options: argparse.Namespace, say: Callable[[str], None]) -> tuple[DomainConfig, Any | None]:
    """What a configuration file describes; its kernel may be an image of the catalogue by name."""
    guest, image = complete(read(Path(options.image), options.changes, devices=options.allow_devices))
    for warned in guest.warnings:
        say(f"warning: {warned}")
    crowd = too_much(options.memory if options.memory is not None else guest.config.memory)
    if crowd:
        say(f"warning: {crowd}")
    return guest.config, image


def complete(guest: GuestFile) -> tuple[GuestFile, Any | None]:
    """A file whose kernel is an image by name, with that image's files; and the image, if there is one."""
    image = None if os.sep in guest.kernel or there(guest.config.kernel) else resolve(guest.kernel)
    if image is None:
        return guest, None
    return replace(guest, config=_with_image(guest.config, image, guest.keys)), image


def check(words: Sequence[str]) -> int:
    """``pvstub config``."""
    return main(words, lambda guest: complete(guest)[0])


def _with_image(config: DomainConfig, image: Any, keys: Collection[str]) -> DomainConfig:
    """A configuration with an image's files, its command line and its size unless the ``keys`` say otherwise."""
    said = {
        "ramdisk": ("ramdisk", image.ramdisk),
        "cmdline": ("cmdline root extra", image.cmdline),
        "memory": ("memory maxmem", image.memory),
    }
    own = {name: value for name, (by, value) in said.items() if not set(by.split()) & set(keys)}
    return replace(config, kernel=image.kernel, **own)
