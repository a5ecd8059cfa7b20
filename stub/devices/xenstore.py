"""XenStore over the domain's ring: a small tree that answers as xenstored does (xen/io/xs_wire.h).

It holds what a guest without devices looks for. Permissions, quotas and conflicting transactions come with the
devices that need them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from stub.abi import xs_wire as abi
from stub.memory.ram import Ram

_RING = 1024
_REQUEST, _RESPONSE, _INDEXES = 0, 1024, 2048
_FOUR = struct.Struct("<4I")  # req_cons, req_prod, rsp_cons, rsp_prod
_HEADER = struct.Struct("<4I")
_MAX_PAYLOAD = 4096
_MAX_NODES, _MAX_WATCHES = 1000, 128  # xenstored's quotas for a domain


class Store:
    """Bytes of requests in, bytes of replies out; no I/O."""

    def __init__(self, domid: int, values: dict[str, bytes]) -> None:
        self.home = f"/local/domain/{domid}"
        self.values = {self._absolute(path): value for path, value in values.items()}
        self.watches: list[tuple[str, str, bytes]] = []  # absolute path, path as asked, token
        self._pending = bytearray()
        self._transactions = 0
        self._events: list[bytes] = []

    def _absolute(self, path: str) -> str:
        return path.rstrip("/") or "/" if path.startswith("/") else f"{self.home}/{path}".rstrip("/")

    def feed(self, data: bytes) -> bytes:
        """Take ring bytes; return the replies and watch events that are due."""
        self._pending += data
        replies = bytearray()
        while len(self._pending) >= _HEADER.size:
            kind, request, transaction, length = _HEADER.unpack_from(self._pending)
            if length > _MAX_PAYLOAD:
                self._pending.clear()
                break
            if len(self._pending) < _HEADER.size + length:
                break
            payload = bytes(self._pending[_HEADER.size : _HEADER.size + length])
            del self._pending[: _HEADER.size + length]
            handler = _HANDLERS.get(kind)
            answer = handler(self, payload) if handler else "ENOSYS"
            if isinstance(answer, str):
                kind, answer = abi.XS_ERROR, answer.encode() + b"\0"
            replies += _HEADER.pack(kind, request, transaction, len(answer)) + answer
        for event in self._events:
            replies += _HEADER.pack(abi.XS_WATCH_EVENT, 0, 0, len(event)) + event
        self._events.clear()
        return bytes(replies)

    def _path(self, payload: bytes) -> str:
        return self._absolute(payload.split(b"\0", 1)[0].decode(errors="surrogateescape"))

    def _exists(self, path: str) -> bool:
        return path in self.values or any(key.startswith(path + "/") for key in self.values)

    def _fire(self, path: str) -> None:
        for watched, asked, token in self.watches:
            if path == watched or path.startswith(watched + "/"):
                shown = asked + path[len(watched) :]
                self._events.append(shown.encode(errors="surrogateescape") + b"\0" + token + b"\0")

    def _directory(self, payload: bytes) -> bytes | str:
        path = self._path(payload)
        if not self._exists(path):
            return "ENOENT"
        prefix = path.rstrip("/") + "/"
        names = dict.fromkeys(key[len(prefix) :].split("/", 1)[0] for key in self.values if key.startswith(prefix))
        return b"".join(name.encode(errors="surrogateescape") + b"\0" for name in names)

    def _read(self, payload: bytes) -> bytes | str:
        path = self._path(payload)
        return self.values.get(path, b"") if self._exists(path) else "ENOENT"

    def _get_perms(self, payload: bytes) -> bytes | str:
        return b"n0\0" if self._exists(self._path(payload)) else "ENOENT"

    def _watch(self, payload: bytes) -> bytes | str:
        parts = payload.split(b"\0")
        if len(parts) < 3:
            return "EINVAL"
        asked = parts[0].decode(errors="surrogateescape")
        absolute = asked if asked.startswith("@") else self._absolute(asked)
        if (absolute, asked, parts[1]) in self.watches:
            return "EEXIST"
        if len(self.watches) >= _MAX_WATCHES:
            return "E2BIG"
        self.watches.append((absolute, asked, parts[1]))
        self._events.append(parts[0] + b"\0" + parts[1] + b"\0")
        return b"OK\0"

    def _unwatch(self, payload: bytes) -> bytes | str:
        parts = payload.split(b"\0")
        row = (self._path(payload), parts[0].decode(errors="surrogateescape"), parts[1] if len(parts) > 1 else b"")
        if row not in self.watches:
            return "ENOENT"
        self.watches.remove(row)
        return b"OK\0"

    def _transaction_start(self, _: bytes) -> bytes:
        self._transactions += 1
        return b"%d\0" % self._transactions

    def _ok(self, _: bytes) -> bytes:
        return b"OK\0"

    def _write(self, payload: bytes) -> bytes | str:
        path, _, value = payload.partition(b"\0")
        absolute = self._absolute(path.decode(errors="surrogateescape"))
        if not absolute.startswith(self.home + "/"):
            return "EACCES"
        if absolute not in self.values and len(self.values) >= _MAX_NODES:
            return "ENOSPC"
        self.values[absolute] = value
        self._fire(absolute)
        return b"OK\0"

    def _mkdir(self, payload: bytes) -> bytes | str:
        path = self._path(payload)
        if not path.startswith(self.home + "/"):
            return "EACCES"
        if not self._exists(path):
            if len(self.values) >= _MAX_NODES:
                return "ENOSPC"
            self.values[path] = b""
            self._fire(path)
        return b"OK\0"

    def _rm(self, payload: bytes) -> bytes | str:
        path = self._path(payload)
        if not path.startswith(self.home + "/"):
            return "EACCES"
        for key in [key for key in self.values if key == path or key.startswith(path + "/")]:
            del self.values[key]
        self._fire(path)
        return b"OK\0"

    def _reset_watches(self, _: bytes) -> bytes:
        self.watches.clear()
        return b"OK\0"


_HANDLERS: dict[int, Callable[[Store, bytes], bytes | str]] = {
    abi.XS_DIRECTORY: Store._directory,
    abi.XS_READ: Store._read,
    abi.XS_GET_PERMS: Store._get_perms,
    abi.XS_WATCH: Store._watch,
    abi.XS_UNWATCH: Store._unwatch,
    abi.XS_TRANSACTION_START: Store._transaction_start,
    abi.XS_TRANSACTION_END: Store._ok,
    abi.XS_WRITE: Store._write,
    abi.XS_MKDIR: Store._mkdir,
    abi.XS_RM: Store._rm,
    abi.XS_SET_PERMS: Store._ok,
    abi.XS_RESET_WATCHES: Store._reset_watches,
}


class XenStore:
    """The ring's other end. ``page`` is its byte offset in machine memory."""

    def __init__(self, ram: Ram, page: int, store: Store, raise_event: Callable[[], None]) -> None:
        self._bytes, self._map, self._page = ram.bytes, ram.map, page
        self.store = store
        self._raise_event = raise_event
        self._replies = bytearray()

    def disconnect(self) -> None:
        """Let go of whoever listens."""
        self._raise_event = lambda: None

    def service(self) -> bool:
        """Answer what was asked; whether anything moved."""
        at = self._page + _INDEXES
        req_cons, req_prod, rsp_cons, rsp_prod = _FOUR.unpack_from(self._map, at)
        moved = False
        waiting = min((req_prod - req_cons) & 0xFFFFFFFF, _RING)
        if waiting and not self._replies:  # who does not take answers may not ask more
            data = bytes(self._bytes[self._page + _REQUEST + ((req_cons + i) & (_RING - 1))] for i in range(waiting))
            self._bytes[at : at + 4] = ((req_cons + waiting) & 0xFFFFFFFF).to_bytes(4, "little")
            self._replies += self.store.feed(data)
            moved = True
        used = (rsp_prod - rsp_cons) & 0xFFFFFFFF
        room = _RING - used if used <= _RING else 0
        take = bytes(self._replies[:room])
        if take:
            for i, byte in enumerate(take):
                self._bytes[self._page + _RESPONSE + ((rsp_prod + i) & (_RING - 1))] = byte
            del self._replies[: len(take)]
            self._bytes[at + 12 : at + 16] = ((rsp_prod + len(take)) & 0xFFFFFFFF).to_bytes(4, "little")
            moved = True
        if moved:
            self._raise_event()
        return moved
