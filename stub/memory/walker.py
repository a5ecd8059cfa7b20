"""The walk through page tables of any format, over any memory: one address, level by level.

It is pure: it reads tables by :class:`Tables` and changes nothing. All that a root maps is ``mappings.py``'s, all that
maps a frame is ``forest.py``'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from stub.memory import entries as e
from stub.memory.formats import Bools, Format, I64s, U64s, offset_in_page
from stub.units import PAGE_SHIFT


class Tables(Protocol):
    """Memory in which tables lie. ``frames``: how many machine frames there are; an entry may name one beyond."""

    @property
    def frames(self) -> int: ...

    def pages(self, mfns: I64s) -> U64s:
        """The content of frames that are there, 512 words a row; the caller may change it."""

    def there(self, mfns: I64s) -> Bools:
        """Which frames' content can be read."""


@dataclass(frozen=True)
class FrameArray:
    """Tables in an array of all frames, 512 words a row, as :class:`stub.memory.ram.Ram` has one."""

    table: U64s

    @property
    def frames(self) -> int:
        """How many frames there are."""
        return len(self.table)

    def pages(self, mfns: I64s) -> U64s:
        """See :class:`Tables`."""
        return self.table[mfns]

    def there(self, mfns: I64s) -> Bools:
        """See :class:`Tables`."""
        return mfns < len(self.table)


@dataclass(frozen=True)
class Renumbered:
    """Tables whose entries name frames by other numbers: ``numbers[n]`` is the frame in ``memory`` of a number ``n``.

    A loader's tables may hold PFNs; with the P2M as ``numbers``, a walk reads them, and what it finds are PFNs.
    """

    memory: Tables
    numbers: I64s

    @property
    def frames(self) -> int:
        """How many numbers there are."""
        return len(self.numbers)

    def pages(self, mfns: I64s) -> U64s:
        """See :class:`Tables`."""
        return self.memory.pages(self.numbers[mfns])

    def there(self, mfns: I64s) -> Bools:
        """See :class:`Tables`."""
        inside = mfns < len(self.numbers)
        real = self.numbers[np.where(inside, mfns, 0)] if len(self.numbers) else np.full(len(mfns), -1)
        return inside & (real >= 0) & self.memory.there(real)


# -- one address


@dataclass(frozen=True)
class Step:
    """One level of a walk: the entry ``slot`` of ``table`` (a frame), and the frame it names."""

    level: int
    table: int
    slot: int
    entry: int
    target: int


@dataclass(frozen=True)
class Walk:
    """A translation: its steps, the root's first. ``why`` it ends early; "" when it leads to a page."""

    format: Format
    vaddr: int
    steps: tuple[Step, ...]
    why: str = ""

    @property
    def found(self) -> bool:
        """Whether the address is mapped."""
        return not self.why

    @property
    def size(self) -> int:
        """Of the page, in bytes."""
        return self.format.level(self.steps[-1].level).span

    @property
    def maddr(self) -> int:
        """The machine address that the address translates to."""
        return (self.steps[-1].target << PAGE_SHIFT) + (self.vaddr & self.size - 1)

    @property
    def rights(self) -> int:
        """P, RW and US where all levels have them, NX where any has it."""
        both, nx = e.P | e.RW | e.US, 0
        for step in self.steps:
            if self.format.level(step.level).rights:
                both &= step.entry
                nx |= step.entry & e.NX if self.format.execute_disable else 0
        return both | nx

    @property
    def access(self) -> str:
        """``user``, ``kernel`` or ``Xen``, then r, w and x; "" for an address that is not mapped."""
        return access_words(self.format, self.rights, self.steps[-1].entry) if self.found else ""


def owner_of(fmt: Format, rights: int, entry: int) -> str:
    """Whose code may use a page, as the guest meant it: Xen's mark tells the kernel's pages where there is one."""
    if not fmt.marks_kernel:
        return "user" if rights & e.US else "kernel"
    return "Xen" if not rights & e.US else "kernel" if entry & e.GUEST_KERNEL else "user"


def access_words(fmt: Format, rights: int, entry: int) -> str:
    """Whose page it is, and what may be done with it."""
    write, execute = "w" if rights & e.RW else "-", "-" if rights & e.NX else "x"
    return f"{owner_of(fmt, rights, entry)} r{write}{execute}"


def walk(memory: Tables, fmt: Format, root: int, vaddr: int) -> Walk:
    """Translate ``vaddr`` from the table at machine address ``root`` (a value of CR3)."""
    steps: list[Step] = []
    mfn, offset = fmt.root(root) >> PAGE_SHIFT, offset_in_page(fmt, root)
    for level in fmt.levels:
        here = np.array([mfn], dtype=np.int64)
        if not memory.there(here)[0]:
            name = f"the L{level.number + 1} entry names" if steps else "the root is"
            return Walk(fmt, vaddr, tuple(steps), f"{name} mfn {mfn:#x}, {_absence(memory, mfn)}")
        slot = fmt.index(vaddr, level)
        entry = int(fmt.entries_of(memory.pages(here), level, offset)[0, slot])
        leaf = fmt.is_leaf(entry, level)
        target = fmt.leaf_frame(entry, level) if leaf else fmt.table_frame(entry)
        steps.append(Step(level.number, mfn, slot, entry, target))
        if not entry & e.P:
            return Walk(fmt, vaddr, tuple(steps), f"the L{level.number} entry is not present")
        if leaf:
            break
        mfn, offset = target, 0
    target = steps[-1].target
    beyond = f"the L{steps[-1].level} entry names mfn {target:#x}, {_absence(memory, target)}"
    return Walk(fmt, vaddr, tuple(steps), beyond if target >= memory.frames else "")


def _absence(memory: Tables, mfn: int) -> str:
    return "beyond machine memory" if mfn >= memory.frames else "whose content is not kept here"
