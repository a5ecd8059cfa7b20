"""The assists that a guest may have Xen give it (vm_assist; xen/include/public/xen.h, VMASST_TYPE_*)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stub.abi import xen as abi

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor


def switch(xen: Hypervisor, kind: int, on: bool) -> None:
    """Enable or disable an assist, wherever it is looked at."""
    (xen.assists.add if on else xen.assists.discard)(kind)
    xen.vcpu.writable_pagetables = abi.VMASST_TYPE_writable_pagetables in xen.assists
    xen.vcpu.architectural_iopl = abi.VMASST_TYPE_architectural_iopl in xen.assists
    xen.domain.types.m2p_strict = abi.VMASST_TYPE_m2p_strict in xen.assists
