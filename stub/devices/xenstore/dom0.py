"""The store as domain 0's tools and back ends use it: plain calls, no ring, no quotas, no transactions.

A relative path begins at /local/domain/0. A watch is a callback: it is called once at once, and with the path of each
change from then on, after the operation that made it is over, in the order of the changes and then of the watches.
What is changed twice before the callback runs is told once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from stub.devices.xenstore import paths
from stub.devices.xenstore.clients import PRIVILEGED, Client, Watch
from stub.devices.xenstore.limits import StoreError
from stub.devices.xenstore.permissions import READ, parse, show

if TYPE_CHECKING:
    from stub.devices.xenstore.store import Store
    from stub.devices.xenstore.tree import Node


class Dom0(Client):
    """Domain 0's hands. Each call raises StoreError EINVAL for what is no path."""

    def __init__(self, store: Store) -> None:
        super().__init__(PRIVILEGED)
        self._store = store
        self._due: dict[tuple[Watch, str], None] = {}  # in their order
        self._delivering = False
        self._watched = 0

    def _path(self, path: str) -> str:
        return paths.absolute(path, self.home)

    def read(self, path: str) -> bytes | None:
        """A node's value; None if there is no such node."""
        node = self._node(path)
        return node.value if node is not None else None

    def list(self, path: str) -> list[str]:
        """The names of a node's children, in the order in which they came; none if there is no such node."""
        node = self._node(path)
        return node.names() if node is not None else []

    def exists(self, path: str) -> bool:
        """Whether there is such a node."""
        return self._node(path) is not None

    def permissions(self, path: str) -> str | None:
        """``n0,r1``: who may do what; None if there is no such node."""
        node = self._node(path)
        return show(node.permissions) if node is not None else None

    def write(self, path: str, value: bytes | str | int, permissions: str | None = None) -> None:
        """Give a node a value, and permissions (``n1,r0``); a new one has its parent's without."""
        data = value if isinstance(value, bytes) else str(value).encode(errors="surrogateescape")
        self._store.write(self, self._store.tree, self._path(path), data)
        if permissions is not None:
            self._set(path, permissions)
        self.deliver()

    def mkdir(self, path: str, permissions: str | None = None) -> None:
        """Make a node without a value, unless it is there, and give it permissions."""
        self._store.mkdir(self, self._store.tree, self._path(path))
        if permissions is not None:
            self._set(path, permissions)
        self.deliver()

    def set_permissions(self, path: str, permissions: str) -> None:
        """Say who may do what with a node, or, of @introduceDomain and @releaseDomain, who is told."""
        self._set(path, permissions)
        self.deliver()

    def rm(self, path: str) -> None:
        """Take a node away with all below it; nothing comes to pass if it is not there."""
        if self.exists(path):
            self._store.remove(self, self._store.tree, self._path(path))
            self.deliver()

    def watch(self, path: str, callback: Callable[[str], object]) -> Watch:
        """Have ``callback`` called with the path of each change at ``path`` and below; at once with ``path`` itself.

        Also for @introduceDomain and @releaseDomain.
        """
        self._watched += 1
        watch = self.add_watch(path, str(self._watched), callback)
        self.event(watch, watch.path)
        self.deliver()
        return watch

    def unwatch(self, watch: Watch) -> None:
        """No longer call it, not even for what is due; a second time is no error."""
        if watch in self.watches:
            self.remove_watch(watch.path, watch.token)

    def event(self, watch: Watch, path: str) -> None:
        """Remember whom to call."""
        self._due[watch, path] = None

    def deliver(self) -> None:
        """Make the calls that are due, and those that they lead to; one within another waits for its turn."""
        if self._delivering:
            return
        self._delivering = True
        try:
            while self._due:
                watch, path = due = next(iter(self._due))
                del self._due[due]
                if watch.callback is not None and watch in self.watches:
                    watch.callback(path[watch.hidden :])
        finally:
            self._delivering = False

    def _node(self, path: str) -> Node | None:
        try:
            return self._store.find(self, self._store.tree, self._path(path), READ)
        except StoreError as refusal:
            if refusal.word == "ENOENT":
                return None
            raise

    def _set(self, path: str, permissions: str) -> None:
        entries = parse(permissions.split(","), self._store.domains)
        self._store.set_permissions(self, self._store.tree, self._path(path), entries)
