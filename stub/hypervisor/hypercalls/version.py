"""xen_version: who we say we are, and the features we have (xen/common/kernel.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stub.abi import features, version
from stub.abi.arch_x86 import HYPERVISOR_VIRT_START
from stub.abi.errno import EFAULT, EINVAL, EPERM
from stub.abi.xen import Hypercall
from stub.hypervisor.registry import hypercall
from stub.memory.guest import GuestFault

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
    version.XENVER_platform_parameters: HYPERVISOR_VIRT_START.to_bytes(8, "little"),
    version.XENVER_guest_handle: bytes(16),
    version.XENVER_commandline: b"<denied>".ljust(1024, b"\0"),
}


@hypercall(Hypercall.xen_version)
def xen_version(xen: Hypervisor, command: int, arg: int, _: int, __: int, ___: int) -> int:
    """Answer one question about the hypervisor."""
    command &= 0xFFFFFFFF
    if command == version.XENVER_version:
        return MAJOR << 16 | MINOR
    if command == version.XENVER_pagesize:
        return 4096 if arg == 0 else -EINVAL
    if command == version.XENVER_build_id:
        return -EPERM
    guest = xen.domain.guest
    try:
        if command == version.XENVER_get_features:
            xen.payload = guest.read(arg, 8)
            index = int.from_bytes(xen.payload[:4], "little")
            if index > 1:
                return -EINVAL
            guest.write_u32(arg + 4, FEATURES if index == 0 else 0)
            xen.out = guest.read(arg, 8)
            return 0
        answer = _BUFFERS.get(command)
        if answer is None:
            return xen.not_there(Hypercall.xen_version, command)
        guest.write(arg, answer)
        xen.out = answer
    except GuestFault:
        return -EFAULT
    return 0
