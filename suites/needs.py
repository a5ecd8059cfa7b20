"""Which small guests, or variations of them, need what not every engine can do (docs/engines.md, ``pv_needs``)."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from harness.small_guests import Variation

_NEEDS = {
    "callgates-ldt": "segments",
    "xsave": "avx",
}


def need_of(variation: Variation) -> str | None:
    """The ability that a variation needs; None for one that runs on every engine."""
    test = variation.folder.name
    return _NEEDS.get(f"{test}-{variation.name}", _NEEDS.get(test))


def each(variations: Iterable[Variation]) -> pytest.MarkDecorator:
    """Runs a test once for each ``variation``, by the variation's id and with its needs."""
    return pytest.mark.parametrize("variation", [pytest.param(one, id=one.id, marks=_marks(one)) for one in variations])


def _marks(variation: Variation) -> list[pytest.MarkDecorator]:
    need = need_of(variation)
    return [pytest.mark.pv_needs(need)] if need else []
