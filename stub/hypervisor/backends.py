"""Domain 0's side of grants and event channels: what the back ends in ``stub/devices`` may do with the guest."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from stub.abi.grant_table import GNTST_NAMES
from stub.devices.access import Channel
from stub.hypervisor.grants import HOST_READ, HOST_WRITE
from stub.units import PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

_DOMID = 0


class Domain0:
    """A :class:`stub.devices.access.GuestAccess`. Mappings are the back ends' own: no page table shows them."""

    def __init__(self, xen: Hypervisor) -> None:
        self._xen = xen
        self.refusal = ""

    # -- grants

    def map(self, ref: int, *, readonly: bool) -> memoryview | None:
        """As GuestAccess: the guest's table is asked as in map_grant_ref, and tells the guest of the use."""
        grants, domain = self._xen.grants, self._xen.domain
        use = HOST_READ if readonly else HOST_WRITE
        status = grants.take(ref, [use], mapping=True, by=_DOMID)
        if status:
            self.refusal = f"{GNTST_NAMES[status]}: {grants.refusal}{self._frame_number(ref)}"
            return None
        frame = grants.active[ref].frame
        held = domain.frames.get(frame) if readonly else not domain.types.hold(frame)
        if not held:
            grants.release(ref, use)
            self.refusal = f"grant {ref:#x} is of frame {frame:#x}, which is in use as a table: it cannot be written"
            return None
        return domain.ram.bytes[frame << PAGE_SHIFT : (frame << PAGE_SHIFT) + PAGE_SIZE]

    def unmap(self, ref: int, *, readonly: bool) -> None:
        """As GuestAccess."""
        grants, domain = self._xen.grants, self._xen.domain
        frame = grants.active[ref].frame
        if readonly:
            domain.frames.put(frame)
        else:
            domain.types.let_go(frame)
        grants.release(ref, HOST_READ if readonly else HOST_WRITE)

    def _frame_number(self, ref: int) -> str:
        """A hint for a driver that says which frame, not which grant."""
        domain = self._xen.domain
        if ref < self._xen.grants.entries:
            return ""
        if ref < domain.frames.frames and domain.frames.owner[ref]:
            return f" (there is a frame {ref:#x}: does it stand where a grant reference belongs?)"
        return ""

    # -- event channels

    def connect(self, port: int, notified: Callable[[], None]) -> Channel | None:
        """As GuestAccess."""
        end = self._xen.events.connect(port, notified)
        if end is None:
            self.refusal = f"the guest has not left port {port:#x} open for domain {_DOMID}"
        return end

    def note(self, text: str) -> None:
        """As GuestAccess."""
        self._xen.note(text)
