"""Event channels of one domain: its ports, what they are bound to, who is told (xen/common/event_channel.c).

What the operations refuse is decided in ``hypercalls/event_channel.py``; here stands what they then do. How a port is
pending or masked is an ABI's: ``event_2l.py`` at first, ``event_fifo.py`` from EVTCHNOP_init_control to a reset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from stub.abi.event_channel import EVTCHN_FIFO_PRIORITY_DEFAULT
from stub.abi.xen import VIRQ_DEBUG, VIRQ_TIMER, VIRQ_XENOPROF, VIRQ_XENPMU
from stub.hypervisor.event_2l import TwoLevel
from stub.hypervisor.event_fifo import WORDS_PER_PAGE, Fifo
from stub.hypervisor.event_ports import FREE, INTERDOMAIN, RESERVED, UNBOUND, VIRQ, FarEnd, Port
from stub.hypervisor.vcpu import Vcpu
from stub.memory.ram import Ram

_PER_VCPU_VIRQS = frozenset({VIRQ_TIMER, VIRQ_DEBUG, VIRQ_XENOPROF, VIRQ_XENPMU})
PORTS_OF_DOMAIN_0 = 64  # that there are records of: it has made one lot, as any domain has
_FIRST_FAR_PORT = 32  # below are domain 0's own
_LOT = 64  # EVTCHNS_PER_BUCKET: records are made so many at once, and never given back


def is_per_vcpu(virq: int) -> bool:
    """Whether each vCPU has its own VIRQ of that number (the reverse of virq_is_global)."""
    return virq in _PER_VCPU_VIRQS


def _virq_key(virq: int, vcpu: int) -> tuple[int, int]:
    return virq, vcpu if is_per_vcpu(virq) else 0


def _nobody() -> None:
    """Listens to a channel that is no longer used."""


class EventChannels:
    """``ports`` are the records that there are, by number; ``abi`` is ``two_level``, or the FIFO.

    ``polled`` is called with the number of a port that becomes pending.
    """

    def __init__(self, ram: Ram, shared_info: int, vcpus: Sequence[Vcpu], bits: int, domid: int, max_port: int) -> None:
        self._ram = ram
        self._domid = domid
        self.two_level = TwoLevel(ram, shared_info, vcpus, bits)
        self.vcpus = vcpus
        self.abi: TwoLevel | Fifo = self.two_level
        self.max_port = max_port
        self.ports: list[Port] = []
        self._virqs: dict[tuple[int, int], Port] = {}
        self._far: dict[int, FarEnd] = {}
        self.polled: Callable[[int], None] | None = None
        self._lowest = 0  # below it all are in use
        self._make_lot()
        self.ports[0].state = RESERVED

    def forget(self) -> None:
        """Let go of all who listen: they refer back here, and no memory is to wait for the garbage collector."""
        self.polled = None
        for port in self.ports:
            port.peer = None
        for end in self._far.values():
            end.port, end.notify = None, _nobody
        self.ports.clear()
        self._virqs.clear()
        self._far.clear()

    # -- ports

    def get(self, number: int) -> Port | None:
        """A port's record, in use or not; None where there is none yet (port_is_valid)."""
        return self.ports[number] if 0 <= number < len(self.ports) else None

    def in_use(self) -> Iterator[Port]:
        """The ports that are bound to something, or wait for it."""
        return (port for port in self.ports if port.in_use)

    def free_port(self) -> Port | None:
        """The lowest that can be handed out, None if none can (get_free_port)."""
        limit = min(self.max_port + 1, self.abi.max_ports)
        closed: Port | None = None  # the lowest; if it is busy a higher one is handed out
        for number in range(self._lowest, limit):
            if number == len(self.ports):
                self._make_lot()
            port = self.ports[number]
            if port.state != FREE:
                continue
            closed = closed or port
            if not self.abi.is_busy(port):
                self._lowest = closed.number
                return port
        self._lowest = closed.number if closed else max(limit, self._lowest)
        return None

    def open(self, port: Port, state: int, *, vcpu: int = 0, remote_domain: int = 0) -> None:
        """Take a free port into use."""
        port.state, port.vcpu, port.remote_domain = state, vcpu, remote_domain
        if isinstance(self.abi, Fifo):
            port.priority = EVTCHN_FIFO_PRIORITY_DEFAULT

    def bind_virq(self, port: Port, virq: int, vcpu: int) -> None:
        """Take a free port into use for a VIRQ."""
        self.open(port, VIRQ, vcpu=vcpu)
        port.virq = virq
        self._virqs[_virq_key(virq, vcpu)] = port

    def virq_port(self, virq: int, vcpu: int = 0) -> Port | None:
        """The port that a VIRQ is bound to, a vCPU's own or the global one."""
        return self._virqs.get(_virq_key(virq, vcpu))

    def connect_ports(self, local: Port, remote: Port | FarEnd) -> None:
        """Bind a free port to an end that waits for the domain; it is raised, as a notification may have been lost."""
        self.open(local, INTERDOMAIN, remote_domain=self._domid if isinstance(remote, Port) else 0)
        local.peer = remote
        if isinstance(remote, Port):
            remote.state, remote.remote_domain, remote.peer = INTERDOMAIN, self._domid, local
        else:
            remote.port = local
        self.raise_port(local)

    def close(self, port: Port) -> None:
        """Free a port in use (evtchn_close); the other end of its channel waits for the domain again."""
        peer = port.peer
        if port.state == VIRQ:
            del self._virqs[_virq_key(port.virq, port.vcpu)]
        elif isinstance(peer, Port):
            self._unbind(peer, self._domid)
        elif peer is not None:
            peer.port = None
        self.abi.clear_pending(port)
        port.state, port.vcpu, port.peer = FREE, 0, None
        self._lowest = min(self._lowest, port.number)

    def reset(self) -> list[int]:
        """Close everything, and go back to the two-level ABI; the frames that the FIFO ABI used (evtchn_reset)."""
        for port in self.in_use():
            self.close(port)
        frames = [mfn for _, mfn in self.abi.frames()] if isinstance(self.abi, Fifo) else []
        self.abi = self.two_level
        return frames

    def _make_lot(self) -> None:
        self.ports += (Port(number) for number in range(len(self.ports), len(self.ports) + _LOT))

    @staticmethod
    def _unbind(port: Port, domid: int) -> None:
        port.state, port.remote_domain, port.peer = UNBOUND, domid, None

    # -- domain 0's ends

    def connect(self, number: int, notify: Callable[[], None]) -> FarEnd | None:
        """A back end binds to a port of the guest's; None unless that waits for domain 0."""
        port = self.get(number)
        if port is None or port.state != UNBOUND or port.remote_domain:
            return None
        far = _FIRST_FAR_PORT
        while far in self._far:
            far += 1
        end = FarEnd(far, notify, port, self)
        self._far[far] = end
        port.state, port.peer = INTERDOMAIN, end
        return end

    def far_end(self, number: int) -> FarEnd | None:
        """Domain 0's end at a port of its own, if it is the other end of a channel of this domain's."""
        return self._far.get(number)

    def drop(self, end: FarEnd) -> None:
        """A back end closes its end: the guest's port waits for domain 0 again."""
        if end.port is not None:
            self._unbind(end.port, 0)
        end.port = None
        self._far.pop(end.number, None)

    # -- pending

    def send(self, port: Port) -> None:
        """Notify the other end of a channel, or the vCPU of an IPI; nobody, while there is no other end."""
        if isinstance(port.peer, FarEnd):
            port.peer.notify()
        elif port.state != UNBOUND:
            self.raise_port(port.peer or port)

    def raise_virq(self, virq: int, vcpu: int = 0) -> None:
        """Make the port of a VIRQ pending, if there is one (send_guest_vcpu_virq)."""
        port = self.virq_port(virq, vcpu)
        if port is not None:
            self.raise_port(port)

    def raise_port(self, port: Port) -> None:
        """evtchn_port_set_pending."""
        if port.in_use:
            self._set_pending(port)

    def is_pending(self, port: Port) -> bool:
        """Whether a port in use is pending, masked or not."""
        return port.in_use and self.abi.is_pending(port)

    def _set_pending(self, port: Port) -> None:
        if self.abi.set_pending(port) and self.polled is not None:
            self.polled(port.number)

    # -- the FIFO ABI

    @property
    def fifo(self) -> Fifo | None:
        """The FIFO ABI, if the guest uses it."""
        return self.abi if isinstance(self.abi, Fifo) else None

    def init_control(self, vcpu: int, control: int) -> None:
        """Use the FIFO ABI, if not yet, and give a vCPU its control block, by its byte offset in machine memory.

        What was pending in the two-level ABI is raised when the event array reaches it.
        """
        if not isinstance(self.abi, Fifo):
            for port in self.ports[1 : self.two_level.max_ports]:
                port.pending = port.pending or self.two_level.is_pending(port)
                port.priority = EVTCHN_FIFO_PRIORITY_DEFAULT
            self.abi = Fifo(self._ram, self.vcpus)
        self.abi.queues[vcpu].control = control

    def expand_array(self, fifo: Fifo, mfn: int) -> None:
        """Add a page of event words; what is pending there is raised, even if it was closed since, as in Xen."""
        first = len(fifo.arrays) * WORDS_PER_PAGE
        fifo.arrays.append(mfn)
        for port in self.ports[first : first + WORDS_PER_PAGE]:
            if port.pending:
                self._set_pending(port)
