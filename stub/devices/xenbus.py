"""The handshake of a device's two ends through XenStore, seen from the back end (Linux, drivers/xen/xenbus).

Each end keeps its ``state`` in its own directory and watches the other's. What a back end does when its front end's
state changes stands in one table of its own.
"""

from __future__ import annotations

from stub.abi import xenbus as abi
from stub.devices.access import StoreAccess

_LONGEST = 20  # characters of a number that is read


class XenbusError(Exception):
    """The front end's directory does not say what it must: the device is closed, and the error node says why."""


class Directories:
    """A device's two directories. ``frontend`` and ``backend`` are their paths, ``domid`` the guest's number."""

    def __init__(self, store: StoreAccess, kind: str, domid: int, number: int) -> None:
        self._store = store
        self.frontend = f"/local/domain/{domid}/device/{kind}/{number}"
        self.backend = f"/local/domain/0/backend/{kind}/{domid}/{number}"
        self._error = f"/local/domain/0/error/backend/{kind}/{domid}/{number}/error"
        self.state = abi.XenbusStateInitialising

    @property
    def frontend_state(self) -> int:
        """The other end's state; XenbusStateUnknown when it has none (xenbus_read_driver_state)."""
        return self.number("state") or abi.XenbusStateUnknown

    def number(self, name: str) -> int | None:
        """A decimal number of the front end's; None where there is none."""
        value = (self._store.read(f"{self.frontend}/{name}") or b"").rstrip(b"\0")
        return int(value) if value.isdigit() and len(value) <= _LONGEST else None

    def text(self, name: str) -> bytes | None:
        """A value of the front end's, as it is."""
        return self._store.read(f"{self.frontend}/{name}")

    def tell(self, **nodes: int | str) -> None:
        """Write nodes of the back end's; ``_`` in a name stands for ``-``."""
        for name, value in nodes.items():
            self._store.write(f"{self.backend}/{name.replace('_', '-')}", str(value).encode())

    def switch(self, state: int) -> None:
        """Have the back end in a state (xenbus_switch_state, which writes nothing when it is there already)."""
        if state != self.state:
            self.state = state
            self.tell(state=state)

    def fail(self, why: str) -> None:
        """Close the device because of an error (xenbus_dev_fatal)."""
        self._store.write(self._error, why.encode())
        self.switch(abi.XenbusStateClosing)
