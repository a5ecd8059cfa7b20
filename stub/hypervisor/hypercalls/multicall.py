"""multicall: several hypercalls in one (xen/common/multicall.c)."""

from __future__ import annotations

import contextlib
import struct
from typing import TYPE_CHECKING

from stub.abi.errno import EFAULT, EINVAL
from stub.abi.xen import Hypercall
from stub.engine.base import RAX
from stub.hypervisor import traps
from stub.hypervisor.pointers import handle_okay
from stub.hypervisor.refusals import bad_pointer, refuse
from stub.hypervisor.registry import HYPERCALLS, hypercall
from stub.memory.guest import GuestFault
from stub.units import U64

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

_ENTRY = {64: struct.Struct("<8Q"), 32: struct.Struct("<8I")}  # op, result, six arguments
_RESULT = {64: struct.Struct("<Q"), 32: struct.Struct("<I")}
A_TIME = 1024  # calls before the guest is made to ask again
_WORK = 8192  # elements of their lists before that


@hypercall(Hypercall.multicall)
def multicall(xen: Hypervisor, calls: int, count: int, _: int, __: int, ___: int) -> int | None:
    """Run each entry and store its result; a nested multicall's is -EINVAL."""
    if xen.in_multicall:
        return refuse(xen, EINVAL, "a multicall within a multicall")
    count &= 0xFFFFFFFF
    if not handle_okay(calls, count, _ENTRY[xen.width.bits].size):
        return refuse(xen, EFAULT, f"a list of {count} calls cannot begin at {calls:#x}")
    xen.in_multicall, xen.work = True, 0
    try:
        return _run(xen, calls, count)
    except GuestFault as fault:
        xen.types.refusal = ""
        return bad_pointer(xen, fault)
    finally:
        xen.in_multicall = False
        if xen.reload_due:
            xen.reload_due = False
            traps.reload_selectors(xen)
        xen.payload = xen.out = b""


def _run(xen: Hypervisor, calls: int, count: int) -> int | None:
    guest, width = xen.domain.guest, xen.width
    entry, result, mask = _ENTRY[width.bits], _RESULT[width.bits], width.mask
    for done in range(count):
        if done == A_TIME:
            return _go_on(xen, calls, count - done)
        op, _result, *arguments = entry.unpack(guest.read(calls, entry.size))
        rc = _call(xen, op, *arguments[:5])
        if rc is None:  # iret: what the call was made for is over
            with contextlib.suppress(GuestFault):
                guest.write(calls + width.word, result.pack(xen.words[RAX] & mask))
            return None
        if xen.verdict is not None:
            return 0
        if xen.rest is not None:
            rest = [value & mask for value in xen.rest]
            guest.write(calls + 2 * width.word, struct.pack(f"<{len(rest)}{width.code}", *rest))
            xen.rest = None
            return _go_on(xen, calls, count - done)
        guest.write(calls + width.word, result.pack(rc & mask))
        calls = (calls + entry.size) & U64
        if xen.work >= _WORK and done + 1 < count:
            return _go_on(xen, calls, count - done - 1)
    return 0


def _call(xen: Hypervisor, op: int, a1: int, a2: int, a3: int, a4: int, a5: int) -> int | None:
    """Make one call, and log it with what it broke."""
    xen.payload = xen.out = b""
    xen.refusal = ""
    before, xen.types.refusal = xen.types.refusal, ""
    handler = HYPERCALLS.get(op)
    rc = xen.not_there(op) if handler is None else handler(xen, a1, a2, a3, a4, a5)
    now, rip = xen.clock.now, xen.vcpu.call_rip
    why = xen.types.refusal or xen.refusal
    if rc is not None and rc < 0 and why:
        xen.log.note(now, rip, why)
    xen.types.refusal = xen.types.refusal or before  # for whoever looks on
    xen.log.nested(now, rip, op, a1, a2, a3, a4, a5, rc or 0, xen.payload, xen.out)
    return rc


def _go_on(xen: Hypervisor, calls: int, count: int) -> int:
    xen.in_multicall = False
    return xen.continue_later(Hypercall.multicall, calls, count)
