"""A domain's XenStore: made, filled as libxl does it, and joined to the domain's page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from stub.devices.xenstore import Facts, Ring, Store, Wire, answer, populate
from stub.domain.builder import CONSOLE_PORT, XENSTORE_PORT
from stub.domain.domain import Domain
from stub.units import PAGE_SIZE

_NO_UUID = "00000000-0000-0000-0000-000000000000"  # as XENVER_guest_handle has it


def facts(domain: Domain) -> Facts:
    """What libxl would know of the domain; of the host's files their names only."""
    config, layout = domain.config, domain.layout
    ramdisk = config.ramdisk.name if isinstance(config.ramdisk, Path) else "ramdisk"
    return Facts(
        domid=domain.domid,
        name=config.name,
        uuid=config.uuid or _NO_UUID,
        memory=config.memory * 1024,
        vcpus=config.vcpus,
        epoch=config.epoch,
        kernel=config.kernel.name,
        ramdisk=ramdisk if config.ramdisk is not None else None,
        cmdline=config.cmdline,
        store_mfn=int(domain.p2m[layout.xenstore.pfn]),
        store_port=XENSTORE_PORT,
        console_mfn=int(domain.p2m[layout.console.pfn]),
        console_port=CONSOLE_PORT,
    )


def connect(domain: Domain, raise_event: Callable[[], None], wake: Callable[[], None]) -> Ring:
    """The ring's end; its ``wire`` is the domain's conversation, and ``store`` the whole."""
    store = Store()
    known = facts(domain)
    populate(store, known)
    wire = Wire(store, domain.domid, answer)
    ring = Ring(domain.ram, known.store_mfn * PAGE_SIZE, wire, raise_event, wake)
    store.introduce(wire)
    return ring
