"""Why a hypercall was refused, in one line of plain words: the log shows it with the call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stub.abi.errno import EFAULT, EPERM
from stub.memory.guest import GuestFault

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor


def refused(xen: Hypervisor, answer: int, why: str) -> int:
    """The ``answer`` as it is (a status of a grant's, a negative error number), with the reason kept for the log."""
    xen.refusal = why
    return answer


def refuse(xen: Hypervisor, error: int, why: str) -> int:
    """The negated ``error``, with the reason kept for the log."""
    return refused(xen, -error, why)


def bad_pointer(xen: Hypervisor, fault: GuestFault) -> int:
    """-EFAULT, with the address that does not translate."""
    return refuse(
        xen,
        EFAULT,
        f"guest address {fault.vaddr:#x} is not {'writable' if fault.write and fault.present else 'mapped'}",
    )


def hardware_domains(xen: Hypervisor, what: str) -> int:
    """-EPERM for what only the hardware or the control domain may."""
    return refuse(xen, EPERM, f"{what} is for the privileged domain only")
