"""The two-level ABI: pending and mask bits in shared_info, a selector in vcpu_info (xen/common/event_2l.c).

A bit of the selector stands for a word of the pending bits; a word is as wide as the guest's registers.
"""

from __future__ import annotations

from collections.abc import Sequence

from stub.abi.xen import SharedInfo32, SharedInfo64, VcpuInfo32, VcpuInfo64
from stub.hypervisor.event_ports import Port
from stub.hypervisor.vcpu import Vcpu
from stub.memory.ram import Ram
from stub.units import PAGE_SIZE


class TwoLevel:
    """``shared_info`` is an MFN; ``bits`` the guest's width."""

    name = "two-level"

    def __init__(self, ram: Ram, shared_info: int, vcpus: Sequence[Vcpu], bits: int) -> None:
        shared, info = (SharedInfo64, VcpuInfo64) if bits == 64 else (SharedInfo32, VcpuInfo32)
        self.max_ports = bits * bits
        self.bits = bits
        self._bytes = ram.bytes
        self._words = ram.words if bits == 64 else ram.bytes.cast("I")
        self._vcpus = vcpus
        self._pending = (shared_info * PAGE_SIZE + shared.offset("evtchn_pending")) // self._words.itemsize
        self._mask = (shared_info * PAGE_SIZE + shared.offset("evtchn_mask")) // self._words.itemsize
        self._selector = info.offset("evtchn_pending_sel")

    def set_pending(self, port: Port) -> bool:
        """evtchn_2l_set_pending; whether the port was not pending before."""
        if self._test_and_set(self._pending, port.number):
            return False
        if not self.is_masked(port):
            self._select(port)
        return True

    def clear_pending(self, port: Port) -> None:
        """evtchn_2l_clear_pending."""
        self._clear(self._pending, port.number)

    def unmask(self, port: Port) -> None:
        """evtchn_2l_unmask: what was not masked is not raised again."""
        if self.is_masked(port):
            self._clear(self._mask, port.number)
            if self.is_pending(port):
                self._select(port)

    def is_pending(self, port: Port) -> bool:
        """The bit in shared_info.evtchn_pending."""
        return self._test(self._pending, port.number)

    def is_masked(self, port: Port) -> bool:
        """The bit in shared_info.evtchn_mask."""
        return self._test(self._mask, port.number)

    def is_busy(self, _: Port) -> bool:
        """Never."""
        return False

    def selector(self, vcpu: Vcpu) -> int:
        """vcpu_info.evtchn_pending_sel."""
        return self._words[(vcpu.info_at + self._selector) // self._words.itemsize]

    def _select(self, port: Port) -> None:
        """Lead the vCPU to a port's word; it is told unless its selector said so already."""
        vcpu = self._vcpus[port.vcpu]
        at = (vcpu.info_at + self._selector) // self._words.itemsize
        if not self._test_and_set(at, port.number // self.bits):
            self._bytes[vcpu.info_at] = 1

    def _test(self, base: int, bit: int) -> bool:
        return bool(self._words[base + bit // self.bits] >> bit % self.bits & 1)

    def _test_and_set(self, base: int, bit: int) -> bool:
        was = self._test(base, bit)
        self._words[base + bit // self.bits] |= 1 << bit % self.bits
        return was

    def _clear(self, base: int, bit: int) -> None:
        if self._test(base, bit):
            self._words[base + bit // self.bits] ^= 1 << bit % self.bits
