"""The hypercall families, one file each, named as Xen names them. Importing this fills the registry."""

from stub.hypervisor.hypercalls import (
    callback,
    console_io,
    descriptors,
    event_channel,
    grant_table,
    memory,
    misc,
    mmu,
    multicall,
    physdev,
    sched,
    vcpu,
    version,
)

__all__ = [
    "callback",
    "console_io",
    "descriptors",
    "event_channel",
    "grant_table",
    "memory",
    "misc",
    "mmu",
    "multicall",
    "physdev",
    "sched",
    "vcpu",
    "version",
]
