"""Who uses the store: their watches, their transactions, and what waits to be taken by them.

Two kinds: a domain that speaks the wire protocol, in ``wire.py``, and the tools and back ends of domain 0, in
``dom0.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from stub.abi.xs_wire import XENSTORE_REL_PATH_MAX
from stub.devices.xenstore import paths
from stub.devices.xenstore.limits import TRANSACTIONS, WATCHES, StoreError
from stub.devices.xenstore.permissions import ALL, Permissions, rights_of
from stub.devices.xenstore.transaction import Transaction
from stub.devices.xenstore.tree import Tree

PRIVILEGED: Final = 0  # the domain that may do all


@dataclass(slots=True, eq=False)
class Watch:
    """A client wants to know of changes at ``path`` and below. ``hidden``: how much of a path it is not shown."""

    path: str
    token: str
    hidden: int = 0
    callback: Callable[[str], object] | None = None

    @property
    def asked(self) -> str:
        """The path as the client gave it."""
        return self.path[self.hidden :]

    @property
    def size(self) -> int:
        """Bytes, as they count against its client."""
        return len(self.path) + len(self.token)

    def wants(self, path: str, exact: bool) -> bool:
        """Whether a change there is to be told; ``exact``: only to those who watch that very path."""
        return path == self.path if exact else paths.is_below(path, self.path)


class Client(ABC):
    """One user of the store."""

    def __init__(self, domid: int) -> None:
        self.domid = domid
        self.home = paths.home_of(domid)
        self.watches: list[Watch] = []
        self.transactions: dict[int, Transaction] = {}
        self._next_transaction = 0
        self._watch_bytes = 0

    @property
    def privileged(self) -> bool:
        """Whether it may do all, without quotas."""
        return self.domid == PRIVILEGED

    def rights(self, permissions: Permissions) -> int:
        """What it may do with a node that has these."""
        return ALL if self.privileged else rights_of(permissions, self.domid)

    @property
    def memory(self) -> int:
        """Bytes that are kept for it, nodes aside."""
        memory = self._watch_bytes
        for transaction in self.transactions.values():
            memory += transaction.memory
        return memory

    @abstractmethod
    def event(self, watch: Watch, path: str) -> None:
        """Something came to pass at ``path``, which ``watch`` wants to know."""

    def add_watch(self, asked: str, token: str, callback: Callable[[str], object] | None = None) -> Watch:
        """Begin to watch; the first event is the caller's to send.

        StoreError EINVAL for what is no path, EEXIST for a watch that there is, E2BIG for one too many.
        """
        path = paths.absolute(asked, self.home)
        if not (len(path) <= XENSTORE_REL_PATH_MAX if path.startswith("@") else paths.is_valid(path)):
            raise StoreError("EINVAL", asked)
        if any(watch.path == path and watch.token == token for watch in self.watches):
            raise StoreError("EEXIST", asked)
        if not self.privileged and len(self.watches) > WATCHES:
            raise StoreError("E2BIG", asked)
        hidden = 0 if asked.startswith(("/", "@")) else len(self.home) + 1
        watch = Watch(path, token, hidden, callback)
        self.watches.append(watch)
        self._watch_bytes += watch.size
        return watch

    def remove_watch(self, asked: str, token: str) -> None:
        """No longer watch. StoreError ENOENT for what is not watched."""
        path = paths.absolute(asked, self.home)
        for watch in self.watches:
            if watch.path == path and watch.token == token:
                self.watches.remove(watch)
                self._watch_bytes -= watch.size
                return
        raise StoreError("ENOENT", asked)

    def start(self, tree: Tree) -> Transaction:
        """A new transaction. StoreError ENOSPC for one too many."""
        if not self.privileged and len(self.transactions) > TRANSACTIONS:
            raise StoreError("ENOSPC")
        number = self._next_transaction
        while number == 0 or number in self.transactions:
            number = (number + 1) & 0xFFFFFFFF
        self._next_transaction = (number + 1) & 0xFFFFFFFF
        transaction = self.transactions[number] = Transaction(tree, number, not self.privileged)
        return transaction

    def reset(self) -> None:
        """Forget watches and transactions."""
        self.watches.clear()
        self._watch_bytes = 0
        self.transactions.clear()
