"""In these tests a guest without an image is the one of ``guest/``; ``client`` is each of the two debuggers in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from clients import Client, GdbClient, RawClient
from own_guest import MEMORY, build, symbols

from harness.guests import Guest, GuestSpec, ImageLaunch
from harness.machine import Launch


@pytest.fixture
def pv_launch() -> Callable[[GuestSpec], Launch]:
    """Our own guest, where no image is named."""

    def launch(spec: GuestSpec) -> Launch:
        return ImageLaunch(spec if spec.image else spec.changed(image=build(), memory=spec.memory or MEMORY))

    return launch


@pytest.fixture
def at() -> Mapping[str, int]:
    """Name → address in our own guest."""
    return symbols()


@pytest.fixture(params=["raw", "gdb"])
def client(request: pytest.FixtureRequest, guest: Guest) -> Client:
    """A debugger attached to ``guest``: our own, then a real gdb."""
    if request.param == "raw":
        return RawClient(request.getfixturevalue("debugger"))
    return GdbClient(request.getfixturevalue("gdb"))
