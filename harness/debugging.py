"""A guest of a test under a debugger: the GDB server beside the test, on a unix socket in the run's folder.

The server has a thread of its own, and while a debugger is attached only that runs the guest: a test that reads the
console then is told so. With nobody attached the guest is the test's again.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from stub.errors import UsageError

if TYPE_CHECKING:
    from stub.gdb.server import Server
    from stub.machine import Machine

    from .guests import Guest

_PATIENCE = 60.0  # seconds for the loop to end
_GOODBYE = 0.5  # seconds


class DebugServer:
    """Serves one guest until it is closed. ``address`` is what a debugger connects to."""

    def __init__(self, guest: Guest, symbols: Path | None = None) -> None:
        from stub.gdb.server import Server
        from stub.gdb.target import MachineTarget
        from stub.machine import Machine

        machine = guest.machine
        if not isinstance(machine, Machine):
            raise UsageError("a debugger needs a guest of pvstub's own: pv_launch made another")
        self.machine: Machine = machine
        self._folder = tempfile.mkdtemp(prefix="pvgdb-")  # a short path: a unix socket's has 107 bytes
        self.target = MachineTarget(machine, symbols)
        self._server: Server = Server(self.target, f"unix:{self._folder}/s", on_detach="stop")
        self.address = self._server.remote
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, name="gdb server", daemon=True)
        machine.lent = self._driver
        self._thread.start()

    def _serve(self) -> None:
        try:
            self._server.serve_until(lambda: self._closing)
        except BaseException as error:  # noqa: BLE001 - it is raised again where the test can see it
            self._failure = error
            self._server.close()  # so that a client that waits is not left waiting

    _closing = False

    def _driver(self) -> str | None:
        if threading.current_thread() is self._thread:
            return None
        end = time.monotonic() + _GOODBYE  # one that just detached may still be on its way out
        while self._server.attached and time.monotonic() < end:
            time.sleep(0.002)
        return "a debugger" if self._server.attached else None

    def close(self) -> None:
        """End the server; the guest stays where it is. What went wrong in it is raised here."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._server.stop()
        self._thread.join(_PATIENCE)
        stuck = self._thread.is_alive()
        if not stuck:
            self._server.close()
            self.machine.lent = lambda: None
            self.target.let_go()
            with contextlib.suppress(OSError):
                os.rmdir(self._folder)
        if self._failure is not None:
            raise self._failure
        if stuck:
            raise TimeoutError(f"the gdb server did not end within {_PATIENCE:g} s")

    def __enter__(self) -> DebugServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def symbols_of(guest: Guest) -> Path | None:
    """A file with the symbols of a guest's kernel; None if none can be had."""
    from .symbols import executable

    kernel = getattr(guest.launch, "kernel", None)
    return None if kernel is None else executable(kernel)
