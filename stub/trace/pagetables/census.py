"""Tables, pages and frames counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from stub.memory import words
from stub.memory.frames import FREE, GUEST, TYPE_NAMES, XEN
from stub.trace.pagetables.snapshot import Frames
from stub.trace.pagetables.space import AddressSpace

_OTHERS = {FREE: "free", XEN: "Xen's"}


def frame_kinds(frames: Frames) -> Mapping[str, int]:
    """How many frames there are of each type of the domain's, and how many that are nobody's or Xen's."""
    own = frames.np_owner == GUEST
    kinds, counts = np.unique(frames.types_now()[own], return_counts=True)
    found = {TYPE_NAMES.get(kind, "?"): count for kind, count in zip(kinds.tolist(), counts.tolist(), strict=True)}
    return found | {name: int((frames.np_owner == owner).sum()) for owner, name in _OTHERS.items()}


def as_object(space: AddressSpace) -> Mapping[str, Any]:
    """For JSON: tables by level, pages by size in bytes, pages by access, frames by type."""
    return {
        "root": f"{space.root.maddr:#x}",
        "format": space.format.name,
        "tables": {str(level): count for level, count in space.census().items()},
        "pages": {str(size): count for size, count in space.page_sizes().items()},
        "access": by_access(space),
        "frames": dict(frame_kinds(space.snapshot.frames)),
        "cut": space.everything.cut,
    }


def by_access(space: AddressSpace) -> dict[str, int]:
    """How many pages there are of each access."""
    found: dict[str, int] = {}
    for each in space.ranges():
        found[each.access] = found.get(each.access, 0) + each.size // each.page
    return dict(sorted(found.items()))


def lines(space: AddressSpace) -> Iterator[str]:
    """For a person."""
    yield f"{space.snapshot.facts}; {space}"
    tables = space.census()
    yield f" tables: {', '.join(f'L{level} {count}' for level, count in tables.items())}"
    pages = space.page_sizes()
    yield f" pages:  {', '.join(f'{count} of {words.size(size)}' for size, count in pages.items()) or 'none'}"
    yield f" access: {', '.join(f'{kind} {count}' for kind, count in by_access(space).items()) or 'none'}"
    yield f" frames: {', '.join(f'{kind} {count}' for kind, count in frame_kinds(space.snapshot.frames).items())}"
