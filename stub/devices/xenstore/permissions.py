"""Who may read and change a node (tools/xenstore/include/xenstore_lib.h, xs_lib.c).

A node has a list: the first entry names the owner, who may do all, and what everybody else may do; each further one
says what one domain may do instead. As text an entry is a letter and a domain's number: ``n0``, ``r1``.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from typing import Final, NamedTuple

from stub.devices.xenstore.limits import StoreError

READ: Final = 1
WRITE: Final = 2
OWNER: Final = 8
ALL: Final = READ | WRITE | OWNER

_LETTERS: Final = {"n": 0, "r": READ, "w": WRITE, "b": READ | WRITE}
_SHOWN: Final = {rights: letter for letter, rights in _LETTERS.items()}
_NUMBER = re.compile(r"[ \t\n\v\f\r]*([+-]?)(?:0[xX]([0-9a-fA-F]+)|(0[0-7]*)|([1-9][0-9]*))")
_LONG_MAX = (1 << 63) - 1


class Permission(NamedTuple):
    """One entry. ``ignored``: there was no such domain when it was set, so that no later one of that number gets it."""

    domid: int
    rights: int
    ignored: bool = False

    def __str__(self) -> str:
        domid = self.domid - (1 << 32) if self.domid >> 31 else self.domid
        return f"{_SHOWN[self.rights]}{domid}"


Permissions = tuple[Permission, ...]


def rights_of(permissions: Permissions, domid: int) -> int:
    """What an unprivileged domain may do (perm_for_conn)."""
    if permissions[0].domid == domid:
        return ALL
    for entry in permissions[1:]:
        if entry.domid == domid and not entry.ignored:
            return entry.rights
    return permissions[0].rights


def parse(entries: Iterable[str], domains: Container[int]) -> Permissions:
    """Permissions from their text. StoreError EINVAL for what is none; ``domains`` are those that there are."""
    found = []
    for text in entries:
        number = _NUMBER.fullmatch(text, 1)
        if text[:1] not in _LETTERS or number is None:
            raise StoreError("EINVAL")
        sign, hexadecimal, octal, decimal = number.groups()
        value = int(hexadecimal, 16) if hexadecimal else int(octal, 8) if octal else int(decimal)
        value = max(-value, -_LONG_MAX - 1) if sign == "-" else min(value, _LONG_MAX)
        value &= 0xFFFFFFFF
        found.append(Permission(value, _LETTERS[text[0]], value not in domains))
    return tuple(found)


def show(permissions: Permissions) -> str:
    """``n0,r1``"""
    return ",".join(map(str, permissions))
