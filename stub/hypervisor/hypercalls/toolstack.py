"""The calls of toolstacks and of the hardware domain: what a domU learns is that it may not.

Before that a bad pointer, a wrong interface version and a missing domain are told apart, as in Xen
(xen/common/domctl.c, sysctl.c, kexec.c, hypfs.c; xen/arch/x86/platform_hypercall.c, cpu/mcheck/mce.c, cpu/vpmu.c).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stub.abi import domctl as abi
from stub.abi.errno import EACCES, EOPNOTSUPP, ESRCH
from stub.abi.layout import Record, Struct
from stub.abi.platform import XENPF_INTERFACE_VERSION, XenPlatformOp
from stub.abi.xen import DOMID_INVALID, DOMID_IO, Hypercall
from stub.domain.domain import HARDWARE_DOMAIN
from stub.hypervisor.refusals import bad_pointer, hardware_domains, refuse
from stub.hypervisor.registry import hypercall
from stub.memory.guest import GuestFault

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

# By command, a number that stands for no domain or for one of Xen's own; None for any.
_NO_DOMAIN: dict[int, int | None] = {
    abi.XEN_DOMCTL_createdomain: None,
    abi.XEN_DOMCTL_gdbsx_guestmemio: None,
    abi.XEN_DOMCTL_getdomaininfo: None,
    abi.XEN_DOMCTL_test_assign_device: DOMID_INVALID,
    abi.XEN_DOMCTL_vm_event_op: DOMID_INVALID,
    abi.XEN_DOMCTL_assign_device: DOMID_IO,
    abi.XEN_DOMCTL_deassign_device: DOMID_IO,
}


def _request(xen: Hypervisor, arg: int, layout: Struct, version: int) -> Record | int:
    """The request of a versioned call, or what is wrong with its pointer or version."""
    try:
        xen.payload = xen.domain.guest.read(arg, layout.size)
    except GuestFault as fault:
        return bad_pointer(xen, fault)
    request = layout.unpack_from(xen.payload)
    if request.interface_version != version:
        return refuse(xen, EACCES, f"interface version {request.interface_version:#x}, not {version:#x}")
    return request


@hypercall(Hypercall.domctl)
def domctl(xen: Hypervisor, arg: int, _: int, __: int, ___: int, ____: int) -> int:
    """The toolstack's."""
    request = _request(xen, arg, abi.XenDomctl, abi.XEN_DOMCTL_INTERFACE_VERSION)
    if isinstance(request, int):
        return request
    nobody = _NO_DOMAIN.get(request.cmd, xen.domain.domid)
    if nobody is not None and request.domain not in (nobody, xen.domain.domid, HARDWARE_DOMAIN):
        return refuse(xen, ESRCH, f"there is no domain {request.domain}")
    return hardware_domains(xen, f"domctl {request.cmd}")


@hypercall(Hypercall.sysctl)
def sysctl(xen: Hypervisor, arg: int, _: int, __: int, ___: int, ____: int) -> int:
    """The toolstack's."""
    request = _request(xen, arg, abi.XenSysctl, abi.XEN_SYSCTL_INTERFACE_VERSION)
    return request if isinstance(request, int) else hardware_domains(xen, f"sysctl {request.cmd}")


@hypercall(Hypercall.platform_op)
def platform_op(xen: Hypervisor, arg: int, _: int, __: int, ___: int, ____: int) -> int:
    """The hardware domain's."""
    request = _request(xen, arg, XenPlatformOp, XENPF_INTERFACE_VERSION)
    return request if isinstance(request, int) else hardware_domains(xen, f"platform_op {request.cmd}")


@hypercall(Hypercall.arch_0)
def mca(xen: Hypervisor, *_: int) -> int:
    """Machine checks are the hardware domain's."""
    return hardware_domains(xen, "mca")


@hypercall(Hypercall.kexec_op)
def kexec_op(xen: Hypervisor, *_: int) -> int:
    """The hardware domain's."""
    return hardware_domains(xen, "kexec_op")


@hypercall(Hypercall.hypfs_op)
def hypfs_op(xen: Hypervisor, *_: int) -> int:
    """The toolstack's."""
    return hardware_domains(xen, "hypfs_op")


@hypercall(Hypercall.xenpmu_op)
def xenpmu_op(xen: Hypervisor, *_: int) -> int:
    """No virtual performance counters."""
    return refuse(xen, EOPNOTSUPP, "there are no virtual performance counters")
