"""XenStore from a test: the running guest's store, with domain 0's rights.

A path that does not begin with / is below the guest's home, /local/domain/N. Values are text (UTF-8, with U+FFFD for
what is not). Only ``wait`` and ``wait_for_change`` run the guest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stub.devices.xenstore import Dom0, Watch, paths
from stub.devices.xenstore.tree import listing
from stub.errors import UsageError

from .machine import NS_PER_SECOND

if TYPE_CHECKING:
    from stub.machine import Machine

    from .guests import Guest

_SHOWN = 10
Wanted = str | Callable[[str | None], object] | None


class XenStoreTimeout(AssertionError):
    """The virtual deadline passed, or the guest's run ended, and the store was not as the test waits for."""


class Changes(list[str]):
    """The paths of all changes at a watched path and below since it was asked for, in their order."""


class XenStore:
    """The store of one guest. ``timeout`` is the default of its waits, in virtual seconds."""

    def __init__(self, machine: Callable[[], Machine], timeout: float) -> None:
        self._machine = machine
        self._timeout = timeout

    @classmethod
    def of(cls, guest: Guest, timeout: float) -> XenStore:
        """That of a guest, which is started by the first question if it has not been before."""

        def machine() -> Machine:
            from stub.machine import Machine

            found = guest.machine
            if not isinstance(found, Machine):
                raise UsageError("XenStore is of a guest of pvstub's own: pv_launch made another")
            return found

        return cls(machine, timeout)

    # -- now -------------------------------------------------------------------------------------------------------

    @property
    def dom0(self) -> Dom0:
        """The store as back ends use it: values as bytes, callbacks."""
        return self._machine().xen.xenstore.store.dom0

    @property
    def home(self) -> str:
        """The guest's own directory."""
        return self._machine().xen.xenstore.wire.home

    def path(self, path: str) -> str:
        """The absolute path that is meant; the guest's home for an empty one."""
        return paths.absolute(path, self.home).rstrip("/") or "/"

    def read(self, path: str) -> str | None:
        """A node's value; None if there is no such node."""
        value = self.dom0.read(self.path(path))
        return None if value is None else value.decode(errors="replace")

    def write(self, path: str, value: str | bytes | int, permissions: str | None = None) -> None:
        """Give a node a value, as domain 0; the guest sees it when it next runs. ``permissions``: ``n1,r0``."""
        self.dom0.write(self.path(path), value, permissions)

    def rm(self, path: str) -> None:
        """Take a node away with all below it."""
        self.dom0.rm(self.path(path))

    def list(self, path: str = "") -> list[str]:
        """The names of a node's children."""
        return self.dom0.list(self.path(path))

    def permissions(self, path: str) -> str | None:
        """``n0,r1``: the owner and what others may, then what one domain may; None if there is no such node."""
        return self.dom0.permissions(self.path(path))

    def tree(self, path: str = "") -> dict[str, str]:
        """All values at a path and below, by their path relative to it ("" is its own)."""
        top = self.path(path)
        found = listing(self._machine().xen.xenstore.store.tree, top)
        skip = len(top) + (top != "/")
        return {node[skip:]: here.value.decode(errors="replace") for node, here in found}

    def watches(self) -> dict[str, str]:
        """What the guest watches: its tokens by the path as it gave it."""
        return {watch.asked: watch.token for watch in self._machine().xen.xenstore.wire.watches}

    # -- later -----------------------------------------------------------------------------------------------------

    @contextmanager
    def changes(self, path: str = "") -> Iterator[Changes]:
        """Note each change at a path and below while the block lasts."""
        seen = Changes()
        watch = self._watch(path, seen.append)
        seen.clear()  # the first call is of the watch itself
        try:
            yield seen
        finally:
            self.dom0.unwatch(watch)

    def wait(self, path: str, wanted: Wanted = None, timeout: float | None = None) -> str | None:
        """Run the guest until a node's value is ``wanted``; the value.

        ``wanted`` is a text, or a function that is given the value (None where no node is); without it, any value will
        do. XenStoreTimeout after ``timeout`` virtual seconds, or when the guest's run ends before.
        """
        __tracebackhide__ = True

        def right() -> bool:
            value = self.read(path)
            return bool(wanted(value)) if callable(wanted) else value is not None if wanted is None else value == wanted

        if not self._run_until(path, right, timeout):
            shown = "a value" if wanted is None else getattr(wanted, "__name__", repr(wanted))
            raise XenStoreTimeout(self._story(path, f"did not come to be {shown}"))
        return self.read(path)

    def wait_for_change(self, path: str = "", timeout: float | None = None) -> str:
        """Run the guest until something changes at a path or below, also if the value stays; the path that did."""
        __tracebackhide__ = True
        with self.changes(path) as seen:
            if not self._run_until(path, lambda: bool(seen), timeout):
                raise XenStoreTimeout(self._story(path, "did not change"))
            return seen[0]

    def _watch(self, path: str, callback: Callable[[str], object]) -> Watch:
        return self.dom0.watch(self.path(path), callback)

    def _run_until(self, path: str, right: Callable[[], bool], timeout: float | None) -> bool:
        machine = self._machine()
        watch = self._watch(path, lambda _: machine.prompt())
        try:
            seconds = self._timeout if timeout is None else timeout
            if not right():
                machine.run(deadline_ns=machine.now_ns + round(seconds * NS_PER_SECOND), until=right)
            return right()
        finally:
            self.dom0.unwatch(watch)

    def _story(self, path: str, what: str) -> str:
        machine, top = self._machine(), self.path(path)
        verdict = machine.verdict
        value = self.read(path)
        state = f"ended: {verdict.kind}: {verdict.reason}" if verdict else "is still running"
        lines = [
            f"{top} {what}: it is {'not there' if value is None else repr(value)}",
            f"the guest {state}; virtual time {machine.now_ns / NS_PER_SECOND:.3f} s",
        ]
        beside = self.tree(paths.parent(top)) if top != "/" else {}
        shown = [f"  {name} = {text!r}" for name, text in list(beside.items())[1 : _SHOWN + 1]]
        return "\n".join([*lines, *([f"in {paths.parent(top)}:", *shown] if shown else [])])
