"""console_io: a domU may not, but what it said is kept (xen/drivers/char/console.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stub.abi.xen import CONSOLEIO_write, Hypercall
from stub.hypervisor.refusals import hardware_domains
from stub.hypervisor.registry import hypercall

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

_KEPT = 4096


@hypercall(Hypercall.console_io)
def console_io(xen: Hypervisor, command: int, count: int, buffer: int, _: int, __: int) -> int:
    """-EPERM whatever the command, as on a production Xen; the text is in the log."""
    if command & 0xFFFFFFFF == CONSOLEIO_write:
        xen.payload = xen.domain.guest.read_available(buffer, min(count & 0xFFFFFFFF, _KEPT))
    return hardware_domains(xen, "Xen's own console")
