"""What became of an address space between two snapshots, in words: ``42 pages became read-only``.

Pages are counted in units of 4 KiB. Of two snapshots of the same run the frames are compared, of different runs the
PFNs: the same guest has other machine frames with another seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stub.memory import entries as e
from stub.memory.formats import Bools, I64s, U64s
from stub.memory.frames import FREE, GUEST, TYPE_NAMES
from stub.memory.mappings import Mappings
from stub.memory.walker import access_words
from stub.trace.pagetables.ranges import CUT
from stub.trace.pagetables.snapshot import Snapshot
from stub.trace.pagetables.space import AddressSpace
from stub.units import PAGE_SIZE

_SHOWN = 12  # ranges of one kind of change
_RW, _NX, _A, _D, _US = (np.uint64(bit) for bit in (e.RW, e.NX, e.A, e.D, e.US))
_OTHER = np.uint64(e.PWT | e.PCD | e.PSE | e.G)


@dataclass(frozen=True)
class Change:
    """Pages that follow each other and changed in the same way. ``before``, ``after``: their access; "" unmapped."""

    what: str
    start: int
    pages: int
    before: str
    after: str

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.start + self.pages * PAGE_SIZE


@dataclass(frozen=True)
class Difference:
    """``changes`` in order of address; ``frames``: (type before, type after) → how many; ``roots``: lines on those."""

    before: AddressSpace
    after: AddressSpace
    changes: tuple[Change, ...]
    frames: Mapping[tuple[str, str], int]
    roots: tuple[str, ...]
    cut: bool

    def __str__(self) -> str:
        """All of it in words."""
        return "\n".join(lines(self))

    def count(self, what: str) -> int:
        """How many pages changed in one way, by its words: ``became read-only``."""
        if what not in KINDS:
            raise ValueError(f"{what!r} is no kind of change; there are {', '.join(KINDS)}")
        return sum(change.pages for change in self.changes if change.what == what)


@dataclass(frozen=True)
class _Pages:
    """Pages of 4 KiB by address; ``owner``: 0 Xen's, 1 the kernel's, 2 user code's; ``frame``: what is compared."""

    found: Mappings
    owner: I64s
    frame: U64s


def _pages(space: AddressSpace, by_pfn: bool) -> _Pages:
    found = space.everything.small()
    user = (found.rights & _US) != 0
    owner = np.where(user, 2, 1)
    if space.format.marks_kernel:
        kernel = (found.entry & np.uint64(e.GUEST_KERNEL)) != 0
        owner = np.where(user, np.where(kernel, 1, 2), 0)
    return _Pages(found, owner, space.pfns(found) if by_pfn else found.frame.astype(np.uint64))


Both = tuple[_Pages, I64s, _Pages, I64s]


def _bits(of: Callable[[Mappings], U64s], bit: np.uint64, gained: bool) -> Callable[[Both], Bools]:
    def changed(both: Both) -> Bools:
        old = (of(both[0].found)[both[1]] & bit) != 0
        new = (of(both[2].found)[both[3]] & bit) != 0
        found: Bools = new & ~old if gained else old & ~new
        return found

    return changed


def _owner(to: int) -> Callable[[Both], Bools]:
    return lambda both: (both[2].owner[both[3]] == to) & (both[0].owner[both[1]] != to)


def _rights(found: Mappings) -> U64s:
    return found.rights


def _entries(found: Mappings) -> U64s:
    return found.entry


def _moved(both: Both) -> Bools:
    found: Bools = both[0].frame[both[1]] != both[2].frame[both[3]]
    return found


def _otherwise(both: Both) -> Bools:
    changed: Bools = ((both[0].found.entry[both[1]] ^ both[2].found.entry[both[3]]) & _OTHER) != 0
    return changed


# What may become of a page that is mapped in both, and which it happened to.
_CHANGES: Mapping[str, Callable[[Both], Bools]] = {
    "moved to another frame": _moved,
    "became read-only": _bits(_rights, _RW, False),
    "became writable": _bits(_rights, _RW, True),
    "became non-executable": _bits(_rights, _NX, True),
    "became executable": _bits(_rights, _NX, False),
    "passed to Xen": _owner(0),
    "passed to the kernel": _owner(1),
    "passed to user code": _owner(2),
    "changed in caching, size or being global": _otherwise,
    "were accessed": _bits(_entries, _A, True),
    "were written to": _bits(_entries, _D, True),
    "lost their accessed mark": _bits(_entries, _A, False),
    "lost their dirty mark": _bits(_entries, _D, False),
}
KINDS = ("were mapped", "were unmapped", *_CHANGES)
_MARKS = ("were accessed", "were written to", "lost their accessed mark", "lost their dirty mark")


def same_root(
    before: Snapshot, after: Snapshot, root: str = "", *, by_pfn: bool = False
) -> tuple[AddressSpace, AddressSpace]:
    """One root in both snapshots; without a name the one that was in use at first, or the kernel's where it is gone."""
    old = before.root(root)
    same = [each for each in after.roots if each.maddr == old.maddr and before.identity == after.identity]
    new = same[0] if same and not root else after.root(root or ("kernel" if "kernel" in old.names else ""))
    return AddressSpace(before, old, by_pfn=by_pfn), AddressSpace(after, new, by_pfn=by_pfn)


