"""What two logs' records tell without being taken apart; most of them never are.

`Alike` only ever says yes to what has equal words (`events.event`); where it says no, the words decide.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Final

from harness.diff.events import FRAME_BITS, MAYBE_SCHEDULED, PRESENT, REQUEST, TAKES_FRAME
from harness.diff.places import Places
from stub.abi.xen import Hypercall
from stub.trace.format import STRUCTS, Kind

SURE_KINDS: Final = frozenset(map(int, (Kind.EXCEPTION, Kind.CPUID, Kind.PORT_IO, Kind.PT_WRITE, Kind.START, Kind.END)))
_CALLS: Final = (int(Kind.HYPERCALL), int(Kind.NESTED))
SURE: Final = frozenset((kind, number) for kind in _CALLS for number in range(256) if number not in MAYBE_SCHEDULED)
"""Kinds, and hypercalls by kind and number, that never follow the schedule."""

_FRAMES_IN_REGISTERS: Final = frozenset({
    Hypercall.update_va_mapping, Hypercall.update_va_mapping_otherdomain, Hypercall.update_descriptor,
})  # fmt: skip
_REST: Final = slice(24, None)
_ARGS: Final = slice(24, STRUCTS[Kind.HYPERCALL].size)
_PAYLOAD: Final = slice(STRUCTS[Kind.HYPERCALL].size, None)
_MMUEXT_OP: Final = struct.Struct("<IIQQ")
_TABLE_FLAGS: Final = ~FRAME_BITS


class Alike:
    """Called with the bytes of two records: whether they are surely the same event, at whatever time."""

    def __init__(self, good: Places, bad: Places) -> None:
        self._good, self._bad = good, bad
        self._addresses = good.same_addresses(bad)
        self._frames = good.frames == bad.frames
        self._framed: Mapping[int, Callable[[bytes, bytes], bool]] = {Hypercall.mmu_update: self._mmu_update}
        if good.bits == bad.bits == 64:
            self._framed |= {Hypercall.mmuext_op: self._mmuext_op}

    def __call__(self, one: bytes, other: bytes) -> bool:
        if one[:8] != other[:8]:
            return False
        kind = one[0]
        if kind in (Kind.PORT_IO, Kind.CPUID):
            return one[_REST] == other[_REST]
        if not self._addresses:
            return False
        if kind not in _CALLS:
            return (self._frames or kind != Kind.PT_WRITE) and one[16:] == other[16:]
        if self._frames:
            return one[_REST] == other[_REST]
        if one[_ARGS] != other[_ARGS]:
            return False
        number = one[2]
        framed = self._framed.get(number)
        if framed is not None:
            return framed(one[_PAYLOAD], other[_PAYLOAD])
        return not one[_PAYLOAD] and not other[_PAYLOAD] and number not in _FRAMES_IN_REGISTERS

    def _mmu_update(self, one: bytes, other: bytes) -> bool:
        """Of two payloads that are as long."""
        if len(one) % REQUEST.size:
            return False
        good, bad = self._good.pfn, self._bad.pfn
        for (a, x), (b, y) in zip(REQUEST.iter_unpack(one), REQUEST.iter_unpack(other), strict=True):
            if (a ^ b) & 0xFFF or good(a >> 12) != bad(b >> 12):
                return False
            if x == y and not x & PRESENT:
                continue
            # An entry, or with MMU_MACHPHYS_UPDATE a frame number, which is not the hypervisor's.
            if a & 7 or (x ^ y) & _TABLE_FLAGS or good((x & FRAME_BITS) >> 12) != bad((y & FRAME_BITS) >> 12):
                return False
        return True

    def _mmuext_op(self, one: bytes, other: bytes) -> bool:
        if len(one) % _MMUEXT_OP.size:
            return False
        for (command, _, a, x), (wanted, _, b, y) in zip(
            _MMUEXT_OP.iter_unpack(one), _MMUEXT_OP.iter_unpack(other), strict=True
        ):
            if command != wanted or x != y:
                return False
            if a != b and not (command in TAKES_FRAME and self._good.pfn(a) == self._bad.pfn(b)):
                return False
        return True
