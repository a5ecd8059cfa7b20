"""The nodes. A node never changes: each write puts another in its place, with a generation that is all its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from stub.devices.xenstore import paths
from stub.devices.xenstore.limits import NODE_HEADER, PERMISSION_SIZE
from stub.devices.xenstore.permissions import Permission, Permissions


class Node(NamedTuple):
    """``children`` are their names, each with a NUL behind it, in the order in which they came."""

    value: bytes
    permissions: Permissions
    children: bytes = b""
    generation: int = 0

    @property
    def owner(self) -> int:
        """The domain that it counts against."""
        return self.permissions[0].domid

    @property
    def size(self) -> int:
        """Bytes, as xenstored counts them for its quota."""
        fixed = NODE_HEADER + PERMISSION_SIZE * len(self.permissions)
        return fixed + len(self.value) + len(self.children)

    def names(self) -> list[str]:
        """The children's names."""
        return self.children.decode("latin-1").split("\0")[:-1]

    def with_child(self, name: str) -> Node:
        """The same with a child more."""
        children = self.children + name.encode("latin-1") + b"\0"
        return Node(self.value, self.permissions, children, self.generation)

    def without_child(self, name: str) -> Node:
        """The same with a child less."""
        gone = b"\0" + name.encode("latin-1") + b"\0"
        return self._replace(children=(b"\0" + self.children).replace(gone, b"\0", 1)[1:])


class View(Protocol):
    """Nodes as somebody sees them: the tree itself, or what it is for a transaction."""

    def get(self, path: str) -> Node | None:
        """The node, None if there is none. A transaction's StoreError is ENOSPC."""

    def put(self, path: str, node: Node) -> None:
        """Put a node in its place; its parent's list is the caller's."""

    def drop(self, path: str) -> None:
        """Take a node away; its parent's list is the caller's."""


class Tree:
    """All nodes by path. ``owned`` counts them by owner, ``memory`` their bytes with those of their paths."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._generation = 0
        self.owned: Counter[int] = Counter()
        self.memory: Counter[int] = Counter()
        self.put("/", Node(b"", (Permission(0, 0),)))

    def next_generation(self) -> int:
        """A number that no node has had."""
        self._generation += 1
        return self._generation

    def get(self, path: str) -> Node | None:
        """The node; None if there is none."""
        return self._nodes.get(path)

    def put(self, path: str, node: Node) -> None:
        """Put a node in its place, with a generation of its own."""
        self._forget(path)
        value, permissions, children, _ = node
        self._generation += 1
        self._nodes[path] = Node(value, permissions, children, self._generation)
        owner = permissions[0].domid
        self.owned[owner] += 1
        self.memory[owner] += node.size + len(path)

    def drop(self, path: str) -> None:
        """Take a node away."""
        self._forget(path)
        self._nodes.pop(path, None)

    def _forget(self, path: str) -> None:
        old = self._nodes.get(path)
        if old is not None:
            self.owned[old.owner] -= 1
            self.memory[old.owner] -= old.size + len(path)

    def __len__(self) -> int:
        return len(self._nodes)


def walk(view: View, top: str) -> Iterator[tuple[str, Node]]:
    """The nodes below ``top`` and at last itself, children before their parents, as xenstored removes them.

    Nodes are read on the way down. What is yielded may be dropped.
    """
    node = view.get(top)
    if node is None:
        return
    stack = [(top, node, iter(node.names()))]
    while stack:
        path, node, names = stack[-1]
        name = next(names, None)
        if name is None:
            stack.pop()
            yield path, node
            continue
        below = paths.child(path, name)
        found = view.get(below)
        if found is not None:
            stack.append((below, found, iter(found.names())))


def listing(view: View, top: str) -> Iterator[tuple[str, Node]]:
    """``top`` and the nodes below it, parents before their children, in the order in which these came."""
    due = [top]
    while due:
        path = due.pop()
        node = view.get(path)
        if node is not None:
            yield path, node
            due.extend(paths.child(path, name) for name in reversed(node.names()))
