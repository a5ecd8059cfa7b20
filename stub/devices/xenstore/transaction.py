"""A transaction: its own copies of what it looked at or changed, and whether they still hold when it ends.

What it reads is noted with its generation. At the end every node that was first read must still have that generation,
else it is EAGAIN: so a change of a node, of its permissions or of its list of children is a conflict with whoever
looked at it (tools/xenstore/xenstored_transaction.c).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from stub.devices.xenstore.limits import NODES, TRANSACTION_NODES, StoreError
from stub.devices.xenstore.permissions import Permissions
from stub.devices.xenstore.tree import Node, Tree


@dataclass(slots=True)
class Access:
    """One node of a transaction. ``seen`` is what it was in the tree; ``node`` what the transaction sees."""

    seen: Node | None
    node: Node | None
    modified: bool = False
    exact: bool | None = None
    """Whether only watches of that very path are to be told, at the end; None: nobody is."""

    @property
    def before(self) -> Permissions | None:
        """The permissions that the node had."""
        return self.seen.permissions if self.seen is not None else None


class Transaction:
    """The tree as one client sees and changes it for a while. ``limited``: quotas are for it."""

    def __init__(self, tree: Tree, number: int, limited: bool) -> None:
        self._tree = tree
        self.number = number
        self._limited = limited
        self._accessed: dict[str, Access] = {}
        self._owned: Counter[int] = Counter()
        self.memory = 0
        self.failed = False

    def _access(self, path: str) -> Access:
        found = self._accessed.get(path)
        if found is None:
            if self._limited and len(self._accessed) >= TRANSACTION_NODES:
                self.failed = True
                raise StoreError("ENOSPC", path)
            node = self._tree.get(path)
            found = self._accessed[path] = Access(node, node)
            self.memory += len(path) + (node.size if node is not None else 0)
        return found

    def get(self, path: str) -> Node | None:
        """The node as this transaction has it. StoreError ENOSPC for a node too many."""
        return self._access(path).node

    def put(self, path: str, node: Node) -> None:
        """Change a node, here only."""
        self._change(path, node._replace(generation=self._tree.next_generation()))

    def drop(self, path: str) -> None:
        """Take a node away, here only."""
        self._change(path, None)

    def _change(self, path: str, node: Node | None) -> None:
        access = self._access(path)
        old = access.node
        if old is not None:
            self._owned[old.owner] -= 1
            self.memory -= old.size
        if node is not None:
            self._owned[node.owner] += 1
            self.memory += node.size
        access.node, access.modified = node, True

    def tell(self, path: str, exact: bool) -> None:
        """Remember to fire the watches of a path at the end; a wider call wins over an exact one (queue_watches)."""
        access = self._access(path)
        access.exact = exact if access.exact is None else access.exact and exact

    def check(self, privileged: int) -> None:
        """Whether it may be committed. StoreError ENOMEM if it failed, ENOSPC for nodes too many, EAGAIN to retry.

        ``privileged`` is the domain without quotas.
        """
        if self.failed:
            raise StoreError("ENOMEM")
        for domid, more in self._owned.items():
            if more > 0 and domid != privileged and self._tree.owned[domid] + more >= NODES:
                raise StoreError("ENOSPC")
        for path, access in self._accessed.items():
            now = self._tree.get(path)
            if (now.generation if now else None) != (access.seen.generation if access.seen else None):
                raise StoreError("EAGAIN", path)

    def commit(self) -> list[tuple[str, Access]]:
        """What it changed, in the order in which it came upon it; each is for the caller to put into the tree."""
        return [(path, access) for path, access in self._accessed.items() if access.modified]
