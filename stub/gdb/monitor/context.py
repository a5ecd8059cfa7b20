"""What a monitor command may look at: the machine, names for addresses, and what others hang in for their commands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stub.gdb.points import Points
    from stub.hypervisor.xen import Hypervisor
    from stub.machine import Machine


_NEAR = 1 << 20  # bytes behind a symbol that may still be its own


def _no_address(_: str) -> int | None:
    return None


def _no_name(_: int) -> tuple[str, int] | None:
    return None


@dataclass
class Names:
    """Symbols both ways. ``address_of(name)``; ``name_of(address)``: the symbol at or below it, and the distance."""

    address_of: Callable[[str], int | None] = _no_address
    name_of: Callable[[int], tuple[str, int] | None] = _no_name


@dataclass
class Context:
    """``points``: what the commands work on that set stop points and what is kept of the run."""

    machine: Machine
    symbols: Names = field(default_factory=Names)
    points: Points | None = None

    @property
    def xen(self) -> Hypervisor:
        """The hypervisor of the guest as it is now; another one after a restart."""
        return self.machine.xen

    def label(self, address: int) -> str:
        """``0xffffffff81000000 <name+0x10>``, or the bare address where no symbol is near."""
        found = self.symbols.name_of(address) or self.xen.domain.image.symbols().find(address)
        if found is None or found[1] >= _NEAR:
            return f"{address:#x}"
        name, distance = found
        return f"{address:#x} <{name}+{distance:#x}>" if distance else f"{address:#x} <{name}>"
