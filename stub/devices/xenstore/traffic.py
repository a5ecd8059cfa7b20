"""What is said to XenStore and what it says, as lines to read: ``read device/vbd -> ENOENT``."""

from __future__ import annotations

from typing import Final

from stub.abi import xs_wire as abi

_MOST = 120  # characters of a payload that are shown
_NAMES: Final = {number: name.removeprefix("XS_").lower() for number, name in abi.XS_TYPES.items()}
_VALUES: Final = frozenset({abi.XS_READ, abi.XS_GET_DOMAIN_PATH, abi.XS_TRANSACTION_START})  # what they answer is one


def request_line(kind: int, transaction: int, asked: bytes, answered: int, answer: bytes) -> str:
    """A request and its answer; which transaction it is of, if of one."""
    path, _, rest = asked.partition(b"\0")
    words = [_NAMES.get(kind, f"type {kind}"), _plain(path)]
    if rest:
        words.append(_quoted(rest) if kind == abi.XS_WRITE else _list(rest))
    if transaction:
        words.append(f"in {transaction}")
    if answered == abi.XS_ERROR:
        result = _plain(answer.rstrip(b"\0"))
    elif answer == b"OK\0":
        result = "OK"
    else:
        result = _quoted(answer.removesuffix(b"\0")) if kind in _VALUES else _list(answer) or "nothing"
    return f"{' '.join(filter(None, words))} -> {result}"


def event_line(path: str, token: str) -> str:
    """A watch event, as the domain is told it."""
    return f"event {_plain(path.encode('latin-1'))} {_quoted(token.encode('latin-1'))}"


def _plain(data: bytes) -> str:
    text = data.decode("latin-1").encode("unicode_escape").decode("ascii")
    return text if len(text) <= _MOST else f"{text[:_MOST]}..."


def _quoted(data: bytes) -> str:
    return f'"{_plain(data)}"'


def _list(data: bytes) -> str:
    return _plain(data.rstrip(b"\0").replace(b"\0", b" "))
