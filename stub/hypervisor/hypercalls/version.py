"""xen_version: who we say we are, and the features we have (xen/common/kernel.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stub.abi import features, version
from stub.abi.errno import EINVAL
from stub.abi.xen import Hypercall, VMASST_TYPE_pae_extended_cr3
from stub.hypervisor.arguments import give, take
from stub.hypervisor.refusals import bad_pointer, hardware_domains, refuse
from stub.hypervisor.registry import hypercall
from stub.memory.guest import GuestFault
from stub.units import PAGE_SIZE

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

MAJOR, MINOR = 4, 17

# Each bit is here because what it promises is implemented.
FEATURES = (
    1 << features.XENFEAT_mmu_pt_update_preserve_ad
    | 1 << features.XENFEAT_highmem_assist
    | 1 << features.XENFEAT_gnttab_map_avail_bits
    | 1 << features.XENFEAT_memory_op_vnode_supported
    | 1 << features.XENFEAT_direct_mapped
)

_BUFFERS = {
    version.XENVER_extraversion: b".7".ljust(16, b"\0"),
    version.XENVER_compile_info: b"".join(
        text.ljust(size, b"\0") for text, size in ((b"pvstub", 64), (b"pvstub", 16), (b"", 32), (b"", 32))
    ),
    version.XENVER_capabilities: b"xen-3.0-x86_64 xen-3.0-x86_32p ".ljust(1024, b"\0"),
    version.XENVER_changeset: bytes(64),
    version.XENVER_commandline: b"<denied>\0",  # no more than that is written
}


def buffer(command: int) -> bytes:
    """What the hypervisor says of itself, the same to every guest."""
    return _BUFFERS[command]


def _features(xen: Hypervisor) -> int:
    """Submap 0; one feature comes with an assist that the guest asked for."""
    large = VMASST_TYPE_pae_extended_cr3 in xen.assists
    return FEATURES | (1 << features.XENFEAT_pae_pgdir_above_4gb if large else 0)


@hypercall(Hypercall.xen_version)
def xen_version(xen: Hypervisor, command: int, arg: int, _: int, __: int, ___: int) -> int:
    """Answer one question about the hypervisor."""
    command &= 0xFFFFFFFF
    if command == version.XENVER_version:
        return MAJOR << 16 | MINOR
    if command == version.XENVER_pagesize:
        return refuse(xen, EINVAL, "XENVER_pagesize takes no argument") if arg else PAGE_SIZE
    if command == version.XENVER_build_id:
        return hardware_domains(xen, "the build id")
    try:
        if command == version.XENVER_get_features:
            return _get_features(xen, arg)
        if command == version.XENVER_platform_parameters:
            return give(xen, version.XenPlatformParameters, arg, virt_start=xen.width.hypervisor_start)
        if command == version.XENVER_guest_handle:
            answer: bytes | None = bytes.fromhex(xen.domain.config.uuid.replace("-", "")) or bytes(16)
        else:
            answer = _BUFFERS.get(command)
        if answer is None:
            return xen.not_there(Hypercall.xen_version, command)
        xen.domain.guest.write(arg, answer)
        xen.out = answer
    except GuestFault as fault:
        return bad_pointer(xen, fault)
    return 0


def _get_features(xen: Hypervisor, arg: int) -> int:
    index = take(xen, version.XenFeatureInfo, arg).submap_idx
    if index:
        return refuse(xen, EINVAL, f"there is no submap {index} of features")
    return give(xen, version.XenFeatureInfo, arg, submap_idx=index, submap=_features(xen))
