"""The hypercall families, one file each, named as Xen names them. Importing this fills the registry."""

from stub.hypervisor.hypercalls import (
    callback,
    console_io,
    descriptors,
    event_channel,
    grant_table,
    hvm,
    memory,
    misc,
    mmu,
    multicall,
    physdev,
    reservation,
    sched,
    toolstack,
    vcpu,
    version,
)

__all__ = [
    "callback",
    "console_io",
    "descriptors",
    "event_channel",
    "grant_table",
    "hvm",
    "memory",
    "misc",
    "mmu",
    "multicall",
    "physdev",
    "reservation",
    "sched",
    "toolstack",
    "vcpu",
    "version",
]
