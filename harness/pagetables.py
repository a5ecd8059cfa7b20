"""Questions to a guest's page tables, and assertions on them.

Asking runs nothing: what is not asked of a snapshot in hand is asked of the guest as it stands. A root is ``in use``
(the default), ``kernel``, ``user``, an MFN, a machine address, or ``FORMAT:MADDR`` for tables that the guest has built
and does not run on yet (see ``docs/pagetables.md``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from stub.errors import UsageError
from stub.memory import entries as e
from stub.memory.formats import U64s
from stub.memory.mappings import Mappings
from stub.memory.walker import Walk, access_words
from stub.trace.pagetables import diff, reverse, walks
from stub.trace.pagetables.diff import Difference
from stub.trace.pagetables.moments import NOW, Moment, Root
from stub.trace.pagetables.reverse import FrameMapping
from stub.trace.pagetables.snapshot import Snapshot
from stub.trace.pagetables.space import AddressSpace, Range
from stub.units import PAGE_SHIFT, PAGE_SIZE, U64

from .machine import NS_PER_SECOND

if TYPE_CHECKING:
    from stub.machine import Machine

    from .guests import Guest

Source = Snapshot | AddressSpace | None
_SHOWN = 5


class PageTables:
    """The page tables of one guest. Methods that take ``of`` look at a snapshot or an address space in hand instead."""

    def __init__(self, machine: Callable[[], Machine]) -> None:
        self._machine = machine

    @classmethod
    def of(cls, guest: Guest) -> PageTables:
        """Those of a guest, which is started by the first question if it has not been before."""

        def machine() -> Machine:
            from stub.machine import Machine

            found = guest.machine
            if not isinstance(found, Machine):
                raise UsageError("page tables are of a guest of pvstub's own: pv_launch made another")
            return found

        return cls(machine)

    # -- snapshots ---------------------------------------------------------------------------------------------

    def snapshot(self, *roots: str) -> Snapshot:
        """The tables as they are now, kept in the run's folder. ``roots``: FORMAT:MADDR of tables not in use yet."""
        return self._machine().snapshots.take(Moment(roots=tuple(Root.parse(root) for root in roots)))

    def at_hypercall(self, number: int, *roots: str) -> Snapshot:
        """Run until the guest has made so many hypercalls, counted from 1 as ``hypercalls.count()`` does; a snapshot.

        AssertionError if its run ends before.
        """
        __tracebackhide__ = True
        return self._at(Moment.after(number, tuple(Root.parse(root) for root in roots)))

    def at_time(self, seconds: float, *roots: str) -> Snapshot:
        """Run to a virtual time since the start; a snapshot. AssertionError if the run ends before."""
        __tracebackhide__ = True
        at = round(seconds * NS_PER_SECOND)
        return self._at(Moment(f"{seconds:g}s", virtual_ns=at, roots=tuple(Root.parse(root) for root in roots)))

    def _at(self, moment: Moment) -> Snapshot:
        __tracebackhide__ = True
        machine = self._machine()
        taken = machine.snapshot_at(moment)
        if taken is None:
            verdict = machine.verdict
            ended = f"{verdict.kind}: {verdict.reason}" if verdict else "the guest stopped"
            raise AssertionError(f"there was no {moment.text}: at {machine.now_ns / NS_PER_SECOND:.3f} s {ended}")
        return taken

    # -- questions ---------------------------------------------------------------------------------------------

    def space(self, root: str = "", *, of: Source = None, by_pfn: bool = False) -> AddressSpace:
        """What a root maps. ``by_pfn``: its entries hold PFNs."""
        if isinstance(of, AddressSpace):
            if root or by_pfn:
                raise UsageError("an address space has its root: give a snapshot to choose one")
            return of
        if of is None:
            moment = Moment(roots=(Root.parse(root),)) if ":" in root else NOW
            of = self._machine().snapshots.take(moment, keep=False)
        return AddressSpace(of, of.root(root), by_pfn=by_pfn)

    def walk(self, vaddr: int, root: str = "", *, of: Source = None) -> Walk:
        """An address's translation: its steps, ``found``, ``maddr``, ``access``."""
        return self.space(root, of=of).walk(vaddr)

    def ranges(self, root: str = "", *, of: Source = None) -> list[Range]:
        """All that the guest can reach, as ranges of like pages."""
        return list(self.space(root, of=of).ranges())

    def whomaps(
        self, mfn: int | None = None, *, pfn: int | None = None, of: Snapshot | None = None
    ) -> list[FrameMapping]:
        """Every entry of every table that leads to a frame."""
        snapshot = of or self._machine().snapshots.take(keep=False)
        return reverse.mappings_of(snapshot, _frame(snapshot, mfn, pfn))

    def diff(self, before: Snapshot, after: Snapshot | None = None, root: str = "") -> Difference:
        """What changed from one snapshot to another, or to now. ``lines()`` of it are the words."""
        later = after or self._machine().snapshots.take(keep=False)
        return diff.compare(*diff.same_root(before, later, root))

    def table_census(self, root: str = "", *, of: Source = None) -> Mapping[int, int]:
        """How many tables of each level a root leads to, Xen's own left out: level → count."""
        return self.space(root, of=of).census()

    def page_census(self, root: str = "", *, of: Source = None) -> Mapping[int, int]:
        """How many pages of each size the guest can reach: bytes → count."""
        return self.space(root, of=of).page_sizes()

    # -- assertions --------------------------------------------------------------------------------------------

    def assert_mapped(
        self, start: int, size: int = PAGE_SIZE, access: str = "", *, root: str = "", of: Source = None
    ) -> None:
        """Fail unless every page of a range is mapped, with this access (``kernel r-x``) if one is given."""
        __tracebackhide__ = True
        space = self.space(root, of=of)
        here = _Stretch(space, start, size)
        _fail(space, here.addresses[~here.there], f"not mapped, of {_text(start, size)}")
        if access:
            wrong = here.there & (here.access != _known(access))
            _fail(space, here.addresses[wrong], f"mapped, but not {access}, of {_text(start, size)}")

    def assert_unmapped(self, start: int, size: int = PAGE_SIZE, *, root: str = "", of: Source = None) -> None:
        """Fail if the guest can reach any page of a range."""
        __tracebackhide__ = True
        space = self.space(root, of=of)
        here = _Stretch(space, start, size)
        _fail(space, here.addresses[here.there], f"mapped, of {_text(start, size)}, which should not be")

    def assert_read_only(self, start: int, size: int = PAGE_SIZE, *, root: str = "", of: Source = None) -> None:
        """Fail unless every page of a range is mapped, and none of them writable."""
        __tracebackhide__ = True
        self.assert_mapped(start, size, root=root, of=of)
        space = self.space(root, of=of)
        here = _Stretch(space, start, size)
        _fail(space, here.addresses[(here.rights & e.RW) != 0], f"writable, of {_text(start, size)}")

    def assert_identity(
        self, start: int, size: int = PAGE_SIZE, number: str = "pfn", *, root: str = "", of: Source = None
    ) -> None:
        """Fail unless each page lies at its own pseudo-physical address (``number`` mfn: at its machine address)."""
        __tracebackhide__ = True
        if number not in ("pfn", "mfn"):
            raise UsageError(f"identity of {number!r}: say pfn or mfn")
        self.assert_mapped(start, size, root=root, of=of)
        space = self.space(root, of=of)
        here = _Stretch(space, start, size)
        found = space.pfns(here.found) if number == "pfn" else here.found.frame.astype(np.uint64)
        wrong = found != here.found.vaddr >> np.uint64(PAGE_SHIFT)
        _fail(space, here.found.vaddr[wrong], f"not at the address that is its {number}'s, of {_text(start, size)}")

    def assert_mirrored(
        self, low: int, high: int, size: int, *, root: str = "", of: Source = None, other: AddressSpace | None = None
    ) -> None:
        """Fail unless ``size`` bytes from ``low`` and from ``high`` on are mapped alike: frames and rights.

        ``other``: the address space of ``high``, which may have another format.
        """
        __tracebackhide__ = True
        space = self.space(root, of=of)
        second = other or space
        one, two = _Stretch(space, low, size), _Stretch(second, high, size)
        same = (one.there == two.there) & (one.frame == two.frame) & (one.access == two.access)
        if same.all():
            return
        at = int(np.flatnonzero(~same)[0]) * PAGE_SIZE
        raise AssertionError(
            "\n    ".join(
                [
                    f"{int((~same).sum())} of {len(same)} pages differ from their twins; the first is {low + at:#x}:",
                    *walks.lines(space, low + at),
                    f"and {high + at:#x}:",
                    *walks.lines(second, high + at),
                ]
            )
        )

    def assert_no_writable_code(self, *, root: str = "", of: Source = None) -> None:
        """Fail if the guest has pages that it can both write to and execute."""
        __tracebackhide__ = True
        space = self.space(root, of=of)
        bad = [each for each in space.ranges() if each.access.endswith("rwx")]
        if bad:
            shown = [f"{each.start:#x}-{each.end:#x} {each.access}" for each in bad[:_SHOWN]]
            pages = sum(each.size // each.page for each in bad)
            raise AssertionError(
                "\n    ".join([f"{pages} pages are writable and executable, in {len(bad)} ranges:", *shown])
            )

    def assert_no_writable_mapping(
        self, mfn: int | None = None, *, pfn: int | None = None, of: Snapshot | None = None
    ) -> None:
        """Fail if any entry of any table allows to write to a frame, as none may to a page table."""
        __tracebackhide__ = True
        snapshot = of or self._machine().snapshots.take(keep=False)
        frame = _frame(snapshot, mfn, pfn)
        if any(each.writable for each in reverse.mappings_of(snapshot, frame)):
            raise AssertionError("\n    ".join([f"mfn {frame:#x} can be written to:", *reverse.lines(snapshot, frame)]))


# -- a range of addresses


class _Stretch:
    """A range page by page: ``there``, ``frame`` (0 where not), ``rights``, ``access`` (a number each)."""

    def __init__(self, space: AddressSpace, start: int, size: int) -> None:
        if start % PAGE_SIZE or size % PAGE_SIZE or size <= 0:
            raise UsageError(f"{start:#x}, {size:#x} bytes: give whole pages")
        end = start + size - 1
        if not (space.format.is_address(start) and space.format.is_address(end)):
            raise UsageError(f"{_text(start, size)} is not all addresses in {space.format.name} tables")
        found = _between(space.mappings, start, end)
        self.found = found
        pages = size >> PAGE_SHIFT
        self.addresses: U64s = np.uint64(start) + np.arange(pages, dtype=np.uint64) * np.uint64(PAGE_SIZE)
        where = (found.vaddr - np.uint64(start) >> np.uint64(PAGE_SHIFT)).astype(np.int64)
        self.there = np.zeros(pages, dtype=np.bool_)
        self.there[where] = True
        self.frame = np.zeros(pages, dtype=np.int64)
        self.frame[where] = found.frame
        self.rights = np.zeros(pages, dtype=np.uint64)
        self.rights[where] = found.rights
        self.access = np.full(pages, -1)
        kinds, which = np.unique(space.kinds(found), return_inverse=True)
        numbers = [_known(access_words(space.format, int(kind), int(kind))) for kind in kinds]
        self.access[where] = np.array(numbers, dtype=np.int64)[which] if len(kinds) else -1


def _between(found: Mappings, first: int, last: int) -> Mappings:
    """The pages of 4 KiB from ``first`` to ``last``, cut out of large ones."""
    ends = found.vaddr + (found.size - np.uint64(1))
    touched = found.only((ends >= np.uint64(first)) & (found.vaddr <= np.uint64(last))).small()
    return touched.only((touched.vaddr >= np.uint64(first)) & (touched.vaddr <= np.uint64(last)))


_WHO = ("Xen", "kernel", "user")
_RIGHTS = ("r--", "r-x", "rw-", "rwx")


def _known(access: str) -> int:
    """An access as a number; UsageError for one that there is not."""
    who, _, rights = access.partition(" ")
    if who not in _WHO or rights not in _RIGHTS:
        raise UsageError(
            f"access {access!r}: say whose it is ({', '.join(_WHO)}) and what may be done, as in kernel r-x"
        )
    return _WHO.index(who) * len(_RIGHTS) + _RIGHTS.index(rights)


def _text(start: int, size: int) -> str:
    return f"{start:#x}-{start + size & U64:#x}"


def _fail(space: AddressSpace, wrong: U64s, what: str) -> None:
    """AssertionError with the first of the wrong addresses walked, if there are any."""
    __tracebackhide__ = True
    if len(wrong):
        raise AssertionError("\n    ".join(_failure(space, wrong.tolist(), what)))


def _failure(space: AddressSpace, wrong: list[int], what: str) -> Iterator[str]:
    count = f"{len(wrong)} pages are" if len(wrong) > 1 else "a page is"
    yield f"{count} {what}; {'the first is' if len(wrong) > 1 else 'it is'} {wrong[0]:#x}:"
    yield from walks.lines(space, wrong[0])


def _frame(snapshot: Snapshot, mfn: int | None, pfn: int | None) -> int:
    if (mfn is None) == (pfn is None):
        raise UsageError("name one frame: an mfn, or pfn=…")
    return reverse.frame_of(snapshot, pfn) if pfn is not None else mfn or 0


__all__ = ["AddressSpace", "Difference", "PageTables", "Range", "Snapshot", "Walk"]
