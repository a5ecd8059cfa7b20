"""Which variations of small guests need what not every engine can do (docs/engines.md, ``pv_needs``)."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from _pytest.mark import ParameterSet

from harness.small_guests import Variation

_NEEDS = {
    "cpuid-both_ways": "cpuid",
    "cpuid-xen": "cpuid",
    "cpuid-hidden": "cpuid",
    "hidden-long_mode": "cpuid",
    "callgates-ldt": "segments",
}


def marked(variations: Iterable[Variation]) -> list[ParameterSet]:
    """Parameters of a test, each with the variation's id and its needs."""
    return [
        pytest.param(
            variation,
            id=variation.id,
            marks=[
                pytest.mark.pv_needs(need)
                for name, need in _NEEDS.items()
                if name == f"{variation.folder.name}-{variation.name}"
            ],
        )
        for variation in variations
    ]