def compare(before: AddressSpace, after: AddressSpace) -> Difference:
    """All changes from one address space to another."""
    by_pfn = before.snapshot.identity != after.snapshot.identity or before.by_pfn or after.by_pfn
    old, new = _pages(before, by_pfn), _pages(after, by_pfn)
    _, in_old, in_new = np.intersect1d(old.found.vaddr, new.found.vaddr, assume_unique=True, return_indices=True)
    both = old, in_old, new, in_new
    changes: list[Change] = []
    only_new = np.setdiff1d(np.arange(len(new.found)), in_new, assume_unique=True)
    only_old = np.setdiff1d(np.arange(len(old.found)), in_old, assume_unique=True)
    changes += _runs("were mapped", (None, None, after, new.found.only(only_new)))
    changes += _runs("were unmapped", (before, old.found.only(only_old), None, None))
    for what, changed in _CHANGES.items():
        here = changed(both)
        changes += _runs(what, (before, old.found.only(in_old[here]), after, new.found.only(in_new[here])))
    order = {what: number for number, what in enumerate(KINDS)}
    return Difference(
        before,
        after,
        tuple(sorted(changes, key=lambda change: (order[change.what], change.start))),
        _frame_changes(before.snapshot, after.snapshot),
        tuple(_root_changes(before.snapshot, after.snapshot)),
        before.everything.cut or after.everything.cut or old.found.cut or new.found.cut,
    )


_Sides = tuple[AddressSpace | None, Mappings | None, AddressSpace | None, Mappings | None]


def _runs(what: str, sides: _Sides) -> Iterator[Change]:
    """Pages with a like change as ranges: of the same access before, and after."""
    before, old, after, new = sides
    found = old if new is None else new
    assert found is not None
    kinds = [
        space.kinds(part) for space, part in ((before, old), (after, new)) if space is not None and part is not None
    ]
    for run in found.runs(*kinds):
        words = [
            access_words(space.format, int(part.rights[run.start]), int(part.entry[run.start]))
            if space is not None and part is not None
            else ""
            for space, part in ((before, old), (after, new))
        ]
        yield Change(what, int(found.vaddr[run.start]), run.stop - run.start, *words)


def _states(snapshot: Snapshot) -> I64s:
    """A number for what each frame is: its type, 8 for free, 9 for Xen's."""
    frames = snapshot.frames
    others = np.where(frames.np_owner == FREE, 8, 9)
    return np.where(frames.np_owner == GUEST, frames.types_now(), others).astype(np.int64)


_STATE_NAMES = {**TYPE_NAMES, 8: "free", 9: "Xen's"}


def _frame_changes(before: Snapshot, after: Snapshot) -> dict[tuple[str, str], int]:
    old, new = _states(before), _states(after)
    if len(old) != len(new):
        return {}
    changed = np.flatnonzero(old != new)
    pairs, counts = np.unique(old[changed] * 16 + new[changed], return_counts=True)
    return {
        (_STATE_NAMES.get(pair >> 4, "?"), _STATE_NAMES.get(pair & 15, "?")): count
        for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True)
    }


def _root_changes(before: Snapshot, after: Snapshot) -> Iterator[str]:
    if before.identity != after.identity:
        return
    old, new = ({root.maddr for root in snapshot.roots} for snapshot in (before, after))
    for words, gone in (("new", new - old), ("gone", old - new)):
        if gone:
            some = ", ".join(f"{maddr:#x}" for maddr in sorted(gone)[:_SHOWN])
            yield f"{len(gone)} {words}: {some}{' …' if len(gone) > _SHOWN else ''}"


# -- in words


def _number(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def sentence(what: str, count: int) -> str:
    """``42 pages became read-only``; one page was, not were."""
    if count == 1:
        what = what.replace("were ", "was ", 1).replace("their", "its")
    return f"{_number(count, 'page')} {what}"


def lines(difference: Difference) -> Iterator[str]:
    """For a person: each kind of change, the largest ranges of it, then frames and roots."""
    yield f"from {difference.before.snapshot.facts}; {difference.before}"
    yield f"to   {difference.after.snapshot.facts}; {difference.after}"
    for what in KINDS:
        changes = [change for change in difference.changes if change.what == what]
        if not changes:
            continue
        yield f" {sentence(what, sum(change.pages for change in changes))}"
        if what not in _MARKS:
            yield from _change_lines(changes)
    for (old, new), count in difference.frames.items():
        yield f" {_number(count, 'frame')} of type {old} became {new}"
    yield from (f" root tables {line}" for line in difference.roots)
    if not (difference.changes or difference.frames or difference.roots):
        yield " nothing changed"
    if difference.cut:
        yield CUT


def _change_lines(changes: list[Change]) -> Iterator[str]:
    shown = sorted(sorted(changes, key=lambda change: -change.pages)[:_SHOWN], key=lambda change: change.start)
    for change in shown:
        access = " -> ".join(filter(None, (change.before, change.after)))
        yield f"    {change.start:#x}-{change.end:#x}  {_number(change.pages, 'page')}  {access}"
    left = len(changes) - len(shown)
    if left:
        pages = sum(change.pages for change in changes) - sum(change.pages for change in shown)
        yield f"    … and {_number(left, 'range')} more, {_number(pages, 'page')}"


def as_object(difference: Difference) -> Mapping[str, Any]:
    """For JSON."""
    return {
        "before": difference.before.snapshot.facts.number,
        "after": difference.after.snapshot.facts.number,
        "changes": [
            {
                "what": change.what,
                "start": f"{change.start:#x}",
                "end": f"{change.end:#x}",
                "pages": change.pages,
                "before": change.before or None,
                "after": change.after or None,
            }
            for change in difference.changes
        ],
        "frames": [{"before": old, "after": new, "count": count} for (old, new), count in difference.frames.items()],
        "cut": difference.cut,
    }
