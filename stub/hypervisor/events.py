"""Event channels of one domain: ports, the two-level and the FIFO ABI (xen/common/event_{channel,2l,fifo}.c)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from stub.abi.errno import EEXIST, EINVAL, ENOENT, ENOSPC, ENOSYS, EOPNOTSUPP
from stub.abi.xen import NR_VIRQS
from stub.hypervisor.vcpu import VCPU_INFO_SELECTOR, Vcpu
from stub.memory.ram import Ram

FREE, RESERVED, UNBOUND, INTERDOMAIN, PIRQ, VIRQ, IPI = range(7)
MAX_PORT = 1023  # xl's default limit for a domain (event_channels = 1023)
PER_VCPU_VIRQS = frozenset({0, 1, 7, 13})
_PENDING_WORDS, _MASK_WORDS = 2048 // 8, 2560 // 8  # 8-byte index in shared_info

_F_PENDING, _F_MASKED, _F_LINKED = 1 << 31, 1 << 30, 1 << 29
_LINK_MASK = (1 << 17) - 1
_FIFO_MAX_PAGES = 128
_DEFAULT_PRIORITY = 7
_PORTS_PER_PAGE = 1024


@dataclass
class Port:
    """``notify`` is called when the guest sends on it (a back end's end of the channel)."""

    state: int = FREE
    vcpu: int = 0
    remote_domain: int = 0
    remote_port: int = 0
    virq: int = 0
    priority: int = _DEFAULT_PRIORITY
    pending: bool = False  # raised before the FIFO array had a word for it
    notify: Callable[[], None] | None = None


@dataclass
class FifoQueues:
    """A vCPU's control block (byte offset in machine memory) and the tail of each priority's queue."""

    control: int
    tails: list[int] = field(default_factory=lambda: [0] * 16)


class EventChannels:
    """The domain's ports, and what is pending on them."""

    def __init__(self, ram: Ram, shared_info: int, vcpu: Vcpu) -> None:
        self._ram = ram
        self._words = ram.words
        self._u32 = ram.bytes.cast("I")
        self._shared = shared_info << 9  # 8-byte index
        self._vcpu = vcpu
        self.ports: dict[int, Port] = {}
        self._virqs: dict[int, int] = {}  # the port that each is bound to
        self.fifo: FifoQueues | None = None
        self._arrays: list[int] = []
        self.polled: Callable[[int], None] | None = None

    # -- ports

    def get(self, port: int) -> Port | None:
        """The port, if it is in use."""
        return self.ports.get(port)

    def allocate(self) -> int:
        """The lowest free port, or -ENOSPC."""
        port = 1
        while port in self.ports:
            port += 1
        return port if port <= MAX_PORT else -ENOSPC

    def open(self, content: Port) -> int:
        """Take a port; its number or -ENOSPC."""
        port = self.allocate()
        if port > 0:
            self.ports[port] = content
        return port

    def bind_virq(self, virq: int, vcpu: int) -> int:
        """EVTCHNOP_bind_virq."""
        if virq >= NR_VIRQS or (vcpu and virq not in PER_VCPU_VIRQS):
            return -EINVAL
        if vcpu:
            return -ENOENT
        if self.virq_port(virq):
            return -EEXIST
        port = self.open(Port(VIRQ, vcpu=vcpu, virq=virq))
        if port > 0:
            self._virqs[virq] = port
        return port

    def virq_port(self, virq: int) -> int:
        """The port that a VIRQ is bound to, 0 for none."""
        return self._virqs.get(virq, 0)

    def close(self, port: int) -> int:
        """EVTCHNOP_close."""
        if port not in self.ports:
            return -EINVAL
        content = self.ports.pop(port)
        if content.state == VIRQ:
            del self._virqs[content.virq]
        peer = self.ports.get(content.remote_port) if content.state == INTERDOMAIN and not content.notify else None
        if peer is not None and peer.state == INTERDOMAIN and peer.remote_port == port:
            peer.state, peer.remote_port = UNBOUND, 0
        if self.fifo is None:
            self._words[self._shared + _PENDING_WORDS + (port >> 6)] &= ~(1 << (port & 63)) & ((1 << 64) - 1)
        else:
            at = self._fifo_word(port)
            if at is not None:
                self._u32[at] &= ~_F_PENDING & 0xFFFFFFFF
        return 0

    def reset(self) -> list[int]:
        """EVTCHNOP_reset: close everything, back to the two-level ABI; the frames that the FIFO ABI used."""
        for port in list(self.ports):
            self.close(port)
        frames = [*self._arrays, self.fifo.control >> 12] if self.fifo is not None else []
        self.fifo = None
        self._arrays = []
        return frames

    def send(self, port: int) -> int:
        """EVTCHNOP_send."""
        content = self.ports.get(port)
        if content is None:
            return -EINVAL
        if content.state == INTERDOMAIN:
            if content.notify is not None:
                content.notify()
            elif content.remote_port:
                self.raise_port(content.remote_port)
            return 0
        if content.state == IPI:
            self.raise_port(port)
            return 0
        return 0 if content.state == UNBOUND else -EINVAL

    # -- pending

    def raise_device(self, port: int) -> None:
        """A back end's own port, if the guest has not closed it."""
        content = self.ports.get(port)
        if content is not None and content.notify is not None:
            self.raise_port(port)

    def raise_virq(self, virq: int) -> bool:
        """Make the port of a VIRQ pending; whether there is one."""
        port = self.virq_port(virq)
        if port:
            self.raise_port(port)
        return bool(port)

    def raise_port(self, port: int) -> None:
        """evtchn_port_set_pending."""
        if self.fifo is not None:
            self._fifo_raise(port)
        else:
            bit = 1 << (port & 63)
            at = self._shared + _PENDING_WORDS + (port >> 6)
            if not self._words[at] & bit:
                self._words[at] |= bit
                if not self._words[self._shared + _MASK_WORDS + (port >> 6)] & bit:
                    self._select(port >> 6)
        if self.polled is not None:
            self.polled(port)

    def unmask(self, port: int) -> int:
        """EVTCHNOP_unmask."""
        if port not in self.ports:
            return -EINVAL
        if self.fifo is not None:
            at = self._fifo_word(port)
            if at is not None:
                self._u32[at] &= ~_F_MASKED & 0xFFFFFFFF
                if self._u32[at] & _F_PENDING:
                    self._fifo_raise(port)
            return 0
        bit = 1 << (port & 63)
        at = self._shared + _MASK_WORDS + (port >> 6)
        if self._words[at] & bit:
            self._words[at] &= ~bit
            if self._words[self._shared + _PENDING_WORDS + (port >> 6)] & bit:
                self._select(port >> 6)
        return 0

    def is_pending(self, port: int) -> bool:
        """Whether the port is pending, masked or not."""
        if self.fifo is not None:
            at = self._fifo_word(port)
            return at is not None and bool(self._u32[at] & _F_PENDING)
        return bool(self._words[self._shared + _PENDING_WORDS + (port >> 6)] >> (port & 63) & 1)

    def mark_pending(self) -> None:
        """vcpu_mark_events_pending."""
        self._ram.bytes[self._vcpu.info_at] = 1

    def _select(self, word: int) -> None:
        at = (self._vcpu.info_at + VCPU_INFO_SELECTOR) >> 3
        bit = 1 << word
        if not self._words[at] & bit:
            self._words[at] |= bit
            self.mark_pending()

    # -- FIFO

    def init_control(self, mfn: int, offset: int) -> None:
        """Switch to the FIFO ABI with this control block; two-level ports that are pending are carried over."""
        self.fifo = FifoQueues((mfn << 12) + offset)
        for content in self.ports.values():
            content.priority = _DEFAULT_PRIORITY

    def expand_array(self, mfn: int) -> int:
        """EVTCHNOP_expand_array."""
        if self.fifo is None:
            return -EOPNOTSUPP
        if len(self._arrays) >= _FIFO_MAX_PAGES:
            return -ENOSPC
        first = len(self._arrays) * _PORTS_PER_PAGE
        self._arrays.append(mfn)
        for port in sorted(self.ports):
            content = self.ports[port]
            if first <= port < first + _PORTS_PER_PAGE and (content.pending or self._two_level_pending(port)):
                content.pending = False
                self._fifo_raise(port)
        return 0

    def set_priority(self, port: int, priority: int) -> int:
        """EVTCHNOP_set_priority."""
        if port not in self.ports:
            return -EINVAL
        if self.fifo is None:
            return -ENOSYS
        if priority > 15:
            return -EINVAL
        content = self.ports[port]
        if self.fifo.tails[content.priority] == port:
            self.fifo.tails[content.priority] = 0  # what follows in the old queue must not be linked behind it
        content.priority = priority
        return 0

    def _two_level_pending(self, port: int) -> bool:
        return bool(self._words[self._shared + _PENDING_WORDS + (port >> 6)] >> (port & 63) & 1)

    def _fifo_word(self, port: int) -> int | None:
        page = port // _PORTS_PER_PAGE
        if page >= len(self._arrays):
            return None
        return self._arrays[page] * 1024 + port % _PORTS_PER_PAGE

    def _fifo_raise(self, port: int) -> None:
        """evtchn_fifo_set_pending."""
        at = self._fifo_word(port)
        fifo = self.fifo
        content = self.ports.get(port)
        if at is None and content is not None:
            content.pending = True  # until the array reaches so far
        if at is None or fifo is None or content is None:
            return
        word = self._u32[at] | _F_PENDING
        if word & (_F_MASKED | _F_LINKED):
            self._u32[at] = word
            return
        self._u32[at] = (word | _F_LINKED) & ~_LINK_MASK
        priority = content.priority
        tail = fifo.tails[priority]
        linked = False
        if tail and tail != port:
            tail_at = self._fifo_word(tail)
            if tail_at is not None and self._u32[tail_at] & _F_LINKED:
                self._u32[tail_at] = (self._u32[tail_at] & ~_LINK_MASK) | port
                linked = True
        if not linked:
            self._u32[(fifo.control >> 2) + 2 + priority] = port
        fifo.tails[priority] = port
        if not linked:
            ready = fifo.control >> 2
            if not self._u32[ready] >> priority & 1:
                self._u32[ready] |= 1 << priority
                self.mark_pending()
