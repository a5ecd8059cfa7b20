"""For all suites: pytester, with which the plugin's own tests run pytest; and SIGINT as it is at a terminal."""

from __future__ import annotations

import signal

pytest_plugins = ["pytester"]


def pytest_configure() -> None:
    """A shell ignores SIGINT for what runs in its background, and guests and gdb would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
