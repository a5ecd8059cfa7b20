"""The table of packets: name → handler, filled by the family files, duplicates refused.

A packet's name is its first letter; of those that begin with q, Q or v, the whole word, and of ``qXfer``, ``qSearch``
and ``vFile`` the words behind it, too, as the manual writes them (``qXfer:features:read``). A handler takes the session
and what follows the name; it returns the answer, or None where there is none yet (``c``) or ever (``k``).
What ``qSupported`` claims stands beside the handlers that make it true.
"""

from __future__ import annotations

import re
from binascii import hexlify
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from stub.gdb.session import Session

Handler = Callable[["Session", bytes], "bytes | None"]
Condition = Callable[["Session"], bool]
_AnyHandler = TypeVar("_AnyHandler", bound=Handler)

_WORDY = frozenset({b"q", b"Q", b"v"})
_WORD = re.compile(rb"[A-Za-z.]+").match


class BadRequest(Exception):
    """A packet whose arguments cannot be read; the text says what is wrong."""


@dataclass(frozen=True)
class Row:
    """``claims``: features for qSupported, with their ``+``; ``when``: where they are true at all.

    ``running``: may be sent while the guest runs.
    """

    name: bytes
    handler: Handler
    claims: tuple[str, ...] = ()
    when: Condition | None = None
    running: bool = False


class Registry:
    """Rows by name."""

    def __init__(self) -> None:
        self.rows: dict[bytes, Row] = {}
        self._depths: dict[bytes, int] = {}  # first word → how many more belong to the name

    def packet(
        self, name: str, *claims: str, when: Condition | None = None, running: bool = False
    ) -> Callable[[_AnyHandler], _AnyHandler]:
        """Register the decorated function for packets of this name."""
        key = name.encode()
        head, *more = key.split(b":")

        def register(handler: _AnyHandler) -> _AnyHandler:
            if key in self.rows:
                raise ValueError(f"packet {name} has two handlers")
            if self._depths.setdefault(head, len(more)) != len(more):
                raise ValueError(f"packet {name}: other packets of its name have another number of words")
            self.rows[key] = Row(key, handler, claims, when, running)
            return handler

        return register

    def find(self, packet: bytes) -> tuple[Row | None, bytes]:
        """The row for a packet, and what follows its name; None if we know no such packet."""
        first = packet[:1]
        if first not in _WORDY:
            return self.rows.get(first), packet[1:]
        match = _WORD(packet)
        assert match is not None
        name, end = match[0], match.end()
        for _ in range(self._depths.get(name, 0)):
            following = packet.find(b":", end + 1)
            end = len(packet) if following < 0 else following
            name = packet[:end]
        row = self.rows.get(name)
        return row, packet[end:].removeprefix(b":") if row is not None else b""

    def claims(self, session: Session) -> Iterator[str]:
        """What qSupported may say."""
        for row in self.rows.values():
            if row.when is None or row.when(session):
                yield from row.claims


REGISTRY = Registry()
packet = REGISTRY.packet


def number(text: bytes) -> int:
    """A hexadecimal number of at most 64 bits."""
    if not text.isalnum() or len(text) > 16:
        raise BadRequest("a number is missing or too long")
    try:
        return int(text, 16)
    except ValueError:
        raise BadRequest("a number is not hexadecimal") from None


def pair(text: bytes) -> tuple[int, int]:
    """Two numbers with a comma between them: mostly an address and a length."""
    first, _, second = text.partition(b",")
    return number(first), number(second)


def threads(text: bytes, count: int) -> tuple[int, ...]:
    """The threads that a packet names, of ``count``: one, or with 0 or -1 all."""
    if text in (b"0", b"-1"):
        return tuple(range(1, count + 1))
    if text.isalnum() and number(text) in range(1, count + 1):
        return (number(text),)
    raise BadRequest("there is no such thread")


def unhex(text: bytes) -> bytes:
    """Bytes from their hexadecimal digits."""
    try:
        return bytes.fromhex(text.decode("ascii"))
    except ValueError:
        raise BadRequest("the data is not hexadecimal") from None


def hexed(data: bytes) -> bytes:
    """Hexadecimal digits of bytes."""
    return hexlify(data)


__all__ = ["REGISTRY", "BadRequest", "Registry", "Row", "hexed", "number", "packet", "pair", "threads", "unhex"]
