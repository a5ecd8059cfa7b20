"""What a client may use of XenStore, and how it is refused (xenstored's quotas, tools/xenstore/xenstored_core.c)."""

from __future__ import annotations

from typing import Final

from stub.errors import PvstubError

# Quotas of an unprivileged domain. Where xenstored compares with "more than", one more is let through.
NODES: Final = 1000  # that it owns
NODE_SIZE: Final = 2048  # bytes of value, children's names, permissions and header: a node must be smaller
WATCHES: Final = 128
TRANSACTIONS: Final = 10  # open at once
TRANSACTION_NODES: Final = 1024  # looked at or changed in one transaction
PERMISSIONS: Final = 5  # of a node
OUTSTANDING: Final = 20  # requests whose answer, or an event that they caused, has not been taken
MEMORY: Final = 5 << 19  # bytes of nodes, watches, transactions and answers together

NODE_HEADER: Final = 24  # struct xs_tdb_record_hdr
PERMISSION_SIZE: Final = 8  # struct xs_permissions


class StoreError(PvstubError):
    """A refusal. ``word`` is the error's name as it travels (``ENOENT``), ``path`` what it was about."""

    def __init__(self, word: str, path: str = "") -> None:
        super().__init__(f"{path}: {word}" if path else word)
        self.word = word
        self.path = path
