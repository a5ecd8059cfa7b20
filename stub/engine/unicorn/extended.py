"""The x87 and SSE registers, between libunicorn's numbers and an FXSAVE area.

The numbers are those of ``enum uc_x86_reg`` (unicorn/x86.h). libunicorn keeps the x87 registers by their physical
number, and gives the tag word in full, two bits a register; the area has the stack order and one bit (x86 manual,
vol. 1, 10.5.1).
"""

from __future__ import annotations

import struct
from collections.abc import Callable

_FP0, _XMM0 = 82, 122
_FPCW, _FPTAG, _FPSW, _MXCSR = 246, 247, 31, 249
_SIZE = 512
_HEAD = struct.Struct("<HHBxH16xI")  # control, status, tags; MXCSR at 24
_EMPTY = 3


def read(register: Callable[[int], bytes]) -> bytes:
    """The area, from ``register(number)``, which gives 16 bytes."""
    control, tags, status = (int.from_bytes(register(number)[:2], "little") for number in (_FPCW, _FPTAG, _FPSW))
    used = sum(1 << i for i in range(8) if tags >> 2 * i & 3 != _EMPTY)
    area = bytearray(_SIZE)
    _HEAD.pack_into(area, 0, control, status, used, 0, int.from_bytes(register(_MXCSR)[:4], "little"))
    top = status >> 11 & 7
    for i in range(8):
        area[32 + 16 * i : 42 + 16 * i] = register(_FP0 + (top + i) % 8)[:10]
    for i in range(16):
        area[160 + 16 * i : 176 + 16 * i] = register(_XMM0 + i)
    return bytes(area)


def write(register: Callable[[int, bytes], None], area: bytes) -> None:
    """Load the area through ``register(number, bytes)``."""
    control, status, used, _, mxcsr = _HEAD.unpack_from(area)
    tags = sum((0 if used >> i & 1 else _EMPTY) << 2 * i for i in range(8))
    top = status >> 11 & 7
    for number, value in ((_FPCW, control), (_FPSW, status), (_FPTAG, tags)):
        register(number, value.to_bytes(2, "little"))
    register(_MXCSR, mxcsr.to_bytes(4, "little"))
    for i in range(8):
        register(_FP0 + (top + i) % 8, area[32 + 16 * i : 42 + 16 * i])
    for i in range(16):
        register(_XMM0 + i, area[160 + 16 * i : 176 + 16 * i])
