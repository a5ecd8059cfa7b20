"""An event channel port, as both ABIs and the operations know it (xen/include/xen/sched.h, struct evtchn)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stub.abi.event_channel import EVTCHN_FIFO_PRIORITY_DEFAULT

if TYPE_CHECKING:
    from stub.hypervisor.events import EventChannels

FREE, RESERVED, UNBOUND, INTERDOMAIN, PIRQ, VIRQ, IPI = range(7)


@dataclass(eq=False)
class Port:
    """A port's record. It stays when the port is closed, and the FIFO ABI's part of it keeps its values, as in Xen.

    ``vcpu`` is who is told. ``remote_domain`` is whom an UNBOUND port waits for, or who is at the other end; ``peer``
    is that end. ``pending``: the port was raised before the event array had a word for it. ``queue`` is the (vCPU,
    priority) of the queue that it was linked to last.
    """

    number: int
    state: int = FREE
    vcpu: int = 0
    remote_domain: int = 0
    peer: Peer | None = None
    virq: int = 0
    priority: int = EVTCHN_FIFO_PRIORITY_DEFAULT
    pending: bool = False
    queue: tuple[int, int] = (0, 0)

    @property
    def in_use(self) -> bool:
        """Whether it can be raised, masked, bound (evtchn_usable)."""
        return self.state > RESERVED


@dataclass(eq=False)
class FarEnd:
    """Domain 0's end of a channel, a back end's: its ``number`` there, and the guest's ``port`` while it is bound.

    ``notify`` is called when the guest sends. Unbound, the end waits for the guest to bind to it again.
    """

    number: int
    notify: Callable[[], None]
    port: Port | None
    channels: EventChannels

    def signal(self) -> None:
        """Make the guest's port pending, if it has not closed it."""
        if self.port is not None:
            self.channels.raise_port(self.port)

    def close(self) -> None:
        """Give the end up: the guest's port waits for domain 0 again."""
        self.channels.drop(self)


Peer = Port | FarEnd
