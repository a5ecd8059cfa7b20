"""Names of nodes: what is one, and how they hang together (is_valid_nodename, xenstored_core.c).

A path is text of which each character is one byte (latin-1), as it comes over the wire.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from stub.abi.xs_wire import XENSTORE_REL_PATH_MAX

_NAME = re.compile(r"/(?:[A-Za-z0-9@_-]+(?:/[A-Za-z0-9@_-]+)*)?")
_HOME = re.compile(r"/local/domain/[0-9]{1,5}/")


def home_of(domid: int) -> str:
    """The directory that a domain's relative paths begin at."""
    return f"/local/domain/{domid}"


def is_valid(path: str) -> bool:
    """Whether ``path`` may name a node: absolute, no empty part, at most 2048 characters below a domain's home."""
    home = _HOME.match(path)
    return len(path) <= XENSTORE_REL_PATH_MAX + (home.end() if home else 0) and _NAME.fullmatch(path) is not None


def absolute(path: str, home: str) -> str:
    """``path`` as it is if it begins with / or @, else below ``home``."""
    return path if path.startswith(("/", "@")) else f"{home}/{path}"


def parent(path: str) -> str:
    """The directory that a node is in; the root is in itself."""
    return path[: path.rfind("/")] or "/"


def name(path: str) -> str:
    """The last part; empty for the root."""
    return path[path.rfind("/") + 1 :]


def child(path: str, base: str) -> str:
    """The node called ``base`` in ``path``."""
    return f"{path}/{base}" if path != "/" else f"/{base}"


def is_below(path: str, top: str) -> bool:
    """Whether ``path`` is ``top`` or a node below it."""
    return top == "/" or path == top or path.startswith(top + "/")


def ancestors(path: str) -> Iterator[str]:
    """The directories above a node, the nearest first; the root comes last."""
    while path != "/":
        path = parent(path)
        yield path
