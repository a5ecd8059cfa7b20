"""The requests by their number: how their payload is read, who may make them, what they answer.

A handler gives the answer's payload, or None if it has answered by itself; a refusal is a StoreError. The order of the
checks is xenstored's (process_message and the functions in wire_funcs, tools/xenstore/xenstored_core.c).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from stub.abi import xs_wire as abi
from stub.abi.xen import DOMID_SELF
from stub.devices.xenstore import paths
from stub.devices.xenstore.limits import PERMISSIONS, StoreError
from stub.devices.xenstore.permissions import READ, parse
from stub.devices.xenstore.store import Store
from stub.devices.xenstore.transaction import Transaction
from stub.devices.xenstore.tree import Node, View
from stub.devices.xenstore.wire import Request, Wire

_NUMBER = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]{1,18})")
_OK = b"OK\0"


class Call(NamedTuple):
    """A request with all that its handler may want."""

    store: Store
    client: Wire
    view: View
    request: Request

    def strings(self) -> list[str]:
        """The payload's strings; what stands behind the last NUL is none."""
        return self.request.payload.decode("latin-1").split("\0")[:-1]

    def one(self) -> str:
        """The payload's only string, which ends with it. StoreError EINVAL otherwise."""
        strings = self.strings()
        if len(strings) != 1 or not self.request.payload.endswith(b"\0"):
            raise StoreError("EINVAL")
        return strings[0]

    def path(self, text: str) -> str:
        """A path as the client means it."""
        return paths.absolute(text, self.client.home)

    def node(self, text: str) -> Node:
        """A node that the client may read."""
        return self.store.find(self.client, self.view, self.path(text), READ)


def _number(text: str) -> int:
    """What C's atoi makes of it, as an unsigned int."""
    found = _NUMBER.match(text)
    return int(found[1]) & 0xFFFFFFFF if found else 0


def _directory(call: Call) -> bytes:
    return call.node(call.one()).children


def _directory_part(call: Call) -> bytes:
    """As many whole names from an offset on as fit, behind the node's generation; an empty one says that it is all."""
    strings = call.strings()
    if len(strings) != 2:
        raise StoreError("EINVAL")
    node = call.node(strings[0])
    offset = _number(strings[1])
    head = b"%d\0" % node.generation
    if offset >= len(node.children):
        return head + b"\0"
    room = abi.XENSTORE_PAYLOAD_MAX - len(head) - 1
    rest = node.children[offset:]
    if len(rest) <= room:
        return head + rest + b"\0"
    return head + rest[: rest.rfind(b"\0", 0, room) + 1]


def _read(call: Call) -> bytes:
    return call.node(call.one()).value


def _get_permissions(call: Call) -> bytes:
    return b"".join(str(entry).encode() + b"\0" for entry in call.node(call.one()).permissions)


def _write(call: Call) -> bytes:
    path, nul, value = call.request.payload.partition(b"\0")
    if not nul:
        raise StoreError("EINVAL")
    call.store.write(call.client, call.view, call.path(path.decode("latin-1")), value)
    return _OK


def _mkdir(call: Call) -> bytes:
    call.store.mkdir(call.client, call.view, call.path(call.one()))
    return _OK


def _rm(call: Call) -> bytes:
    call.store.remove(call.client, call.view, call.path(call.one()))
    return _OK


def _set_permissions(call: Call) -> bytes:
    path, *entries = call.strings() or [""]
    if not entries:
        raise StoreError("EINVAL")
    if not call.client.privileged and len(entries) > PERMISSIONS:
        raise StoreError("ENOSPC")
    permissions = parse(entries, call.store.domains)
    call.store.set_permissions(call.client, call.view, call.path(path), permissions)
    return _OK


def _watch_arguments(call: Call) -> tuple[str, str]:
    strings = call.strings()
    if len(strings) != 2:
        raise StoreError("EINVAL")
    return strings[0], strings[1]


def _watch(call: Call) -> None:
    watch = call.client.add_watch(*_watch_arguments(call))
    call.client.reply(call.request, _OK)
    call.client.first_event(watch)


def _unwatch(call: Call) -> bytes:
    call.client.remove_watch(*_watch_arguments(call))
    return _OK


def _reset_watches(call: Call) -> bytes:
    call.client.reset()
    return _OK


def _transaction_start(call: Call) -> bytes:
    if isinstance(call.view, Transaction):
        raise StoreError("EBUSY")
    return b"%d\0" % call.client.start(call.store.tree).number


def _transaction_end(call: Call) -> bytes:
    how = call.one()
    if how not in ("T", "F"):
        raise StoreError("EINVAL")
    if not isinstance(call.view, Transaction):
        raise StoreError("ENOENT")
    call.store.end(call.client, call.view, how == "T")
    return _OK


def _get_domain_path(call: Call) -> bytes:
    return paths.home_of(_number(call.one())).encode() + b"\0"


def _is_domain_introduced(call: Call) -> bytes:
    domid = _number(call.one())
    introduced = {client.domid for client in call.store.clients}
    return b"T\0" if domid == DOMID_SELF or domid in introduced else b"F\0"


def _not_here(_: Call) -> bytes:
    """What only domain 0's tools ask, and they use the store in their own way here."""
    raise StoreError("ENOSYS")


class _Row(NamedTuple):
    handler: Callable[[Call], bytes | None]
    privileged: bool = False
    """Only for domain 0; EACCES for all others."""
    without_transaction: bool = False
    """The transaction that it names is not looked at."""


ROWS: dict[int, _Row] = {
    abi.XS_CONTROL: _Row(_not_here, privileged=True),
    abi.XS_DIRECTORY: _Row(_directory),
    abi.XS_READ: _Row(_read),
    abi.XS_GET_PERMS: _Row(_get_permissions),
    abi.XS_WATCH: _Row(_watch, without_transaction=True),
    abi.XS_UNWATCH: _Row(_unwatch, without_transaction=True),
    abi.XS_TRANSACTION_START: _Row(_transaction_start),
    abi.XS_TRANSACTION_END: _Row(_transaction_end),
    abi.XS_INTRODUCE: _Row(_not_here, privileged=True),
    abi.XS_RELEASE: _Row(_not_here, privileged=True),
    abi.XS_GET_DOMAIN_PATH: _Row(_get_domain_path),
    abi.XS_WRITE: _Row(_write),
    abi.XS_MKDIR: _Row(_mkdir),
    abi.XS_RM: _Row(_rm),
    abi.XS_SET_PERMS: _Row(_set_permissions),
    abi.XS_IS_DOMAIN_INTRODUCED: _Row(_is_domain_introduced, privileged=True),
    abi.XS_RESUME: _Row(_not_here, privileged=True),
    abi.XS_SET_TARGET: _Row(_not_here, privileged=True),
    abi.XS_RESET_WATCHES: _Row(_reset_watches),
    abi.XS_DIRECTORY_PART: _Row(_directory_part),
}


def answer(store: Store, client: Wire, request: Request) -> None:
    """Do what a client asks and answer it. StoreError is the refusal, for the client to answer with."""
    row = ROWS.get(request.kind)
    if row is None:
        raise StoreError("ENOSYS")
    if row.privileged and not client.privileged:
        raise StoreError("EACCES")
    view: View = store.tree
    if request.transaction and not row.without_transaction:
        found = client.transactions.get(request.transaction)
        if found is None:
            raise StoreError("ENOENT")
        view = found
    data = row.handler(Call(store, client, view, request))
    if data is not None:
        client.reply(request, data)
