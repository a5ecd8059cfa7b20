"""The FIFO ABI: a word for each port, linked into a queue for each priority (xen/common/event_fifo.c).

The words lie in pages of the guest's (the event array), the heads of a vCPU's queues in its control block, which is
the guest's too. It takes events out at the head; Xen puts them in at the tail, which only Xen knows. So whatever the
guest writes there, Xen follows no link: it reads the word of the port that it raises, and that of the last tail.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stub.abi import event_channel as abi
from stub.hypervisor.event_ports import Port
from stub.hypervisor.vcpu import Vcpu
from stub.memory.ram import Ram
from stub.units import PAGE_SIZE

PENDING, MASKED = 1 << abi.EVTCHN_FIFO_PENDING, 1 << abi.EVTCHN_FIFO_MASKED
LINKED, BUSY = 1 << abi.EVTCHN_FIFO_LINKED, 1 << abi.EVTCHN_FIFO_BUSY
WORDS_PER_PAGE = PAGE_SIZE // 4
MAX_PAGES = abi.EVTCHN_FIFO_NR_CHANNELS // WORDS_PER_PAGE
_READY, _HEAD = (abi.EvtchnFifoControlBlock.offset(field) // 4 for field in ("ready", "head"))


class Queues:
    """A vCPU's: the byte offset of its ``control`` block in machine memory (None: not set up), each queue's tail."""

    def __init__(self) -> None:
        self.control: int | None = None
        self.tails = [0] * abi.EVTCHN_FIFO_MAX_QUEUES


class Fifo:
    """``arrays`` are the MFNs of the event array's pages."""

    name = "FIFO"
    max_ports = abi.EVTCHN_FIFO_NR_CHANNELS

    def __init__(self, ram: Ram, vcpus: Sequence[Vcpu]) -> None:
        self._bytes = ram.bytes
        self._words = ram.bytes.cast("I")
        self._vcpus = vcpus
        self.queues = [Queues() for _ in vcpus]
        self.arrays: list[int] = []

    def frames(self) -> Iterator[tuple[str, int]]:
        """The guest's frames that this ABI writes to, each with its use; a frame may come several times."""
        for vcpu, queues in enumerate(self.queues):
            if queues.control is not None:
                yield f"vCPU {vcpu}'s event control block", queues.control // PAGE_SIZE
        for number, mfn in enumerate(self.arrays):
            yield f"event array page {number}", mfn

    def word(self, number: int) -> int | None:
        """A port's event word; None while the array does not reach so far."""
        at = self._at(number)
        return None if at is None else self._words[at]

    def block(self, vcpu: int) -> tuple[int, tuple[int, ...]] | None:
        """What a vCPU's control block says: (ready, heads); None where there is none."""
        control = self.queues[vcpu].control
        if control is None:
            return None
        found = abi.EvtchnFifoControlBlock.unpack_from(self._bytes, control)
        return found.ready, found.head

    def set_pending(self, port: Port) -> bool:
        """evtchn_fifo_set_pending; whether the port was not pending before. Without a control block it is lost."""
        at = self._at(port.number)
        if at is None:
            port.pending = True
            return False
        if self.queues[port.vcpu].control is None:
            return False
        was = self._words[at]
        self._words[at] = was | PENDING
        if not was & (MASKED | LINKED):
            self._words[at] |= LINKED
            self._append(port)
        return not was & PENDING

    def clear_pending(self, port: Port) -> None:
        """evtchn_fifo_clear_pending: what is linked stays so; the guest passes over what is not pending."""
        self._clear(port, PENDING)

    def unmask(self, port: Port) -> None:
        """evtchn_fifo_unmask."""
        self._clear(port, MASKED)
        if self.is_pending(port):
            self.set_pending(port)

    def is_pending(self, port: Port) -> bool:
        """PENDING in its word."""
        return bool((self.word(port.number) or 0) & PENDING)

    def is_masked(self, port: Port) -> bool:
        """MASKED in its word, or no word."""
        word = self.word(port.number)
        return word is None or bool(word & MASKED)

    def is_busy(self, port: Port) -> bool:
        """LINKED in its word: the port is on a queue yet, and would be found there by a new owner."""
        return bool((self.word(port.number) or 0) & LINKED)

    def _at(self, number: int) -> int | None:
        """Where a port's word is, in 4-byte words of machine memory (evtchn_fifo_word_from_port)."""
        page, index = divmod(number, WORDS_PER_PAGE)
        return self.arrays[page] * WORDS_PER_PAGE + index if page < len(self.arrays) else None

    def _clear(self, port: Port, bit: int) -> None:
        at = self._at(port.number)
        if at is not None:
            self._words[at] &= ~bit

    def _append(self, port: Port) -> None:
        """Put a port at the end of its queue; if that was empty, it is the head, and the vCPU is told."""
        old_vcpu, old_priority = port.queue
        old = self.queues[old_vcpu].tails
        if old[old_priority] == port.number:
            old[old_priority] = 0  # its word is linked again, but not there
        port.queue = port.vcpu, port.priority
        queues = self.queues[port.vcpu]
        linked = self._link(queues.tails[port.priority], port.number)
        queues.tails[port.priority] = port.number
        if linked or queues.control is None:
            return
        block, ready = queues.control // 4, 1 << port.priority
        self._words[block + _HEAD + port.priority] = port.number
        if not self._words[block + _READY] & ready:
            self._words[block + _READY] |= ready
            self._bytes[self._vcpus[port.vcpu].info_at] = 1

    def _link(self, tail: int, number: int) -> bool:
        """Let a tail lead to a port, if it is still linked: if the guest has not taken it out (evtchn_fifo_set_link).

        The guest stands still meanwhile, so what Xen does against its changing the word (BUSY) is never needed.
        """
        at = self._at(tail) if tail else None
        if at is None or not self._words[at] & LINKED:
            return False
        self._words[at] = self._words[at] & ~(BUSY | abi.EVTCHN_FIFO_LINK_MASK) | number
        return True
