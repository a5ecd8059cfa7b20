"""Each image of the catalogue on both engines: the same console and the same log, each byte and each time in them."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from harness import catalogue
from harness.guests import Guest
from suites.engines.both import COMMON, runs_the_same

pytestmark = pytest.mark.pv_limits(memory=512)


class Stock(NamedTuple):
    """An image, and how far it is run: to its end, or to what it ``prints``."""

    image: str
    prints: str = ""
    parameters: dict[str, Any] = {}  # noqa: RUF012


LINUX = {"memory": 128}
STOCK = [
    Stock("debian-cloud", parameters=LINUX),
    Stock("debian-cloud-6.12", parameters=LINUX),
    Stock("debian-amd64", parameters=LINUX),
    Stock("debian-disk", parameters=LINUX),
    Stock("grub-xen64", "\rgrub> "),
    Stock("grub-xen32", "\rgrub> "),
    Stock("gnumach64"),
    Stock("gnumach32"),
    Stock("gnumach64", parameters={"compat": "xen-3"}),
    Stock("gnumach32", parameters={"compat": "xen-3"}),
    Stock("unix64"),
    Stock("unix32"),
]


def ran(stock: Stock, guest: Guest) -> Guest:
    """A guest with the image, as far as it is to go."""
    made = guest(stock.image, cpuid=COMMON, **stock.parameters)
    if stock.prints:
        made.console.expect_exact(stock.prints)
    else:
        made.wait("poweroff")
    return made


def test_none_is_left_out() -> None:
    assert {stock.image for stock in STOCK} == set(catalogue.names())


@pytest.mark.parametrize("stock", STOCK, ids=lambda stock: stock.image + stock.parameters.get("compat", ""))
def test_an_image_runs_the_same(stock: Stock, guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    runs_the_same(lambda: ran(stock, guest), monkeypatch)
