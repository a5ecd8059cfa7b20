"""A domain's view of physical interrupts, of which a domU has none (xen/arch/x86/irq.c, get_free_pirq)."""

from __future__ import annotations

from stub.abi.physdev import MAP_PIRQ_TYPE_GSI

GSIS = 24  # nr_irqs_gsi: the pins of one I/O APIC
PIRQS = GSIS + 32  # extra_domU_irqs
_FIRST_FREE_GSI = 16


class Pirqs:
    """``allocated`` are the numbers that the domain asked for, ``eoi_page`` the MFN of its EOI page (0: none)."""

    def __init__(self) -> None:
        self.allocated: set[int] = set()
        self.eoi_page = 0

    def allocate(self, kind: int) -> int | None:
        """A free number for an interrupt of a MAP_PIRQ_TYPE_*; None where there is no more."""
        gsis = range(_FIRST_FREE_GSI, GSIS) if kind == MAP_PIRQ_TYPE_GSI else range(0)
        free = (number for number in (*gsis, *range(PIRQS - 1, GSIS - 1, -1)) if number not in self.allocated)
        found = next(free, None)
        if found is not None:
            self.allocated.add(found)
        return found
