"""XenStore, as ``xenstore-ls -fp`` shows it: ``xen xenstore``."""

from __future__ import annotations

from stub.devices.xenstore import Store, paths
from stub.devices.xenstore.permissions import show as permissions
from stub.devices.xenstore.tree import listing
from stub.gdb.monitor import show
from stub.gdb.monitor.context import Context
from stub.gdb.monitor.faults import MonitorError
from stub.gdb.monitor.registry import command
from stub.gdb.monitor.values import text
from stub.trace.styles import quote


@command(
    "xen xenstore [PATH]",
    "a node of XenStore and all below it, with permissions and watches; the domain's home without a path",
    {"PATH": text},
)
def xenstore(context: Context, path: str = "") -> str:
    """A path that does not begin with / is looked for in the domain's home."""
    ring = context.xen.xenstore
    home = ring.wire.home
    top = (paths.absolute(path, home) if path else home).rstrip("/") or "/"
    rows = [
        (found, _shown(node.value), f"({permissions(node.permissions)})")
        for found, node in listing(ring.store.tree, top)
    ]
    if not rows:
        raise MonitorError(f"{top}: there is no such node")
    return show.columns(rows, indent="") + show.columns(_watches(ring.store, top), indent="")


def _watches(store: Store, top: str) -> list[tuple[str, str, str]]:
    """Who watches a node there, in the order in which they are told."""
    return [
        (f"watch {watch.asked}", f"token {_shown(watch.token.encode('latin-1'))}", f"domain {client.domid}")
        for client in store.clients
        for watch in client.watches
        if paths.is_below(watch.path, top) or (top == "/" and watch.path.startswith("@"))
    ]


def _shown(value: bytes) -> str:
    return quote(value.decode(errors="backslashreplace"))
