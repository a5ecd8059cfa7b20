"""XenStore: the tree, its clients, and what an operation means (tools/xenstore/xenstored_core.c).

An operation names who does it (a :class:`Client`) and what it works on: the tree, or a transaction of the client's.
It does no input and no output. Watches are told as it goes: what a client is told comes before the answer to the
request that caused it, as xenstored has it.
"""

from __future__ import annotations

from stub.devices.xenstore import paths
from stub.devices.xenstore.clients import PRIVILEGED, Client
from stub.devices.xenstore.dom0 import Dom0
from stub.devices.xenstore.limits import MEMORY, NODE_SIZE, NODES, StoreError
from stub.devices.xenstore.permissions import OWNER, READ, WRITE, Permission, Permissions
from stub.devices.xenstore.transaction import Transaction
from stub.devices.xenstore.tree import Node, Tree, View, walk

INTRODUCE, RELEASE = "@introduceDomain", "@releaseDomain"
_DOM0_ONLY: Permissions = (Permission(PRIVILEGED, 0),)


class Store:
    """The store of one host. ``dom0`` is what domain 0's tools and back ends use; it is always there."""

    def __init__(self) -> None:
        self.tree = Tree()
        self.dom0 = Dom0(self)
        self.clients: list[Client] = [self.dom0]  # in the order in which they are told
        self.domains: set[int] = {PRIVILEGED}
        """Those that there are. What permissions say of others is ignored for good."""
        self.special = {INTRODUCE: _DOM0_ONLY, RELEASE: _DOM0_ONLY}
        self.dom0.mkdir("/tool/xenstored")

    # -- domains

    def introduce(self, client: Client) -> None:
        """A domain's connection is there: it is told from now on, and whoever watches for domains is told of it."""
        self.domains.add(client.domid)
        self.clients.append(client)
        self.fire_special(INTRODUCE)

    def released(self) -> None:
        """A domain shut down or is gone: whoever watches for it is told."""
        self.fire_special(RELEASE)

    def memory_of(self, domid: int) -> int:
        """Bytes that are kept for a domain."""
        memory = self.tree.memory[domid]
        for client in self.clients:
            if client.domid == domid:
                memory += client.memory
        return memory

    # -- looking

    def find(self, client: Client, view: View, path: str, need: int) -> Node:
        """The node, which the client must have the rights ``need`` to (get_node).

        StoreError EINVAL for what is no path, EACCES, or ENOENT to who may know that.
        """
        if not paths.is_valid(path):
            raise StoreError("EINVAL", path)
        node = view.get(path)
        if node is not None and client.rights(node.permissions) & need == need:
            return node
        if node is None:
            for above in paths.ancestors(path):
                directory = view.get(above)
                if directory is not None:
                    if client.rights(directory.permissions) & need:
                        raise StoreError("ENOENT", path)
                    break
        raise StoreError("EACCES", path)

    def _existing(self, client: Client, view: View, path: str) -> Node | None:
        """The node that the client is to write; None if it may make one."""
        try:
            return self.find(client, view, path, WRITE)
        except StoreError as refusal:
            if refusal.word == "ENOENT":
                return None
            raise

    # -- changing

    def write(self, client: Client, view: View, path: str, value: bytes) -> None:
        """Give a node a value; it and the directories above it are made if they are not there."""
        node = self._existing(client, view, path)
        if node is None:
            node = self._create(client, view, path, value)
        else:
            node = node._replace(value=value)
            self._put(client, view, path, node)
        self.fire(view, path, node)

    def mkdir(self, client: Client, view: View, path: str) -> None:
        """Make a node without a value; nothing comes to pass if it is there."""
        if self._existing(client, view, path) is None:
            self.fire(view, path, self._create(client, view, path, b""))

    def remove(self, client: Client, view: View, path: str) -> None:
        """Take a node away with all below it. One that is not there is no error if its parent is."""
        if self._existing(client, view, path) is None:
            if view.get(paths.parent(path)) is None:
                raise StoreError("ENOENT", path)
            return
        if path == "/":
            raise StoreError("EINVAL", path)
        above = paths.parent(path)
        directory = view.get(above)
        if directory is None:  # to a transaction that looked for it before both were made (_rm)
            raise StoreError("EINVAL", path)
        for below, node in walk(view, path):
            view.drop(below)
            self.fire(view, below, node, exact=below != path)
        view.put(above, directory.without_child(paths.name(path)))

    def set_permissions(self, client: Client, view: View, path: str, permissions: Permissions) -> None:
        """Say who may do what. StoreError ENOENT for an owner who is not there, EPERM for giving a node away."""
        if permissions[0].ignored:
            raise StoreError("ENOENT", path)
        if path.startswith("@"):
            if path not in self.special:
                raise StoreError("EINVAL", path)
            if not client.rights(self.special[path]) & OWNER:
                raise StoreError("EACCES", path)
            self.special[path] = permissions
            return
        node = self.find(client, view, path, WRITE | OWNER)
        if not client.privileged and permissions[0].domid != node.owner:
            raise StoreError("EPERM", path)
        changed = node._replace(permissions=permissions)
        self._put(client, view, path, changed)
        self.fire(view, path, changed, before=node.permissions)

    def _create(self, client: Client, view: View, path: str, value: bytes) -> Node:
        """Make a node, and the directories that it lacks: they have their parent's permissions, but their own owner."""
        new = [path]
        for above in paths.ancestors(path):
            directory = view.get(above)
            if directory is not None:
                break
            new.append(above)
        assert directory is not None  # the root is always there
        changes: list[tuple[str, Node]] = []  # from the top
        top, node = above, directory
        for made in reversed(new):
            changes.append((above, node.with_child(paths.name(made))))
            permissions = node.permissions
            if not client.privileged:
                permissions = (permissions[0]._replace(domid=client.domid), *permissions[1:])
            above, node = made, Node(b"", permissions)
        node = node._replace(value=value)
        changes.append((path, node))
        done: list[str] = []
        try:
            for made, change in reversed(changes):
                if made != top and not client.privileged and self.tree.owned[client.domid] >= NODES:
                    raise StoreError("ENOSPC", path)
                self._put(client, view, made, change)
                done.append(made)
        except StoreError:
            for made in done:
                view.drop(made)
            if done and isinstance(view, Transaction):
                view.failed = True
            raise
        return node

    def _put(self, client: Client, view: View, path: str, node: Node) -> None:
        """Put a node in its place if the quotas allow it. StoreError ENOSPC for one too large, EIO without memory."""
        payer = client.domid if isinstance(view, Transaction) else node.owner
        try:
            if not client.privileged and node.size >= NODE_SIZE:
                raise StoreError("ENOSPC", path)
            if payer != PRIVILEGED and self.memory_of(payer) + node.size + len(path) >= MEMORY:
                raise StoreError("EIO", path)
        except StoreError:
            if isinstance(view, Transaction):
                view.failed = True
            raise
        view.put(path, node)

    # -- transactions

    def end(self, client: Client, transaction: Transaction, commit: bool) -> None:
        """Give up a transaction, or put what it changed into the tree. StoreError as :meth:`Transaction.check`."""
        del client.transactions[transaction.number]
        if not commit:
            return
        transaction.check(PRIVILEGED)
        for path, access in transaction.commit():
            if access.node is not None:
                self.tree.put(path, access.node)
            else:
                self.tree.drop(path)
            if access.exact is not None:
                self.fire(self.tree, path, None, exact=access.exact, before=access.before)

    # -- watches

    def fire(
        self, view: View, path: str, node: Node | None, *, exact: bool = False, before: Permissions | None = None
    ) -> None:
        """Something came to pass at ``path``: tell who watches it, or, in a transaction, remember to (fire_watches).

        ``node`` is what is or was there, None to look; ``before`` the permissions that it had until now.
        """
        if isinstance(view, Transaction):
            view.tell(path, exact)
            return
        for client in self.clients:
            wanting = [watch for watch in client.watches if watch.wants(path, exact)]
            if wanting and self._may_know(client, path, node, before):
                for watch in wanting:
                    client.event(watch, path)

    def _may_know(self, client: Client, path: str, node: Node | None, before: Permissions | None) -> bool:
        """Whether a client is told: it may read the node, could until now, or may read its parent (watch_permitted)."""
        if before is not None and client.rights(before) & READ:
            return True
        node = node or self.tree.get(path)
        if node is None:
            return False
        if client.rights(node.permissions) & READ:
            return True
        above = self.tree.get(paths.parent(path))
        return above is not None and bool(client.rights(above.permissions) & READ)

    def fire_special(self, event: str) -> None:
        """@introduceDomain or @releaseDomain came to pass."""
        for client in self.clients:
            if client.rights(self.special[event]) & READ:
                for watch in client.watches:
                    if watch.path == event:
                        client.event(watch, event)
        self.dom0.deliver()
