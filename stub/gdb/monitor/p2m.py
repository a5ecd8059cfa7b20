"""The guest's lists of its frames, in words."""

from __future__ import annotations

import numpy as np

from stub.gdb.monitor.context import Context
from stub.hypervisor import p2m
from stub.hypervisor.p2m import FOREIGN, IDENTITY, INVALID, BadList, FrameList
from stub.memory.frames import GUEST

_SHOWN = 16

__all__ = ["BadList", "FrameList", "compare", "guest_list"]


def guest_list(context: Context) -> FrameList:
    """The guest's own list, or the domain builder's where the guest has told of none."""
    return p2m.guest_list(context.xen.domain)


def compare(context: Context) -> str:
    """The whole list against the machine-to-physical table and the frames' owners."""
    domain = context.xen.domain
    found = p2m.compare(domain)
    identity = int(((found.entries & np.uint64(FOREIGN | IDENTITY)) == np.uint64(IDENTITY)).sum())
    invalid = int((found.entries == np.uint64(INVALID)).sum())
    frames = int(found.names.sum())
    lines = [
        f"{found.chosen.name}: {found.chosen.where}",
        f" {len(found.entries)} entries: {frames} frames, {identity} identity, {invalid} invalid, "
        f"{len(found.entries) - frames - identity - invalid} foreign",
        f" the domain owns {int((domain.frames.np_owner == GUEST).sum())} frames",
    ]
    for pfn, mfn in found.wrong[:_SHOWN]:
        lines.append(f" pfn {pfn:#x} is mfn {mfn:#x}, which m2p or the frame table deny")
    count = len(found.wrong)
    lines.append(f" {count} do NOT agree with m2p" if count else " all of them agree with m2p and are owned")
    return "\n".join(lines) + "\n"
