"""A domain that talks to XenStore over the wire, and reads what comes back."""

from __future__ import annotations

import struct
from collections import Counter

from stub.abi import xs_wire as abi
from stub.devices.xenstore import Facts, Store, Wire, answer, limits, paths, populate
from stub.devices.xenstore.tree import listing

HEADER = struct.Struct("<4I")
DOMID = 1
HOME = f"/local/domain/{DOMID}"
SLACK = 1 << 18  # bytes that one request may pass the limit of its memory by
FACTS = Facts(
    domid=DOMID,
    name="guest",
    uuid="12345678-0000-0000-0000-000000000000",
    memory=65536,
    vcpus=2,
    epoch=1_700_000_000,
    kernel="vmlinuz",
    ramdisk="initrd",
    cmdline="quiet",
    store_mfn=77,
    store_port=1,
    console_mfn=78,
    console_port=2,
)


def message(kind: int, payload: bytes, number: int = 0, transaction: int = 0) -> bytes:
    """A request as it goes over the wire."""
    return HEADER.pack(kind, number, transaction, len(payload)) + payload


def messages(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """What came: (type, request, transaction, payload) each."""
    found = []
    while data:
        kind, number, transaction, length = HEADER.unpack_from(data)
        payload, data = data[16 : 16 + length], data[16 + length :]
        assert len(payload) == length
        found.append((kind, number, transaction, payload))
    return found


class Talk:
    """A store with one domain, as libxl leaves it. ``events`` are the watch events so far, as (path, token)."""

    def __init__(self) -> None:
        self.store = Store()
        populate(self.store, FACTS)
        self.wire = Wire(self.store, DOMID, answer)
        self.store.introduce(self.wire)
        self.dom0 = self.store.dom0
        self.events: list[tuple[bytes, bytes]] = []
        self._number = 100

    def say(self, data: bytes) -> list[tuple[int, int, int, bytes]]:
        """Send bytes; all messages that come, in their order. They are told apart by nobody."""
        assert self.wire.receive(data) == len(data)
        return messages(self.wire.take(1 << 24))

    def ask(self, kind: int, payload: bytes | str, transaction: int = 0) -> bytes | str:
        """The answer's payload, or the name of the error."""
        data = payload.encode("latin-1") if isinstance(payload, str) else payload
        self._number += 1
        answers = []
        for found in self.say(message(kind, data, self._number, transaction)):
            if found[0] == abi.XS_WATCH_EVENT:
                self._event(found)
            else:
                answers.append(found)
        ((came, number, tx, answered),) = answers
        assert (number, tx) == (self._number, transaction)
        if came == abi.XS_ERROR:
            word = answered.decode()
            assert word[-1] == "\0"
            assert word[:-1] in abi.XSD_ERRORS
            return word[:-1]
        assert came == kind
        return answered

    def _event(self, found: tuple[int, int, int, bytes]) -> None:
        assert found[1:3] == (0, 0)
        path, token, rest = found[3].split(b"\0")
        assert not rest
        self.events.append((path, token))

    def told(self) -> list[tuple[str, str]]:
        """The events since the last time, those that nobody asked for too."""
        for found in messages(self.wire.take(1 << 24)):
            assert found[0] == abi.XS_WATCH_EVENT
            self._event(found)
        told, self.events = self.events, []
        return [(path.decode(), token.decode()) for path, token in told]

    # -- one line each

    def read(self, path: str, transaction: int = 0) -> bytes | str:
        return self.ask(abi.XS_READ, path + "\0", transaction)

    def write(self, path: str, value: str, transaction: int = 0) -> bytes | str:
        return self.ask(abi.XS_WRITE, path + "\0" + value, transaction)

    def directory(self, path: str, transaction: int = 0) -> bytes | str:
        return self.ask(abi.XS_DIRECTORY, path + "\0", transaction)

    def mkdir(self, path: str, transaction: int = 0) -> bytes | str:
        return self.ask(abi.XS_MKDIR, path + "\0", transaction)

    def rm(self, path: str, transaction: int = 0) -> bytes | str:
        return self.ask(abi.XS_RM, path + "\0", transaction)

    def watch(self, path: str, token: str) -> bytes | str:
        return self.ask(abi.XS_WATCH, path + "\0" + token + "\0")

    def unwatch(self, path: str, token: str) -> bytes | str:
        return self.ask(abi.XS_UNWATCH, path + "\0" + token + "\0")

    def permissions(self, path: str) -> bytes | str:
        return self.ask(abi.XS_GET_PERMS, path + "\0")

    def allow(self, path: str, *entries: str) -> bytes | str:
        return self.ask(abi.XS_SET_PERMS, "".join(text + "\0" for text in (path, *entries)))

    def begin(self) -> int:
        answered = self.ask(abi.XS_TRANSACTION_START, "\0")
        assert isinstance(answered, bytes)
        return int(answered[:-1])

    def end(self, transaction: int, how: str = "T") -> bytes | str:
        return self.ask(abi.XS_TRANSACTION_END, how + "\0", transaction)


def sound(talk: Talk) -> None:
    """What must hold of a store whatever was asked: each node hangs where it should, and all is counted right."""
    store, wire = talk.store, talk.wire
    reached = dict(listing(store.tree, "/"))
    assert len(reached) == len(store.tree), "a node that no directory has"
    owned: Counter[int] = Counter()
    memory: Counter[int] = Counter()
    generations = set()
    for path, node in reached.items():
        names = node.names()
        assert len(set(names)) == len(names)
        assert all(paths.child(path, name) in reached for name in names)
        owned[node.owner] += 1
        memory[node.owner] += node.size + len(path)
        generations.add(node.generation)
    assert len(generations) == len(reached)
    assert +store.tree.owned == owned
    assert +store.tree.memory == memory
    assert owned[DOMID] <= limits.NODES
    assert len(wire.watches) <= limits.WATCHES + 1
    assert len(wire.transactions) <= limits.TRANSACTIONS + 1
    assert wire._outstanding <= limits.OUTSTANDING
    assert store.memory_of(DOMID) < limits.MEMORY + SLACK
    assert wire._out_bytes == sum(len(waiting.data) for waiting in wire._out)
    assert wire.pending or not wire._outstanding
