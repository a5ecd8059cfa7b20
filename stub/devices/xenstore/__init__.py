"""XenStore: the tree of small values that a domain, its toolstack and its back ends talk through.

What is where: ``store`` is the tree and what may be done with it; ``wire`` and ``requests`` a domain's conversation,
``ring`` the page that it goes through; ``dom0`` the same store for tests and back ends, by plain calls; ``toolstack``
what libxl writes for a new domain. It answers as xenstored of Xen 4.17 does, but for its limit on the rate of writes,
which goes by the wall clock.
"""

from __future__ import annotations

from stub.devices.xenstore.clients import Watch
from stub.devices.xenstore.dom0 import Dom0
from stub.devices.xenstore.limits import StoreError
from stub.devices.xenstore.requests import answer
from stub.devices.xenstore.ring import Ring
from stub.devices.xenstore.store import Store
from stub.devices.xenstore.toolstack import Facts, populate
from stub.devices.xenstore.wire import Wire

__all__ = ["Dom0", "Facts", "Ring", "Store", "StoreError", "Watch", "Wire", "answer", "populate"]
