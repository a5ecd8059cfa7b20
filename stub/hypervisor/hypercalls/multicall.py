"""multicall: several hypercalls in one (xen/common/multicall.c)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from stub.abi.errno import EFAULT, EINVAL
from stub.abi.xen import Hypercall
from stub.engine.base import RIP
from stub.hypervisor.registry import HYPERCALLS, hypercall
from stub.memory.guest import GuestFault
from stub.units import U64

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

_ENTRY = struct.Struct("<8Q")
_RESULT = struct.Struct("<Q")
_REST = struct.Struct("<QQ")
A_TIME = 1024  # calls before the guest is made to ask again


@hypercall(Hypercall.multicall)
def multicall(xen: Hypervisor, calls: int, count: int, _: int, __: int, ___: int) -> int | None:
    """Run each entry and store its result; a nested multicall's is -EINVAL."""
    if xen.in_multicall:
        return -EINVAL
    count &= 0xFFFFFFFF
    guest, words, log = xen.domain.guest, xen.words, xen.log
    rip = words[RIP] - 2
    xen.in_multicall = True
    try:
        for done in range(count):
            if done == A_TIME:
                xen.in_multicall = False
                return xen.continue_later(Hypercall.multicall, calls, count - done)
            op, _result, a1, a2, a3, a4, a5, _a6 = _ENTRY.unpack(guest.read(calls, _ENTRY.size))
            xen.payload = xen.out = b""
            handler = HYPERCALLS.get(op)
            if handler is None:
                rc: int | None = xen.not_there(op)
            else:
                rc = handler(xen, a1, a2, a3, a4, a5)
            ends = rc is None or xen.verdict is not None  # iret, or the domain's end
            log.nested(xen.clock.now, rip, op, a1, a2, a3, a4, a5, rc or 0, xen.payload, xen.out)
            if ends:
                return None if rc is None else 0
            if xen.rest is not None:
                guest.write(calls + 16, _REST.pack(*xen.rest))
                xen.rest, xen.in_multicall = None, False
                return xen.continue_later(Hypercall.multicall, calls, count - done)
            guest.write(calls + 8, _RESULT.pack((rc or 0) & U64))
            calls += _ENTRY.size
    except GuestFault:
        return -EFAULT
    finally:
        xen.in_multicall = False
        xen.payload = xen.out = b""
    return 0
