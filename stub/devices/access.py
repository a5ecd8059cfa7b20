"""What a back end in domain 0 may do with its guest: the only way from a device to the guest's memory and ports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Channel(Protocol):
    """Domain 0's end of an event channel."""

    def signal(self) -> None:
        """Make the guest's end pending, if it still has one."""

    def close(self) -> None:
        """Give the channel up; the guest's end is open again."""


class GuestAccess(Protocol):
    """Grants and event channels as the hypervisor gives them to domain 0. Numbers are the guest's, unchecked."""

    @property
    def refusal(self) -> str:
        """Why the last ``map`` or ``connect`` was refused, in words."""

    def map(self, ref: int, *, readonly: bool) -> memoryview | None:
        """The 4096 bytes of a page that the guest granted (map_grant_ref); None when that is refused."""

    def unmap(self, ref: int, *, readonly: bool) -> None:
        """End one use of a page that ``map`` gave with the same arguments."""

    def connect(self, port: int, notified: Callable[[], None]) -> Channel | None:
        """Be the other end of a port that the guest left open for domain 0 (bind_interdomain); None when it did not.

        ``notified`` is called when the guest sends.
        """

    def note(self, text: str) -> None:
        """A line in the hypercall log."""


class StoreAccess(Protocol):
    """XenStore as domain 0 sees it. Paths are absolute; values are bytes, the guest's among them unchecked."""

    def read(self, path: str) -> bytes | None:
        """A node's value; None for a node that is not there."""

    def write(self, path: str, value: bytes) -> None:
        """Set a node, which is made if need be; the guest's watches fire."""

    def watch(self, path: str, callback: Callable[[str], object]) -> object:
        """Have ``callback`` called with the path of each change at ``path`` and below, and once at once."""
