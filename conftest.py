"""For all suites: pytester, with which the plugin's own tests run pytest; and signals as they are at a terminal."""

from __future__ import annotations

import signal

pytest_plugins = ["pytester"]


def pytest_configure() -> None:
    """A shell ignores SIGINT for what runs in its background, nohup SIGHUP, and guests and gdb would inherit that."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
